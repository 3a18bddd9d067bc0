import pytest

pytest.importorskip("mmengine")
import torch
from mmengine.model import BaseTTAModel
from torch import nn

from mmgn.compat.checkpoint import CheckpointError
from mmgn.engine.hooks.checkpoint_match import check_match


class Renamed(nn.Linear):
    """Knows its weight by an older name, as mmdet's layers do."""

    def _load_from_state_dict(self, state_dict, prefix, *args):
        if f"{prefix}old_weight" in state_dict:
            state_dict[f"{prefix}weight"] = state_dict.pop(f"{prefix}old_weight")
        super()._load_from_state_dict(state_dict, prefix, *args)


class TTA(BaseTTAModel):
    def merge_preds(self, data_samples_list):
        return data_samples_list


@pytest.fixture
def model():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), Renamed(4, 2))
    model.test_step = None
    return model


@pytest.fixture
def state(model):
    return {key: value + 1 for key, value in model.state_dict().items()}


def test_weights_that_match_are_loaded(model, state):
    state["3.old_weight"] = state.pop("3.weight")
    for wrapped in (state, {"state_dict": state, "meta": {}}, {f"module.{key}": value for key, value in state.items()}):
        check_match(model, wrapped, "a.pth")
    check_match(TTA(model), state, "a.pth")
    assert model[0].weight.equal(state["0.weight"])
    assert model[3].weight.equal(state["3.old_weight"])


def test_statistics_may_be_missing_and_more_may_be_there(model, state):
    del state["1.running_mean"], state["1.num_batches_tracked"]
    check_match(model, state | {"ema.weight": torch.ones(1)}, "a.pth")


def test_missing_parameters_are_counted_and_allowed_on_demand(model, state):
    del state["3.weight"], state["3.bias"]
    with pytest.raises(CheckpointError) as error:
        check_match(model, state | {"head.weight": torch.ones(1)}, "a.pth")
    assert str(error.value) == (
        "a.pth is not a checkpoint of this model, Sequential: of its 6 parameters 4 match; 2 missing (such as "
        "3.weight, 3.bias), keys that the model does not have: 1 (such as head.weight). Give the config that it "
        "was trained with, or --allow-missing to leave those at their random values."
    )
    check_match(model, state, "a.pth", allow_missing=True)
    assert model[0].weight.equal(state["0.weight"])


@pytest.mark.parametrize("allow_missing", [False, True])
def test_other_shapes_and_nothing_in_common_are_errors(model, state, allow_missing):
    with pytest.raises(
        CheckpointError, match=r"1 of another shape \(such as 0\.weight: \[8, 3, 1, 1\], the model's is"
    ):
        check_match(model, state | {"0.weight": torch.ones(8, 3, 1, 1)}, "a.pth", allow_missing=allow_missing)
    with pytest.raises(CheckpointError, match="of its 6 parameters 0 match; 6 missing"):
        check_match(model, {"stem.weight": torch.ones(1)}, "a.pth", allow_missing=allow_missing)
