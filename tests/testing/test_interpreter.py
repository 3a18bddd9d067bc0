import os
import subprocess
import sys

import pytest
import torch

from mmgn.testing.interpreter import Access, record_traffic

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")
pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1", reason="kernels are compiled where there is CUDA; set TRITON_INTERPRET=1"
)


@triton.jit
def add(x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0)
    tl.store(out_ptr + offsets, x + tl.load(y_ptr + offsets, mask=mask, other=0.0), mask=mask)


@triton.jit
def row_sum(x_ptr, out_ptr, row_stride, columns: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, columns, BLOCK):
        offsets = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + row * row_stride + offsets, mask=offsets < columns, other=0.0)
        total += x.to(tl.float32)
    tl.store(out_ptr + row, tl.sum(total, axis=0))


@triton.jit
def shifted(ptr, offsets, by):
    return ptr + offsets + by


@triton.jit
def copy(x_ptr, out_ptr, n, read_shift, write_shift, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    tl.store(shifted(out_ptr, offsets, write_shift), tl.load(shifted(x_ptr, offsets, read_shift), mask=mask), mask=mask)


@triton.jit
def read_neighbour(x_ptr, out_ptr, reach):
    program = tl.program_id(0)
    tl.store(out_ptr + program, tl.load(x_ptr + program + reach))


@triton.jit
def store_by_twos(out_ptr):
    tl.store(out_ptr + tl.program_id(0) // 2, 1.0)


@triton.jit
def count(x_ptr):
    tl.atomic_add(x_ptr, 1)


@triton.jit
def gather(x_ptr, out_ptr):
    lanes = tl.arange(0, 4)
    tl.store(out_ptr + lanes, tl.load(x_ptr + lanes // 2 * 4))


@triton.jit
def copy_described(descriptor, out_ptrs, BLOCK: tl.constexpr):
    lanes = tl.arange(0, BLOCK)
    tl.store(out_ptrs[1] + lanes, descriptor.load([0]), mask=lanes < 3)


@triton.jit
def follow(table_ptr, out_ptr):
    tl.store(out_ptr, tl.load(tl.load(table_ptr).to(tl.pointer_type(tl.float32))))


def test_bytes_count_active_lanes_by_argument():
    x, y = torch.randn(2, 300, dtype=torch.float16)
    out = torch.empty(300)
    with record_traffic() as launches:
        add[(3,)](x, y, out, 300, BLOCK=128)
    torch.testing.assert_close(out, (x + y).float())
    (launch,) = launches
    assert (launch.kernel, launch.grid) == ("add", (3, 1, 1))
    assert launch.loaded == {"x_ptr": 600, "y_ptr": 600}
    assert launch.stored == {"out_ptr": 1200}
    assert {name: extent.num_bytes for name, extent in launch.extents.items()} == {
        "x_ptr": 600, "y_ptr": 600, "out_ptr": 1200,
    }  # fmt: skip


def test_accesses_are_byte_ranges_in_order_and_by_program():
    x, out = torch.randn(5, 20)[1:, :10], torch.empty(4)
    with record_traffic() as launches:
        row_sum[(4,)](x, out, 20, 10, BLOCK=8)
    torch.testing.assert_close(out, x.sum(1))
    assert [a for a in launches[0].accesses if a.program == (2, 0, 0)] == [
        Access((2, 0, 0), "x_ptr", 160, 32, False),
        Access((2, 0, 0), "x_ptr", 192, 8, False),
        Access((2, 0, 0), "out_ptr", 8, 4, True),
    ]


def test_lanes_at_one_address_each_count_and_strided_lanes_are_ranges_of_their_own():
    x, out = torch.randn(8), torch.empty(4)
    with record_traffic() as launches:
        gather[(1,)](x, out)
    torch.testing.assert_close(out, x[[0, 0, 4, 4]])
    assert launches[0].loaded == {"x_ptr": 16}
    assert [a[2:4] for a in launches[0].accesses if not a.is_write] == [(0, 4), (16, 4)]


def test_launches_are_kept_apart_and_two_arguments_may_be_one_tensor():
    x, out = torch.randn(16), torch.empty(16)
    with record_traffic() as launches:
        add[(1,)](x, x, out, 16, BLOCK=16)
        add[(2,)](x, out, out, 8, BLOCK=4)
    torch.testing.assert_close(out[:8], 3 * x[:8])
    assert [launch.loaded for launch in launches] == [{"x_ptr": 64, "y_ptr": 64}, {"x_ptr": 32, "y_ptr": 32}]


def test_descriptors_and_tuples_of_tensors_are_arguments_too():
    descriptor = pytest.importorskip("triton.tools.tensor_descriptor").TensorDescriptor
    x, out = torch.arange(12.0), torch.empty(3)
    with record_traffic() as launches:
        copy_described[(1,)](descriptor.from_tensor(x, [16]), (torch.empty(3), out), BLOCK=16)
    assert torch.equal(out, x[:3])
    assert (launches[0].loaded, launches[0].stored) == ({"descriptor": 48}, {"out_ptrs[1]": 12})


@pytest.mark.parametrize(
    ("read", "write", "message"),
    [
        (1, 0, r"copy, program \(1, 0, 0\): load from x_ptr at byte 40, 0 bytes past its last: x_ptr has 40 bytes"),
        (0, 1, r"copy, program \(1, 0, 0\): store to out_ptr at byte 40, 0 bytes past its last"),
        (-1, 0, r"copy, program \(0, 0, 0\): load from x_ptr at byte -4, 4 bytes before its first"),
        # Where the other tensors lie, if they lie side by side in one storage.
        (0, -10, r"store to out_ptr at byte -40, 40 bytes before its first.* and 8 such addresses"),
        (10, 0, r"load from x_ptr at byte 40"),
        (2**40, 0, r"load from x_ptr at byte"),
    ],
)
def test_an_access_outside_its_argument_is_refused_before_it_is_made(read, write, message):
    storage = torch.arange(30.0)
    x, out = storage[:10], storage[10:20]
    with pytest.raises(AssertionError, match=message), record_traffic():
        copy[(2,)](x, out, 10, read, write, BLOCK=8)
    # The first program may have stored its own part.
    assert torch.equal(storage[20:], torch.arange(20.0, 30.0))
    assert torch.equal(x, torch.arange(10.0))


def test_an_empty_tensor_may_be_given_but_not_touched():
    with record_traffic() as launches:
        copy[(1,)](torch.empty(0), torch.empty(4), 0, 0, 0, BLOCK=4)
    assert not launches[0].accesses
    with pytest.raises(AssertionError, match="x_ptr has 0 bytes"), record_traffic():
        copy[(1,)](torch.empty(0), torch.empty(4), 4, 0, 0, BLOCK=4)


def test_an_address_made_of_no_argument_is_refused():
    target = torch.ones(1)
    with pytest.raises(AssertionError, match="made of no tensor argument"), record_traffic():
        follow[(1,)](torch.tensor([target.data_ptr()]), torch.empty(1))


def test_atomics_are_refused():
    with pytest.raises(AssertionError, match="count uses an atomic operation"), record_traffic():
        count[(1,)](torch.zeros(1, dtype=torch.int32))


def test_programs_that_read_the_same_and_write_their_own_do_not_race():
    with record_traffic() as launches:
        # A row stride of 0: every program reads the same row.
        row_sum[(4,)](torch.zeros(10), torch.empty(4), 0, 10, BLOCK=8)
        x = torch.zeros(12)
        add[(2,)](x, x, x, 12, BLOCK=8)
    for launch in launches:
        launch.assert_no_race()


def test_two_programs_that_write_the_same_byte_race():
    with record_traffic() as launches:
        store_by_twos[(3,)](torch.zeros(2))
    with pytest.raises(
        AssertionError, match=r"program \(0, 0, 0\) writes byte 0 of out_ptr.* \(1, 0, 0\) writes in the"
    ):
        launches[0].assert_no_race()


@pytest.mark.parametrize("reach", [0, 1])
def test_a_program_that_reads_what_another_writes_races(reach):
    shared = torch.zeros(4)
    with record_traffic() as launches:
        read_neighbour[(3,)](shared, shared, reach)
    if reach == 0:
        launches[0].assert_no_race()
    else:
        message = r"program \(1, 0, 0\) writes byte 4 of x_ptr, which program \(0, 0, 0\) reads"
        with pytest.raises(AssertionError, match=message):
            launches[0].assert_no_race()


def test_afterwards_the_interpreter_is_as_before():
    x, out = torch.randn(8), torch.empty(8)
    with pytest.raises(AssertionError), record_traffic() as launches:
        copy[(1,)](x, out, 8, 1, 0, BLOCK=8)
    copy[(1,)](x, out, 8, 0, 0, BLOCK=8)
    torch.testing.assert_close(out, x)
    assert len(launches) == 1


def test_other_errors_of_a_kernel_come_as_the_interpreter_raises_them():
    @triton.jit
    def fail(x_ptr):
        x_ptr.no_such_attribute()

    with pytest.raises(Exception, match="no_such_attribute") as raised, record_traffic():
        fail[(1,)](torch.zeros(1))
    assert type(raised.value).__name__ == "InterpreterError"


def test_a_process_whose_kernels_are_compiled_is_told():
    code = "from mmgn.testing.interpreter import record_traffic\nwith record_traffic(): pass"
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "set TRITON_INTERPRET=1 in the environment before triton is first imported" in result.stderr
