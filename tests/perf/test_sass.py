import pytest

from mmgn.perf.sass import parse

LISTING = """
Resource usage:
 Function f:
  REG:40 STACK:8 SHARED:1024 LOCAL:0 CONSTANT[0]:568
        /*0000*/                   MOV R2, c[0x0][0x160] ;
        /*0010*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0020*/              @!P0 LDG.E.128 R8, desc[UR4][R2.64+0x200] ;
        /*0030*/                   FADD R16, R0, R2 ;
        /*0040*/                   FADD R16, R16, R9 ;
        /*0050*/                   LDG.E.U16 R20, desc[UR4][R2.64] ;
        /*0060*/                   LDG.E.128 R12, desc[UR4][R2.64+0x400] ;
        /*0070*/                   STG.E.64 desc[UR4][R2.64], R12 ;
        /*0080*/              @P1  BRA 0x10 ;
        /*0090*/                   STL [R1], R5 ;
        /*00a0*/                   EXIT ;
        /*00b0*/                   BRA 0xb0;
        /*00c0*/                   NOP;
"""


def test_a_listing_is_read_line_by_line():
    code = parse(LISTING, shared=64)
    assert (code.registers, code.stack, code.shared, code.spills) == (40, 8, 64, 1)
    (loop,) = code.loops
    assert loop.instructions == 8
    assert loop.loads == ((16, 1), (128, 3))
    assert loop.stores == ((64, 1),)
    # R4 and R8 are under way until R9 is read, which waits for both; R12 is stored at once.
    assert loop.in_flight == 2 * 512
    # R20, 64 bytes of a warp, is under way together with R12 alone: less.
    assert loop.any_in_flight == 2 * 512
    assert code.body.instructions == 11


COPIES = """
  REG:40 STACK:0 SHARED:0 LOCAL:0
        /*0000*/                   LDGSTS.E.BYPASS.128 [R5], desc[UR4][R2.64] ;
        /*0010*/                   LDGSTS.E.BYPASS.128 [R5+0x200], desc[UR4][R2.64] ;
        /*0020*/                   LDGDEPBAR ;
        /*0030*/                   LDGSTS.E.BYPASS.128 [R5+0x400], desc[UR4][R2.64] ;
        /*0040*/                   LDGDEPBAR ;
        /*0050*/                   DEPBAR.LE SB0, 0x1 ;
        /*0060*/                   LDGSTS.E.BYPASS.128 [R5], desc[UR4][R2.64] ;
        /*0070*/                   LDGDEPBAR ;
"""


def test_copies_to_shared_memory_are_under_way_until_their_group_is_waited_for():
    """Groups of two and of one, then a wait that leaves the second, then one more: three at the peak."""
    code = parse(COPIES, shared=0)
    assert code.body.loads == ((128, 4),)
    assert code.in_flight == 3 * 512


def test_what_is_no_listing_is_refused():
    with pytest.raises(ValueError, match="not what cuobjdump"):
        parse("cuobjdump fatal: no input", shared=0)
