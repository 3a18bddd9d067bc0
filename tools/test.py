"""Evaluate a detector: mmdet's tools/test.py with the same flags, for any mmdet config."""

import argparse
import os
from copy import deepcopy

import mmgn  # noqa: F401  # before mmdet: it serves mmcv's ops
from mmgn.compat.checkpoint import CheckpointError
from mmgn.engine.config import check_data, load_config, record_run


def parse_args() -> argparse.Namespace:
    """Parse mmdet's command line."""
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(description="Test (and evaluate) a detector")
    parser.add_argument("config", help="config file, as a path or as a path below configs/")
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("--work-dir", help="folder for the evaluation's metrics")
    parser.add_argument("--out", help="write the predictions to this .pkl file, for offline evaluation")
    parser.add_argument("--show", action="store_true", help="show the predictions")
    parser.add_argument("--show-dir", help="write painted images below work_dir/timestamp/SHOW_DIR")
    parser.add_argument("--wait-time", type=float, default=2, help="seconds between shown images")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        help='override settings, as key=value; lists as key="[a,b]", without white space',
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--tta", action="store_true", help="test-time augmentation")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0)
    args = parser.parse_args()
    if args.out is not None and not args.out.endswith((".pkl", ".pickle")):
        parser.error(f"--out takes a .pkl or .pickle file, got {args.out!r}")
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
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
        cfg = load_config(args.config, options=args.cfg_options, work_dir=args.work_dir, launcher=args.launcher)
        check_data(cfg, "test")
    except FileNotFoundError as error:
        raise SystemExit(f"test.py: {error}") from None
    record_run(cfg)
    cfg.load_from = args.checkpoint

    from mmdet.engine.hooks.utils import trigger_visualization_hook
    from mmdet.evaluation import DumpDetResults
    from mmdet.utils import setup_cache_size_limit_of_dynamo
    from mmengine.registry import RUNNERS
    from mmengine.runner import Runner

    setup_cache_size_limit_of_dynamo()
    if args.show or args.show_dir:
        cfg = trigger_visualization_hook(cfg, args)
    if args.tta:
        use_test_time_augmentation(cfg)
    runner = RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)
    if args.out is not None:
        runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=args.out))
    try:
        runner.test()
    except CheckpointError as error:
        raise SystemExit(f"test.py: {error}") from None


if __name__ == "__main__":
    main()
