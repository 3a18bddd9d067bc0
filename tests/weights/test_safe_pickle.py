"""Pickles of weights: what is read, and what is refused before it can run."""

import builtins
import io
import pickle
import struct
import time
from collections import OrderedDict

import numpy as np
import pytest
from gadgets import Call, Raw, dumps

from mmgn.compat import arrays
from mmgn.weights import safe_pickle

ARRAYS = [
    np.random.default_rng(0).standard_normal((4, 3, 7, 7)).astype("f4"),
    np.asfortranarray(np.arange(6, dtype="f2").reshape(2, 3)),
    np.arange(3, dtype=">f8"),
    np.arange(4, dtype="<i8")[::2],
    np.array([True, False]),
    np.full((), 1.5, "f4"),
    np.zeros((0, 3), "f4"),
]


def load(raw):
    return safe_pickle.load(io.BytesIO(raw))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype.str}{list(array.shape)}")
def test_an_array_is_read_as_it_was(array, protocol):
    got = load(pickle.dumps({"a": array}, protocol))["a"]
    assert got.dtype == array.dtype.newbyteorder("=")
    assert got.flags.writeable
    assert (got.shape, got.tolist()) == (array.shape, array.tolist())


def test_containers_numbers_and_strings_are_read():
    content = {"a": [1, 2.5, None, True, "text"], "b": (1, {"c": OrderedDict(d=np.float64(0.1))}), "e": b"bytes"}
    for protocol in (2, 4, 5):
        got = load(pickle.dumps(content, protocol))
        assert got == content
        assert isinstance(got["b"][1]["c"]["d"], np.float64)


def test_a_python_2_pickle_is_read(zoo, tmp_path):
    arrays = zoo.detectron()
    path = tmp_path / "R-50-GN.pkl"
    zoo.python2_dump({"blobs": arrays, "cfg": "MODEL:\n  TYPE: caf\xe9"}, path)
    assert b"numpy.core.multiarray" in path.read_bytes()
    with path.open("rb") as file:
        got = safe_pickle.load(file)
    assert got["cfg"].endswith("caf\xe9")
    assert list(got["blobs"]) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(got["blobs"][name], array, strict=True)


def test_what_is_written_is_read_by_python_and_is_older_numpys_format():
    arrays = {str(i): array for i, array in enumerate(ARRAYS[:4])}
    file = io.BytesIO()
    safe_pickle.dump({"blobs": arrays}, file)
    raw = file.getvalue()
    assert raw.startswith(b"\x80\x02")
    assert b"numpy.core.multiarray\n_reconstruct" in raw
    assert b"numpy._core" not in raw
    for read in (pickle.loads, load):
        for name, array in read(raw)["blobs"].items():
            assert array.tolist() == arrays[name].tolist()


def attack(name):
    return {
        "getattr of ours": lambda: Call(getattr, OrderedDict, "fromkeys"),
        "an object array": lambda: np.array([None]),
        "an object scalar": lambda: Call(np.float64(0).__reduce__()[0], np.dtype("O"), 1),
        "a record array": lambda: np.zeros(1, [("a", "f4"), ("b", "f4")]),
        "strings": lambda: np.array(["text"]),
        "a class's attributes": lambda: Raw(b"ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsK\x01sb"),
        "bytearray": lambda: Call(bytearray, 1 << 40),
        "subclass": lambda: np.float32([1]).view(np.matrix),
        "encode": lambda: Call(__import__("_codecs").encode, "text", "rot13"),
    }[name]()


ATTACKS = [
    *("getattr of ours", "an object array", "an object scalar", "a record array", "strings", "a class's attributes"),
    *("bytearray", "subclass", "encode"),
]


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("name", ATTACKS)
def test_what_is_no_number_or_container_is_refused(name, protocol):
    """What would run code is tried in tests/test_gadgets.py."""
    with pytest.raises(pickle.UnpicklingError):
        load(dumps({"conv1_w": ARRAYS[0], "bad": attack(name)}, protocol))


def test_names_are_matched_whole():
    """Protocol 4 lets a name reach through attributes."""
    for module, name in [
        ("collections", "OrderedDict.fromkeys"),
        ("numpy", "dtype.type"),
        ("numpy.ndarray", "tofile"),
        ("builtins", "dict"),
        ("_codecs", "encode.__self__"),
    ]:
        raw = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(s)]) + s.encode() for s in (module, name)) + b"\x93."
        with pytest.raises(pickle.UnpicklingError, match="it asks for"):
            load(raw)


