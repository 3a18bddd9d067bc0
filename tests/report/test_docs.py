import json
import re
from pathlib import Path

import pytest

import mmgn.report
from mmgn.evaluation import FIGURES
from mmgn.report.metrics import SCHEMA_VERSION

DOCS = Path(__file__).parents[2] / "docs" / "report.md"


@pytest.fixture(scope="module")
def schema():
    return json.loads((Path(mmgn.report.__file__).parent / "schema.json").read_text())


def test_the_documented_keys_are_those_of_the_schema(schema):
    run, comparison = DOCS.read_text().split("## metrics.json")[1].split("| Key of a comparison |")
    for text, name in ((run, "run"), (comparison, "comparison")):
        keys = re.findall(r"^\| (`.*?) \|", text, re.M)
        keys = {key for cell in keys for key in re.findall(r"`(\w+)`", cell)}
        assert keys
        assert keys <= set(schema["$defs"][name]["properties"])


def test_the_version_is_told_alike(schema):
    versions = {schema["$defs"][kind]["properties"]["schema_version"]["const"] for kind in ("run", "comparison")}
    assert versions == {SCHEMA_VERSION}
    assert f"`schema_version` is {SCHEMA_VERSION}." in DOCS.read_text()


def test_the_schema_asks_for_every_official_figure(schema):
    required = set(schema["$defs"]["run"]["required"])
    assert {f"{kind}_{name}" for kind in ("bbox", "segm") for name in FIGURES} <= required
