"""Hooks and the start of a run; importing it registers the hooks."""

from mmgn.engine.fuse_gn_hook import FuseGNHook
from mmgn.engine.progress import ProgressHook
from mmgn.engine.run_record import RunRecordHook

__all__ = ["FuseGNHook", "ProgressHook", "RunRecordHook"]
