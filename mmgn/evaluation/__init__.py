"""COCO evaluation: the official figures, and what lies behind them. Plain data in and out; no model, no mmdet."""

from mmgn.evaluation.analysis import Analysis, analyse
from mmgn.evaluation.calibration import Calibration
from mmgn.evaluation.coco_eval import FIGURES
from mmgn.evaluation.confusion import Confusion
from mmgn.evaluation.curves import ClassCurve
from mmgn.evaluation.errors import KINDS, SCORE_THRESHOLD, ImageErrors
from mmgn.evaluation.matching import Matches
from mmgn.evaluation.resampling import Interval, bootstrap, bootstrap_classes

__all__ = [
    "FIGURES",
    "KINDS",
    "SCORE_THRESHOLD",
    "Analysis",
    "Calibration",
    "ClassCurve",
    "Confusion",
    "ImageErrors",
    "Interval",
    "Matches",
    "analyse",
    "bootstrap",
    "bootstrap_classes",
]
