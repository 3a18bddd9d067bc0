"""COCO evaluation: the official figures, and what lies behind them. Plain data in and out; no model, no mmdet."""

from mmgn.evaluation.analysis import Analysis, analyse
from mmgn.evaluation.coco_eval import FIGURES
from mmgn.evaluation.curves import ClassCurve
from mmgn.evaluation.errors import KINDS, SCORE_THRESHOLD, ImageErrors

__all__ = ["FIGURES", "KINDS", "SCORE_THRESHOLD", "Analysis", "ClassCurve", "ImageErrors", "analyse"]
