"""What a run says of its speed, on a clock that the test moves."""

from types import SimpleNamespace

import pytest
import torch

from hdcid_cli.training import speed
from hdcid_cli.training.speed import Speed, duration


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(time=0.0)
    monkeypatch.setattr(speed.time, "monotonic", lambda: now.time)
    monkeypatch.setattr(speed, "matrix_rate", lambda device, precision: {"float32": 4e6, "bf16": 64e6}[precision])
    return now


def trainer(precision="float32", size=1):
    return SimpleNamespace(
        device=torch.device("cpu"),
        config=SimpleNamespace(precision=precision),
        world=SimpleNamespace(size=size),
        started=1,
        active_layers=lambda epoch: 1,
    )


def run(speed, clock, steps, seconds=2.0, data=0.5, host=0.5):
    """Steps of 500 x 1000 x 1000 products, each after some waiting for features, and before some logging."""
    for _ in range(steps):
        clock.time += data
        speed.waits.data += data
        with speed.step(0):
            torch.ones(500, 1000) @ torch.ones(1000, 1000)
            clock.time += seconds
        clock.time += host


def test_rates_and_shares_of_the_time(clock):
    meter = Speed(trainer(), clips=30)
    run(meter, clock, 4)
    record = meter.take()
    assert record == pytest.approx(
        {
            "samples_per_second": 10,
            "flops_per_second": 1e9 / 3,
            "share_of_peak": 1e9 / 3 / 4e6,
            "time/data": 1 / 6,
            "time/device": 2 / 3,
            "time/host": 1 / 6,
        }
    )
    run(meter, clock, 2, data=0, host=0)
    assert meter.take()["time/device"] == pytest.approx(1)  # since the last time, not since the beginning


def test_the_peak_is_that_of_the_precision_and_of_all_processes(clock):
    shares = {}
    for precision, size in (("float32", 1), ("bf16", 1), ("float32", 2)):
        meter = Speed(trainer(precision, size), clips=30)
        run(meter, clock, 1)
        shares[precision, size] = meter.take()["share_of_peak"]
    assert shares["float32", 1] == pytest.approx(16 * shares["bf16", 1])
    assert shares["float32", 1] == pytest.approx(shares["float32", 2])  # twice the work on twice the machines


def test_the_end_of_a_run_tells_how_long_the_papers_runs_would_take(clock):
    meter = Speed(trainer(), clips=30)
    assert meter.told() is None
    run(meter, clock, 3)
    with meter.apart():
        clock.time += 1000  # looking at validation clips is no training
    meter.take()
    assert meter.told() is None  # three steps say nothing of thousands
    run(meter, clock, 3)
    meter.take()
    assert meter.told() == (
        "10 clips/s, 8333 % of this machine's float32 peak; time went to device 67 %, host 17 %, data 17 %. "
        "5 epochs of such features take: 40,000 clips 5.6 h and 90,000 clips 12 h."
    )


def test_durations_are_short():
    seconds = (43, 99.4, 720, 4.5 * 3600, 31 * 3600)
    assert [duration(each) for each in seconds] == ["43 s", "99 s", "12 min", "4.5 h", "31 h"]
