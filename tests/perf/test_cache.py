import pytest

from mmgn.perf.cache import LINE, TILE, Walk, simulate

ROWS = TILE // LINE
MB = 2**20


def run_of(buffer, tiles, write=False):
    """Accesses of a program that touches one tile: the program's number, or what ``tiles`` makes of it."""
    return lambda program: [(buffer, tiles(program) * TILE, TILE, 1, TILE, write)]


def forwards(program):
    return program


def traffic(walks, sizes, l2_bytes):
    return [(t.read // TILE, t.written // TILE) for t in simulate(walks, sizes, l2_bytes)]


def test_a_tensor_smaller_than_the_cache_is_read_once():
    walks = [Walk(8, 4, run_of("x", forwards))] * 3
    assert traffic(walks, {"x": 8 * TILE}, 8 * TILE) == [(8, 0), (0, 0), (0, 0)]


def test_least_recently_used_loses_everything_in_a_forward_walk():
    walks = [Walk(8, 1, run_of("x", forwards))] * 2
    assert traffic(walks, {"x": 8 * TILE}, 6 * TILE) == [(8, 0), (8, 0)]


def test_a_reverse_walk_finds_what_the_cache_holds():
    walks = [Walk(8, 1, run_of("x", forwards)), Walk(8, 1, run_of("x", lambda p: 7 - p))]
    assert traffic(walks, {"x": 8 * TILE}, 6 * TILE) == [(8, 0), (2, 0)]


def test_slabs_find_what_their_own_pass_left():
    first, second = (Walk(4, 1, run_of("x", lambda p, k=k: 4 * k + p)) for k in range(2))
    assert traffic([first, first, second, second], {"x": 8 * TILE}, 6 * TILE) == [(4, 0), (0, 0), (4, 0), (0, 0)]


def test_writes_are_written_once_and_count_for_who_wrote_last():
    writes = Walk(8, 1, run_of("y", forwards, write=True))
    assert traffic([writes], {"y": 8 * TILE}, 6 * TILE) == [(0, 8)]
    assert traffic([writes, writes], {"y": 8 * TILE}, 8 * TILE) == [(0, 0), (0, 8)]


@pytest.mark.parametrize(
    ("hints", "read"), [({}, 5), ({"stores_give_way": True}, 3), ({"loads_give_way": True}, 2)], ids=str
)
def test_what_gives_way_leaves_room_for_what_is_still_to_be_read(hints, read):
    """By hand, 8 tiles, room for 6, copied backwards: one tile a program.

    Without a hint each store takes the place of a tile still to be read: 7, 6, 5 are found, 5 are not. If stores give
    way, only the first does: 7 to 3 are found. If loads do, each store takes the place of the tile just read.
    """

    def copy_backwards(program):
        return [*run_of("x", lambda p: 7 - p)(program), *run_of("y", lambda p: 7 - p, write=True)(program)]

    walks = [Walk(8, 1, run_of("x", forwards)), Walk(8, 1, copy_backwards, **hints)]
    assert traffic(walks, {"x": 8 * TILE, "y": 8 * TILE}, 6 * TILE) == [(8, 0), (read, 8)]


def test_neighbours_in_a_tile_pay_for_their_own_bytes():
    """Whether or not the tile stays: three programs of a third of a tile each."""
    third = TILE // 4
    thirds = Walk(3, 3, lambda p: [("x", p * third, third, 1, third, False)])
    elsewhere = Walk(1, 1, run_of("z", forwards))
    sizes = {"x": 3 * third, "z": TILE}
    assert [t.read for t in simulate([thirds, thirds], sizes, TILE)] == [3 * third, 0]
    alternate = Walk(3, 1, lambda p: [*thirds.accesses(p), *elsewhere.accesses(0)])
    assert [t.read for t in simulate([alternate], sizes, TILE)] == [3 * third + 3 * TILE]


def test_programs_of_a_wave_walk_in_step():
    """Two programs of two tiles each read the same pair: together one of them misses, one after the other both."""

    def pair(program):
        return [("x", 0, 2 * TILE, 1, 2 * TILE, False)]

    assert traffic([Walk(2, 2, pair)], {"x": 2 * TILE}, TILE) == [(2, 0)]
    assert traffic([Walk(2, 1, pair)], {"x": 2 * TILE}, TILE) == [(4, 0)]


def test_columns_share_no_bytes_and_rows_read_them_all():
    rows, stride = 2 * ROWS, 4 * LINE
    columns = Walk(4, 4, lambda p: [("x", p * LINE, LINE, rows, stride, False)])
    whole = Walk(1, 1, lambda p: [("x", 0, stride, rows, stride, False)])
    sizes = {"x": rows * stride}
    assert [t.read for t in simulate([columns, whole], sizes, MB)] == [rows * stride, 0]
    assert [t.read for t in simulate([whole, columns], sizes, MB)] == [rows * stride, 0]


def test_the_last_tile_counts_its_own_bytes():
    walk = Walk(1, 1, lambda p: [("x", 0, TILE + 100, 1, 0, False)])
    assert simulate([walk], {"x": TILE + 100}, MB)[0].read == TILE + 100


def test_two_row_widths_of_one_buffer_are_refused():
    walks = [Walk(1, 1, lambda p, s=s: [("x", 0, LINE, 4, s, False)]) for s in (256, 512)]
    with pytest.raises(ValueError, match=r"x is walked in columns with rows of \[256, 512\] bytes"):
        simulate(walks, {"x": 4096}, MB)
