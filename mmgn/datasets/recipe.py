"""A data set made on the spot: its folder appears complete or not at all, and is reused by the same recipe."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Recipe(NamedTuple):
    """What a data set was made with. The arguments lie beside the data, in the file named ``stamp``."""

    kind: str
    stamp: str
    arguments: dict[str, int | bool]
    #: Glob pattern below the folder -> number of files that the complete set has.
    files: dict[str, int]


def check_int(name: str, value: int, low: int, high: int | None = None) -> None:
    """Raise a ValueError unless ``value`` is an int from ``low`` to ``high``."""
    if not isinstance(value, int) or value < low or (high is not None and value > high):
        limits = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be an int {limits}, got {value!r}")


def is_made(root: Path, recipe: Recipe) -> bool:
    """Whether ``root`` holds the set of ``recipe``.

    Raises:
        FileExistsError: It holds something that is neither that nor nothing.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = json.loads((root / recipe.stamp).read_text())
    except (OSError, ValueError):
        raise FileExistsError(
            f"{root} exists and is not a {recipe.kind} data set (it has no readable {recipe.stamp}), so it is left "
            "as it is; give another out_dir"
        ) from None
    if found != recipe.arguments:
        raise FileExistsError(
            f"{root} holds {recipe.kind} made with {found}, not with {recipe.arguments}; give another out_dir or "
            "remove it"
        )
    for pattern, expected in recipe.files.items():
        count = len(list(root.glob(pattern)))
        if count != expected:
            raise FileExistsError(
                f"{root} has {count} files {pattern} where {recipe.stamp} promises {expected}; remove {root} and it "
                "is made again"
            )
    return True


def make(root: Path, recipe: Recipe, write: Callable[[Path], None]) -> None:
    """Have ``write`` fill a new folder and put that in ``root``'s place, stamped."""
    root.parent.mkdir(parents=True, exist_ok=True)
    # A folder inside the temporary one, because that one is readable by its owner only.
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as scratch:
        folder = Path(scratch) / "set"
        folder.mkdir()
        write(folder)
        (folder / recipe.stamp).write_text(json.dumps(recipe.arguments, indent=2) + "\n")
        try:
            folder.rename(root)
        except OSError:
            # Another process, such as another rank of the same training, may have been quicker.
            if not is_made(root, recipe):
                raise
