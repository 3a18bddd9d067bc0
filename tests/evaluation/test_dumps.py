"""mmdet's pickles of predictions: what is read, and what is refused before it can run."""

import io
import pickle

import pytest
import torch
from gadgets import Call

from mmgn.evaluation.dumps import coco_results, read_dump


def sample(**instances):
    return {"img_id": 1, "pred_instances": {"bboxes": torch.ones(0, 4), "scores": [], "labels": []} | instances}


@pytest.fixture
def read(tmp_path):
    def read(content, protocol=2):
        path = tmp_path / "dump.pkl"
        path.write_bytes(pickle.dumps(content, protocol))
        return read_dump(path)

    return read


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6.0).reshape(2, 3),
        torch.arange(6).reshape(2, 3).T,
        torch.arange(10, dtype=torch.float16)[3:7],
        torch.rand(0, 4),
        torch.tensor([True, False]),
    ],
    ids=["float32", "transposed", "part of a storage", "empty", "bool"],
)
def test_a_tensor_is_read_as_it_was(read, tensor, protocol):
    got = read([sample(scores=tensor)], protocol)[0]["pred_instances"]["scores"]
    assert got.dtype == tensor.dtype
    assert got.equal(tensor)


def archive():
    file = io.BytesIO()
    torch.save(torch.ones(1), file)
    return Call(torch.storage._load_from_bytes, file.getvalue())


def beyond(tensor):
    """A tensor's contents, and a place behind them."""
    return Call(torch._utils._rebuild_tensor_v2, tensor.storage(), 10**8, (2,), (1,))


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        (lambda: archive(), "a tensor's contents are not what torch writes"),
        (lambda: Call(torch._utils._rebuild_tensor_v2, 1, 0, (1,), (1,)), "a tensor has no contents"),
        (lambda: torch.ones(1).expand(10**12), "is larger than its contents"),
        (lambda: beyond(torch.ones(4)), "is larger than its contents"),
        (lambda: torch.nn.Parameter(torch.ones(1)), "torch._utils._rebuild_parameter"),
    ],
    ids=["an archive", "no storage", "a huge size", "beyond", "a parameter"],
)
def test_all_else_is_refused(read, attack, said):
    """What would run code is tried in tests/test_gadgets.py."""
    with pytest.raises(ValueError, match=r"dump\.pkl is not read: ") as error:
        read([sample(bad=attack())])
    assert said in str(error.value)


@pytest.mark.parametrize("content", [{"a": 1}, [1], [{"img_id": 1}], [([], [])]])
def test_what_holds_no_detections_is_told(read, content):
    with pytest.raises(ValueError, match=r"write it again with tools/test\.py --out|only detections can be judged"):
        read(content)


def test_what_figures_need_is_all_that_is_looked_at(read):
    more = {"bboxes": torch.tensor([[1.0, 2, 4, 6]]), "scores": torch.tensor([0.5]), "labels": torch.tensor([0])}
    dump = read([sample(**more, priors=None, level=3, name="a")])
    truth = {"images": [{"id": 1, "height": 8, "width": 8}]}
    results = coco_results(dump, truth, [7])
    assert results == {"bbox": [{"image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4], "score": 0.5}]}
