"""tools/inspect_norm.py, as a person calls it."""

DIGITS = "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py"


def test_table_and_warnings(tmp_path, run_tool):
    options = ["optim_wrapper.paramwise_cfg=None", "model.backbone.frozen_stages=1"]
    status, output = run_tool(tmp_path, "inspect_norm.py", DIGITS, "--full", "--cfg-options", *options)
    assert status == 0, output
    assert "\nbackbone.layer1.0.gn1  " in output
    assert output.count("\nwarning: ") == 2
    assert "are decayed (weight_decay=" in output
    assert "36.2 against 39.5" in output


def test_a_config_without_any_norm(tmp_path, run_tool):
    (tmp_path / "bad.py").write_text("model = dict(type='FPN', in_channels=[8], out_channels=8, num_outs=1)")
    status, output = run_tool(tmp_path, "inspect_norm.py", "bad.py")
    assert (status, output.splitlines()[-1]) == (1, "inspect_norm.py: the model of bad.py has no norm.")
