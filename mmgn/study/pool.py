"""A study's cells trained on this machine, several beside each other, each in a process of its own."""

import multiprocessing
import os
from collections.abc import Callable
from itertools import cycle, islice
from multiprocessing.connection import wait

import torch

from mmgn.study.grid import Cell
from mmgn.study.record import Outcome, outcome_of
from mmgn.study.study import Study


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def threads_of(jobs: int) -> int:
    """Return the threads of each of ``jobs`` processes: its share of the cores."""
    return max(1, cores() // jobs)


def devices(jobs: int) -> list[str | None]:
    """Return what each of ``jobs`` processes has as CUDA_VISIBLE_DEVICES: a GPU, in turn; None where there is none."""
    count = torch.cuda.device_count()
    names = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    return list(islice(cycle(names.split(",")[:count] or [None]), jobs))


def train_here(study: Study, cells: list[Cell], jobs: int, ended: Callable[[Cell, Outcome], None]) -> None:
    """Train cells, ``jobs`` at a time; one that fails keeps only those from being trained that start from its weights.

    The processes are forked from a server that has imported everything once. They are ended where this one is
    interrupted.

    Args:
        study: the study.
        cells: to train, in this order, but for those that wait for another's weights.
        jobs: processes beside each other.
        ended: called with each cell's outcome.
    """
    threads = threads_of(jobs)
    # CUDA that is asked for its devices cannot be used by forked processes; NVML can be asked.
    os.environ.update(OMP_NUM_THREADS=str(threads), PYTORCH_NVML_BASED_CUDA_CHECK="1")
    context = multiprocessing.get_context("forkserver")
    parts = ("models", "datasets", "evaluation", "engine", "visualization")
    # mmgn first: it serves mmcv's ops. The training last: it tidies up what all have imported.
    modules = ["mmgn", *(f"{study.task.package}.{part}" for part in parts), "mmgn.study.training"]
    context.set_forkserver_preload(modules)
    waiting = list(cells)
    running: dict[Cell, multiprocessing.process.BaseProcess] = {}
    places = devices(jobs)
    place_of: dict[Cell, str | None] = {}
    try:
        while waiting or running:
            free = [cell for cell in waiting if study.waits_for(cell) not in {*waiting, *running}]
            for cell in free[: jobs - len(running)]:
                waiting.remove(cell)
                blocked = study.blocked(cell)
                if blocked:
                    ended(cell, blocked)
                    continue
                if study.from_the_beginning:
                    study.clear(cell)
                else:
                    study.record_settings(cell)
                place_of[cell] = places.pop(0)
                args = (place_of[cell], study.config(cell), study.folder(cell), threads)
                running[cell] = context.Process(target=_train, args=args, name=cell.id)
                running[cell].start()
            if running:
                wait([process.sentinel for process in running.values()])
            for cell, process in list(running.items()):
                if not process.is_alive():
                    del running[cell]
                    places.append(place_of[cell])
                    ended(cell, outcome_of(study.folder(cell), study.task, process.exitcode or 0))
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.join()


def _train(place: str | None, *args: object) -> None:
    if place is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = place
    # By the server, which has done what it does once for all cells.
    from mmgn.study.training import train_cell

    train_cell(*args)  # type: ignore[arg-type]
