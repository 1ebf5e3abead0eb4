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


# What differs from run to run.
RATES = {"samples_per_second", "flops_per_second", "share_of_peak", "time/data", "time/device", "time/host"}


def run(folder, output, number, *options, program=("-m", "hdcid_cli")):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number)] if number > 1 else []
    return subprocess.run(
        [sys.executable, *torchrun, *program, "pretrain", "-o", output, *SETTINGS, *options],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def pretrain(*arguments):
    done = run(*arguments)
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
        for field in before.keys() - RATES:
            assert now[field] == pytest.approx(before[field], rel=1e-6, abs=1e-9), field
    assert_same(alone, f"of-{number}")


def assert_same(folder, name):
    """The run ended with the weights of one process."""
    one, several = (load_file(folder / each / "model.safetensors") for each in ("one", name))
    for field, value in one.items():
        assert several[field] == pytest.approx(value, rel=1e-6, abs=1e-6), field


# A rank that is killed in the middle of step 12, where the other one waits for it.
KILLED = """
import os, signal, sys
from hdcid_cli.__main__ import main
from hdcid_cli.training.trainer import Trainer

step = Trainer.step

def killed(trainer, *arguments):
    if trainer.step_number == 11 and trainer.world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(trainer, *arguments)

Trainer.step = killed
sys.exit(main())
"""


def test_a_killed_process_ends_the_others_and_the_same_command_goes_on(alone):
    (alone / "killed.py").write_text(KILLED)
    done = run(alone, "again", 2, "--save-every", "5steps", program=["killed.py"])
    assert done.returncode != 0
    assert "Another process of this run has ended or cannot be reached" in done.stderr
    assert "run the same command again" in done.stderr
    done = pretrain(alone, "again", 2, "--save-every", "5steps")
    assert "going on from step 10" in done.stderr
    assert_same(alone, "again")
