"""When a loop logs, saves and stops."""

from hdcid_cli.core.distributed import World
from hdcid_cli.training import cadence
from hdcid_cli.training.cadence import Cadence


def done(cadence, steps, asked=lambda step: False):
    """What is done after which steps."""
    found = {"log": [], "save": [], "stop": []}
    for step in steps:
        now = cadence.after(step, asked(step))
        for name, value in now._asdict().items():
            if value:
                found[name].append(step)
        if now.save:
            cadence.saved()
    return found


def test_records_and_saves_come_after_so_many_steps_and_at_the_end():
    found = done(Cadence(1e9, save_steps=4, log_every=3, total=10), range(1, 11))
    assert found == {"log": [3, 4, 6, 8, 9, 10], "save": [4, 8, 10], "stop": []}


def test_saves_come_after_so_many_seconds(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(cadence.time, "monotonic", lambda: now[0])
    counted = Cadence(save_seconds=2.5, log_every=100)
    saves = []
    for step in range(1, 10):
        now[0] += 1
        if counted.after(step, False).save:
            saves.append(step)
            counted.saved()
    assert saves == [3, 6, 9]


def test_who_is_asked_to_stop_logs_and_saves_first_and_a_last_step_is_no_stop():
    asked = lambda step: step >= 5  # noqa: E731
    found = done(Cadence(1e9, log_every=3, total=10), range(1, 6), asked)
    assert found == {"log": [3, 5], "save": [5], "stop": [5]}
    assert done(Cadence(1e9, log_every=3, total=5), range(1, 6), asked)["stop"] == []


class Several(World):
    """A world whose other process was asked to stop from step 4 on."""

    questions = 0

    def any(self, flag):
        type(self).questions += 1
        return True


def test_several_processes_decide_at_the_logging_steps_alone():
    world = Several(rank=0, size=2)
    assert done(Cadence(1e9, save_steps=100, log_every=5, world=world), range(1, 6)) == {
        "log": [5],
        "save": [5],
        "stop": [5],
    }
    assert Several.questions == 1
