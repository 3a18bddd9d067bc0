import pytest

pytest.importorskip("mmengine")
from mmgn.engine.config import load_config

DIGITS = "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py"


@pytest.mark.parametrize("options", [{"model.backbone.depth.x": 1}, {"train_pipeline.9.type": "Resize"}])
def test_options_that_do_not_fit_are_told(options):
    with pytest.raises(ValueError, match=r"--cfg-options do not fit config '.*digits\.py'"):
        load_config(DIGITS, options=options)
