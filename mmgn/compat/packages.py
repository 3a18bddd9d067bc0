"""Installed packages: mmengine's look-ups without ``pkg_resources``, and which fork a package comes from."""

import contextlib
import functools
import importlib.util
import sys
from importlib import metadata
from pathlib import Path

# Distributions that OpenMMLab itself publishes under another name than the module's.
_UPSTREAM = {
    "mmengine": {"mmengine", "mmengine-lite"},
    "mmcv": {"mmcv", "mmcv-lite", "mmcv-full"},
    "mmseg": {"mmsegmentation"},
}
_distributions = functools.cache(metadata.packages_distributions)


def install() -> None:
    """Replace mmengine's look-ups that import ``pkg_resources``, where it is not to be had; needs mmengine.

    No stand-in of that name is made: other packages probe for ``pkg_resources`` and would believe it.
    """
    if importlib.util.find_spec("pkg_resources") is not None:
        return
    from mmengine.utils import package_utils

    for ours in (is_installed, get_installed_path):
        theirs = getattr(package_utils, ours.__name__)
        # OneDL's mmengine has done without already.
        if "pkg_resources" not in theirs.__code__.co_names:
            continue
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] == "mmengine" and vars(module).get(ours.__name__) is theirs:
                setattr(module, ours.__name__, ours)


def active() -> bool:
    """Whether mmengine looks packages up through this module; needs mmengine."""
    from mmengine.utils import package_utils

    return package_utils.is_installed is is_installed


def is_installed(package: str) -> bool:
    """Whether ``package`` is a distribution (``'mmcv-lite'``) or an importable package (``'mmcv'``)."""
    # mmengine.hub runs pip meanwhile.
    importlib.invalidate_caches()
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        spec = importlib.util.find_spec(package)
        return spec is not None and spec.origin is not None
    return True


def get_installed_path(package: str) -> str:
    """Folder of an installed package, editable installs included.

    Args:
        package: name of a module, or of a distribution, which stands for the first module it brings.

    Raises:
        PackageNotFoundError: neither a module nor a distribution has this name.
        RuntimeError: it is a namespace package, which has no one folder.
    """
    importlib.invalidate_caches()
    spec = importlib.util.find_spec(package) or importlib.util.find_spec(_module_of(package))
    if spec is None or spec.origin is None:
        raise RuntimeError(f"{package} has no one folder: it is a namespace package, or its files are gone")
    return str(Path(spec.origin).parent)


def _module_of(package: str) -> str:
    distribution = metadata.distribution(package)
    listed = (distribution.read_text("top_level.txt") or "").split()
    modules = listed or [m for m, owners in metadata.packages_distributions().items() if package in owners]
    if not modules:
        raise RuntimeError(f"cannot tell which module {package} {distribution.version} brings")
    return modules[0]


def owners_of(import_name: str) -> list[str]:
    """Distributions that bring ``import_name``; several have overwritten each other's files."""
    owners = set(_distributions().get(import_name, ()))
    if not owners:
        # Python 3.10 knows only the modules that a wheel lists.
        with contextlib.suppress(metadata.PackageNotFoundError):
            owners = {metadata.distribution(import_name).metadata["Name"]}
    spec = importlib.util.find_spec(import_name)
    folder = Path(spec.origin).parent if spec is not None and spec.origin is not None else None
    # Of several, those whose files get imported; an editable install has its files elsewhere.
    imported = {owner for owner in owners if metadata.distribution(owner).locate_file(import_name) == folder}
    return sorted(imported or owners)


def fork_of(import_name: str) -> str:
    """``'upstream'``, or the distribution that brings ``import_name`` in its place (``'onedl-mmcv'``).

    Args:
        import_name: ``'mmengine'``, ``'mmcv'``, ``'mmdet'``, ...

    Raises:
        PackageNotFoundError: no distribution brings ``import_name``.
    """
    owners = owners_of(import_name)
    if not owners:
        raise metadata.PackageNotFoundError(import_name)
    return ", ".join(o for o in owners if o not in _UPSTREAM.get(import_name, {import_name})) or "upstream"
