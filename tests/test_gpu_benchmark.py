"""tests/benchmarks/gpu.sh runs without a GPU, at sizes that show nothing but that."""

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent / "benchmarks"
sys.path.insert(0, str(HERE))
import gpu  # noqa: E402

PARTS = [name for name in gpu.PARTS if name != "rank"]


def measured(part: str) -> list[dict]:
    return list(gpu.PARTS[part](gpu.Sizes(tiny=True, device=torch.device("cpu"))))


@pytest.mark.parametrize("part", [part for part in PARTS if part not in ("step", "ranks")])
def test_every_part_measures_something_that_json_can_hold(part):
    found = measured(part)
    assert found and json.loads(json.dumps(found)) == found
    numbers = [value for each in found for value in each.values() if isinstance(value, float)]
    assert numbers and all(value > 0 for value in numbers)


def test_a_step_is_measured_in_every_precision_and_recorded_only_by_cuda():
    found = {(each["precision"], each["graph"]): each for each in measured("step")}
    assert len(found) == 6 and all(("error" in each) == graph for (_, graph), each in found.items())
    assert all(each["clips_per_second"] > 0 and each["flops"] > 0 for (_, graph), each in found.items() if not graph)


def test_what_fails_says_why_and_the_others_are_measured(monkeypatch):
    def failing(sizes, precision, graph):
        if precision == "tf32":
            raise RuntimeError("out of memory\nTry less")
        return {"clips_per_second": 1.0}

    monkeypatch.setattr(gpu, "step_of", failing)
    sizes = gpu.Sizes(tiny=True, device=torch.device("cpu"))
    found = [each for each in gpu.results("step", sizes) if not each["graph"]]
    assert [each.get("error") for each in found] == [None, "RuntimeError: out of memory", None]

    def broken(sizes):
        yield {"found": 1}
        raise ValueError("no more")

    monkeypatch.setitem(gpu.PARTS, "loader", broken)
    assert list(gpu.results("loader", sizes)) == [{"found": 1}, {"error": "ValueError: no more"}]
    monkeypatch.setitem(gpu.PARTS, "rank", broken)
    with pytest.raises(ValueError, match="no more"):  # else the others would wait for it
        list(gpu.results("rank", sizes))


def test_one_line_starts_every_part_and_all_limits_are_under_nine_minutes():
    script = (HERE / "gpu.sh").read_text()
    started = re.findall(r"^part (\w+) (\d+)", script, re.MULTILINE)
    assert [name for name, _ in started] == PARTS
    assert sum(int(limit) for _, limit in started) < 540
    assert subprocess.run(["bash", "-n", HERE / "gpu.sh"]).returncode == 0


@pytest.mark.slow
def test_the_script_measures_every_part_without_a_gpu():
    done = subprocess.run(
        [HERE / "gpu.sh", "--tiny"], capture_output=True, text=True, env={**os.environ, "PYTHON": sys.executable}
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [part for part, _ in itertools.groupby(each["part"] for each in found)] == PARTS
    assert {each["error"] for each in found if "error" in each} == {"CUDA records steps, and there is no GPU"}
    assert [each["processes"] for each in found if each["part"] == "ranks"] == [1, 2]
    assert done.stderr.split() == [word for part in PARTS for word in ("gpu.sh:", part)]


@pytest.mark.slow
def test_with_more_processes_more_is_sent_and_each_computes_its_own_clips():
    program = [
        sys.executable,
        HERE / "scaling.py",
        "--processes",
        "1,2",
        "--channels",
        "8",
        "--batch-size",
        "2",
        "--steps",
        "1",
    ]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    one, two = map(json.loads, done.stdout.splitlines())
    assert (one["messages"], one["megabytes"]) == (0, 0) and two["messages"] >= 2
    assert two["megabytes"] > 3e-6 * two["parameters"]  # gradients, of four bytes, of nearly all
    assert min(one["processor_seconds"], two["processor_seconds"]) > 0
