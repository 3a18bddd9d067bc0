"""Evaluate a detector: mmdet's tools/test.py with the same flags, for any mmdet config."""

import argparse
from copy import deepcopy

import mmgn  # noqa: F401  # before mmdet: it serves mmcv's ops
from mmgn.compat.checkpoint import CheckpointError
from mmgn.engine import launch


def parse_args() -> argparse.Namespace:
    """Parse mmdet's command line."""
    parser = argparse.ArgumentParser(description="Test (and evaluate) a detector")
    parser.add_argument("config", help="config file: a path, a path below configs/, or mmdet::PATH")
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("--work-dir", help="folder for the evaluation's metrics")
    parser.add_argument("--out", help="write the predictions to this .pkl file, for offline evaluation")
    parser.add_argument("--show", action="store_true", help="show the predictions")
    parser.add_argument("--show-dir", help="write painted images below work_dir/timestamp/SHOW_DIR")
    parser.add_argument("--wait-time", type=float, default=2, help="seconds between shown images")
    parser.add_argument("--tta", action="store_true", help="test-time augmentation")
    args = launch.parse_args(parser)
    if args.out is not None and not args.out.endswith((".pkl", ".pickle")):
        parser.error(f"--out takes a .pkl or .pickle file, got {args.out!r}")
    return args


def use_test_time_augmentation(cfg) -> None:  # type: ignore[no-untyped-def]
    """Turn the config into its test-time-augmented form, with mmdet's defaults where it names none."""
    from mmengine import ConfigDict

    if "tta_model" not in cfg:
        nms = dict(type="nms", iou_threshold=0.5)
        cfg.tta_model = dict(type="DetTTAModel", tta_cfg=dict(nms=nms, max_per_img=100))
    if "tta_pipeline" not in cfg:
        dataset = cfg.test_dataloader.dataset
        while "dataset" in dataset:
            dataset = dataset["dataset"]
        keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction")
        flips = [dict(type="RandomFlip", prob=1.0), dict(type="RandomFlip", prob=0.0)]
        pack = dict(type="PackDetInputs", meta_keys=keys)
        cfg.tta_pipeline = deepcopy(dataset.pipeline)
        cfg.tta_pipeline[-1] = dict(type="TestTimeAug", transforms=[flips, [pack]])
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def main() -> None:
    """Test."""
    args = parse_args()
    try:
        cfg = launch.prepare(args, "test")
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"test.py: {error}") from None
    cfg.load_from = args.checkpoint

    from mmdet.engine.hooks.utils import trigger_visualization_hook
    from mmdet.evaluation import DumpDetResults

    if args.show or args.show_dir:
        cfg = trigger_visualization_hook(cfg, args)
    if args.tta:
        use_test_time_augmentation(cfg)
    runner = launch.build_runner(cfg)
    if args.out is not None:
        runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=args.out))
    try:
        runner.test()
    except CheckpointError as error:
        raise SystemExit(f"test.py: {error}") from None


if __name__ == "__main__":
    main()
