"""The config to swap: found, read, and named as another config's ``_base_``."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmgn.engine.config import find_config, package_configs

# What mmengine takes for a package's config (mmengine.config.utils); mmdet's gn+ws is not of that form.
_EXTERNAL = re.compile(r"\w*/\w*")


class NoModelError(ValueError):
    """A config that is no model's, but a part of others."""


@dataclass(frozen=True)
class Source:
    """A config as it was read.

    Attributes:
        path: of its file.
        cfg: what it says, its bases merged; plain dicts and lists.
    """

    path: Path
    cfg: dict[str, Any]

    @property
    def scope(self) -> str:
        """The registry its types are in."""
        return self.cfg.get("default_scope") or "mmdet"

    def base_for(self, out: Path) -> str:
        """Return what a config at ``out`` calls this one in its ``_base_``."""
        for package in ("mmdet", "mmgn"):
            configs = package_configs(package)
            if configs is not None and self.path.resolve().is_relative_to(configs):
                name = self.path.resolve().relative_to(configs).as_posix()
                return f"{package}::{name}" if _EXTERNAL.match(name) else f"{package}::_base_/../{name}"
        return Path(os.path.relpath(self.path.resolve(), out.parent.resolve())).as_posix()


def read_source(name: str) -> Source:
    """Read the config of a detector.

    Args:
        name: as in :func:`mmgn.engine.config.find_config`.

    Raises:
        FileNotFoundError: no such config.
        NoModelError: it has no model.
        ValueError: it cannot be read, or is of a kind that a ``_base_`` cannot build on.
    """
    path = find_config(name)
    try:
        lazy = path.suffix == ".py" and Config._is_lazy_import(str(path))
        cfg = {} if lazy else Config.fromfile(path).to_dict()
    # A config is code, which may raise anything.
    except Exception as error:
        raise ValueError(f"config {str(path)!r} cannot be read: {type(error).__name__}: {error}") from error
    if lazy:
        raise ValueError(
            f"config {str(path)!r} inherits by read_base() or imports its types: a file with a _base_ cannot build on "
            "it. Swap the config with a _base_ that it was made from (mmdet's of the same name: mmdet::FOLDER/NAME), "
            "or call mmgn.convert_norm on the model."
        )
    if not isinstance(cfg.get("model"), dict) or "type" not in cfg["model"]:
        raise NoModelError(
            f"config {str(path)!r} has no model with a type, so there is nothing whose norm could be swapped."
        )
    return Source(path, cfg)
