import os
import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

from mmgn import group_norm
from mmgn.ops import explain, functional
from mmgn.ops.triton import availability

X = torch.zeros(1, 8, 4, 4)


def forward_mode(op):
    with forward_ad.dual_level():
        op(forward_ad.make_dual(X, X))


@pytest.fixture(autouse=True)
def asked_anew():
    availability._device_refusal.cache_clear()
    yield
    availability._device_refusal.cache_clear()


def python(code, **environment):
    """Run code in a process of its own, with Triton compiling unless told otherwise."""
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | environment
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def refused(x=X):
    with pytest.raises(NotImplementedError) as error:
        group_norm(x, 4, backend="triton")
    assert "backend='auto'" in str(error.value)
    with pytest.raises(NotImplementedError):
        explain(x, "triton")
    return str(error.value)


@pytest.mark.parametrize(
    "shape, limit", [((2**31, 4), "at most 2147483647 samples"), ((1, 4, 2**30 + 1), "at most 1073741824 elements per")]
)
def test_more_than_a_grid_or_its_places_can_count(shape, limit):
    assert limit in refused(torch.empty(shape, device="meta"))


def test_a_cpu_tensor_without_the_interpreter():
    out = python(
        "import torch, mmgn\n"
        "from mmgn.ops import explain\n"
        "x = torch.zeros(1, 8, 4, 4)\n"
        "assert mmgn.group_norm(x, 4).shape == x.shape\n"
        "print(explain(x))\n"
        "try:\n    mmgn.group_norm(x, 4, backend='triton')\n"
        "except NotImplementedError as error:\n    print(error)"
    )
    assert "auto: x is on the cpu, the fused kernels run on CUDA" in out
    assert "TRITON_INTERPRET=1" in out.splitlines()[-1]
    assert "backend='native'" in out.splitlines()[-1]


def test_a_dtype_without_kernels():
    assert "not torch.float64" in refused(X.double())


def test_a_channel_too_large_for_32_bits():
    # An expanded zero: no memory.
    assert "at most 1073741824 elements per channel" in refused(torch.zeros(1).expand(1, 8, 2**15, 2**15 + 1))


def test_triton_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    assert "pip install triton" in refused()


def test_triton_too_old(monkeypatch):
    import triton

    monkeypatch.setattr(triton, "__version__", "2.1.0")
    assert "Triton 2.1.0 is too old" in refused()


# What follows speaks of a GPU where there may be none: what torch answers is put in its mouth.
def test_a_gpu_too_old(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (6, 1))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "GeForce GTX 1080")
    reason = availability.device_refusal("cuda", 0)
    assert "GeForce GTX 1080 has compute capability 6.1" in reason
    assert "7.0" in reason


def test_an_amd_gpu(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "6.2")
    assert "an AMD GPU" in availability.device_refusal("cuda", 0)


def test_a_first_kernel_that_does_not_launch_is_asked_for_once(monkeypatch):
    asked = []

    class Probe:
        def __getitem__(self, grid):
            asked.append(grid)
            raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.\nmore")

    monkeypatch.setattr("mmgn.ops.triton.kernels.probe.probe", Probe())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(torch.cuda, "device", lambda index: torch.no_grad())
    monkeypatch.setattr(torch, "empty", lambda *size, device: None)
    for _ in range(2):
        reason = availability.device_refusal("cuda", 0)
        assert "RuntimeError: Failed to find C compiler. Please specify via CC environment variable.. Triton" in reason
        assert "gcc python3-dev" in reason
    assert asked == [(1,)]


def test_auto_takes_torchs_kernels_and_warns_once(monkeypatch):
    class Cuda(torch.Tensor):
        device = torch.device("cuda", 0)
        is_cuda = True

    functional._warn_once.cache_clear()
    monkeypatch.setattr(availability, "_device_refusal", lambda *device: "no C compiler")
    x = X.as_subclass(Cuda)
    with pytest.warns(UserWarning, match="torch's own kernels: no C compiler") as record:
        assert [functional._takes_triton(x, "auto") for _ in range(3)] == [False] * 3
    assert len(record) == 1
    assert explain(x) == ("native", "auto: no C compiler; torch's own kernels")


def test_auto_takes_the_kernels_where_the_first_one_launched(monkeypatch):
    class Cuda(torch.Tensor):
        device = torch.device("cuda", 0)
        is_cuda = True

    monkeypatch.setattr(availability, "_device_refusal", lambda *device: None)
    x = X.as_subclass(Cuda)
    assert functional._takes_triton(x, "auto")
    assert explain(x) == ("triton", "auto: fused kernels on cuda:0")
    # float64 is none of the kernels' business, and no reason to warn.
    assert not functional._takes_triton(x.double().as_subclass(Cuda), "auto")


