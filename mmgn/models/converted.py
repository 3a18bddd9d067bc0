"""NormConverted: a model that no ``norm_cfg`` makes free of batch norm, as a config."""

from collections.abc import Mapping
from typing import Any

from mmengine.registry import MODELS, DefaultScope

from mmgn.models.conversion import convert_norm

#: The ``type`` in a config.
NORM_CONVERTED = "NormConverted"


@MODELS.register_module(name=NORM_CONVERTED)
def norm_converted(detector: str, convert: Mapping[str, Any], **kwargs: Any) -> Any:
    """Build a registered model and convert the norms that its classes hard-code, or build without their ``norm_cfg``.

    It returns the model itself: its class, its names and its settings in the config are those of ``detector``, so that
    ``cfg.model.backbone``, ``--cfg-options model.backbone.depth=50`` and mmdet's ``init_detector`` work as before.

    Args:
        detector: the model's ``type``.
        convert: arguments of :func:`mmgn.convert_norm`; ``dict(to='FusedGN')`` is all of them.
        kwargs: the model's other settings.

    Raises:
        KeyError: no such model in the registry.
        ValueError: as :func:`mmgn.convert_norm`.

    Example:
        >>> model = dict(type="NormConverted", detector="CornerNet", convert=dict(to="FusedGN"), backbone=...)
    """
    # Without a default scope the root registry sees no package's models; detectors are mmdet's.
    scope = None if DefaultScope.get_current_instance() is not None or "." in detector else "mmdet"
    with MODELS.switch_scope_and_registry(scope) as registry:
        model = registry.build({**kwargs, "type": detector})
    convert_norm(model, **convert)
    return model
