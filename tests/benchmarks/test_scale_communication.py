"""The bytes and formulas of benchmarks/scale_communication.py against the same counted the slow way."""

import inspect
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules._functions import SyncBatchNorm
from torch.nn.parallel import DistributedDataParallel

RESULT = Path(__file__).parents[2] / "benchmarks/results/scale_communication.json"


@pytest.fixture(scope="module")
def scale(benchmark_module):
    return benchmark_module("scale_communication")


@pytest.fixture(scope="module")
def report():
    return json.loads(RESULT.read_text())


def ring_all_reduce(values):
    """Reduce (N, N chunks, ...) over N ranks in a ring; return what each has, steps, and bytes that a rank sends."""
    ranks = len(values)
    values = values.copy()
    steps = sent = 0
    for phase in ("reduce", "gather"):
        for step in range(ranks - 1):
            moving = [(r, (r - step + (phase == "gather")) % ranks) for r in range(ranks)]
            chunks = [values[r, c].copy() for r, c in moving]
            for (r, c), chunk in zip(moving, chunks, strict=True):
                if phase == "reduce":
                    values[(r + 1) % ranks, c] += chunk
                else:
                    values[(r + 1) % ranks, c] = chunk
            steps += 1
            sent += chunks[0].nbytes
    return values, steps, sent


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_ring_model_is_a_ring_played_through(scale, ranks):
    values = np.random.default_rng(0).integers(0, 9, (ranks, ranks, 10)).astype(np.float32)
    reduced, steps, sent = ring_all_reduce(values)
    assert (reduced == values.sum(0)).all()
    link = scale.Interconnect("NVLink", 0.001, scale.NVLINK_US, (1,))
    # At 0.001 GB/s a byte takes a microsecond.
    expected = scale.BASE_US + steps * scale.NVLINK_US + sent
    assert scale.all_reduce_us(values[0].nbytes, ranks, 1, link) == pytest.approx(expected)
    # Of an all-gather, each rank passes on all parts but its right neighbour's: the ring's second half.
    half = scale.BASE_US + steps / 2 * scale.NVLINK_US + sent / 2
    assert scale.all_gather_us(values[0, 0].nbytes, ranks, 1, link) == pytest.approx(half)


def test_hops_between_machines_have_the_networks_latency(scale):
    link = scale.Interconnect("slow", float("inf"), 1000.0, (2,))
    one = scale.all_reduce_us(1, 16, 1, link)
    # Once round a ring through two machines passes the network twice, of which NCCL counts the one that is waited for.
    assert scale.all_reduce_us(1, 16, 2, link) - one == pytest.approx(2 * (1000.0 - scale.NVLINK_US))


def test_gradient_bytes_are_what_ddp_reduces(scale, tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.GroupNorm(32, 64), nn.Conv2d(64, 8, 1), nn.Flatten(), nn.Linear(8, 3))
    model[0].requires_grad_(False)
    sizes = []

    def hook(_, bucket):
        sizes.append(bucket.buffer().nbytes)
        future = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        ddp = DistributedDataParallel(model)
        ddp.register_comm_hook(None, hook)
        ddp(torch.randn(2, 3, 3, 3)).sum().backward()
    finally:
        dist.destroy_process_group()
    counts = scale.count(model)
    assert counts["gradient_bytes"] == sum(sizes) == sum(counts["bucket_bytes"])
    assert counts["norms"] == 1
    assert counts["parameters"] - counts["trained"] == 64 * 3 * 9 + 64


def test_syncbn_sends_what_its_source_says(scale):
    """One collective each way, of 2C + 1 and of 2C floats: what count() goes by, and CPUs cannot run."""
    forward, backward = inspect.getsource(SyncBatchNorm.forward), inspect.getsource(SyncBatchNorm.backward)
    assert "combined = torch.cat([mean, invstd, count], dim=0)" in forward
    assert "all_reduce" not in forward
    assert "combined = torch.cat([sum_dy, sum_dy_xmu], dim=0)" in backward
    assert "all_gather" not in backward


def test_norms_are_those_of_the_syncbn_config_and_run_once(scale, report):
    row = next(model for model in report["models"] if model["model"] == "R50, nothing frozen")
    ours = scale.build(row["config"])
    counts = scale.count(ours)
    assert counts == {key: row[key] for key in counts}
    theirs = scale.build("scratch/mask-rcnn_r50-scratch_fpn_syncbn-all_3x_coco.py")
    channels = [m.num_features for m in theirs.modules() if isinstance(m, nn.SyncBatchNorm)]
    assert sorted(counts["gather_bytes"]) == sorted(4 * (2 * c + 1) for c in channels)
    assert sorted(counts["reduce_bytes"]) == sorted(4 * 2 * c for c in channels)

    from mmdet.testing import demo_mm_inputs

    calls = Counter()
    for name, module in ours.named_modules():
        if isinstance(module, nn.GroupNorm):
            module.register_forward_hook(lambda *_, name=name: calls.update([name]))
    batch = ours.data_preprocessor(demo_mm_inputs(1, [[3, 64, 64]], with_mask=True), True)
    ours.loss(batch["inputs"], batch["data_samples"])
    assert len(calls) == counts["norms"]
    assert set(calls.values()) == {1}


def test_frozen_stages_send_nothing(scale, report):
    """Stem and res2 are frozen: 1 + 3 x 3 + 1 norms, and their convolutions."""
    free, frozen = (next(m for m in report["models"] if m["model"] == name) for name in ("R50, nothing frozen", "R50"))
    assert free["norms"] - frozen["norms"] == 11
    assert free["parameters"] - frozen["trained"] == sum(
        p.numel() for name, p in scale.build(frozen["config"]).named_parameters() if not p.requires_grad
    )


def test_times_of_the_report_are_the_formulas(scale, report):
    links = {link.name: link for link in scale.INTERCONNECTS}
    models = {model["model"]: model for model in report["models"]}
    assert list(models) == list(scale.MODELS)
    assert len(report["rows"]) == len(models) * sum(len(link.machines) for link in links.values())
    for row in report["rows"]:
        expected = scale.times(models[row["model"]], row["machines"], links[row["interconnect"]])
        assert {key: row[key] for key in expected} == expected