def test_the_first_question_may_come_from_an_export(monkeypatch):
    """torch.export runs in a mode where tensors are fakes, at address 0."""
    launched = []

    class Probe:
        def __getitem__(self, grid):
            return lambda out, **options: launched.append(out)

    empty = torch.empty
    monkeypatch.setattr("mmgn.ops.triton.kernels.probe.probe", Probe())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(torch.cuda, "device", lambda index: torch.no_grad())
    monkeypatch.setattr(torch, "empty", lambda *size, device: empty(*size))
    with FakeTensorMode():
        assert availability.device_refusal("cuda", 0) is None
    assert [type(out) for out in launched] == [torch.Tensor]
    assert launched[0].data_ptr()


def test_a_fake_tensor_on_a_gpu_that_is_not_there():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU, of CUDA")
    with FakeTensorMode(), pytest.warns(UserWarning, match="CUDA does not answer"):
        functional._warn_once.cache_clear()
        x = torch.empty(1, 8, 4, 4, device="cuda")
        assert group_norm(x, 4).shape == x.shape


@pytest.fixture
def on_cuda(monkeypatch):
    """Let the kernels be there, and tensors be taken for a GPU's."""
    monkeypatch.setattr(availability, "_device_refusal", lambda *device: None)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)


def recorded(record):
    """Return what ``auto`` takes and gives for a reason while something records or transforms the call."""
    seen = []

    def op(x):
        seen.append((functional._takes_triton(x, "auto"), explain(x)))
        return x * 2

    record(op)
    return seen


@pytest.mark.parametrize(
    ("record", "name"),
    [
        (lambda op: torch.jit.trace(op, X, check_trace=False), "torch.jit.trace"),
        (lambda op: torch.func.grad(lambda x: op(x).sum())(X), "a transform of torch.func"),
        (lambda op: torch.func.vmap(op)(X), "a transform of torch.func"),
        (lambda op: torch.func.jvp(op, (X,), (X,)), "a transform of torch.func"),
        (forward_mode, "forward-mode differentiation"),
    ],
    ids=["trace", "grad", "vmap", "jvp", "forward"],
)
def test_auto_takes_torchs_kernels_where_the_call_is_recorded(record, name, on_cuda):
    assert recorded(lambda op: op(X))[0][0]
    for takes, (backend, reason) in recorded(record):
        assert not takes
        assert backend == "native"
        assert reason == f"auto: {name} knows torch's own operators alone; torch's own kernels"


def test_auto_takes_torchs_kernels_in_an_onnx_export(on_cuda, tmp_path):
    class Net(torch.nn.Module):
        def forward(self, x):
            return self.op(x)

    def export(op):
        Net.op = staticmethod(op)
        torch.onnx.export(Net(), (X,), str(tmp_path / "net.onnx"), dynamo=True, verbose=False)

    seen = recorded(export)
    assert seen
    assert {reason for _, (_, reason) in seen} == {
        "auto: ONNX export knows torch's own operators alone; torch's own kernels"
    }


def test_the_kernels_asked_for_where_the_call_is_recorded():
    with pytest.raises(
        NotImplementedError, match=r"torch\.jit\.trace knows torch's own operators alone\. Use backend='auto'"
    ):
        torch.jit.trace(lambda x: group_norm(x, 4, backend="triton"), X)


def test_everything_else_works_where_triton_cannot_be_imported():
    python(
        "import sys\nsys.modules['triton'] = None\n"
        "import torch, mmgn\nfrom mmgn.ops import explain, library\n"
        "from mmgn.ops.triton.plan import plan_forward\nfrom mmgn.ops.triton.problem import Device, Problem\n"
        "x = torch.randn(2, 32, 4, 4, requires_grad=True)\n"
        "mmgn.FusedGN(32, activation='relu')(x).sum().backward()\n"
        "library.group_norm(x, None, None, None, 4, 1e-5, 'relu')[0].sum().backward()\n"
        "assert plan_forward(Problem(2, 32, 16, 4), Device()).regime == 'whole'\n"
        "try:\n    mmgn.group_norm(x, 4, backend='triton')\n    raise SystemExit(1)\n"
        "except NotImplementedError as error:\n    assert 'pip install triton' in str(error)"
    )
