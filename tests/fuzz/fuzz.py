"""Fuzz a target for a time, guided by coverage: python tests/fuzz/fuzz.py TARGET --seconds 600.

Needs atheris (pip install 'mmgn[fuzz]'). What reaches new code is kept in --grown, what fails in --failures, one input
for each place where it fails, and the fuzzing goes on. With --merge, --grown's inputs that reach code which those of
tests/fuzz/corpus do not are added to them.
"""

import argparse
import importlib
import json
import os
import resource
import sys
import tempfile
import traceback
from pathlib import Path
from random import Random

os.environ.setdefault("TRITON_INTERPRET", "1")
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import atheris  # noqa: E402
from fuzzing import TARGETS  # noqa: E402
from fuzzing.guard import watched  # noqa: E402

# Beyond what the libraries themselves take; an input that asks for more gets a MemoryError.
_ROOM = 4 * 2**30


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60, help="how long [%(default)s]")
    parser.add_argument("--grown", type=Path, required=True, help="folder for inputs that reach new code")
    parser.add_argument("--failures", type=Path, required=True, help="folder for inputs that fail")
    parser.add_argument("--seed", type=int, default=0, help="0 for another one each time [%(default)s]")
    parser.add_argument("--merge", action="store_true", help="add to the corpus instead of fuzzing")
    return parser.parse_args()


def signature(error: BaseException) -> str:
    """Return what tells failures apart: the kind, and the innermost line of this project's own code."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/mmgn/" in frame.filename] or frames
    return f"{type(error).__name__}-{Path(ours[-1].filename).stem}-{ours[-1].name}"


def main() -> None:
    """Fuzz; the last lines on standard error are libFuzzer's figures."""
    # To merge, libFuzzer starts this script again and again, with options of its own alone.
    if inner := any(option.startswith("-merge_control_file") for option in sys.argv):
        options, sys.argv[1:] = sys.argv[1:], json.loads(os.environ["MMGN_FUZZ"])
    os.environ["MMGN_FUZZ"] = json.dumps(sys.argv[1:])
    args = parse_args()
    for made in (args.grown, args.failures):
        made.mkdir(parents=True, exist_ok=True)
    with atheris.instrument_imports(include=["mmgn"], enable_loader_override=False):
        target = importlib.import_module(f"fuzzing.{args.target}")
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{args.target}-"))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _ROOM, resource.RLIM_INFINITY))

    def one(data: bytes) -> None:
        try:
            with watched(folder):
                target.check(data, folder)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            kept = args.failures / f"{args.target}-{signature(error)}"
            if not kept.exists():
                kept.write_bytes(data)
                kept.with_name(f"{kept.name}.txt").write_text("".join(traceback.format_exception(error)))

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        rng = Random(seed)
        if not data or rng.random() < 0.02:
            return target.fresh(rng)[:max_size]
        return target.mutate(data, rng)[:max_size]

    inputs = [str(args.grown), str(HERE / "corpus" / args.target)]
    common = ["-max_len=65536", "-timeout=60", "-report_slow_units=60", "-rss_limit_mb=0"]
    common.append(f"-artifact_prefix={args.failures}/{args.target}-native-")
    if not inner and args.merge:
        options = ["-set_cover_merge=1", *common, *inputs[::-1]]
    elif not inner:
        options = [f"-max_total_time={args.seconds}", f"-seed={args.seed}", "-len_control=0", *common, *inputs]
    atheris.Setup([f"{sys.executable} {__file__}", *options], one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
