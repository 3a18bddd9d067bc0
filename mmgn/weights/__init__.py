"""Weights between mmdet and the code bases that published models with group norm."""

from mmgn.weights.conversion import convert
from mmgn.weights.files import check_destination, read_checkpoint, write_checkpoint
from mmgn.weights.layouts import LAYOUTS
from mmgn.weights.report import Report

__all__ = ["LAYOUTS", "Report", "check_destination", "convert", "read_checkpoint", "write_checkpoint"]
