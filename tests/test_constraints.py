"""constraints.txt pins all that the extras bring, on every Python that mmgn names, within pyproject.toml's ranges."""

import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

try:
    import tomllib
except ModuleNotFoundError:
    # Before Python 3.11; pytest brings it there.
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINES = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
PINS = [Requirement(line) for line in LINES]
PYTHONS = [f"3.{minor}" for minor in range(10, 14)]
EXTRAS = PROJECT["optional-dependencies"]


def environment(python):
    machine = {"platform_machine": "x86_64", "sys_platform": "linux", "platform_system": "Linux"}
    return {**default_environment(), **machine, "python_version": python, "python_full_version": f"{python}.9"}


def holds(requirement, python, extra=""):
    return requirement.marker is None or requirement.marker.evaluate({**environment(python), "extra": extra})


def pinned(python):
    """Return the versions that hold under a Python, by name."""
    found = {}
    for pin in PINS:
        if holds(pin, python):
            assert pin.name not in found, f"{pin.name} is pinned twice under Python {python}"
            found[canonicalize_name(pin.name)] = str(pin.specifier).removeprefix("==")
    return found


def asked_for(extra=None):
    """Return what mmgn itself and an extra ask for, other extras of its own included."""
    listed = PROJECT["dependencies"] if extra is None else EXTRAS[extra]
    for line in listed:
        requirement = Requirement(line)
        if requirement.name == "mmgn":
            for other in requirement.extras:
                yield from asked_for(other)
        else:
            yield requirement


def test_every_line_pins_one_version():
    assert len(PINS) > 100
    for pin in PINS:
        assert re.fullmatch(r"==[\w.!+]+", str(pin.specifier)), f"{pin} is no exact version"


@pytest.mark.parametrize("python", PYTHONS)
def test_what_mmgn_asks_for_is_pinned_within_its_ranges(python):
    versions = pinned(python)
    assert python in SpecifierSet(PROJECT["requires-python"])
    for extra in (None, *EXTRAS):
        for requirement in asked_for(extra):
            if holds(requirement, python):
                version = versions.get(canonicalize_name(requirement.name))
                assert version, f"{requirement.name} of {extra} is not pinned under Python {python}"
                assert requirement.specifier.contains(version), f"{requirement} of {extra}, pinned to {version}"


def test_what_comes_along_is_pinned_too():
    """All the way down, as far as it is installed here; versions here may be others, so names alone are compared."""
    python = default_environment()["python_version"]
    versions, missing = pinned(python), {}
    queue, seen = [(r, extra) for extra in (None, *EXTRAS) for r in asked_for(extra) if holds(r, python)], set()
    while queue:
        requirement, source = queue.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            if name not in versions:
                missing[name] = source
            try:
                listed = metadata.requires(name) or []
            except metadata.PackageNotFoundError:
                continue
            queue += [(r, name) for r in map(Requirement, listed) if holds(r, python, extra)]
    assert len(seen) > 100 and not missing, f"not pinned, and asked for by: {missing}"
