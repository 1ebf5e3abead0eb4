"""`pretrain` interrupted at any moment goes on and ends with the weights of an undisturbed run, bit for bit."""

import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import time

import pytest
from worlds import write_features

import hdcid_cli

# Real processes that can be killed, forked from a server that has imported torch once.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["torch", "hdcid_cli.training.pretrain", "hdcid_cli.commands.pretrain"])

# 42 steps; layer 2 joins half-way; codes are revived; dropout, CPC's step and CLUB's permutations are random.
SETTINGS = [
    "--epochs",
    "14",
    "--warmup",
    "7",
    "--batch-size",
    "8",
    "--dim",
    "16",
    "--codebook",
    "12",
    "--idle",
    "5",
    "--cpc-steps",
    "random",
    "--schedule",
    "cosine",
    "--mix",
    "0.5",
    "--split",
    "none",
]


def start(folder, output, *options, largest_file=None):
    process = processes.Process(
        target=_command, args=(folder, ["pretrain", "-o", str(output), *SETTINGS, *options], largest_file)
    )
    process.start()
    return process


def _command(folder, arguments, largest_file):
    import torch

    from hdcid_cli.main import run

    torch.set_num_threads(1)
    os.chdir(folder)
    sys.stderr = open(folder / "stderr.txt", "a")
    if largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    status = run(arguments, {"debug": False})
    sys.stderr.flush()
    os._exit(status)


def finish(process):
    process.join(120)
    return process.exitcode


def wait_for(path, process):
    while not path.exists():
        assert process.is_alive(), "the run ended before it could be disturbed"
        time.sleep(0.002)


def last_step(output):
    return json.loads((output / "metrics.jsonl").read_text().splitlines()[-1])["step"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of features, and what a run from beginning to end makes of them."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_features(folder / "features", clips=24)
    assert finish(start(folder, folder / "whole")) == 0
    assert last_step(folder / "whole") == 42
    return folder, (folder / "whole" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_same_command_goes_on(undisturbed, tmp_path, number):
    folder, expected = undisturbed
    output = tmp_path / "stopped"
    process = start(folder, output)
    wait_for(output / "metrics.jsonl", process)
    os.kill(process.pid, number)
    assert finish(process) == 130
    assert 0 < last_step(output) < 42
    assert finish(start(folder, output)) == 0
    assert (output / "model.safetensors").read_bytes() == expected
    assert last_step(output) == 42


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_loses_no_more_than_the_last_save(undisturbed, tmp_path, seed):
    folder, expected = undisturbed
    output, delay = tmp_path / "killed", random.Random(seed)
    for _ in range(3):
        process = start(folder, output, "--save-every", "0")
        wait_for(output / "config.yaml", process)
        time.sleep(delay.uniform(0, 0.5))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert finish(start(folder, output)) == 0
    assert (output / "model.safetensors").read_bytes() == expected
    steps = [json.loads(line)["step"] for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps)) and steps[-1] == 42


@pytest.mark.parametrize("file,share", [("state.pt", 1.1), ("model.safetensors", 0.5)])
def test_a_full_disk_ends_it_in_a_sentence_and_the_same_command_goes_on(undisturbed, tmp_path, file, share):
    folder, expected = undisturbed
    output, limit = tmp_path / "full", int(share * len(expected))
    (folder / "stderr.txt").write_text("")
    assert finish(start(folder, output, "--save-every", "0", largest_file=limit)) == 1
    last = (folder / "stderr.txt").read_text().splitlines()[-1]
    assert last.startswith(f"error: {output / file} cannot be written") and "same command" in last
    assert not list(output.glob(".*.tmp"))
    assert finish(start(folder, output)) == 0
    assert (output / "model.safetensors").read_bytes() == expected


def test_killed_between_the_last_model_and_its_state_the_model_is_made_again(undisturbed, tmp_path, monkeypatch):
    from hdcid_cli.codes.state import load_state

    folder, expected = undisturbed
    output = tmp_path / "almost"
    process = start(folder, output, "--save-every", "0")
    wait_for(output / "state.pt", process)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    state = load_state(output)
    assert 0 < state["step"] < 42
    (output / "model.safetensors").write_bytes(expected[:-100])  # whatever is there belongs to no saved state
    assert finish(start(folder, output)) == 0
    assert (output / "model.safetensors").read_bytes() == expected


def test_other_settings_are_refused_where_a_checkpoint_is(undisturbed, tmp_path):
    folder, expected = undisturbed
    (folder / "stderr.txt").write_text("")
    assert finish(start(folder, folder / "whole", "--lr", "0.0123")) == 2
    assert "lr was" in (folder / "stderr.txt").read_text()
    assert (folder / "whole" / "model.safetensors").read_bytes() == expected


NEWER = {
    "infonce, FCMI's steps and a jigsaw": {"align": ("infonce", "fcmi", "cujp"), "club": "none", "layers": 1},
    "FCMI's channels, some pairs, two layers": {"align": ("cpc:av", "fcmi"), "mask": "channels", "warmup": 1},
    "pq": {"quantizer": "pq:4", "layers": 1},
    "aligned": {"quantizer": "aligned", "map_encoder": "bn", "club": "none", "layers": 1},
    "aligned, two layers": {"quantizer": "aligned", "cascade": False, "warmup": 1},
    "fcid": {"kind": "fcid"},
    "cells read, seconds exchanged": {"cell_hidden": 4, "spatial_attention": "softmax", "mix": 0.5, "layers": 0},
}


@pytest.mark.parametrize("name", list(NEWER))
def test_every_method_goes_on_bit_for_bit(tmp_path_factory, name):
    """Four epochs at once, and two, then two more; `schedule` constant, as a trapezoid of two epochs is another one."""
    folder = tmp_path_factory.getbasetemp() / "three"
    if not folder.exists():
        write_features(folder, clips=8, steps=4, modalities=("audio", "video", "text"))
    output = tmp_path_factory.mktemp("runs")
    settings = {"dim": 16, "codebook": 12, "batch_size": 4, "idle": 2, "cpc_steps": "random", "schedule": "constant"}
    settings |= {"heads": 2, "feedforward": 16, "text_hidden": 4, "map_hidden": 4, "map_specific": 4, **NEWER[name]}
    ends = [
        hdcid_cli.pretrain(folder, output / run, epochs=epochs, **settings).digest
        for run, epochs in (("whole", 4), ("parts", 2), ("parts", 4))
    ]
    assert ends[0] == ends[2] != ends[1]


def test_a_finished_run_has_nothing_left_to_do_and_more_epochs_go_on(undisturbed):
    folder, expected = undisturbed
    assert finish(start(folder, folder / "whole")) == 0
    assert (folder / "whole" / "model.safetensors").read_bytes() == expected
    assert finish(start(folder, folder / "whole", "--epochs", "15")) == 0
    assert last_step(folder / "whole") == 45
