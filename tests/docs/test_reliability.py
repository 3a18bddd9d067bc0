"""docs/reliability.md says what the results say, and what it names exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/reliability.md").read_text()


@pytest.fixture(scope="module")
def reliability(docs_script):
    return docs_script("reliability")


def test_tables_are_those_of_the_results(reliability):
    assert reliability.render(TEXT) == TEXT, "run python docs/reliability.py"


def test_every_table_has_results(reliability):
    places = set(re.findall(r"<!-- (\w+) -->", TEXT)) - {"end"}
    assert places == {path.stem for path in reliability.RESULTS.glob("*.json")}


def test_what_the_page_names_exists():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", TEXT) if "://" not in link]
    for path in [*re.findall(r"(?:tests|tools|benchmarks)/[\w./-]*\w", TEXT), *(f"docs/{link}" for link in links)]:
        assert (ROOT / path).exists(), path
