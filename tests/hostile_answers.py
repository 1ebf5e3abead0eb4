"""A case run in a forked process, and the answer judged."""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from hostile_groups import Case, Group

from hdcid_cli import main

SECONDS = 5  # of computing
BYTES = 1 << 30
HANGS = 60  # seconds of waiting for something that does not come
PAUSE = 0.005  # seconds between two looks at a case
INTERNAL = re.compile(
    r"Traceback|--debug for|\b[A-Z]\w*(Error|Exception|Iteration|Interrupt)\b|0x[0-9a-f]{6}|\bNoneType\b"
)


@dataclass
class Answer:
    """What a command did.

    Attributes:
        status: its exit status, negative for a signal that ended it.
        problems: what it should not have done; empty if all is well.
    """

    status: int
    said: str
    seconds: float
    peak: int
    problems: list[str] = field(default_factory=list)


def attempt(group: Group, case: Case, original: Path) -> Answer:
    """Run a case in a copy of its world, and judge the answer."""
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        place = Path(folder, "world")
        shutil.copytree(original, place, symlinks=True)
        before = Path.cwd()
        os.chdir(place)
        try:
            for change in case.changes:
                change.apply()
            files = snapshot(Path("."))
            answer = fork(case.arguments, Path(folder))
            left = snapshot(Path("."))
        finally:
            os.chdir(before)
        judge(answer, group, case, files, left, Path(folder, "out"))
        return answer


def snapshot(folder: Path) -> dict[str, tuple]:
    """{path: what changes when it is written to or replaced} of everything in a folder but folders."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            state = os.lstat(path)
            found[os.path.relpath(path, folder)] = (state.st_ino, state.st_size, state.st_mtime_ns, state.st_mode)
    return found


def fork(arguments: tuple[str, ...], folder: Path) -> Answer:
    """The command in a process of its own, ended if it hangs or grows."""
    child = os.fork()
    if child == 0:
        _run(arguments, folder)
    page, peak, why, waited = os.sysconf("SC_PAGE_SIZE"), 0, "", 0.0
    base = int(Path("/proc/self/statm").read_text().split()[1]) * page
    while True:
        done, raw, used = os.wait4(child, os.WNOHANG)
        if done:
            break
        computed = 0.0
        with contextlib.suppress(OSError, IndexError):
            peak = max(peak, int(Path(f"/proc/{child}/statm").read_text().split()[1]) * page - base)
            state, *rest = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            computed = sum(map(int, rest[10:12])) / os.sysconf("SC_CLK_TCK")
            if state != "R":  # on a busy machine a case may stand in line for minutes, and that is no fault of its own
                waited += PAUSE
        if waited > HANGS or computed > 4 * SECONDS or peak > 2 * BYTES:
            why = "grows" if peak > 2 * BYTES else "hangs"
            os.kill(child, signal.SIGKILL)
            _, raw, used = os.wait4(child, 0)
            break
        time.sleep(PAUSE)
    said = Path(folder, "err").read_text(encoding="utf-8", errors="replace")
    answer = Answer(os.waitstatus_to_exitcode(raw), said, used.ru_utime + used.ru_stime, max(peak, 0))
    if why:
        answer.problems.append(why)
    return answer


def _run(arguments: tuple[str, ...], folder: Path) -> None:
    """In the child: never returns."""
    status = 99
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.environ["https_proxy"] = "http://127.0.0.1:9"  # nothing is downloaded
        for name, stream, descriptor in (("out", sys.stdout, 1), ("err", sys.stderr, 2)):
            with contextlib.suppress(ValueError, OSError):
                stream.flush()
            opened = os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o600)
            os.dup2(opened, descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin = open(0, closefd=False)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)
        status = main.run(list(arguments), {"debug": False})
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def judge(answer: Answer, group: Group, case: Case, before: dict, after: dict, out: Path) -> None:
    """Note what is wrong with an answer."""
    note, said = answer.problems.append, answer.said
    lines = [line for line in said.splitlines() if line]
    # A backbone was named whose weights are not here, and the network is off.
    offline = answer.status == 1 and re.search("cannot be downloaded|does not answer", said)
    if answer.status not in (0, 2, 3) and not offline and not answer.problems:
        note(f"status {answer.status}")
    if INTERNAL.search(said):
        note("internal")
    if any(not character.isprintable() and character != "\n" for character in said):
        note("control characters")
    if answer.seconds > SECONDS:
        note("slow")
    if answer.peak > BYTES:
        note("memory")
    if answer.status == 2 and not any(line.startswith("warning: ") for line in lines[-1:]):
        error = lines[-1] if lines else ""
        if not re.match(r"(error|Error): .*[.)']$", error) or len(error) > 1000:
            note("no sentence")
        paths = [Path(change.path) for change in case.changes]
        names = {name for path in paths for name in (path.name, str(path.parent), f"{path.parts[0]}/")} - {"."}
        names |= {f"error: {path.parts[0]} " for path in paths}  # of what is in the folder as a whole
        configured = bool(names & {"options", "recipe.yaml"})  # a value is told by its option's name, or as it stands
        names |= {"--"} if configured else set()
        names |= {"was trained with other settings"}  # what is hurt may be a sound file of something else
        told = any(name in said for name in names) or (configured and any(_tells(said, each) for each in _values(case)))
        if not told and "warning: skipped" not in said:
            note("does not name the file")
    if answer.status == 3 and not lines:
        note("skips in silence")
    if out.suffix != ".html" and answer.status in (0, 3) and case.arguments[0] not in ("report",):
        for line in out.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("{"):
                try:
                    json.loads(line, parse_constant=_no_number)
                except ValueError:
                    note("a record that is no JSON")
                    break
    written = (*_written(group), *(f"{value}/*" for value in _values(case) if "extract" in case.arguments))
    for path in before.keys() | after.keys():
        if before.get(path) != after.get(path) and not any(Path(path).match(pattern) for pattern in written):
            note(f"touches {path}")


def _values(case: Case) -> set[str]:
    """What hurt files of options say, one line one value."""
    files = [change for change in case.changes if change.path.endswith(".yaml") and isinstance(change.content, bytes)]
    lines = [line for change in files for line in change.content.decode("utf-8", "replace").splitlines()]
    return {re.sub("^(- |[a-z-]+: )", "", line).strip("'\"") for line in lines}


def _tells(said: str, value: str) -> bool:
    """Whether a sentence has a value as a word; a long one is told in short, and a folder without a name is `.`."""
    word = re.escape({"": ".", ".nan": "nan", ".inf": "inf"}.get(value, value)[:50])
    return bool(re.search(rf"(^|[\s',]){word}($|[\s',:;]|\.(\s|$))" if len(value) < 50 else word, said))


def _written(group: Group) -> tuple[str, ...]:
    deeper = tuple(f"{pattern}/*" for pattern in group.written if pattern.endswith("/*"))
    more = tuple(f"{pattern}/*/*" for pattern in group.written if pattern.endswith("/*"))
    return (*group.written, *deeper, *more)


def _no_number(name: str):
    raise ValueError(name)
