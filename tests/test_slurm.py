"""The jobs of `examples/slurm` run, and `hdcid` understands what they ask of it."""

import os
import subprocess
from pathlib import Path

import pytest
from test_report_examples import parsed

JOBS = sorted((Path(__file__).parents[1] / "examples" / "slurm").iterdir())

# Stand in for the programs that jobs call: they note how they were called, one call a line, tabs between words.
RECORDER = (
    '#!/bin/sh\nfor word in "$(basename "$0")" "$@"; do printf "%s\\t" "$word"; done >>"$CALLS"; echo >>"$CALLS"\n'
)
ANSWERS = {"sbatch": 'wc -l <"$CALLS"\n', "scontrol": "echo node1\necho node2\n", "srun": 'exec "$@"\n'}


@pytest.fixture
def calls(tmp_path):
    """Run a job in an empty folder: the calls that it makes, in order."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("hdcid", "torchrun", "sbatch", "scontrol", "srun"):
        (programs / name).write_text(RECORDER + ANSWERS.get(name, ""))
        (programs / name).chmod(0o755)

    def run(job, *arguments, **variables):
        log = tmp_path / "calls"
        log.unlink(missing_ok=True)
        environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "CALLS": str(log)} | variables
        subprocess.run(["bash", job, *arguments], cwd=tmp_path, env=environment, check=True, timeout=60)
        return [line.rstrip("\t").split("\t") for line in log.read_text().splitlines()]

    return run


def job(name):
    return next(path for path in JOBS if path.name == name)


def test_every_part_of_the_features_is_extracted_once(calls):
    asked = []
    for number in range(1, 9):
        part = {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_CPUS_PER_TASK": "16"}
        [(_, *call)] = calls(job("extract.sbatch"), "audio", **part)
        asked.append(parsed(call))
    assert [settings["shard"] for settings in asked] == [(number, 8) for number in range(1, 9)]
    assert all(settings["modality"] == "audio" and settings["workers"] == 16 for settings in asked)


def test_pretraining_shares_its_batch_between_all_processes(calls):
    recorded = calls(job("pretrain.sbatch"), SLURM_JOB_NODELIST="node[1-2]", SLURM_NNODES="2")
    run = next(call for call in recorded if call[0] == "torchrun")
    assert run[run.index("--rdzv-endpoint") + 1] == "node1:29500"
    settings = parsed(run[run.index("hdcid_cli") + 1 :])
    assert settings["batch_size"] % (2 * int(run[run.index("--nproc-per-node") + 1])) == 0


def test_each_task_and_direction_has_a_file_of_its_own(calls, tmp_path):
    measured = set()
    for number in range(4):
        [(_, *call)] = calls(job("cmg.sbatch"), SLURM_ARRAY_TASK_ID=str(number))
        settings = parsed(call)
        measured.add((settings["task"], settings["train"], settings["test"]))
    files = sorted(path.stem for path in (tmp_path / "results").iterdir())
    assert files == sorted(f"{task}-{train[0]}-{test[0]}" for task, train, test in measured) and len(files) == 4
    [(_, *call)] = calls(job("report.sbatch"))
    assert len(parsed(call)["files"]) == 4


def test_jobs_wait_for_what_they_need(calls, tmp_path):
    submitted = calls(job("submit.sh"), str(tmp_path))
    # The stand-in numbers jobs by their order: 1 and 2 extract, 3 pretrains, 4 measures, 5 reports.
    names = [next(Path(word).name for word in call if word.endswith(".sbatch")) for call in submitted]
    assert names == ["extract.sbatch", "extract.sbatch", "pretrain.sbatch", "cmg.sbatch", "report.sbatch"]
    waits = [call[call.index("--dependency") + 1] if "--dependency" in call else "" for call in submitted]
    assert waits == ["", "", "afterok:1:2", "afterok:3", "afterok:4"]
