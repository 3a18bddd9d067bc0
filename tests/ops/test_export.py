import subprocess
import sys

import pytest
import torch
from torch import nn

import mmgn
from mmgn import FusedGN


class Net(nn.Module):
    """Norm, activation and residual as a network uses them."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = FusedGN(16, 4, activation="relu")
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)

    def forward(self, x):
        x = self.conv(x)
        return self.norm(x, residual=x)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


# No inductor: it would need a C++ compiler, which a user of this package need not have.
@pytest.mark.parametrize("autocast", [False, True])
def test_compile_takes_it_as_one_graph(net, autocast):
    x = torch.randn(2, 3, 8, 8)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        want, got = net(x), compiled(x)
    assert got.dtype == want.dtype == (torch.bfloat16 if autocast else torch.float32)
    torch.testing.assert_close(got, want)
    got.sum().backward()
    assert torch.isfinite(net.norm.weight.grad).all()


def test_compile_with_sizes_unknown(net):
    compiled = torch.compile(net, fullgraph=True, dynamic=True, backend="aot_eager")
    for size in (8, 11):
        x = torch.randn(2, 3, size, size)
        torch.testing.assert_close(compiled(x), net(x))


def test_export(net):
    batch = torch.export.Dim("batch", min=1, max=16)
    program = torch.export.export(net, (torch.randn(2, 3, 8, 8),), dynamic_shapes=({0: batch},))
    targets = {str(node.target) for node in program.graph.nodes}
    assert any("aten.group_norm" in t for t in targets), targets
    x = torch.randn(5, 3, 8, 8)
    torch.testing.assert_close(program.module()(x), net(x))


def test_export_of_as_many_rois_as_a_mask_leaves():
    class Head(nn.Module):
        def forward(self, x, keep):
            return mmgn.group_norm(x[keep], 4, activation="relu")

    x = torch.randn(6, 16, 7, 7)
    program = torch.export.export(Head(), (x, x[:, 0, 0, 0] > 0))
    for keep in (x[:, 0, 0, 0] > -9, x[:, 0, 0, 0] > 9):
        torch.testing.assert_close(program.module()(x, keep), Head()(x, keep))


def test_onnx(net, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    x = torch.randn(2, 3, 8, 8)
    path = tmp_path / "net.onnx"
    torch.onnx.export(net.eval(), (x,), str(path), dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), net(x).detach(), rtol=1e-4, atol=1e-5)


def test_fx_keeps_the_call_whole(net):
    traced = torch.fx.symbolic_trace(net)
    assert mmgn.group_norm in {node.target for node in traced.graph.nodes}
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(traced(x), net(x))


# A program: torch's spawn would import this module by its name, and others install a package "tests" too.
RANK_OF_TWO = """
import sys
import torch, torch.distributed as dist
from mmgn import FusedGN

folder, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
torch.manual_seed(0)
net = torch.nn.parallel.DistributedDataParallel(torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), FusedGN(16, 4)))
data = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
net(data.chunk(2)[rank]).square().mean().backward()
torch.save([p.grad for p in net.parameters()], f"{folder}/{rank}.pt")
"""


def test_ddp_gives_the_gradients_of_the_whole_batch(tmp_path):
    """GN sees one sample at a time, so shards need no synchronisation."""
    ranks = [subprocess.Popen([sys.executable, "-c", RANK_OF_TWO, str(tmp_path), str(rank)]) for rank in range(2)]
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), FusedGN(16, 4))
    data = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    net(data).square().mean().backward()
    for rank in range(2):
        for got, parameter in zip(
            torch.load(tmp_path / f"{rank}.pt", weights_only=True), net.parameters(), strict=True
        ):
            torch.testing.assert_close(got, parameter.grad)
