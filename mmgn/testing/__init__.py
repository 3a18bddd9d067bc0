"""Inputs and the comparison with the oracle, shared by the tests and by benchmarks that check before they time."""

from mmgn.testing.oracle import Case, assert_no_worse, make_case, oracle, run

__all__ = ["Case", "assert_no_worse", "make_case", "oracle", "run"]
