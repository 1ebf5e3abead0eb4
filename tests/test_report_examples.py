"""The scripts of `examples/` that make a paper's table from feature files to a report."""

import csv
import importlib
import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from own_videos import write_videos

EXAMPLES = Path(__file__).parents[1] / "examples"

# Stands in for `hdcid`: notes how it was called; which recipes there are it knows itself.
RECORDER = f"""#!/bin/sh
[ "$1" = recipe ] && exec {shlex.quote(sys.executable)} -m hdcid_cli "$@"
for argument; do printf '%s\\t' "$argument"; done >>"$CALLS"
echo >>"$CALLS"
"""


@pytest.fixture
def calls(tmp_path):
    """Run a script with a recorder in place of `hdcid`: the command lines that it calls, in order."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "hdcid").write_text(RECORDER)
    (bin_folder / "hdcid").chmod(0o755)

    def run(script, *arguments, **variables):
        log = tmp_path / "calls"
        log.unlink(missing_ok=True)
        environment = {
            **os.environ,
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "HDCID_VENV": str(tmp_path / "none"),
            "CALLS": str(log),
            **variables,
        }
        subprocess.run(
            ["bash", EXAMPLES / script, *arguments],
            cwd=tmp_path,
            env=environment,
            check=True,
            timeout=60,
        )
        return [line.rstrip("\t").split("\t") for line in log.read_text().splitlines()]

    return run


def parsed(call):
    """The options of a recorded command line, as the command itself reads them."""
    name, *arguments = call
    command = importlib.import_module(f"hdcid_cli.commands.{name}").command
    return command.make_context(name, list(arguments), obj={}).params


def of(recorded, name):
    return [parsed(call) for call in recorded if call[0] == name]


@pytest.mark.parametrize("script", sorted(path.name for path in EXAMPLES.glob("*[0-9].sh")))
@pytest.mark.parametrize("quick", [(), ("--quick",)])
def test_every_command_line_of_the_scripts_is_understood(calls, script, quick):
    recorded = calls(script, *quick, SEEDS="0 1")
    assert {call[0] for call in recorded} >= {"pretrain", "report"}
    for call in recorded:
        try:
            parsed(call)
        except Exception as error:
            pytest.fail(f"{script}: hdcid {shlex.join(call)}: {error}")
    seeds = {settings["seed"] for settings in of(recorded, "pretrain")}
    assert seeds == {0, 1}


def test_every_stage_is_announced_with_how_many_there_are(calls, tmp_path, capfd):
    recorded = calls("table1.sh", SEEDS="0 1", TASKS="ave")
    stages = [line for line in capfd.readouterr().err.splitlines() if line.startswith("== table1, ")]
    count = sum(call[0] in ("pretrain", "cmg") for call in recorded)
    assert [line.split(":")[0].split(",")[1] for line in stages] == [f" {n} of {count}" for n in range(1, count + 1)]
    assert stages[0] == f"== table1, 1 of {count}: pretrain dcid, seed 0"
    assert "0 min so far, more than 1 min to go: ave v->a --checkpoint" in stages[2]
    assert stages[-1].endswith("min to go: ave a->a --supervised, seed 1") and "more than" not in stages[-1]
    for script in ("table2.sh", "table3.sh", "table4.sh", "table5.sh", "figure5.sh"):
        recorded = calls(script, "--quick", SEEDS="0")
        said = capfd.readouterr().err
        count = sum(call[0] in ("pretrain", "cmg", "segment") for call in recorded)
        assert f", {count} of {count}, " in said and f", {count + 1} of" not in said, script


def test_table1_measures_every_cell(calls):
    measured = {
        (
            settings["task"],
            settings["train"][0],
            Path(settings["checkpoint"]).name,
            settings["toc"],
            settings["layers_used"],
        )
        for settings in of(calls("table1.sh"), "cmg")
        if not settings["supervised"]
    }
    rows = [
        ("dcid-0", "none", None),
        ("dcid-0", "paper", None),
        ("hdcid-0", "none", 1),
        ("hdcid-0", "none", None),
        ("hdcid-0", "paper", None),
    ]
    assert measured == {
        (task, m, *row) for task in ("ave", "avvp", "ave2avvp", "ucf2vgg") for m in "va" for row in rows
    }


def test_table3_trains_all_seventeen_methods_on_each_size_of_data(calls, tmp_path):
    recorded = calls("table3.sh", SPLITS="24k.csv 40k.csv")
    trained = of(recorded, "pretrain")
    assert len({(settings["layers"], settings["align"]) for settings in trained}) == 17
    measured = {settings["checkpoint"] for settings in of(recorded, "cmg") if not settings["supervised"]}
    assert measured == {settings["output"] for settings in trained}
    assert len(trained) == len({settings["output"] for settings in trained}) == 34
    assert {tuple(settings["modalities"]) for settings in trained} == {("audio", "video")}


def test_table5_selects_channels_before_it_measures_them(calls):
    recorded = calls("table5.sh")
    stored = [i for i, call in enumerate(recorded) if call[0] == "cmg" and "stored" in call]
    selections = [parsed(recorded[i - 1]) for i in stored]
    assert len(stored) == 4 * 3 * 2
    assert {settings["criterion"] for settings in selections} == {"similarity", "variance", "both"}


def test_an_unknown_argument_is_refused():
    outcome = subprocess.run(["bash", EXAMPLES / "table1.sh", "--fast"], capture_output=True, text=True)
    assert outcome.returncode == 2 and "usage" in outcome.stderr


@pytest.mark.slow
@pytest.mark.parametrize("script, rows", [("table1.sh", 5), ("table5.sh", 4)])
def test_a_table_is_made_from_nothing(tmp_path, script, rows):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    outcome = subprocess.run(
        ["bash", EXAMPLES / script, "--quick"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=3000,
    )
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    table = script.removesuffix(".sh")
    results = tmp_path / "hdcid-quick" / "results"
    assert (results / f"{table}.html").stat().st_size > 10_000 and "\\toprule" in (results / f"{table}.tex").read_text()
    report = [
        sys.executable,
        "-m",
        "hdcid_cli",
        "report",
        results / f"{table}.jsonl",
        "--layout",
        table,
        "--format",
        "csv",
    ]
    lines = list(csv.DictReader(io.StringIO(subprocess.run(report, capture_output=True, text=True, check=True).stdout)))
    assert sum(line["kind"] == "paper" for line in lines) == rows
    columns = [
        f"{task} {direction}" for task in ("AVE", "AVVP", "AVE→AVVP", "UCF(v)↔VGG(a)") for direction in ("V→A", "A→V")
    ]
    measured = [[float(line[column]) for column in columns] for line in lines if line["kind"] == "measured"]
    assert len(measured) == rows and all(0 <= value <= 100 for row in measured for value in row)
    assert all(line["Avg."] for line in lines if line["kind"] == "measured")
    ceiling, chance = (
        [float(line[column]) for column in columns]
        for kind in ("supervised", "chance")
        for line in lines
        if line["kind"] == kind
    )
    assert all(high > low for high, low in zip(ceiling, chance))
    seeds = {
        json.loads(line)["pretrain_seed"]
        for line in (results / f"{table}.jsonl").read_text().splitlines()
        if "supervised" not in line
    }
    assert seeds == {0}


OWN = {"VIDEO": "--backbone hog", "AUDIO": "--backbone logmel"}


def test_every_command_line_of_own_videos_is_understood(calls, tmp_path):
    (tmp_path / "videos").mkdir()
    recorded = calls("own_videos.sh", "videos", PRETRAIN="--epochs 5", CMG="--seeds 2", **OWN)
    for call in recorded:
        if call[0] != "convert":  # a group
            parsed(call)
    assert recorded[0] == ["convert", "annotations", str(tmp_path / "videos")]
    assert [settings["backbone"] for settings in of(recorded, "extract")] == ["hog", "logmel"]
    assert of(recorded, "pretrain")[0]["epochs"] == 5
    probes = [(each["train"], each["test"], each["supervised"], each["seeds"]) for each in of(recorded, "cmg")]
    assert probes == [
        ("video", "audio", False, 2),
        ("audio", "video", False, 2),
        ("video", "video", True, 2),
        ("audio", "audio", True, 2),
    ]


@pytest.mark.slow
def test_own_videos_become_a_table_for_a_paper(tmp_path):
    write_videos(tmp_path / "videos")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "hdcid").write_text(f'#!/bin/sh\nexec {sys.executable} -m hdcid_cli "$@"\n')
    (tmp_path / "bin" / "hdcid").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "HDCID_VENV": str(tmp_path / "none"),
        "PRETRAIN": "--dim 32 --codebook 40 --batch-size 8 --epochs 2",
        "CMG": "--epochs 3",
        **OWN,
    }
    for _ in range(2):  # once more: nothing is done twice but what is measured
        done = subprocess.run(
            ["bash", EXAMPLES / "own_videos.sh", "videos"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    assert "they were there already" in done.stderr and "has had its 2 epochs already" in done.stderr
    assert {json.loads(line)["protocol"] for line in (tmp_path / "own" / "results.jsonl").open()} == {"heldout"}
    assert "\\begin{tabular}" in (tmp_path / "own" / "table.tex").read_text()
    assert "supervised" in done.stdout and (tmp_path / "own" / "report.html").stat().st_size > 1000
