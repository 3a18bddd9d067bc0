"""docs/study.md: its commands are parsed by the tools, its tables are those of the code."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from mmgn.study.grid import Request
from mmgn.study.record import COLUMNS
from mmgn.study.table import write_summary
from mmgn.study.tasks import NORMS, TASKS
from mmgn.study.verdict import Difference, Statement

PAGE = Path(__file__).parents[2] / "docs/study.md"
TEXT = PAGE.read_text()
COMMANDS = re.findall(r"^(?!pip).*python tools/study\.py.*$", TEXT, re.M)


def first_column(head):
    """The cells of the first column of the table that begins with a head, as what stands in backquotes, or as text."""
    table = TEXT.partition(f"\n| {head} |")[2].partition("\n\n")[0]
    cells = [line.split(" | ")[0].strip("| ") for line in table.splitlines()[2:]]
    return [name for cell in cells for name in re.findall(r"`([^` ]+)[^`]*`", cell) or [cell]]


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_are_what_the_tool_takes(line, parsed):
    args = parsed(shlex.split(line, comments=True))
    defaults = TASKS[args.task].defaults
    # And the values are known ones.
    Request(args.norms or defaults.norms, args.batch_sizes or defaults.batch_sizes, args.seeds or 1, ("data",))


def test_every_task_is_shown_and_gathering_is_what_submitted():
    words = [shlex.split(line, comments=True) for line in COMMANDS]
    assert {line[line.index("tools/study.py") + 1] for line in words} == set(TASKS)
    submitted, gathered = (line[line.index("tools/study.py") :] for line in words if "slurm" in line)
    assert submitted == gathered
    assert f"bash {submitted[submitted.index('--out') + 1]}/submit.sh" in TEXT


def test_options_are_the_tools(parsed, capsys):
    with pytest.raises(SystemExit):
        parsed(["tools/study.py", "--help"])
    known = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    told = set(first_column("Option"))
    assert told < known
    # Those of the commands are explained beside them.
    assert known - told == {"--help", "--out", "--dry-run"}


def test_columns_norms_and_verdicts_are_those_of_the_code():
    metrics = [column for task in TASKS.values() for column in task.columns]
    assert first_column("Column") == [*COLUMNS, *metrics, "train_seconds", "config"]
    assert set(first_column("Norm")) == set(NORMS)
    values = [(1.0, 1.01), (-1.0, -1.01), (-1.0, 1.0), (1.0,), (1.0, 1.0), ()]
    assert first_column("Verdict") == [Statement("", None, Difference(own)).verdict for own in values]


def test_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (PAGE.parent / link).exists(), link


@pytest.mark.parametrize("task", TASKS)
def test_the_results_shown_are_what_their_csv_gives(task, tmp_path):
    folder = PAGE.parent.parent / "benchmarks" / "results" / "study" / task
    path = shutil.copy(folder / "study.csv", tmp_path)
    assert write_summary(Path(path)).read_text() == (folder / "summary.md").read_text()
    # Of the rows that the page shows, every one stands in a summary.
    shown = [line for line in TEXT[TEXT.index("## Results") :].splitlines() if line.startswith("| ")]
    assert shown
    summaries = "".join(file.read_text() for file in folder.parent.glob("*/summary.md"))
    assert [line for line in shown if line not in summaries] == []
