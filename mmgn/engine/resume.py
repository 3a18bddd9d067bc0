"""Which checkpoint ``--resume`` without a path goes on from: the last one that is whole."""

from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process

from mmgn.compat.checkpoint import CheckpointError, damage
from mmgn.engine.files import write_whole

#: The files that a training leaves to be resumed from; ``best_*`` have no optimizer.
_NAMES = ("epoch_*.pth", "iter_*.pth", "interrupted.pth")


def choose(cfg: Config) -> str:
    """Have a config's training go on from its work dir's last whole checkpoint, or begin where there is none.

    Where ``last_checkpoint`` names a file that is damaged or gone, it names the newest whole one afterwards. The first
    rank looks, and all go on from the same.

    Args:
        cfg: ``resume`` and ``load_from`` are set.

    Returns:
        What to tell where it is another one than ``last_checkpoint`` has named; '' otherwise.

    Raises:
        CheckpointError: there are checkpoints, and none is whole; or the work dir cannot be read or written.
    """
    # Whether there is one, what to tell, what is wrong.
    found: list[Any] = [False, "", ""]
    if is_main_process():
        try:
            found[:2] = _find(Path(cfg.work_dir))
        except CheckpointError as error:
            found[2] = str(error)
        # The other ranks wait to be told.
        except OSError as error:
            found[2] = f"--resume cannot choose a checkpoint: {error}"
    broadcast_object_list(found)
    cfg.resume, said, wrong = found
    if wrong:
        raise CheckpointError(wrong)
    if cfg.resume:
        # mmengine goes on from load_from where it is told both.
        cfg.load_from = None
    return str(said)


def _find(work_dir: Path) -> tuple[bool, str]:
    record = work_dir / "last_checkpoint"
    named = record.read_text(encoding="utf-8", errors="replace").strip() if record.is_file() else ""
    # What a storage backend has is not looked into.
    if "://" in named:
        return True, ""
    paths = [Path(named)] if named else []
    folders = {work_dir, *(path.parent for path in paths)}
    others = {path for folder in folders for name in _NAMES for path in folder.glob(name)}.difference(paths)
    paths += sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)
    why = [] if named else [f"there is no {record}"]
    for path in paths:
        cause = damage(path)
        if cause:
            why.append(f"{path}: {cause}")
        elif str(path) == named:
            return True, ""
        else:
            write_whole(record, str(path).encode())
            return True, f"--resume goes on from {path}, the newest whole checkpoint ({'; '.join(why)})"
    if paths:
        raise CheckpointError(
            f"--resume finds no whole checkpoint in {work_dir} ({'; '.join(why)}). Training begins anew without "
            "--resume, and goes on from another one with --resume PATH"
        )
    return False, ""
