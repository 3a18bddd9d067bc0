"""Each folder's README has a row for each of its configs, and says apart what is quoted and what was measured."""

import re

import pytest

from mmgn.engine.config import CONFIGS, find_config

FOLDERS = sorted({path.parent.name for path in CONFIGS.glob("*/*.py")} - {"_base_"})
QUOTED = re.compile(r"\((mmdet 3\.3\.0|mmpretrain 1\.2\.0|mmsegmentation 1\.2\.2|Wu & He)")
MEASURED = re.compile(r"[\d./ ]+ \((?=.*(CPU|GPU|cores|NVIDIA)).*commit [0-9a-f]{7,}\)")


def rows(folder):
    """Return the cells of the table's rows, by the config that the first cell links."""
    lines = (CONFIGS / folder / "README.md").read_text().splitlines()
    table = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| [")]
    links = [re.fullmatch(r"\[`(.+)`\]\((.+)\)", row[0]) for row in table]
    assert all(link[2] == f"{link[1]}.py" for link in links)
    return [link[2] for link in links], table


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_config_has_a_row(folder):
    configs, _ = rows(folder)
    assert sorted(configs) == sorted(path.name for path in (CONFIGS / folder).glob("*.py"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_rows_tell_command_quoted_and_measured(folder):
    for config, cells in zip(*rows(folder), strict=True):
        assert len(cells) == 5, config
        _, changes, command, quoted, measured = cells
        assert changes, config
        if "quickstart.py" not in command:
            # One GPU has an eighth of the batch that COCO's learning rate is for.
            flag = "" if config.endswith("_digits.py") else " --auto-scale-lr"
            assert command == f"`python tools/train.py {folder}/{config}{flag}`"
            assert find_config(f"{folder}/{config}") == CONFIGS / folder / config
        # A number is quoted with its source, and measured on some machine at some commit.
        assert re.fullmatch(r"-|none [^0-9]*", quoted) or QUOTED.search(quoted), config
        assert measured == "not yet" or MEASURED.fullmatch(measured), config


@pytest.mark.parametrize(
    "value", ["64.4 / 63.6", "64.4 / 63.6 (2 cores)", "64.4 (commit 8535967)", "64.4 (GPU, commit x)"]
)
def test_a_measurement_tells_device_and_commit(value):
    assert not MEASURED.fullmatch(value)
    assert MEASURED.fullmatch("64.4 / 63.6 (NVIDIA H100, seed 0, commit 8535967)")


@pytest.mark.parametrize("folder", sorted({*FOLDERS} - {"digits"}))
def test_the_learning_rate_told_is_the_configs_for_its_gpus(folder, load_config):
    text = (CONFIGS / folder / "README.md").read_text()
    (told,) = re.findall(r"for (\d) GPUs of (\d+) images each, lr ([\d.]+): ", text)
    for config, cells in zip(*rows(folder), strict=True):
        if config.endswith("_digits.py"):
            continue
        cfg = load_config(f"{folder}/{config}")
        own = re.fullmatch(r"(\d) GPUs of (\d+) images?, lr ([\d.]+)", cells[1])
        gpus, images, lr = own.groups() if own else told
        assert (cfg.train_dataloader.batch_size, cfg.optim_wrapper.optimizer.lr) == (int(images), float(lr)), config
        # What --auto-scale-lr divides by.
        assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=int(gpus) * int(images)), config


@pytest.mark.parametrize("folder", FOLDERS)
def test_links_lead_somewhere(folder):
    text = (CONFIGS / folder / "README.md").read_text()
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert [link for link in links if not (CONFIGS / folder / link).exists()] == []
