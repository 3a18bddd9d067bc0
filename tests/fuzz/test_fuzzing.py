"""The corpus of each target again, whose named inputs failed once, and some fresh inputs, the same each time."""

import contextlib
import importlib
import os
from pathlib import Path
from random import Random

import pytest

pytest.importorskip("triton")
pytest.importorskip("safetensors")
from fuzzing import TARGETS, guard, trees

CORPUS = Path(__file__).with_name("corpus")
# What takes some seconds each; a model is built three times, a report drawn.
FRESH = {"annotations": 1000, "checkpoints": 100, "configs": 30, "reports": 30, "arguments": 100, "plans": 1000}


@pytest.fixture(scope="module", params=TARGETS)
def target(request):
    return importlib.import_module(f"fuzzing.{request.param}"), request.param


def test_the_corpus_does_not_fail(target, tmp_path):
    module, name = target
    inputs = sorted((CORPUS / name).iterdir())
    assert inputs
    for path in inputs:
        with guard.watched(tmp_path):
            module.check(path.read_bytes(), tmp_path)


def test_fresh_inputs_do_not_fail(target, tmp_path):
    module, name = target
    rng = Random(name)
    inputs = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
    for number in range(FRESH[name]):
        data = module.mutate(rng.choice(inputs) if rng.random() < 0.7 else module.fresh(rng), rng)
        try:
            with guard.watched(tmp_path):
                module.check(data, tmp_path)
        except BaseException as error:
            raise AssertionError(f"input {number} fails: {data[:2000]!r}") from error


@pytest.mark.parametrize(
    "deed",
    [
        lambda folder: os.system("true"),
        lambda folder: (folder.parent / "beside").write_text("x"),
        lambda folder: os.remove(folder.parent / "beside"),
        lambda folder: Path("/etc/hostname").read_text(),
    ],
    ids=["runs", "writes", "removes", "reads"],
)
def test_the_guard_sees_what_an_input_must_not_do(deed, tmp_path):
    (tmp_path / "inside").mkdir()
    # Seen even where code copes with anything.
    copes = contextlib.suppress(BaseException)
    with pytest.raises(guard.IntrusionError), guard.watched(tmp_path / "inside"), copes:
        deed(tmp_path / "inside")
    with guard.watched(tmp_path):
        (tmp_path / "inside" / "file").write_text("x")


def test_mutations_keep_most_documents_json():
    data = trees.write({"images": [{"id": 1}], "annotations": [1, 2.5, "a", None]})
    mutated = [trees.mutate(data, Random(seed)) for seed in range(500)]
    assert sum(trees.parse(other) is not None for other in mutated) > 400
    assert len(set(mutated)) > 300
