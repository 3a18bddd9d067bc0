"""Figures, tables and pictures of a run, for people and for programs."""

try:
    from mmgn.report.coco_figures import CocoFigures, evaluate
    from mmgn.report.write import read_headline, write_report
except ModuleNotFoundError as error:
    raise ImportError(
        f"mmgn.report needs matplotlib, pillow and pycocotools: {error}; pip install 'mmgn[report]'"
    ) from error

__all__ = ["CocoFigures", "evaluate", "read_headline", "write_report"]
