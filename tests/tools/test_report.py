import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("pycocotools")

REPO = Path(__file__).parents[2]


def report(*arguments, code="pass"):
    """Run the tool in a process of its own, after ``code``."""
    command = f"import runpy, sys; {code}; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    environment = os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", command, REPO / "tools" / "report.py", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def run(tmp_path):
    """A plain mmdet run: one line of scalars, a box that was found exactly, no run.json."""
    scalars = tmp_path / "work" / "20250101_000000" / "vis_data" / "scalars.json"
    scalars.parent.mkdir(parents=True)
    scalars.write_text('{"loss": 1.5, "lr": 0.1, "iter": 10, "step": 10}\n')
    box = {"image_id": 1, "category_id": 1, "bbox": [2, 2, 50, 40]}
    truth = {
        "images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 80}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [box | {"id": 1, "area": 2000, "iscrowd": 0}],
    }
    (tmp_path / "val.json").write_text(json.dumps(truth))
    (tmp_path / "work" / "res.bbox.json").write_text(json.dumps([box | {"score": 0.9}]))
    return tmp_path


def test_report_of_a_plain_run(run):
    out = run / "out"
    done = report(
        run / "work", "--out", out, "--ann-file", run / "val.json", "--results-prefix", run / "work" / "res",
        "--img-dir", run, "--max-images", 1,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Box AP" in done.stdout
    assert "100.0  Computed from res.bbox.json" in done.stdout
    assert done.stdout.splitlines()[-1] == str(out / "index.html")
    assert json.loads((out / "metrics.json").read_text())["bbox_mAP"] == pytest.approx(1)
    assert not (run / "work" / "report").exists()


def test_results_alone(run):
    done = report(run / "work" / "res.bbox.json", "--ann-file", run / "val.json", "--out", run / "out")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((run / "out" / "metrics.json").read_text())
    assert metrics["bbox_mAP"] == pytest.approx(1)
    assert metrics["train_seconds"] is None
    # Neither scolded for what results cannot hold, nor for masks that were not asked for.
    assert metrics["notes"] == ["No segm figures: there are no segm results."]


def test_several_runs_are_compared(run):
    prefix = run / "work" / "res"
    (run / "work" / "worse.bbox.json").write_text("[]")
    done = report(prefix, run / "work" / "worse", "--ann-file", run / "val.json", "--out", run / "out")
    assert done.returncode == 0, done.stderr
    assert "worse: Box AP −100.0 from res" in done.stdout
    assert json.loads((run / "out" / "metrics.json").read_text())["kind"] == "comparison"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["work", "work"], "a comparison of several RUNs needs --out DIR"),
        (["work", "work", "--out", "out", "--results-prefix", "p"], "--results-prefix is of one RUN"),
        (["work", "work", "--out", "out", "--img-dir", "."], "--img-dir and --max-images are of one RUN"),
        (["work", "work", "--out", "out", "--max-images", "24"], "--img-dir and --max-images are of one RUN"),
        (["logless"], "logless is no work directory of a run: it has neither training lines"),
        (["work/res.bbox.json"], "No annotations to judge"),
        (["work/cut.bbox.json", "--ann-file", "val.json"], "cut.bbox.json is not valid JSON"),
        (
            ["work/foreign.bbox.json", "--ann-file", "val.json"],
            "foreign.bbox.json: 2 of its 2 different image_id are not in",
        ),
    ],
)
def test_wrong_input_ends_in_one_paragraph_and_overwrites_nothing(run, monkeypatch, capsys, more, said):
    (run / "logless").mkdir()
    whole = (run / "work" / "res.bbox.json").read_text()
    (run / "work" / "cut.bbox.json").write_text(whole[:-20])
    (run / "work" / "foreign.bbox.json").write_text(
        json.dumps([json.loads(whole)[0] | {"image_id": number} for number in (139, 285)])
    )
    out = run / "out"
    out.mkdir()
    (out / "index.html").write_text("yesterday's")
    monkeypatch.chdir(run)
    words = more if "RUNs" in said or "--out" in more else [*more, "--out", "out"]
    monkeypatch.setattr(sys, "argv", ["report.py", *words])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(REPO / "tools" / "report.py"), run_name="__main__")
    # argparse prints what is wrong itself; any other text, Python prints.
    assert stopped.value.code not in (None, 0)
    told = f"{stopped.value.code}{capsys.readouterr().err}"
    assert said in told
    assert [path.name for path in out.iterdir()] == ["index.html"]
    assert (out / "index.html").read_text() == "yesterday's"


def test_what_is_wrong_is_told_in_one_paragraph(run):
    done = report(run / "nowhere")
    assert done.returncode == 1
    assert done.stderr == (
        f"report.py: no work directory {str(run / 'nowhere')!r}; give the work_dir of an MMEngine run, a file of COCO "
        "results, or the prefix of PREFIX.bbox.json and PREFIX.segm.json\n"
    )
    assert done.stdout == ""


def test_missing_packages_are_named(run):
    done = report(run / "work", code="sys.modules['matplotlib'] = None")
    assert done.returncode == 1
    assert done.stderr.startswith("report.py: mmgn.report needs more than mmgn itself: ")
    assert done.stderr.endswith("pip install 'mmgn[report]'\n")
