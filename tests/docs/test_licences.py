"""docs/licences.md lists every package of constraints.txt, with a licence that lets it be used beside Apache-2.0."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/licences.md").read_text()


@pytest.fixture(scope="module")
def licences(docs_script):
    return docs_script("licences")


def test_every_package_is_listed(licences):
    assert sorted(licences.rows(TEXT)) == licences.packages() and len(licences.packages()) > 100


def test_licences_are_what_the_installed_packages_say(licences):
    """Of versions, the page names none: another one here may differ, and then says so."""
    listed = licences.rows(TEXT)
    found = {name: licences.licence(name) for name in licences.packages()}
    kinds = {name: (licences.kind(text), licences.kind(listed[name])) for name, text in found.items() if text}
    assert len(kinds) > 20
    assert {name: pair for name, pair in kinds.items() if pair[0] != pair[1]} == {}, "run python docs/licences.py"


def test_each_is_permissive_or_named_above_the_table(licences):
    told, _, _ = TEXT.partition("<!-- licences -->")
    for name, text in licences.rows(TEXT).items():
        kind = licences.kind(text)
        assert kind != "unknown", f"{name}: {text}"
        # GPL itself would bind what imports it.
        assert not re.search(r"(?<!L)GPL", text), f"{name}: {text}"
        if kind != "permissive":
            assert ("nvidia-*" if name.startswith("nvidia-") else name) in told, f"{name}: {text}"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("MIT", "permissive"),
        ("Apache-2.0 AND CNRI-Python", "permissive"),
        ("MPL-2.0 AND MIT", "copyleft"),
        ("GNU Lesser General Public License v3 (LGPLv3)", "copyleft"),
        ("LicenseRef-NVIDIA-Proprietary", "proprietary"),
        ("Other/Proprietary License", "proprietary"),
        ("not told", "unknown"),
        ("Commercial", "unknown"),
    ],
)
def test_kinds(licences, text, kind):
    assert licences.kind(text) == kind
