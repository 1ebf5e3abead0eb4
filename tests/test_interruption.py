"""Signals, streams that are closed and readers that go away: the right exit status, and no traceback."""

import contextlib
import os
import signal
import subprocess
import sys
import threading

import pytest

from hdcid_cli.core import interruption
from hdcid_cli.core.interruption import Interruption
from hdcid_cli.main import run

# Starts the program, and sends itself a signal when a module is about to be imported, from code that is made of a
# string: of that Python keeps a note, and looks at it in the end of `python -m`.
DISTURBED = """
import os, runpy, sys
class Disturber:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            exec("os.kill(os.getpid(), {number})")
sys.meta_path.insert(0, Disturber())
sys.argv = ["hdcid", *{arguments!r}]
runpy.run_module("hdcid_cli", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("module", ["hdcid_cli.core.errors", "click", "hdcid_cli.commands.info", "numpy", "h5py"])
def test_a_signal_while_it_starts_is_an_interruption(tmp_path, module, number):
    (tmp_path / "disturbed.py").write_text(
        DISTURBED.format(module=module, number=int(number), arguments=["info", "nothing.h5"])
    )
    done = subprocess.run([sys.executable, "-m", "disturbed"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


# Starts the program, and sends itself a signal when Python takes down its modules.
LATE = """
import builtins, os, runpy, sys
class Late:
    def __del__(self, kill=os.kill, process=os.getpid()):
        kill(process, {number})
builtins.late = Late()
sys.argv = ["hdcid", *{arguments!r}]
runpy.run_module("hdcid_cli", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("arguments,status", [(["--version"], 0), (["info", "nothing.h5"], 2)])
def test_a_signal_while_it_ends_changes_nothing(tmp_path, arguments, status, number):
    program = LATE.format(number=int(number), arguments=arguments)
    assert subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True).returncode == status


def test_what_a_library_makes_of_an_interruption_is_still_one(monkeypatch, capsys):
    import hdcid_cli.main as main

    def swallow(*_):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt as error:
            raise ImportError("initialization failed") from error

    monkeypatch.setattr(main, "_call", swallow)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        main.interruption.listen()
        assert run([], {}) == 130
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert capsys.readouterr().err == "interrupted\n"


def test_an_interruption_is_over_when_the_next_command_begins(capsys):
    with pytest.raises(KeyboardInterrupt), Interruption():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    assert run(["info", "nothing.h5"], {}) == 2
    assert "nothing.h5" in capsys.readouterr().err


def test_the_end_of_a_file_is_no_interruption(monkeypatch, capsys):
    def ends(*_):
        raise EOFError("ran out of input")

    monkeypatch.setattr("hdcid_cli.commands.info.describe", ends)
    assert run(["info", "x"], {}) == 1
    assert "EOFError" in capsys.readouterr().err


def test_two_signals_are_remembered_and_the_second_ctrl_c_stops():
    with Interruption() as job:
        assert not job.asked
        os.kill(os.getpid(), signal.SIGTERM)
        assert job.asked
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_that_came_to_nothing_stops_the_job_before_its_first_step():
    """Python prints a KeyboardInterrupt that a destructor raises, and goes on."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        interruption.listen()
        interruption.forget()
        with Interruption() as job:
            assert not job.asked
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        with Interruption() as job:
            assert job.asked
        interruption.forget()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_job_in_a_thread_is_never_asked_to_stop():
    seen = []

    def job():
        with Interruption() as job_in_thread:
            seen.append(job_in_thread.asked)

    thread = threading.Thread(target=job)
    thread.start()
    thread.join()
    assert seen == [False]


def shell(line, folder):
    """Run a line of bash in which `hdcid` is the program."""
    return subprocess.run(
        ["/bin/bash", "-c", f'set -o pipefail; hdcid() {{ "{sys.executable}" -m hdcid_cli "$@"; }}; {line}'],
        cwd=folder,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "line,status,said",
    [
        ("hdcid --help | true", 0, ""),
        ("hdcid info --help | true", 0, ""),
        ("hdcid info nothing.h5 2>&1 | true", 2, ""),
        ("hdcid --help >&-", 0, ""),
        ("hdcid info nothing.h5 2>&-", 2, ""),
        ("hdcid info nothing.h5 <&- >&- 2>&-", 2, ""),
        ("hdcid --help >/dev/full", 1, "error: No space left on device.\n"),
    ],
)
def test_output_that_nobody_takes_is_no_traceback(tmp_path, line, status, said):
    done = shell(line, tmp_path)
    assert (done.returncode, done.stderr) == (status, said)


def test_files_are_not_opened_as_closed_standard_output(tmp_path):
    """Else what is printed would go into them."""
    code = (
        "import os; from hdcid_cli.__main__ import _open_standard_streams as go; go(); print(os.open('x', os.O_CREAT))"
    )
    done = subprocess.run(
        ["/bin/bash", "-c", f'"{sys.executable}" -c "{code}" >&-; wc -c < x'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "0", done.stderr


def test_messages_cannot_steer_a_terminal(tmp_path):
    done = shell("hdcid info $'a\\e[31mb'; hdcid $'x\\e[2J'", tmp_path)
    assert "\x1b" not in done.stderr and "a\\x1b[31mb" in done.stderr and "x\\x1b[2J" in done.stderr
