import sys

import pytest
import torch

import mmgn  # noqa: F401

pytest.importorskip("mmdet")
from mmgn.engine import warm_up
from mmgn.engine.config import load_config
from mmgn.ops.triton.ahead import Tally

DIGITS = "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py"


def recorded(options=None, **work):
    cfg = load_config(DIGITS, options=options)
    # How many proposals are positive is a matter of the weights.
    torch.manual_seed(0)
    return warm_up.record(warm_up.build_fused(cfg), warm_up.Work.of(cfg, [(64, 64)], **work))


def test_a_mixed_precision_wrapper_is_seen():
    def amp(options, given=None):
        return warm_up.Work.of(load_config(DIGITS, options=options), amp=given).amp

    assert amp({}) is None
    assert amp({}, "bfloat16") is torch.bfloat16
    assert amp({"optim_wrapper.type": "AmpOptimWrapper"}) is torch.float16
    assert amp({"optim_wrapper.type": "AmpOptimWrapper", "optim_wrapper.dtype": "bfloat16"}) is torch.bfloat16


def test_work_is_the_configs_own():
    options = {"train_dataloader.batch_size": 3, "test_dataloader.dataset.pipeline.1.keep_ratio": False}
    work = warm_up.Work.of(load_config(DIGITS, options=options))
    assert (work.train, work.test) == (((96, 160), (128, 160), (160, 160)), ((160, 160),))
    assert (work.train_images, work.test_images) == (3, 4)
    work = warm_up.Work.of(load_config(DIGITS), [(100, 60), (64, 100)])
    assert work.train == work.test == ((64, 128),)


def test_records_every_norm_and_what_it_is_fused_with():
    norms = recorded()
    trained = [problem for problem, wanted in norms if wanted]
    tested = [problem for problem, wanted in norms if not wanted]
    # The stem, on 64 x 64 pixels at stride 2, in a batch and in the single image behind the proposals.
    assert {(p.n, p.c, p.s, p.activation) for p in trained if p.s == 32 * 32} == {
        (n, 16, 32 * 32, "relu") for n in (4, 1)
    }
    assert {p.residual for p in trained} == {True, False}
    assert all(p.activation == "relu" for p in trained if p.residual)
    # Box head and mask head; tests see the same maps without them.
    assert {p.s for p in trained} - {p.s for p in tested} == {7 * 7, 14 * 14}
    assert {p.n for p in tested} == {4}
    assert {(p.dtype, p.param_dtype, p.groups) for p, _ in norms} == {("float32", "float32", 8)}


def test_wants_the_gradients_that_training_wants():
    norms = recorded({"model.backbone.frozen_stages": 1})
    frozen = [wanted for problem, wanted in norms if problem.c == 16]
    assert frozen
    assert not any(frozen)
    # The stage after it has trained norms alone, and a residual of a trained convolution.
    wanted = {(problem.residual, wanted) for problem, wanted in norms if wanted}
    assert wanted == {(residual, (True, True, True, residual)) for residual in (True, False)}


def test_mixed_precision_and_memory_format():
    norms = recorded(amp="float16", channels_last=True)
    assert {(p.dtype, p.param_dtype, p.layout) for p, _ in norms} == {("float16", "float32", "channels_last")}


def test_checkpointed_blocks_are_as_others():
    assert recorded({"model.backbone.with_cp": True}) == recorded()


def test_without_the_hook_nothing_is_fused():
    assert {p.activation for p, _ in recorded({"custom_hooks": []})} == {"none"}


def test_triton_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(RuntimeError, match="pip install triton"):
        Tally()


def test_triton_too_old(monkeypatch):
    import triton

    monkeypatch.setattr(triton, "__version__", "3.3.1")
    with pytest.raises(RuntimeError, match=r"Triton 3.3.1 .* 3.4 or newer"):
        Tally()
