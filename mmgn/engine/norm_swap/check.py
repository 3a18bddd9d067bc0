"""Tries all the configs that a package ships, each in a process of its own, so that none can harm the next."""

import json
import logging
import multiprocessing
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import torch

from mmgn.engine.config import package_configs
from mmgn.engine.norm_swap.placement import registered_class
from mmgn.engine.norm_swap.request import SwapRequest
from mmgn.engine.norm_swap.source import NoModelError, Source, read_source
from mmgn.engine.norm_swap.trial import NO_MODEL, SAME, UNBUILT, WORSE, Outcome, short, try_swap

_SECONDS = 900


class _CrashError(RuntimeError):
    """A process that ends without an answer."""


@dataclass
class Check:
    """All outcomes; as text a summary."""

    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def worse(self) -> list[Outcome]:
        """Those worse off than before the swap."""
        return [outcome for outcome in self.outcomes if outcome.category == WORSE]

    def __str__(self) -> str:
        """Return the number of configs in each category, then a line for each that has a reason."""
        counts = Counter(outcome.category for outcome in self.outcomes)
        reasons = [f"{o.category}: {o.config}: {o.reason}" for o in self.outcomes if o.reason]
        lines = [
            *(f"{count:5}  {category}" for category, count in counts.most_common()),
            f"{len(self.outcomes):5}  in all",
        ]
        return "\n".join([*reasons, "", *lines] if reasons else lines)


def check_package(
    package: str,
    match: str = "**/*.py",
    request: SwapRequest | None = None,
    tell: Callable[[Outcome, float], None] = lambda outcome, seconds: None,
) -> Check:
    """Swap all configs of a package and run their models; of those with one and the same model the first.

    Args:
        package: an installed package that ships configs.
        match: pattern of the configs, below the package's.
        request: what to swap to.
        tell: called after each config with its outcome and the seconds it took.

    Raises:
        FileNotFoundError: the package ships no such config.
    """
    folder = package_configs(package)
    configs = sorted(path for path in folder.glob(match) if path.suffix == ".py") if folder else []
    if folder is None or not configs:
        raise FileNotFoundError(f"no config {match!r} in {folder or f'the package {package}'}.")
    # Imports mmdet's models once, not in each process.
    registered_class("FPN")
    check = Check()
    models: set[str] = set()
    for config in configs:
        started = time.monotonic()
        outcome = _try(package, config.relative_to(folder).as_posix(), models, request or SwapRequest())
        check.outcomes.append(outcome)
        tell(outcome, time.monotonic() - started)
    return check


def _try(package: str, name: str, models: set[str], request: SwapRequest) -> Outcome:
    """Try a config whose model is not among those tried."""
    try:
        source = read_source(f"{package}::{name}")
    except NoModelError:
        return Outcome(name, NO_MODEL)
    except ValueError as error:
        return Outcome(name, UNBUILT, short(error.__cause__ or error))
    model = json.dumps(source.cfg["model"], sort_keys=True, default=str)
    if model in models:
        return Outcome(name, SAME)
    models.add(model)
    try:
        return _alone(name, source, request)
    except _CrashError:
        pass
    try:
        return _alone(name, source, request, run_before=False)
    except _CrashError as error:
        return Outcome(name, UNBUILT, str(error))


def _alone(name: str, source: Source, request: SwapRequest, run_before: bool = True) -> Outcome:
    """Try a config in a process of its own.

    Raises:
        _CrashError: the process ends before the model is swapped.
    """
    # Forked: mmdet's models, once imported, are there.
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, name, source, request, run_before), daemon=True)
    process.start()
    sender.close()
    swapped = False
    try:
        while True:
            if not receiver.poll(_SECONDS):
                return Outcome(name, WORSE if swapped else UNBUILT, f"takes more than {_SECONDS} s")
            message = receiver.recv()
            if isinstance(message, Outcome):
                return message
            # Done with the model before the swap.
            swapped = True
    except EOFError:
        process.join()
        crash = f"its process ends with exit code {process.exitcode}"
        if swapped:
            return Outcome(name, WORSE, crash)
        raise _CrashError(crash) from None
    finally:
        process.kill()
        process.join()


def _send(sender: Connection, name: str, source: Source, request: SwapRequest, run_before: bool) -> None:
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    sender.send(try_swap(name, source, request, run_before, passed=lambda: sender.send(None)))
