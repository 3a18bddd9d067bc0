"""What only a GPU shows: graphs, streams, other devices, and a launch repeated past Triton's own dispatch."""

import pytest
import torch

from mmgn import group_norm
from mmgn.testing import assert_no_worse, make_case, run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

#: A group on chip, and one that is split.
SHAPES = [(4, 64, 7, 7), (1, 64, 130, 170)]


def fused(*args, **options):
    return group_norm(*args, **options, backend="triton")


def case_of(shape, layout="contiguous", **options):
    return make_case(shape, 8, torch.float16, layout=layout, activation="relu", residual=True, **options)


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_repeated_launch_computes_what_the_first_did(shape, layout):
    for seed in range(3):
        assert_no_worse(case_of(shape, layout, device="cuda", seed=seed), fused)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_graph_replays_it(shape):
    case = case_of(shape, device="cuda")
    run(case, fused)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run(case, fused)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run(case, fused)
    new = case_of(shape, device="cuda", seed=1)
    for name in ("x", "weight", "bias", "residual", "dy"):
        getattr(case, name).copy_(getattr(new, name))
    graph.replay()
    torch.cuda.synchronize()
    assert equal(captured, run(new, fused))


@pytest.mark.parametrize("shape", SHAPES)
def test_it_neither_synchronises_nor_leaves_its_stream(shape):
    case = case_of(shape, device="cuda")
    want = run(case, fused)
    stream = torch.cuda.Stream()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.cuda.stream(stream):
            torch.cuda._sleep(10**8)
            got = run(case, fused)
            waiting = not stream.query()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    stream.synchronize()
    assert waiting
    assert equal(got, want)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs of CUDA")
@pytest.mark.parametrize("shape", SHAPES)
def test_a_device_that_is_not_the_current_one(shape):
    torch.cuda.set_device(0)
    for device in ("cuda:1", "cuda:0", "cuda:1"):
        assert_no_worse(case_of(shape, device=device), fused)
    assert torch.cuda.current_device() == 0
