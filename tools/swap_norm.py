"""Turn any detector's config into its group norm version: a small file whose _base_ is the config.

What a norm_cfg names or a class defaults to becomes FusedGN, neck and heads get the norms of mmdet's configs/gn, and
what no norm_cfg reaches is converted in the built model. The file is written once its model has been built. With --all,
the configs that mmdet ships are swapped and run, one after the other, and what became of them is counted.
"""

import argparse
from pathlib import Path

import mmgn  # noqa: F401  # before mmdet: it serves mmcv's ops
from mmgn.engine.disk import told
from mmgn.engine.norm_swap import PARTS, TARGETS, SwapRequest, read_source, swap_norm
from mmgn.engine.norm_swap.check import check_package
from mmgn.engine.norm_swap.table import decay_remarks, norms_changed, settings_changed, swapped_rows
from mmgn.engine.norm_swap.trial import Outcome


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", help="config file: a path, a path below configs/, or mmdet::PATH")
    parser.add_argument("--out", type=Path, metavar="FILE", help="config to write, a .py file")
    parser.add_argument("--force", action="store_true", help="write over an existing file")
    parser.add_argument("--to", default=TARGETS[0], help=f"{' or '.join(TARGETS)}, torch's own [%(default)s]")
    groups = parser.add_mutually_exclusive_group()
    groups.add_argument(
        "--num-groups",
        type=int,
        help="groups, strictly [32, or the nearest valid where 32 does not divide the channels]",
    )
    groups.add_argument("--channels-per-group", type=int, help="channels per group, strictly, in place of --num-groups")
    parser.add_argument("--where", default=",".join(PARTS), help="parts to swap, with commas [%(default)s]")
    parser.add_argument("--scratch", action="store_true", help="train from random weights: nothing loaded or frozen")
    parser.add_argument("--all", action="store_true", help="try all configs that mmdet ships, about 40 minutes")
    parser.add_argument("--match", default="**/*.py", metavar="PATTERN", help="those of --all with such a path")
    args = parser.parse_args()
    if args.all == bool(args.config):
        parser.error("give a CONFIG, or --all")
    if args.config and args.out is None:
        parser.error("--out FILE is needed: where to write the swapped config")
    return args


def swap(args: argparse.Namespace, request: SwapRequest) -> None:
    """Swap one config."""
    out = args.out
    if out.suffix != ".py":
        raise ValueError(f"--out {out} must end in .py: the difference is written as a Python config.")
    if out.exists() and not args.force:
        raise FileExistsError(f"--out {out} exists; --force writes over it.")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"the folder of --out {out} does not exist.")
    done = swap_norm(read_source(args.config), request, out)
    before, after = swapped_rows(done)
    done.write()
    print(f"{settings_changed(done)}\n\n{norms_changed(before, after)}\n")
    print("\n".join([*done.said, *decay_remarks(done, before, after)]))
    print(f"\n{out}:\n\n{done.text}")


def check(args: argparse.Namespace, request: SwapRequest) -> None:
    """Swap and run all configs."""
    if args.where != ",".join(PARTS):
        raise ValueError("--all swaps all parts: --where has no place beside it.")

    def tell(outcome: Outcome, seconds: float) -> None:
        print(f"{outcome.config}: {outcome.category}, {seconds:.0f} s", flush=True)

    checked = check_package("mmdet", args.match, request, tell)
    print(f"\n{checked}")
    if checked.worse:
        raise SystemExit(1)


def main() -> None:
    """Swap or check."""
    args = parse_args()
    try:
        parts = tuple(part.strip() for part in args.where.split(",") if part.strip())
        request = SwapRequest(args.to, args.num_groups, args.channels_per_group, parts, args.scratch)
        if args.all:
            check(args, request)
        else:
            swap(args, request)
    except (OSError, ValueError) as error:
        raise SystemExit(f"swap_norm.py: {told(error)}") from None


if __name__ == "__main__":
    main()
