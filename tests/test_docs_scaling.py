"""docs/scaling.md says what the results say."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def scaling(docs_script):
    return docs_script("scaling")


def test_tables_are_those_of_the_results(scaling):
    page = scaling.PAGE.read_text()
    assert scaling.render(page) == page, "run python docs/scaling.py"


def test_a_page_without_a_place_for_a_table_is_refused(scaling):
    with pytest.raises(ValueError, match="must have one place '<!-- annotations -->"):
        scaling.render("# How far it scales\n")


def test_computed_columns(scaling):
    report = {"rows": [{"masks": "bitmaps", "worker_ms": 50.0, "training_process_ms": 10.0}]}
    # 20 images a second of 50 ms each are one core's work.
    assert "| 20 | 1.00 + 0.20 |" in scaling.cores(report)
    collecting = scaling.collecting({"collecting": {"bytes_per_image": 40_000, "rank0_cpu_ms_per_image": 2.0}})
    assert "| 5,000 | 0.20 | 10.0 |" in collecting


def test_ranks_of_a_machine(scaling):
    same = dict.fromkeys(["file_mib", "cpu_seconds", "peak_mib", "worker_uss_mib", "item_us", "runs"], 1)
    same |= {"file": "coco", "items_mib": 300}
    kept = {"CocoDataset": 1000, "SharedCocoDataset, first start": 100, "SharedCocoDataset, later start": 2}
    rows = [same | {"dataset": name, "rank_uss_mib": mib} for name, mib in kept.items()]
    cells = [line.split(" | ") for line in scaling.annotations({"rows": rows}).splitlines()[2:]]
    # Eight of their own; one that parsed, seven that map, and the file; eight that map, and the file.
    assert [line[5] for line in cells] == ["8000", "414", "316"]


def test_commands_and_files_of_the_page_exist(scaling):
    page = scaling.PAGE.read_text()
    commands = re.findall(r"`python ([\w./]+)", page)
    assert "docs/scaling.py" in commands
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", page) if "://" not in link]
    for path in [*(ROOT / command for command in commands), *(ROOT / "docs" / link for link in links)]:
        assert path.exists(), path
