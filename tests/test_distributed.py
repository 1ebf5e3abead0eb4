"""Several processes under torchrun learn the same as one with the same global batch (float64, gloo, no dropout)."""

import json
import os
import subprocess
import sys

import pytest
from safetensors.numpy import load_file
from worlds import write_features

# 20 steps; layer 2 joins at the tenth; codes are revived; every loss compares clips of the global batch.
SETTINGS = [
    "--epochs",
    "10",
    "--warmup",
    "5",
    "--batch-size",
    "12",
    "--dim",
    "16",
    "--codebook",
    "12",
    "--idle",
    "3",
    "--precision",
    "float64",
    "--dropout",
    "0",
    "--split",
    "none",
]


def pretrain(folder, output, number, *options):
    program = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number)] if number > 1 else []
    done = subprocess.run(
        [sys.executable, *program, "-m", "hdcid_cli", "pretrain", "-o", output, *SETTINGS, *options],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done


def records(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_features(folder / "features", clips=24)
    pretrain(folder, "one", 1)
    return folder


@pytest.mark.parametrize("number", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_processes_learn_what_one_does(alone, number):
    done = pretrain(alone, f"of-{number}", number)
    assert done.stdout.strip() == f"of-{number}"  # one of them talks
    one, several = records(alone / "one"), records(alone / f"of-{number}")
    assert [record["step"] for record in several] == [record["step"] for record in one] == [20]
    for before, now in zip(one, several, strict=True):
        for name in before.keys() - {"samples_per_second", "flops_per_second", "share_of_peak"}:
            assert now[name] == pytest.approx(before[name], rel=1e-6, abs=1e-9), name
    one, several = (load_file(alone / name / "model.safetensors") for name in ("one", f"of-{number}"))
    for name, value in one.items():
        assert several[name] == pytest.approx(value, rel=1e-6, abs=1e-6), name
