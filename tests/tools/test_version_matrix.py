"""The rows, and what is made of a run of tests; the rows themselves run by hand, with gigabytes of downloads."""

import ast
import contextlib
import importlib.util
import json
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("version_matrix", ROOT / "tools/version_matrix.py")
matrix = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(matrix)


@pytest.mark.parametrize("test", matrix.TESTS)
def test_what_a_row_runs_exists(test):
    path, _, name = test.partition("::")
    tree = ast.parse((ROOT / "tests" / path).read_text())
    assert not name or name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_rows_ask_for_what_mmgn_takes():
    assert len({row.name for row in matrix.ROWS}) == len(matrix.ROWS)
    for row in matrix.ROWS:
        assert SpecifierSet(">=3.10,<3.14").contains(row.python)
        asked = [Requirement(package) for package in row.packages if package and not package.startswith("-")]
        torch = [requirement.specifier for requirement in asked if requirement.name == "torch"]
        assert row.name == "lowest of all" or [str(version)[:2] for version in torch] == ["=="]


def test_a_run_is_counted_and_its_failures_named(tmp_path, monkeypatch):
    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        "@pytest.fixture\ndef broken(): raise OSError\n"
        "def test_good(): pass\n"
        "def test_error(broken): pass\n"
        "@pytest.mark.parametrize('x', [1, 2, 3])\ndef test_bad(x): assert x == 1\n"
        "@pytest.mark.skip\ndef test_skipped(): pass\n"
    )
    monkeypatch.setattr(matrix, "TESTS", [str(tmp_path / "test_some.py")])
    found = matrix.run_tests(Path(sys.executable), tmp_path)
    assert found.pop("minutes") > 0
    assert found == {"passed": 2, "failed": 3, "skipped": 1, "remark": "test_error, test_bad"}


def test_tests_that_do_not_start_are_told(tmp_path):
    (tmp_path / "python").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    assert matrix.run_tests(tmp_path / "python", tmp_path) == {"remark": "not run: pytest does not start"}


def test_a_row_that_cannot_be_installed_is_told(tmp_path, monkeypatch):
    (tmp_path / "uv").write_text("#!/bin/sh\necho no such\necho 'Python here' >&2\nexit 2\n")
    (tmp_path / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert matrix.run_row(matrix.ROWS[0], tmp_path) == {"remark": "not run: Python here"}


def test_a_compiled_mmcv_is_told_where_there_is_none(tmp_path):
    row = next(row for row in matrix.ROWS if row.name == "compiled mmcv")
    assert matrix.run_row(row._replace(packages=("",)), tmp_path)["remark"].startswith("not run: no wheel")


def test_rows_of_earlier_runs_stay_and_one_that_did_not_run_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(matrix, "OUT", tmp_path / "versions.json")
    (tmp_path / "uv").write_text("#!/bin/sh\necho uv 1.2.3\nexit 0\n")
    (tmp_path / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    did_not_run = pytest.raises(SystemExit, match=r"did not run, under Python 3\.10")
    for name, result, ends in (
        ("Python 3.13", {"failed": 0}, contextlib.nullcontext()),
        ("Python 3.10", {"remark": "not run: x"}, did_not_run),
        ("compiled mmcv", {"remark": "not run: x"}, contextlib.nullcontext()),
    ):
        monkeypatch.setattr(matrix, "run_row", lambda row, scratch, result=result: result)
        monkeypatch.setattr(sys, "argv", ["version_matrix.py", "--rows", name])
        with ends:
            matrix.main()
    rows = json.loads(matrix.OUT.read_text())["rows"]
    assert [(row["row"], row.get("failed"), row.get("remark")) for row in rows] == [
        ("Python 3.10", None, "not run: x"),
        ("Python 3.13", 0, None),
        ("compiled mmcv", None, "not run: x"),
    ]


@pytest.mark.parametrize(("args", "said"), [(["--rows", "torch 1.0"], "invalid choice"), ([], "pip install uv")])
def test_wrong_calls_are_told(args, said, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "argv", ["version_matrix.py", *args])
    with pytest.raises(SystemExit):
        matrix.parse_args()
    assert said in capsys.readouterr().err
