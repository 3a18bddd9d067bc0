"""Figures, tables and pictures of a run, for people and for programs."""

try:
    from mmgn.report.write import read_headline, write_comparison, write_report
except ModuleNotFoundError as error:
    raise ImportError(f"mmgn.report needs more than mmgn itself: {error}; pip install 'mmgn[report]'") from error

__all__ = ["read_headline", "write_comparison", "write_report"]
