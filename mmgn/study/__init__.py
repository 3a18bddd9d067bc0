"""Norm against norm over batch sizes, groups and tasks: tools/study.py."""
