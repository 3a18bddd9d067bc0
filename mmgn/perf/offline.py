"""Compile a plan's launches without a GPU.

Triton compiles for a device that is not there, and its wheel carries ``cuobjdump``; checked with Triton 3.6 and 3.9. A
kernel is interpreted or compiled by what TRITON_INTERPRET said when it was decorated, so compilation happens in
processes of their own, without the variable: ``python -m mmgn.perf.offline`` reads compilations as JSON and answers
with listings.
"""

import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from mmgn.ops.triton.launcher import OPTIONS
from mmgn.ops.triton.plan import Launch, Plan
from mmgn.perf.sass import Code, parse

#: Where the kernels are: a module with a dict KERNELS of name -> JIT function.
KERNELS_MODULE = "mmgn.ops.triton.kernels"
TRITON_TYPES = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32", "uint8": "u8"}


@dataclass(frozen=True)
class Compilation:
    """What decides the code of a launch; equal ones are compiled once.

    Attributes:
        kernel: name in ``KERNELS`` of ``module``.
        tensors: (argument, dtype); None where absent. All pointers are multiples of 16 bytes.
        scalars: (argument, Triton type), run-time numbers.
        constants: (argument, value), compile-time ones.
        num_warps: warps of a program.
        arch: compute capability without the dot.
        module: that has the kernels.
    """

    kernel: str
    tensors: tuple[tuple[str, str | None], ...]
    scalars: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, int | bool | str], ...]
    num_warps: int
    arch: int
    module: str = KERNELS_MODULE

    @classmethod
    def of(cls, plan: Plan, launch: Launch, arch: int, module: str = KERNELS_MODULE) -> "Compilation":
        """Return the compilation of a plan's launch."""
        tensors = tuple((arg, None if name is None else plan.buffers[name].dtype) for arg, name in launch.tensors)
        scalars = tuple((arg, _scalar_type(value)) for arg, value in launch.scalars)
        return cls(launch.kernel, tensors, scalars, launch.constants, launch.num_warps, arch, module)


def _scalar_type(value: int | float) -> str:
    if isinstance(value, float):
        return "fp32"
    return "i32" if -(2**31) <= value < 2**31 else "i64"


def compile_all(compilations: Iterable[Compilation], workers: int = 2) -> dict[Compilation, Code]:
    """Compile and read each of the compilations, in ``workers`` processes.

    Raises:
        RuntimeError: with the compiler's words, where one fails.
    """
    todo = list(dict.fromkeys(compilations))
    # Neighbours take alike long: deal them out in turn.
    hands = [todo[k::workers] for k in range(workers) if todo[k::workers]]
    with ThreadPoolExecutor(workers) as pool:
        return {c: code for hand in pool.map(_compile_hand, hands) for c, code in hand.items()}


def _compile_hand(hand: list[Compilation]) -> dict[Compilation, Code]:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, "-m", "mmgn.perf.offline"],
        input=json.dumps([asdict(c) for c in hand]),
        capture_output=True,
        text=True,
        env=environment,
    )
    if done.returncode:
        raise RuntimeError(f"a kernel does not compile: {done.stderr[-4000:]}")
    answers = map(json.loads, done.stdout.splitlines())
    return {c: parse(answer["listing"], answer["shared"]) for c, answer in zip(hand, answers, strict=True)}


def _kernel(module: str, name: str) -> Any:
    if not module.endswith(".py"):
        return importlib.import_module(module).KERNELS[name]
    spec = importlib.util.spec_from_file_location("kernels_under_test", module)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded.KERNELS[name]


def _listing(request: dict[str, Any]) -> dict[str, Any]:
    """Compile one request as Triton's own launcher would, and return the listing and the dynamic shared memory."""
    import triton
    from triton import knobs
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.runtime.cache import get_cache_manager

    fn = _kernel(request["module"], request["kernel"])
    pointers = {arg: f"*{TRITON_TYPES[dtype]}" for arg, dtype in request["tensors"] if dtype}
    types = pointers | dict(map(tuple, request["scalars"]))
    types |= {p.name: p.annotation_type for p in fn.params if p.annotation_type}
    constants = dict(map(tuple, request["constants"])) | {arg: None for arg, dtype in request["tensors"] if not dtype}
    signature = {name: types.get(name, "constexpr") for name in fn.arg_names}
    attributes = {(k,): [["tt.divisibility", 16]] for k, name in enumerate(fn.arg_names) if name in pointers}
    kernel = triton.compile(
        ASTSource(fn, signature, constants, attributes),
        target=GPUTarget("cuda", request["arch"], 32),
        options={"num_warps": request["num_warps"], **OPTIONS},
    )
    cache = get_cache_manager(kernel.hash)
    if not (path := cache.get_file("cuobjdump.txt")):
        with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
            cubin.write(kernel.asm["cubin"])
            cubin.flush()
            command = [knobs.nvidia.cuobjdump.path, "-sass", "-res-usage", cubin.name]
            text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        path = cache.put(re.sub(r"/\* 0x[0-9a-f]+ \*/", "", text), "cuobjdump.txt", binary=False)
    with open(path) as file:
        return {"listing": file.read(), "shared": kernel.metadata.shared}


def _answers(requests: list[dict[str, Any]]) -> Iterator[str]:
    for request in requests:
        try:
            yield json.dumps(_listing(request))
        except Exception as error:
            raise RuntimeError(f"{request}") from error


if __name__ == "__main__":
    for answer in _answers(json.load(sys.stdin)):
        print(answer)
