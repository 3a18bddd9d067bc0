"""Long runs: what grows with the number of calls, iterations and image sizes. The short ones run with all other tests.

Growth is the slope of a line through the samples after a warm-up, not the difference of two of them.
"""

import gc
import itertools
import json
import os
import random
import subprocess
import sys
import threading
import time
import tracemalloc
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

import mmgn
from mmgn import FusedGN, group_norm
from mmgn.ops import functional, library
from mmgn.ops.triton import availability, launcher
from mmgn.ops.triton.plan import plan_backward, plan_forward
from mmgn.ops.triton.problem import Device, Problem
from mmgn.ops.triton.tiling import WHOLE_ELEMENTS
from mmgn.perf.shapes import SHAPES

CONFIG = "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py"
ON_LINUX = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads /proc")


def soak(*values, minutes=30):
    return pytest.param(*values, marks=[pytest.mark.soak, pytest.mark.timeout(60 * minutes)])


def resident(pid="self"):
    """Return a process's resident memory in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def handles(pid="self"):
    return len(os.listdir(f"/proc/{pid}/fd"))


def slope(at, values):
    """Return the growth per 1,000 and its standard error."""
    line, covariance = np.polyfit(np.asarray(at) / 1000, values, 1, cov=True)
    return round(float(line[0]), 3), round(float(covariance[0, 0] ** 0.5), 3)


def growth(name, at, samples):
    """Return a row of a table: where a quantity stood after the warm-up and in the end, and what it grew by."""
    per_thousand, error = slope(at, samples)
    return {
        "of": name,
        "after warm-up": round(float(samples[0]), 1),
        "at the end": round(float(samples[-1]), 1),
        "per 1,000": per_thousand,
        "standard error": error,
    }


# Layer calls.


def one_call(layers, draw, backend):
    """Train a layer on a random shape, dtype and layout, batches without a sample among them."""
    # A program takes the interpreter some 30 ms.
    channels, largest = (8, 4) if backend == "triton" else (draw.choice(list(layers)), 40)
    size = [draw.randint(1, largest) for _ in range(2)]
    dtype = draw.choice([torch.float32, torch.float16, torch.bfloat16])
    x = torch.randn(draw.randint(0, 3), channels, *size).to(dtype)
    if draw.random() < 0.5:
        x = x.to(memory_format=torch.channels_last)
    residual = torch.randn_like(x) if draw.random() < 0.5 else None
    layer = layers[channels]
    y = group_norm(
        x.requires_grad_(),
        layer.num_groups,
        layer.weight,
        layer.bias,
        layer.eps,
        activation=draw.choice(["none", "relu", "silu"]),
        residual=residual,
        backend=backend,
    )
    y.sum().backward()
    layer.zero_grad()


@ON_LINUX
@pytest.mark.parametrize(
    ("backend", "calls"), [("native", 240), ("triton", 40), soak("native", 20_000), soak("triton", 400)]
)
def test_layer_calls_grow_nothing(backend, calls, figures, monkeypatch):
    if backend == "triton":
        pytest.importorskip("triton")
        # A plan cache that is full before the samples begin.
        monkeypatch.setattr(launcher, "_call", lru_cache(calls // 10)(launcher._call.__wrapped__))
    draw, layers = random.Random(0), {c: FusedGN(c, g) for c, g in ((8, 2), (24, 3), (64, 32))}
    names = ["resident MiB", "handles", "threads", "Python objects"]
    at = []
    own = tracemalloc.Filter(True, f"{Path(mmgn.__file__).parent}/*")
    # Interpreted, it would take most of the time.
    if backend == "native":
        names.append("KiB by lines of mmgn")
        tracemalloc.start()
    series = {name: [] for name in names}
    try:
        for call in range(1, calls + 1):
            one_call(layers, draw, backend)
            if call > calls // 4 and call % (calls // 40) == 0:
                gc.collect()
                now = [resident(), handles(), threading.active_count(), len(gc.get_objects())]
                if tracemalloc.is_tracing():
                    traces = tracemalloc.take_snapshot().filter_traces([own]).traces
                    now.append(sum(trace.size for trace in traces) / 1024)
                for name, value in zip(names, now, strict=True):
                    series[name].append(value)
                at.append(call)
    finally:
        tracemalloc.stop()
    rows = [{"calls": calls, "backend": backend} | growth(name, at, samples) for name, samples in series.items()]
    if backend == "triton":
        info = launcher._call.cache_info()
        rows.append(
            {"calls": calls, "backend": backend, "of": f"plans, at most {info.maxsize}", "at the end": info.currsize}
        )
        assert info.currsize <= info.maxsize
    figures(f"long_layer_calls_{backend}", "FusedGN forward and backward over random shapes, dtypes and layouts", rows)
    by_name = {row["of"]: row for row in rows}
    assert len(set(series["handles"])) == 1
    # Among other tests, and in a few calls, one late step is a slope.
    if calls < 400 or (backend == "native" and calls < 1000):
        return
    assert len(set(series["threads"])) == 1
    # A tensor kept of each call would be some 20 MiB and 1,000 objects per 1,000 calls.
    grown = by_name["resident MiB"]
    assert grown["per 1,000"] - 3 * grown["standard error"] < 1, series["resident MiB"]
    for name, most in {"Python objects": 100, "KiB by lines of mmgn": 20}.items():
        if name in by_name:
            assert by_name[name]["per 1,000"] - 3 * by_name[name]["standard error"] < most, series[name]


def test_every_cache_of_the_operator_is_bounded():
    caches = {
        f"{module.__name__}.{name}": value.cache_info().maxsize
        for module in (functional, library, launcher, availability)
        for name, value in vars(module).items()
        if hasattr(value, "cache_info")
    }
    assert f"{launcher.__name__}._call" in caches
    assert all(caches.values()), caches


@ON_LINUX
@pytest.mark.soak
def test_a_full_plan_cache_has_a_size(figures):
    pytest.importorskip("triton")
    launcher._call.cache_clear()
    most = launcher._call.cache_info().maxsize
    rows = []
    start = resident()
    for i in range(2 * most):
        launcher._call(
            torch.Size((2, 256, 1 + i, 64)), torch.float16, "contiguous", 32, 1e-5, "relu", True,
            torch.float32, torch.float32, None, None if i % 2 else (True,) * 4,
        )  # fmt: skip
        if (i + 1) % (most // 4) == 0:
            gc.collect()
            rows.append(
                {
                    "shapes": i + 1,
                    "plans kept": launcher._call.cache_info().currsize,
                    "MiB": round(resident() - start, 1),
                }
            )
    launcher._call.cache_clear()
    figures("plan_cache", "Memory of the plan cache", rows)
    assert rows[-1]["plans kept"] == most
    assert rows[-1]["MiB"] < 1.1 * rows[3]["MiB"] + 10


# Sizes of images.


def padded_sizes(draw):
    """Yield (H, W) of training images: COCO's aspect ratios, short side 480 to 800, long side up to 1333, padded."""
    while True:
        ratio, short = draw.uniform(0.5, 2), draw.randint(480, 800)
        h, w = short * max(ratio, 1), short * max(1 / ratio, 1)
        scale = min(1, 1333 / max(h, w))
        yield tuple(-(-int(side * scale) // 32) * 32 for side in (h, w))


def problems(size, draw, dtype, layout):
    """Yield what the 69 norm layers of Mask R-CNN R50-FPN are given, the heads a random number of regions."""
    for shape in SHAPES:
        problem = shape.problem(dtype, layout)
        if shape.name in ("box head", "mask head"):
            yield replace(problem, n=draw.randint(1, shape.n))
        else:
            h, w = (
                -(-side * part // whole) for side, part, whole in zip(size, shape.size[2:], (800, 1344), strict=True)
            )
            yield replace(problem, s=h * w)


def variants(problem):
    """Yield what tells a compiled kernel from another: Triton looks at dtypes, constants and 32 or 64 bits a number.

    Values it looks at of no number: a test below holds that, and pointers are aligned.
    """
    for plan in (plan_forward(problem, Device()), plan_backward(problem, Device())):
        for launch in plan.launches:
            dtypes = tuple(buffer and plan.buffers[buffer].dtype for _, buffer in launch.tensors)
            wide = tuple(isinstance(value, int) and value >= 2**31 for _, value in launch.scalars)
            yield launch.kernel, launch.constants, launch.num_warps, dtypes, wide


#: Constants that follow from an image's size.
SIZED = ("V", "BLOCK_P", "BLOCK_G", "BLOCK_D", "BLOCK_R", "EVEN", "WIDE", "STORE", "SUBS")


@pytest.mark.parametrize("sizes", [300, soak(10_000)])
def test_random_image_sizes_share_their_kernels(sizes, figures):
    rows = []
    for dtype, layout in itertools.product(("float16", "float32"), ("contiguous", "channels_last")):
        draw, found, seen = random.Random(0), set(), set()
        for count, size in zip(range(1, sizes + 1), padded_sizes(draw), strict=False):
            for problem in set(problems(size, draw, dtype, layout)) - seen:
                seen.add(problem)
                found.update(variants(problem))
            if count in (1, 10, 100, 300, 1000, 10_000):
                row = {"dtype": dtype, "layout": layout, "image sizes": count, "plans": 2 * len(seen)}
                rows.append(row | {"kernels": len(found)})
        by_kernel = {}
        for kernel, constants, *_ in found:
            by_kernel.setdefault(kernel, []).append(dict(constants))
        for kernel, name in itertools.product(by_kernel, SIZED):
            # Powers of two up to the 8192 elements that a program takes, two hints to the L2, yes or no.
            values = {constants.get(name) for constants in by_kernel[kernel]}
            assert len(values) <= WHOLE_ELEMENTS.bit_length(), (kernel, name, values)
        # A tenth of the sizes have met nearly all.
        assert rows[-1]["kernels"] <= 1.1 * rows[-2]["kernels"]
    if sizes == 10_000:
        figures(
            "kernel_variants",
            "Kernels that Mask R-CNN R50-FPN takes at random image sizes, 69 norms, any number of RoIs",
            rows,
        )


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_an_image_a_hundred_times_as_large_needs_no_kernel_of_its_own(layout):
    """Beyond some size every map is cut alike: constants must not count chunks."""
    base = Problem(2, 256, 2**12 * 8, 32, layout=layout)
    kernels = [set(variants(replace(base, s=base.s * times))) for times in (100, 400)]
    assert kernels[0] == kernels[1]


def test_kernels_are_specialised_on_no_number():
    pytest.importorskip("triton")
    from mmgn.ops.triton.kernels import KERNELS

    for problem in problems((800, 1344), random.Random(0), "float16", "contiguous"):
        for layout in ("contiguous", "channels_last"):
            at = replace(problem, layout=layout)
            for plan in (plan_forward(at, Device()), plan_backward(at, Device())):
                for launch in plan.launches:
                    kernel = KERNELS[launch.kernel]
                    left = set(getattr(kernel, "do_not_specialize", None) or kernel.kwargs["do_not_specialize"])
                    assert {name for name, _ in launch.scalars} <= left, launch.kernel


@pytest.mark.parametrize("sizes", [8, soak(100)])
def test_torch_compile_takes_many_sizes_in_a_few_graphs(sizes, figures):
    rows = []
    for layout, dynamic in itertools.product(("contiguous", "channels_last"), (None, True)):
        graphs = []

        def counting(graph, inputs, graphs=graphs):
            graphs.append(graph)
            return graph.forward

        torch._dynamo.reset()
        layer = FusedGN(16, 4, activation="relu")
        compiled = torch.compile(layer, dynamic=dynamic, backend=counting)
        draw = random.Random(0)
        for _ in range(sizes):
            x = torch.randn(draw.randint(2, 5), 16, *(draw.randint(2, 60) for _ in range(2)))
            x = x.to(memory_format=torch.channels_last) if layout == "channels_last" else x
            torch.testing.assert_close(compiled(x), layer(x))
        torch._dynamo.reset()
        rows.append({"layout": layout, "dynamic": str(dynamic), "sizes": sizes, "graphs": len(graphs)})
        # Of the first size, and as sizes of several dimensions change, one or two of any size.
        assert len(graphs) <= 3
    if sizes == 100:
        figures("compiled_graphs", "Graphs that torch.compile makes of a layer at random sizes", rows)


# Training.


def children(pid):
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def watch(process, work_dir):
    """Yield (iteration, MiB, handles, threads, workers' MiB, workers' handles) whenever the log has a new iteration."""
    last = 0
    while process.poll() is None:
        time.sleep(0.5)
        steps = [
            step["step"]
            for log in work_dir.glob("*/vis_data/scalars.json")
            for step in map(json.loads, log.read_text().rpartition("\n")[0].splitlines())
            if "loss" in step
        ]
        if not steps or steps[-1] == last:
            continue
        last = steps[-1]
        try:
            workers = children(process.pid)
            threads = len(os.listdir(f"/proc/{process.pid}/task"))
            own = resident(process.pid), handles(process.pid), threads, len(workers)
            yield last, *own, sum(map(resident, workers)), sum(map(handles, workers))
        except OSError:
            # It, or a worker, has just ended.
            continue


@ON_LINUX
@pytest.mark.parametrize("epochs", [soak(20, minutes=60)])
def test_training_grows_nothing(epochs, tmp_path, figures):
    """100 iterations an epoch, a validation and a checkpoint after each, three of which are kept."""
    pytest.importorskip("mmdet")
    from mmgn.datasets.digits import make_digits

    make_digits(tmp_path / "data/digits", num_train=100, num_val=4)
    options = [
        f"train_cfg.max_epochs={epochs}", "train_cfg.val_interval=1", f"param_scheduler.1.end={epochs}",
        "train_dataloader.batch_size=1", "train_dataloader.num_workers=2", "default_hooks.logger.interval=20",
        "train_dataloader.dataset.pipeline.2.scale=(64,64)", "model.train_cfg.rpn_proposal.max_per_img=30",
        "model.train_cfg.rcnn.sampler.num=16", "default_hooks.checkpoint.max_keep_ckpts=3",
    ]  # fmt: skip
    tool = Path(__file__).parents[2] / "tools/train.py"
    work_dir, sizes, samples = tmp_path / "work", {}, []
    with (tmp_path / "output.txt").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, tool, CONFIG, "--work-dir", work_dir, "--cfg-options", *options],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            for sample in watch(process, work_dir):
                samples.append(sample)
                sizes |= {int(p.stem[6:]): p.stat().st_size for p in work_dir.glob("epoch_*.pth")}
        finally:
            process.kill()
    assert process.returncode == 0, (tmp_path / "output.txt").read_text()[-3000:]
    settled = [sample for sample in samples if sample[0] > 5 * epochs * 100 // 20]
    at, *series = zip(*settled, strict=True)
    names = ("resident MiB", "handles", "threads", "workers", "workers' resident MiB", "workers' handles")
    rows = [growth(name, at, values) for name, values in zip(names, series, strict=True)]
    epoch, kib = zip(*sorted((100 * e, size / 1024) for e, size in sizes.items())[1:], strict=True)
    rows.append(growth("checkpoint KiB", epoch, kib))
    figures("long_training", f"{100 * epochs:,} iterations of tools/train.py on the digits, 2 workers", rows)
    assert len(list(work_dir.glob("epoch_*.pth"))) == 3
    by_name = {row["of"]: row for row in rows}
    for name in ("handles", "threads", "workers", "workers' handles"):
        assert by_name[name]["per 1,000"] - 3 * by_name[name]["standard error"] < 1, series
    for name in ("resident MiB", "workers' resident MiB"):
        assert by_name[name]["per 1,000"] - 3 * by_name[name]["standard error"] < 10, series
    # mmengine keeps a number of each of some fifteen scalars, an iteration, up to a million of them.
    assert by_name["checkpoint KiB"]["per 1,000"] < 500
