"""docs/clusters.md: its commands are parsed by the tools, its rehearsal runs, its manifest is what Kubeflow takes."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from torch.distributed.run import get_args_parser

from mmgn.engine.config import find_config

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/clusters.md").read_text()
LAUNCH = [ROOT / "mmgn/engine" / name for name in ("distributed.py", "torchrun.py", "rank_error.py")]
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, re.S)
SCRIPTS = {"dist_train", "dist_test", "slurm_train", "slurm_test", "train"}


def commands():
    lines = [line for block in BLOCKS for line in block.splitlines()]
    lines += [code for code in re.findall(r"`([^`\n]*)`", PAGE) if "tools/" in code and "CONFIG" in code]
    return [line for line in lines if re.search(r"tools/\w+\.(sh|py) ", line)]


@pytest.mark.parametrize("line", commands())
def test_commands_are_what_the_tools_take(line, parsed):
    args = parsed(shlex.split(line, comments=True))
    if args.config != "CONFIG":
        assert find_config(args.config).is_file()


def test_the_page_has_commands_of_each_script():
    assert {re.search(r"tools/(\w+)", line).group(1) for line in commands()} == SCRIPTS


def test_variables_are_read_by_the_tools():
    known = "\n".join(file.read_text() for file in (*ROOT.glob("tools/*.sh"), *LAUNCH))
    names = {name for line in commands() for name in re.findall(r"\b([A-Z][A-Z_]+)=", line)}
    names |= set(re.findall(r"^\| `([A-Z_]+)` \|", PAGE, re.M))
    assert {"NNODES", "RDZV_TIMEOUT", "SRUN_ARGS", "PET_MAX_RESTARTS"} <= names
    for name in names:
        if name.startswith("PET_"):
            assert get_args_parser().get_default(name.removeprefix("PET_").lower()) is not None
        else:
            assert re.search(rf"\b{name}\b", known), name


def test_errors_are_worded_as_the_page_has_them():
    source = "\n".join(file.read_text() for file in LAUNCH)
    said = re.findall(r"^\| `([^`]+)`", PAGE.partition("| What it says |")[2], re.M)
    assert len(said) == 9
    for text in said:
        assert max(re.split(r"\d|\(\.\.\.\)|=", text), key=len) in source, text


def test_the_rehearsal_of_two_machines_runs(tmp_path):
    block = next(block for block in BLOCKS if "rehearsal" in block)
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    with socket.socket() as server:
        server.bind(("", 0))
        port = server.getsockname()[1]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    ended = subprocess.run(
        ["bash", "-euc", block.replace("PORT=29500", f"PORT={port}")],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "RDZV_TIMEOUT": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=500,
    )
    assert ended.returncode == 0, ended.stdout
    assert json.loads((tmp_path / "rehearsal/run.json").read_text())["train"]["world_size"] == 2
    assert (tmp_path / "rehearsal/epoch_1.pth").is_file()


@pytest.fixture
def manifest():
    return yaml.safe_load((ROOT / "docs/pytorchjob.yaml").read_text())


@pytest.fixture(scope="module")
def schema():
    return jsonschema.Draft202012Validator(json.loads((Path(__file__).parent / "pytorchjob.schema.json").read_text()))


def test_the_manifest_is_a_pytorch_job(manifest, schema, parsed):
    schema.validate(manifest)
    assert f"kubectl logs -f {manifest['metadata']['name']}-master-0" in PAGE
    for replica in manifest["spec"]["pytorchReplicaSpecs"].values():
        pod = replica["template"]["spec"]
        (container,) = pod["containers"]
        # training-operator's PyTorchJobDefaultContainerName.
        assert container["name"] == "pytorch"
        assert str(container["resources"]["limits"]["nvidia.com/gpu"]) == manifest["spec"]["nprocPerNode"]
        assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
        assert container["command"][0] == "torchrun"
        started = get_args_parser().parse_args(container["command"][1:])
        args = parsed([started.training_script, *started.training_script_args])
        assert find_config(args.config).is_file()
        assert args.launcher == "pytorch"
        assert args.work_dir in {m["mountPath"] for m in container["volumeMounts"]}


@pytest.mark.parametrize(
    ("where", "key", "value"),
    [
        ([], "kind", "TFJob"),
        (["spec"], "nprocPerNode", 8),
        (["spec", "pytorchReplicaSpecs", "Worker"], "restartPolcy", "Never"),
        (["spec", "pytorchReplicaSpecs", "Worker", "template", "spec", "containers", 0], "command", "torchrun"),
        (["spec", "pytorchReplicaSpecs", "Worker", "template", "spec", "containers", 0], "name", None),
    ],
)
def test_the_schema_refuses_what_is_no_pytorch_job(manifest, schema, where, key, value):
    # Without YAML's anchor, which has both pods in one object.
    manifest = json.loads(json.dumps(manifest))
    node = manifest
    for step in where:
        node = node[step]
    node[key] = value
    with pytest.raises(jsonschema.ValidationError):
        schema.validate(manifest)
