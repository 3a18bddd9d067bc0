"""Re-measure the claims of Group Normalization: norm against norm over batch sizes, groups and tasks.

Trains a grid of cells, each an ordinary training that differs in norm, batch size or seed, and writes study.csv,
summary.md and the paper's figures into --out. Run again, it keeps the cells that are finished.
"""

import argparse
import sys
from pathlib import Path

import torch

import mmgn  # noqa: F401  # before mmdet: it serves mmcv's ops
from mmgn.engine.disk import readable
from mmgn.study.launchers import gather, write_jobs
from mmgn.study.plan import plan
from mmgn.study.pool import cores, threads_of
from mmgn.study.run import alone, cell_table, run, verdict, write_results
from mmgn.study.study import Options
from mmgn.study.tasks import NORMS, TASKS


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("task", choices=list(TASKS))
    add("--norms", type=_words, metavar="NORM,...", help=f"of {','.join(NORMS)}")
    add("--batch-sizes", type=_numbers, metavar="N,...", help="images per process and iteration")
    add("--groups", type=_numbers, metavar="G,...", help="also GN with these numbers of groups, at the largest batch")
    add("--channels-per-group", type=_numbers, metavar="N,...", help="also GN with these, at the largest batch")
    add("--seeds", type=int, metavar="N", help="number of seeds, 0 to N-1")
    names = sorted({name for task in TASKS.values() for name in task.makers})
    add(
        "--data",
        default="embedded",
        metavar="embedded|NAME|DIR",
        help=f"all generated data sets, one of them ({', '.join(names)}), or a folder with ImageNet, COCO or ADE20K; "
        "./NAME for a folder that is called like one of them [embedded]",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the study")
    add("--config", help="base config instead of the task's: every norm FusedGN, and auto_scale_lr")
    add("--epochs", type=int, metavar="N", help="budget instead of the base config's; schedules are stretched")
    add("--quick", action="store_true", help="defaults that finish in a few minutes")
    add("--jobs", type=int, metavar="N", help="cells trained in parallel [a core each; with a GPU, 1]")
    add("--launcher", choices=["none", "pytorch", "slurm"], default="none")
    add("--gpus", type=int, default=1, metavar="N", help="processes of each training, with a launcher")
    add("--partition", help="Slurm partition")
    add("--dry-run", action="store_true", help="print the cells, and write Slurm's jobs; train nothing")
    return parser.parse_args()


def _words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in _words(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"comma-separated integers, got {text!r}") from None


@readable
def main() -> None:
    """Plan, train, and write the results."""
    args = parse_args()
    jobs = (1 if torch.cuda.is_available() else cores()) if args.jobs is None else args.jobs
    shared = {name: value for name, value in vars(args).items() if name in Options.__dataclass_fields__}
    try:
        if jobs < 1 or args.gpus < 1:
            raise ValueError(f"--jobs and --gpus must be at least 1, got {jobs} and {args.gpus}")
        study = plan(Options(**shared, processes=args.gpus))
        study.survey()
        print(*study.head, sep="\n", flush=True)
        train = Path(__file__).with_name("train.py").resolve()
        pending = study.pending()
        if args.launcher == "slurm":
            with alone(study):
                print(f"{len(pending)} jobs: {write_jobs(study, pending, train, args.partition)} submits them")
            gather(study, pending)
        elif args.launcher == "none":
            print(f"{jobs} cells in parallel, {threads_of(jobs)} of {cores()} cores each")
        if args.dry_run:
            print(cell_table(study))
            return
        finished = run(study, jobs, train)
    except (ImportError, FileNotFoundError, FileExistsError, ValueError) as error:
        raise SystemExit(f"study.py: {error}") from None
    print(*write_results(study), sep="\n")
    told = verdict(study)
    print(told, file=sys.stderr)
    if not finished:
        raise SystemExit(130)
    if any(outcome.status == "failed" for outcome in study.outcomes.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
