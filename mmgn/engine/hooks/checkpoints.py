"""SafeCheckpointHook: mmengine's CheckpointHook that cannot lose the last good checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS

from mmgn.engine import random_states
from mmgn.engine.files import WHOLE_FILES, WholeFilesBackend, remove_leftovers

#: Of a checkpoint's message hub: after which iteration the last validation was that it knows of.
VALIDATED = "validated_iter"
#: And the best checkpoints that the best one took the place of.
_REPLACED = "replaced_best_ckpts"


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """Writes each checkpoint beside its place and renames it, and removes an old one only after that.

    mmengine writes in place, and removes the oldest of ``max_keep_ckpts`` and the best so far before it writes
    what takes their place; a full disk then leaves a truncated file, and with ``max_keep_ckpts=1`` no other. Here
    ``last_checkpoint`` names a whole file at any time. So there is one checkpoint more than ``max_keep_ckpts`` for
    the time of writing. What a process that was killed has begun to write is removed. Arguments are the parent's; a
    storage backend that is not the local one is left as it is.

    A checkpoint has the states of all ranks' random generators, which ``RandomStatesHook`` puts back.

    A validation without the ``save_best`` metric, as one without a detection is, changes no best checkpoint.

    Example:
        >>> default_hooks = dict(checkpoint=dict(type="SafeCheckpointHook", interval=1, max_keep_ckpts=3))
    """

    file_backend: Any

    def before_train(self, runner: Any) -> None:
        """Choose the storage."""
        super().before_train(runner)
        if is_main_process():
            for folder in {runner.work_dir, self.out_dir}:
                for path in remove_leftovers(folder):
                    runner.logger.info(f"removed {path}, which a process had begun to write when it was killed")
        if type(self.file_backend) is LocalBackend:
            self.backend_args, self.file_backend = dict(WHOLE_FILES), WholeFilesBackend()
        if self.save_best:
            # By a process that was killed between the two.
            for path in set(runner.message_hub.runtime_info.get(_REPLACED, ())).difference(self._best.values()):
                self._remove(path)

    def after_val_epoch(self, runner: Any, metrics: Any = None) -> None:
        """Have the checkpoints from now on tell that their weights are validated, and keep the best."""
        runner.message_hub.update_info(VALIDATED, runner.iter)
        super().after_val_epoch(runner, metrics)

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict[str, Any]) -> None:
        outdated = self._keep(runner, step)
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info("last_ckpt", self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta | {random_states.KEY: random_states.of_all_ranks()},
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        point_to(runner, self.last_ckpt)
        self._remove(outdated)

    def _keep(self, runner: Any, step: int) -> str | None:
        """Note that there is a checkpoint of ``step``; returns the one that is then too many."""
        if self.max_keep_ckpts <= 0 or (self.keep_ckpt_ids and self.keep_ckpt_ids[-1] == step):
            return None
        kept = [*self.keep_ckpt_ids, step]
        # The parent removes those that are too many when it is resumed; this process may be killed before it does.
        runner.message_hub.update_info("keep_ckpt_ids", kept)
        self.keep_ckpt_ids.append(step)
        if len(kept) <= self.max_keep_ckpts:
            return None
        outdated: str = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(kept[0]))
        return outdated

    def _save_best_checkpoint(self, runner: Any, metrics: Mapping[str, Any]) -> None:
        if not self.save_best:
            return
        missing = [key for key in self.key_indicators if key != "auto" and key not in metrics]
        if missing:
            runner.logger.warning(f"no best checkpoint is chosen: the validation has no {', '.join(missing)}")
            return
        # The parent removes the best so far before it writes, if it knows where that is.
        before, self._best = self._best, dict.fromkeys(self._best)
        runner.message_hub.update_info(_REPLACED, [path for path in before.values() if path])
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            after = self._best
            self._best = {key: after[key] or before[key] for key in before}
        for key, path in before.items():
            if after[key] and path != after[key]:
                self._remove(path)

    @property
    def _best(self) -> dict[str, str | None]:
        return {"": self.best_ckpt_path} if len(self.key_indicators) == 1 else dict(self.best_ckpt_path_dict)

    @_best.setter
    def _best(self, paths: dict[str, str | None]) -> None:
        if len(self.key_indicators) == 1:
            self.best_ckpt_path = paths[""]
        else:
            self.best_ckpt_path_dict = paths

    def _remove(self, path: str | None) -> None:
        if path is None or not is_main_process():
            return
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        # DeepSpeed's are folders.
        elif self.file_backend.isdir(path):
            self.file_backend.rmtree(path)


def point_to(runner: Any, checkpoint: str) -> None:
    """Have ``--resume`` begin at a checkpoint."""
    if is_main_process():
        WholeFilesBackend().put_text(checkpoint, Path(runner.work_dir) / "last_checkpoint")