# Opcodes by hand. GLOBAL, then REDUCE (R) or BUILD (b), or what else makes or changes an object.
NDARRAY = b"cnumpy\nndarray\n"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(" + NDARRAY + b"K\x00\x85U\x01btR"
F4 = b"cnumpy\ndtype\n(X\x02\x00\x00\x00f4tR"


def array_state(shape, data, dtype=F4, fortran=b"\x89"):
    return ARRAY + b"(K\x01" + shape + dtype + fortran + b"B" + struct.pack("<I", len(data)) + data + b"tb."


@pytest.mark.parametrize(
    "body",
    [
        ARRAY + b"}b.",
        ARRAY + b"N}X\x05\x00\x00\x00array}s\x86b.",
        array_state(b"K\x02\x85", b"\0" * 4),
        # More sides than numpy has room for, and a size that is none of memory.
        array_state(b"(K\x00" + b"K\x01" * 64 + b"t", b""),
        array_state(b"K\x00\x8a\x08" + b"\0" * 7 + b"\x40K\x04\x87", b""),
        array_state(b"(\x8a\xff" + b"\x7f" * 255 + b"q\x00" + b"h\x00" * 20_000 + b"t", b""),
        # Calls of numpy's own that give an array of any size, and of references to whatever the bytes say.
        NDARRAY + b"K\x01\x85U\x01OU\x08AAAAAAAA\x87R.",
        NDARRAY + b"\x8a\x06\0\0\0\0\0\x10\x85\x85R.",
        b"cnumpy.core.multiarray\n_reconstruct\n(" + NDARRAY + b"K\x01\x85U\x01OtR.",
        array_state(b"J\xff\xff\xff\xff\x85", b""),
        array_state(b"\x8a\x09" + b"\xff" * 8 + b"\x00\x85", b""),
        array_state(b"]K\x01a", b"\0" * 4),
        array_state(b"\x88\x85", b"\0" * 4),
        array_state(b"K\x01\x85", b"\0" * 4, dtype=b"X\x02\x00\x00\x00f4"),
        F4 + b"(K\x03X\x01\x00\x00\x00|X\x01\x00\x00\x00ONNtb.",
        F4 + b"(K\x03X\x01\x00\x00\x00>tb.",
        # The flag of a dtype that holds objects.
        F4 + b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x01tb.",
        b"cnumpy\ndtype\nN}X\x03\x00\x00\x00setNs\x86b.",
        b"c_codecs\nencode\n}X\x0c\x00\x00\x00__defaults__Nsb.",
        b"ccollections\nOrderedDict\nN}X\x01\x00\x00\x00aNs\x86b.",
        b"Ppersistent\n.",
        b"\x82\x01.",
        b"cnumpy\nndarray\n)\x81.",
    ],
)
def test_bytes_made_by_hand_are_refused(body):
    before = vars(arrays.Dtype).copy(), safe_pickle._encode.__defaults__
    try:
        value = load(b"\x80\x02" + body)
    except Exception:
        value = None
    assert value is None
    assert (vars(arrays.Dtype).copy(), safe_pickle._encode.__defaults__) == before


@pytest.mark.parametrize(
    "raw",
    [
        b"\x80\x02]r\xff\xff\xff\xfe.",
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x",
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"]",
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 62),
        b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".",
    ],
    ids=["memo", "bytes", "frame", "bytearray", "nesting"],
)
def test_a_few_bytes_cannot_ask_for_much(raw):
    started = time.monotonic()
    try:
        load(raw)
    except Exception as error:
        assert isinstance(error, (pickle.UnpicklingError, EOFError, MemoryError, OverflowError))
    assert time.monotonic() - started < 5


def test_every_cut_of_a_pickle_is_an_error():
    raw = pickle.dumps({"conv1_w": ARRAYS[0][:1, :1, :2, :2], "b": np.float32(1)}, 2)
    for end in range(len(raw)):
        with pytest.raises(Exception) as caught:
            load(raw[:end])
        assert not isinstance(caught.value, (SystemExit, KeyboardInterrupt))


def test_builtins_are_not_within_reach():
    for name in dir(builtins):
        with pytest.raises(pickle.UnpicklingError, match="it asks for"):
            load(f"cbuiltins\n{name}\n.".encode())
