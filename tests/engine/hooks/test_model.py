import pytest

pytest.importorskip("mmengine")
import torch
from mmengine.model import BaseModel
from torch._dynamo import register_backend


class Pixels(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {"inputs": torch.full((3, 4, 6), float(index))}


class Conv(BaseModel):
    """Keeps the memory formats that its backbone was given."""

    def __init__(self):
        super().__init__(data_preprocessor=None)
        self.backbone = torch.nn.Conv2d(3, 4, 3)
        self.formats = []

    def forward(self, inputs, mode="tensor"):
        inputs = torch.stack(inputs) if isinstance(inputs, list) else inputs
        self.formats.append(
            [t.is_contiguous(memory_format=torch.channels_last) for t in (inputs, self.backbone.weight)]
        )
        y = self.backbone(inputs)
        return {"loss": y.square().mean()} if mode == "loss" else list(y)


def test_channels_last_are_images_weights_and_no_key(build_runner):
    runner = build_runner(epochs=1, model=Conv(), dataset=Pixels(), hooks=[{"type": "ChannelsLastHook"}])
    keys = list(runner.model.state_dict())
    images = torch.ones(2, 3, 4, 6)
    runner.model(images)
    runner.train()
    runner.model(images)
    runner.model(inputs=images)
    # mmengine's loop gives a list of images, which this model stacks itself.
    assert runner.model.formats == [[False, False], [False, True], [False, True], [True, True], [True, True]]
    assert list(runner.model.state_dict()) == keys


def test_channels_last_trains_to_the_same_weights(build_runner):
    weights = []
    for hooks in ([], [{"type": "ChannelsLastHook"}]):
        torch.manual_seed(0)
        runner = build_runner(epochs=2, model=Conv(), dataset=Pixels(), hooks=hooks)
        runner.train()
        weights.append(runner.model.backbone.weight)
    torch.testing.assert_close(*weights)


def test_compile_takes_the_named_parts_alone_and_changes_no_result(build_runner):
    graphs = []

    def counted(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    register_backend(counted, name="counted")
    weights = []
    for hooks in ([], [{"type": "CompileHook", "backend": "counted", "parts": ["backbone", "neck"]}]):
        torch.manual_seed(0)
        runner = build_runner(epochs=1, hooks=hooks)
        runner.train()
        weights.append(runner.model.state_dict())
    # The backbone is one linear layer, the head another.
    assert len(graphs) == 1
    operators = [node.target for node in graphs[0].graph.nodes if node.op == "call_function"]
    assert len(operators) == 1
    assert all(weights[0][key].equal(weights[1][key]) for key in weights[1])


def test_a_backend_and_parts_that_are_not_there_are_named(build_runner):
    with pytest.raises(ValueError, match=r"no backend 'configs/a\.py' of .*; there are .*inductor"):
        build_runner(hooks=[{"type": "CompileHook", "backend": "configs/a.py"}])
    runner = build_runner(hooks=[{"type": "CompileHook", "backend": "eager", "parts": ["encoder"]}])
    with pytest.raises(ValueError, match="Linear has none of encoder; name its parts"):
        runner.train()
