from pathlib import Path

import pytest

pytest.importorskip("triton")

from mmgn.perf.offline import Compilation, compile_all

KERNELS = str(Path(__file__).with_name("kernels_for_code.py"))
ARCHITECTURES = (80, 90, 100)


def compilation(kernel, tensors, scalars, constants, arch=90, num_warps=4):
    return Compilation(kernel, tuple(tensors.items()), scalars, tuple(constants.items()), num_warps, arch, KERNELS)


def copy(arch=90, dtype="float16", lanes=8):
    return compilation("copy", dict(x_ptr=dtype, y_ptr=dtype), (("rows", "i32"),), dict(BLOCK=512, V=lanes), arch)


TOTAL = compilation(
    "total",
    dict(x_ptr="float16", w_ptr=None, y_ptr="float32"),
    (("trips", "i32"), ("scale", "fp32")),
    dict(BLOCK=512, V=8),
)
WEIGHTED = compilation(
    "total",
    dict(x_ptr="float16", w_ptr="float32", y_ptr="float32"),
    (("trips", "i32"), ("scale", "fp32")),
    dict(BLOCK=512, V=8),
)
NARROW = compilation("narrow", dict(x_ptr="float16", y_ptr="float16"), (("n", "i32"),), dict(BLOCK=4096))
CROWDED = [
    compilation("crowded", dict(x_ptr="float16", y_ptr="float16"), (), dict(BLOCK=65536), arch)
    for arch in ARCHITECTURES
]


@pytest.fixture(scope="module")
def codes():
    copies = [copy(arch) for arch in ARCHITECTURES]
    return compile_all([*copies, copy(dtype="float32", lanes=4), TOTAL, WEIGHTED, NARROW, *CROWDED])


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_copy_of_rows_is_made_of_128_bit_accesses(codes, arch):
    """512 rows of 16 bytes for 128 threads: four loads and four stores each, all loads before the first store."""
    code = codes[copy(arch)]
    assert code.body.loads == code.body.stores == ((128, 4),)
    assert code.in_flight == 4 * 32 * 16
    assert (code.stack, code.spills, code.shared, code.loops) == (0, 0, 0, ())
    assert 20 < code.body.instructions < 60
    assert 16 <= code.registers <= 40


def test_the_dtype_of_a_buffer_reaches_the_compiler(codes):
    assert codes[copy(dtype="float32", lanes=4)].body.loads == ((128, 4),)
    assert codes[copy()] is not codes[copy(dtype="float32", lanes=4)]


def test_an_element_wise_mask_shows_as_16_bit_accesses(codes):
    code = codes[NARROW]
    assert code.body.loads == code.body.stores == ((16, 32),)
    assert code.in_flight == 0


@pytest.mark.parametrize("compilation", CROWDED, ids=lambda c: f"sm_{c.arch}")
def test_a_kernel_with_more_values_than_registers_spills(codes, compilation):
    code = codes[compilation]
    assert code.registers == 255 or code.spills
    assert code.stack > 0
    assert code.spills > 100


def test_a_loop_is_found_with_its_loads_and_the_rest_is_not_hot(codes):
    code = codes[TOTAL]
    (loop,) = code.loops
    assert code.hot == code.loops
    assert loop.loads == ((128, 4),)
    assert loop.stores == ()
    assert 50 < loop.instructions < code.body.instructions
    assert code.shared >= 16
    # The sum at the end is stored outside the loop.
    assert code.body.stores == ((32, 1),)


def test_an_absent_tensor_is_a_constant_none(codes):
    assert codes[TOTAL].body.loads == ((128, 4),)
    assert codes[WEIGHTED].body.loads == ((32, 1), (128, 4))


def test_a_kernel_that_does_not_compile_is_reported_with_the_request():
    with pytest.raises(RuntimeError, match="BLOCK") as error:
        compile_all(
            [compilation("copy", dict(x_ptr="float16", y_ptr="float16"), (("rows", "i32"),), dict(BLOCK=3, V=8))]
        )
    assert "'copy'" in str(error.value)
