"""Hooks, loops and the start of a run; importing it registers them."""

from mmgn.engine.amp import DeviceAmpOptimWrapper
from mmgn.engine.checkpoint_match import CheckpointMatchHook
from mmgn.engine.checkpoints import SafeCheckpointHook
from mmgn.engine.epoch_loop import ResumableEpochLoop
from mmgn.engine.fuse_gn_hook import FuseGNHook
from mmgn.engine.model_hooks import ChannelsLastHook, CompileHook
from mmgn.engine.profile_hook import ProfileHook
from mmgn.engine.progress import ProgressHook
from mmgn.engine.results import ResultsHook
from mmgn.engine.run_record import RunRecordHook
from mmgn.engine.speed_hook import SpeedHook
from mmgn.engine.val_loss import ValLossHook

__all__ = [
    "ChannelsLastHook",
    "CheckpointMatchHook",
    "CompileHook",
    "DeviceAmpOptimWrapper",
    "FuseGNHook",
    "ProfileHook",
    "ProgressHook",
    "ResultsHook",
    "ResumableEpochLoop",
    "RunRecordHook",
    "SafeCheckpointHook",
    "SpeedHook",
    "ValLossHook",
]
