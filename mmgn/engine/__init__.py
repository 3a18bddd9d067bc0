"""Hooks, loops and the start of a run; importing it registers them."""

from mmgn.engine.amp import DeviceAmpOptimWrapper
from mmgn.engine.epoch_loop import ResumableEpochLoop
from mmgn.engine.hooks.checkpoint_match import CheckpointMatchHook
from mmgn.engine.hooks.checkpoints import SafeCheckpointHook
from mmgn.engine.hooks.finite_loss import FiniteLossHook
from mmgn.engine.hooks.fuse_gn import FuseGNHook
from mmgn.engine.hooks.model import ChannelsLastHook, CompileHook
from mmgn.engine.hooks.profile import ProfileHook
from mmgn.engine.hooks.progress import ProgressHook
from mmgn.engine.hooks.random_states import RandomStatesHook
from mmgn.engine.hooks.results import ResultsHook
from mmgn.engine.hooks.run_record import RunRecordHook
from mmgn.engine.hooks.speed import SpeedHook
from mmgn.engine.hooks.val_loss import ValLossHook
from mmgn.engine.hooks.workers import WorkersHook
from mmgn.engine.iter_loop import ResumableIterLoop

__all__ = [
    "ChannelsLastHook",
    "CheckpointMatchHook",
    "CompileHook",
    "DeviceAmpOptimWrapper",
    "FiniteLossHook",
    "FuseGNHook",
    "ProfileHook",
    "ProgressHook",
    "RandomStatesHook",
    "ResultsHook",
    "ResumableEpochLoop",
    "ResumableIterLoop",
    "RunRecordHook",
    "SafeCheckpointHook",
    "SpeedHook",
    "ValLossHook",
    "WorkersHook",
]
