"""Mutation of JSON: mostly of the parsed tree, so that what comes out still gets past the parser."""

import copy
import json
from collections.abc import Iterator
from random import Random
from typing import Any

_DEEP: Any = []
for _ in range(200):
    _DEEP = [_DEEP]

#: What is put in the place of any value.
VALUES = (
    *(None, True, False, [], {}, [[]], [{}], _DEEP),
    *(0, 1, 2, 3, -1, 7, 8, 32, 255, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63), 10**400),
    *(0.0, -0.0, 0.5, 1.5, -1.5, 1e-5, 1e16, 1e308, -1e308, 5e-324, float("nan"), float("inf"), float("-inf")),
    *("", " ", "0", "1", "nan", "\0", "\n", "../x", "/etc/passwd", "a" * 3000, "\ud800", "\u202e\u2028", "é😀"),
    *("<script>alert(1)</script>", "</script>", "{{7*7}}", "%s%n", "'\"`", "$x_1^2$", "__class__", "a.b"),
)


def parse(data: bytes) -> Any:
    """Return the tree of a corpus' file; None where the bytes are none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def write(tree: Any) -> bytes:
    """Return a tree as bytes; lone surrogates are escaped."""
    return json.dumps(tree, separators=(",", ":")).encode()


def mutate(data: bytes, rng: Random, values: tuple[Any, ...] = VALUES, raw: float = 0.1) -> bytes:
    """Change a JSON document at one to four places; a share ``raw`` of the time its bytes."""
    tree = parse(data)
    if tree is None or rng.random() < raw:
        return mutate_bytes(data, rng)
    holder = [tree]
    try:
        for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
            _change(holder, rng, values)
        return write(holder[0])
    # Deeper than Python copies and writes.
    except RecursionError:
        return data


def mutate_bytes(data: bytes, rng: Random) -> bytes:
    """Flip, cut out, double, or insert some bytes."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        start = rng.randrange(len(out) + 1)
        stop = min(len(out), start + rng.choice((1, 1, 2, 4, 16, 64)))
        kind = rng.randrange(5)
        if kind == 0 and start < len(out):
            out[start] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[start:stop] = rng.randbytes(stop - start)
        elif kind == 2:
            del out[start:stop]
        elif kind == 3:
            out[start:start] = out[start:stop]
        else:
            out[start:start] = rng.choice((b"[", b"]", b"{", b'"', b"\\", b",", b"\0", b"\xff", b"-", b"1e999", b"NaN"))
    return bytes(out)


def _change(holder: list[Any], rng: Random, values: tuple[Any, ...]) -> None:
    """Change one node of ``holder[0]``, which may be the whole."""
    places = list(nodes(holder))
    parent, key = rng.choice(places)
    value = parent[key]
    kind = rng.randrange(8)
    if kind == 0:
        parent[key] = copy.deepcopy(rng.choice(values))
    elif kind == 1 and parent is not holder:
        del parent[key]
    elif kind == 2 and isinstance(parent, list) and parent is not holder:
        parent.insert(key, copy.deepcopy(value))
    elif kind == 3 and isinstance(parent, dict):
        # The same under another's name, or under a new one.
        parent[rng.choice([*parent, str(rng.choice(values))[:40]])] = copy.deepcopy(value)
    elif kind == 4:
        other, place = rng.choice(places)
        parent[key] = copy.deepcopy(other[place])
    else:
        parent[key] = _near(value, rng, values)


def _near(value: Any, rng: Random, values: tuple[Any, ...]) -> Any:
    """Return a value of the same kind, or the same in another type."""
    if isinstance(value, bool) or value is None:
        return rng.choice((not value, value, int(bool(value)), str(value)))
    if isinstance(value, int):
        flipped = value ^ 1 << rng.randrange(40)
        near = (value + 1, value - 1, -value, 2 * value, value // 2, value + rng.randrange(-99, 99), flipped)
        return rng.choice((*near, float(value) if abs(value) < 2**1000 else value, str(value)[:40], bool(value)))
    if isinstance(value, float):
        return rng.choice((-value, value * 2, value / 3, value * 1e9, value + rng.gauss(0, 10), repr(value)))
    if isinstance(value, str):
        place = rng.randrange(len(value) + 1)
        with_another = value[:place] + chr(rng.randrange(300)) + value[place:]
        return rng.choice((value[:place], value[place:], value + value, with_another))
    if isinstance(value, list):
        twice = [*value, *copy.deepcopy(value)][:500]
        return rng.choice((value[::-1], value[: rng.randrange(len(value) + 1)], twice, [value], {"0": value}))
    return rng.choice(([value], {**value, str(rng.choice(values))[:40]: 0}, list(value), list(value.values())))


def nodes(root: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (parent, key) of every value, without recursion: trees may be deep."""
    stack = [root]
    while stack:
        node = stack.pop()
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            yield node, key
            if isinstance(node[key], dict | list):
                stack.append(node[key])
