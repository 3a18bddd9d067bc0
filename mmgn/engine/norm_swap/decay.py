"""No weight decay on the new norms: by norm_decay_mult, and by custom keys where others would put it out of force."""

from collections.abc import Iterable
from typing import Any

#: mmengine's constructor of optimizers, which heeds both.
DEFAULT_CONSTRUCTOR = "DefaultOptimWrapperConstructor"


def no_decay(cfg: dict[str, Any], norms: Iterable[str], parameters: Iterable[str]) -> list[str]:
    """End the decay of norms, in the config; return what there is to say.

    Args:
        cfg: the config.
        norms: names of the model's new norms.
        parameters: names of all its parameters.
    """
    wrapper = cfg.get("optim_wrapper")
    if not isinstance(wrapper, dict):
        return ["optim_wrapper: the config has none, so weight decay is left to the one that trains it"]
    optimizer = wrapper.get("optimizer") or {}
    if optimizer.get("weight_decay") is None:
        # Beside none, mmengine takes norm_decay_mult for an error.
        return [f"optim_wrapper: {optimizer.get('type')} has no weight_decay, so norm_decay_mult=0 is left out"]
    paramwise = wrapper["paramwise_cfg"] = {**(wrapper.get("paramwise_cfg") or {}), "norm_decay_mult": 0.0}
    if wrapper.get("constructor", DEFAULT_CONSTRUCTOR) != DEFAULT_CONSTRUCTOR:
        return []
    keys = paramwise.get("custom_keys") or {}
    added = _longer_keys(keys, {f"{norm}.{name}" for norm in norms for name in ("weight", "bias")}, set(parameters))
    if not added:
        return []
    paramwise["custom_keys"] = {**keys, **added}
    return [
        f"optim_wrapper: custom_keys for the new norms, as norm_decay_mult is out of force there: {', '.join(added)}"
    ]


def ruling_key(keys: Iterable[str], parameter: str) -> str | None:
    """Return the custom key that alone settles a parameter's options: the longest in its name, the first of equals."""
    return min((key for key in keys if key in parameter), key=_rank, default=None)


def _longer_keys(keys: dict[str, Any], norms: set[str], parameters: set[str]) -> dict[str, Any]:
    """Return few keys that rule, without decay, the norms' parameters that a custom key decays, and no others."""
    decayed: dict[str, set[str]] = {}
    for name in norms:
        ruling = ruling_key(keys, name)
        if ruling is not None and keys[ruling].get("decay_mult", 1.0) != 0:
            decayed.setdefault(ruling, set()).add(name)
    added = {}
    for ruling, names in sorted(decayed.items()):
        others = (parameters | norms) - names
        candidates = {key for name in names for key in _word_runs(name) if _rank(key) < _rank(ruling)}
        fits = {key: {name for name in names if key in name} for key in candidates}
        fits = {key: found for key, found in fits.items() if not any(key in name for name in others)}
        while fits and names:
            best = min(fits, key=lambda key: (-len(fits[key] & names), len(key), key))
            if not fits[best] & names:
                break
            added[best] = {**keys[ruling], "decay_mult": 0.0}
            names = names - fits[best]
    return dict(sorted(added.items()))


def _word_runs(name: str) -> set[str]:
    """Return the runs of words of a parameter's name, with the dots around them."""
    words = name.split(".")
    ends = range(len(words) + 1)
    return {
        ("." if start else "") + ".".join(words[start:stop]) + ("." if stop < len(words) else "")
        for start in ends
        for stop in ends[start + 1 :]
    }


def _rank(key: str) -> tuple[int, str]:
    # As mmengine sorts them.
    return -len(key), key
