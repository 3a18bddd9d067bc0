"""Compile a config's fused kernels ahead of training, into Triton's cache.

On the machine that trains, on its GPU; or, with --arch, anywhere, for a GPU that is not there. Training finds the
kernels in the cache (TRITON_CACHE_DIR, or ~/.triton/cache) if that lies at the same path, and Triton and mmgn are the
same.
"""

import argparse
import time

import torch
from mmengine.config import DictAction

import mmgn  # noqa: F401  # before mmdet: it serves mmcv's ops
from mmgn.engine import warm_up
from mmgn.engine.config import load_config
from mmgn.ops.triton.ahead import ARCHITECTURES, Tally
from mmgn.ops.triton.lock import cache_directory


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file: a path, a path below configs/, or mmdet::PATH")
    parser.add_argument(
        "--arch", type=int, choices=ARCHITECTURES, help="compute capability of a GPU that is not here: 80 for an A100"
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        action="append",
        default=[],
        metavar=("H", "W"),
        help="an image's size after its resize, as often as there are sizes [read off the config]",
    )
    parser.add_argument(
        "--amp",
        nargs="?",
        const="float16",
        choices=["float16", "bfloat16"],
        help="mixed precision, as train.py --amp, or of this dtype [as the config says]",
    )
    parser.add_argument("--channels-last", action="store_true", help="for a model in that memory format")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, help="override settings, as key=value")
    args = parser.parse_args()
    if any(side < 1 for size in args.size for side in size):
        parser.error("--size takes two positive numbers")
    return args


def main() -> None:
    """Warm up."""
    started = time.monotonic()
    args = parse_args()
    try:
        cfg = load_config(args.config, options=args.cfg_options)
        model = warm_up.build_fused(cfg)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"warm_up.py: {error}") from None
    norms = warm_up.count_norms(model)
    if not norms:
        print(f"warm_up.py: the model of {args.config} has no FusedGN: nothing to compile")
        return
    if args.arch is None and not torch.cuda.is_available():
        raise SystemExit(
            f"warm_up.py: torch {torch.__version__} sees no GPU here; to compile for one elsewhere name its compute "
            "capability: --arch 80 for an A100, 90 for an H100, 100 for a B200."
        )
    try:
        tally = Tally()
        work = warm_up.Work.of(cfg, args.size, args.amp, args.channels_last)
    except (RuntimeError, ValueError) as error:
        raise SystemExit(f"warm_up.py: {error}.") from None
    where = "this GPU" if args.arch is None else f"sm_{args.arch}"
    print(f"norms: {norms}, sizes of images: {len({*work.train, *work.test})}, for {where}", flush=True)
    warm_up.warm_up(model, work, args.arch)
    seconds = time.monotonic() - started
    print(
        f"kernels: {tally.compiled + tally.found}, {tally.compiled} compiled, {tally.found} found in the cache, "
        f"{seconds:.0f} s\ncache: {cache_directory().absolute()}"
    )


if __name__ == "__main__":
    main()
