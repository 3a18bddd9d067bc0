import itertools

import pytest
import torch

from mmgn.ops import reference
from mmgn.testing import make_case, oracle


@pytest.mark.parametrize(
    ("activation", "residual", "affine"),
    list(itertools.product(reference.ACTIVATIONS, (False, True), (False, True))),
)
@pytest.mark.parametrize("shape", [(2, 12, 5, 3), (3, 12), (0, 12, 2, 2), (1, 12, 1, 1)], ids=str)
def test_formulas_match_autograd(activation, residual, affine, shape):
    case = make_case(shape, 4, torch.float64, residual=residual, affine=affine, activation=activation)
    y, mean, rstd = reference.forward(case.x, 4, case.weight, case.bias, case.eps, activation, case.residual)
    dx, dw, db, dr = reference.backward(case.dy, case.x, mean, rstd, case.weight, case.bias, activation, case.residual)
    for name, got in {"y": y, "dx": dx, "dw": dw, "db": db, "dresidual": dr}.items():
        want = oracle(case)[name]
        if want is not None:
            torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


def test_statistics_are_those_of_the_group():
    x = torch.randn(2, 12, 5, 3, dtype=torch.float64)
    _, mean, rstd = reference.forward(x, 4, eps=1e-3)
    group = x[1, 6:9]
    torch.testing.assert_close(mean[1, 2], group.mean())
    torch.testing.assert_close(rstd[1, 2], (group.var(correction=0) + 1e-3) ** -0.5)


def test_half_precision_accumulates_in_float32():
    _, mean, rstd = reference.forward(torch.randn(2, 8, 4, 4).half(), 4)
    assert mean.dtype == rstd.dtype == torch.float32
