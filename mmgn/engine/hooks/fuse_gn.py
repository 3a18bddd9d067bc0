"""FuseGNHook: fuses each FusedGN of the runner's model with the activation after it."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmgn.engine.model import unwrapped
from mmgn.models import FusionReport, fuse_gn


@HOOKS.register_module()
class FuseGNHook(Hook):
    """Calls :func:`mmgn.fuse_gn` on the model before training, validation and test, and logs what it did.

    Example:
        >>> custom_hooks = [dict(type="FuseGNHook")]
    """

    # Before EMAHook and whatever else copies the model in before_run; torch.compile comes after all of before_run.
    priority = "HIGH"

    def __init__(self) -> None:
        self._report: FusionReport | None = None

    def before_run(self, runner: Any) -> None:
        """Fuse the model, inside its wrapper if it has one."""
        model = unwrapped(runner.model)
        report = fuse_gn(model)
        # A runner that trains and then tests comes here twice.
        if report != self._report:
            runner.logger.info(f"FuseGNHook: {report}")
        self._report = report
