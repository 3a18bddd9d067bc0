"""Write the table of docs/licences.md anew: python docs/licences.py.

A package of constraints.txt that is not installed here keeps its row: run it under the Pythons that have the others.
"""

import re
from importlib import metadata
from pathlib import Path

from tables import fill, table

PAGE = Path(__file__).with_name("licences.md")
CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
#: What their files say, where their metadata say nothing.
UNSAID = {
    "atheris": "Apache-2.0",
    "cuda-toolkit": "LicenseRef-NVIDIA-Proprietary",
    "faster-coco-eval": "Apache-2.0",
}
#: The first that a licence's text has tells its kind.
KINDS = {
    "proprietary": r"proprietary",
    "copyleft": r"GPL|MPL|Mozilla|EPL|Eclipse|CDDL|EUPL",
    "permissive": r"MIT|BSD|Apache|ISC|PSF|Python Software Foundation|HPND|Zlib",
}


def packages() -> list[str]:
    """Return the names that constraints.txt pins."""
    lines = CONSTRAINTS.read_text().splitlines()
    return sorted({line.partition("==")[0] for line in lines if "==" in line and not line.startswith("#")})


def licence(name: str) -> str | None:
    """Return what an installed package says of its licence, in its own words; None of one that is not installed."""
    try:
        said = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return None
    classifiers = [value.rpartition(" :: ")[2] for value in said.get_all("Classifier", []) if "License ::" in value]
    words = ", ".join(value for value in classifiers if value != "DFSG approved")
    first = (said.get("License") or "").strip().partition("\n")[0]
    return said.get("License-Expression") or words or first or UNSAID.get(name, "not told")


def kind(text: str) -> str:
    """Return which kind of licence a text names.

    Example:
        >>> kind("MPL-2.0 AND MIT")
        'copyleft'
    """
    return next((name for name, words in KINDS.items() if re.search(words, text, re.IGNORECASE)), "unknown")


def rows(page: str) -> dict[str, str]:
    """Return the packages and licences of a page's table."""
    return dict(re.findall(r"^\| (?!Package)([\w.-]+) \| ([^|]+) \| \w+ \|$", page, re.MULTILINE))


def render(page: str) -> str:
    """Return the page with a row for each package."""
    before = rows(page)
    found = {name: licence(name) or before.get(name, "not told") for name in packages()}
    lines = [(name, text, kind(text)) for name, text in found.items()]
    return fill(PAGE, page, {"licences": table(["Package", "Licence", "Kind"], lines)})


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text()))
