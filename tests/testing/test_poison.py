import pytest
import torch

from mmgn.testing.poison import poisoned_empty


@torch.library.custom_op("mmgn_test::half_written", mutates_args=())
def half_written(x: torch.Tensor) -> torch.Tensor:
    y = torch.empty_like(x)
    y[: len(y) // 2] = x[: len(y) // 2]
    return y


class ForgetfulGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, dy):
        return dy.new_empty(dy.shape)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "allocate",
    [
        lambda dtype: torch.empty(3, 5, dtype=dtype),
        lambda dtype: torch.empty_like(torch.ones(3, 5, dtype=dtype)),
        lambda dtype: torch.ones(2, dtype=dtype).new_empty(3, 5),
        lambda dtype: torch.empty_strided((3, 5), (1, 3), dtype=dtype),
        lambda dtype: torch.empty_like(torch.ones(1, 3, 5, 2, dtype=dtype), memory_format=torch.channels_last),
        lambda dtype: torch.empty(1, 3, 5, 2, dtype=dtype, memory_format=torch.channels_last),
    ],
)
def test_floating_point_is_nan(allocate, dtype):
    with poisoned_empty():
        assert allocate(dtype).isnan().all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_integers_are_the_largest(dtype):
    with poisoned_empty():
        assert (torch.empty(9, dtype=dtype) == torch.iinfo(dtype).max).all()


def test_what_a_custom_op_leaves_unwritten_shows():
    x = torch.randn(8)
    with poisoned_empty():
        y = half_written(x)
    assert torch.equal(y[:4], x[:4])
    assert y[4:].isnan().all()


def test_what_a_backward_pass_leaves_unwritten_shows():
    x = torch.randn(8, requires_grad=True)
    with poisoned_empty():
        ForgetfulGradient.apply(x).sum().backward()
    assert x.grad.isnan().all()


@pytest.mark.parametrize("warn_only", [False, True])
@pytest.mark.parametrize("enabled", [False, True])
def test_the_settings_come_back_even_after_an_error(enabled, warn_only):
    try:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = False
        with pytest.raises(ZeroDivisionError), poisoned_empty():
            assert torch.empty(3).isnan().all()
            raise ZeroDivisionError
        assert torch.are_deterministic_algorithms_enabled() == enabled
        assert torch.is_deterministic_algorithms_warn_only_enabled() == warn_only
        assert not torch.utils.deterministic.fill_uninitialized_memory
    finally:
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = True
