"""Imports point only down; whatever is lower knows nothing of what is above it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "mmgn"
# From top to bottom. mmgn.testing sits on the op; registration ties the lower parts to mmengine.
LAYERS = [
    "study",
    "report",
    "engine",
    "evaluation",
    "perf",
    "datasets",
    "weights",
    "models",
    "registration",
    "layers",
    "testing",
    "ops",
    "compat",
    "version",
]
# The one arrow up: `import mmgn` must register hooks, metrics and models.
ALLOWED = {("registration", "engine"), ("registration", "evaluation"), ("registration", "models")}


def modules():
    return [p for p in sorted(ROOT.rglob("*.py")) if len(p.relative_to(ROOT).parts) > 1 or p.stem in LAYERS]


def imported(path):
    """Yield what a module imports from mmgn, as the first name below mmgn."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"{node.module}.{a.name}" for a in node.names] if node.module == "mmgn" else [node.module]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        else:
            continue
        yield from (n.split(".")[1] for n in names if n.startswith("mmgn."))


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    layer = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert layer in LAYERS, f"{layer} has no place in the order; give it one"
    below = LAYERS[LAYERS.index(layer) :]
    for target in imported(path):
        assert target in below or (layer, target) in ALLOWED, f"{path} imports mmgn.{target}, which is above it"


def test_ops_and_layers_import_no_openmmlab_package():
    for path in [*ROOT.glob("ops/**/*.py"), *ROOT.glob("layers/**/*.py")]:
        text = path.read_text()
        assert not any(f"import {name}" in text or f"from {name}" in text for name in ("mmengine", "mmcv", "mmdet"))
