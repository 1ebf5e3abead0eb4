"""A run's folder: made or taken up again, saved so that a crash at any moment leaves a whole run, never a stranger's.

    config.yaml    what was asked for: the settings that decide what is learned
    ...            what the run saves: each file replaced as a whole, the one that makes a save count last
    metrics.jsonl  one record a line

Where a trained run already is, a new one (`--overwrite`) is built in `.new-run/` in the same folder. When its first
save is whole, that is renamed to `.new-run-whole/` and its files take the place of the old ones; what a crash leaves
half done the next run finishes. Nothing but a run's own files is ever removed.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import yaml
from safetensors import SafetensorError

from hdcid_cli.core.distributed import World
from hdcid_cli.core.errors import HdcidError, InputError
from hdcid_cli.core.files import (
    Lock,
    atomic_path,
    check_symlink,
    make_folder,
    open_regular,
    reason,
    remove_empty,
    replace_symlink,
    unwritable,
    write_text,
)
from hdcid_cli.core.plain_yaml import read_yaml
from hdcid_cli.core.progress import counted, warn
from hdcid_cli.core.settings import SHOWN

CONFIG, METRICS = "config.yaml", "metrics.jsonl"
NEW, WHOLE = ".new-run", ".new-run-whole"
METRICS_LINE = 1 << 20  # bytes; ours have a few hundred

Result = TypeVar("Result")
Setting = tuple[str, str]  # a section of the configuration and a key in it


@dataclass(frozen=True)
class RunKind:
    """What a run keeps in its folder.

    Args:
        name: what messages call the folder, such as "checkpoint directory".
        format, version: as its `config.yaml` says.
        saved: patterns of the files of a save, the last of which makes it count.
        noted: patterns of its other files, but for `config.yaml`.
        derived: patterns of files that others made from it, and that are worth nothing without it.
        latest: whether a link `latest` beside the folder shows which one was saved last.
        absent: {section: {setting: what runs did before there was such a setting}}.
    """

    name: str
    format: str
    version: int
    saved: tuple[str, ...]
    noted: tuple[str, ...]
    derived: tuple[str, ...] = ()
    latest: bool = False
    absent: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def completed(self, config: dict) -> dict:
        """A configuration with the settings that its version did not have yet."""
        return {
            name: {**self.absent.get(name, {}), **value} if isinstance(value, dict) else value
            for name, value in config.items()
        }


def read_config(path: Path, kind: RunKind, any_version: bool = False) -> dict:
    """`config.yaml` of a run's folder; one of another kind (or version), or damaged, is an InputError."""
    config = read_yaml(path / CONFIG)
    if config.get("format") != kind.format:
        raise InputError(
            f"{path} is not a {kind.name} of this program: its {CONFIG} does not say format {kind.format}."
        )
    if config.get("version") != kind.version and not any_version:
        raise InputError(
            f"{path} is a {kind.name} of version {SHOWN.repr(config.get('version'))}; this program reads "
            f"{kind.version}: make it again."
        )
    return config


def write_config(path: Path, kind: RunKind, config: dict) -> None:
    """Write `config.yaml` with format and version."""
    config = {"format": kind.format, "version": kind.version, **config}
    write_text(path / CONFIG, yaml.dump(config, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data) -> bool:  # a value that is there twice is written out twice: no alias is read
        return True


def differences(previous: dict, config: dict, free: Iterable[Setting] = ()) -> list[str]:
    """Settings in which two configurations differ, one phrase each.

    Args:
        free: those that may differ.
    """
    found, free = [], set(free)
    for section, values in config.items():
        before = previous.get(section)
        if not isinstance(values, dict) or not isinstance(before, dict):
            if before != values:
                found.append(f"{section} was {SHOWN.repr(before)}, now {SHOWN.repr(values)}")
            continue
        for key in {**before, **values}:
            old, new = before.get(key), values.get(key)
            if old == new or (section, key) in free:
                continue
            plain = not isinstance(old, (dict, list)) and not isinstance(new, (dict, list))
            found.append(
                f"{key} was {SHOWN.repr(old)}, now {SHOWN.repr(new)}" if plain else f"other {key} in {section}"
            )
    return found


class RunDirectory:
    """One run's folder, locked until it is closed. Several processes use it together: the main one writes.

    Args:
        path: the folder; made if need be.
        config: what the run is to do, section by section; plain values.
        free: settings in which the run may differ from the one that is taken up.
        overwrite: start again where a run is.
        notes: keys of `config` that decide nothing.

    Attributes:
        resumed: whether there is a save of the same settings, to go on from.
        place: where the files are written: the folder, or one in it until the first save.

    Raises:
        InputError: the folder holds something else, or a run with other settings, or another process has it.
        HdcidError: it cannot be written to; so do all methods.
    """

    def __init__(
        self,
        path: Path,
        kind: RunKind,
        config: dict,
        free: Iterable[Setting] = (),
        overwrite: bool = False,
        notes: Iterable[str] = (),
        world: World | None = None,
    ):
        self.path, self.kind, self.config, self.world = Path(path), kind, config, world or World()
        self.place = self.path
        self._lock: Lock | None = None
        self._made: list[Path] = []
        self._begun = False
        decides = {key: value for key, value in config.items() if key not in set(notes)}
        self.resumed = self._in_main(lambda: self._open(decides, free, overwrite))

    def _open(self, decides: dict, free: Iterable[Setting], overwrite: bool) -> bool:
        _refuse_strange_folder(self.path, self.kind)
        if self.kind.latest:  # told before the work
            check_symlink(self.path.parent / "latest")
        try:
            self._made = make_folder(self.path)
        except OSError as error:
            raise unwritable(self.path, error) from error
        try:
            self._lock = Lock(
                self.path / ".lock",
                f"Another process is training in {self.path}: wait for it, or choose another --output.",
            )
            self._mend()
            if not (self.path / CONFIG).exists():
                return False
            previous = read_config(self.path, self.kind, any_version=overwrite)
            if overwrite:
                return False
            changed = differences(self.kind.completed(previous), decides, free)
            if changed:
                raise InputError(
                    f"{self.path} was trained with other settings ({'; '.join(changed[:3])}): choose another --output "
                    "or use --overwrite."
                )
            return (self.path / self.kind.saved[-1]).exists()
        except BaseException:
            self.close()
            raise

    def _mend(self) -> None:
        """Finish or undo what a killed run had begun."""
        if (self.path / WHOLE).is_dir():
            self._move_in()
        elif (self.path / NEW / self.kind.saved[-1]).exists():
            self._replace()
        shutil.rmtree(self.path / NEW, ignore_errors=True)
        for pattern in (CONFIG, *self.kind.saved, *self.kind.noted):
            for temporary in self.path.glob(str(Path(pattern).parent / f".{Path(pattern).name}.*.tmp")):
                temporary.unlink(missing_ok=True)

    def start(self, texts: dict[str, str] | None = None) -> None:
        """Write what a run says of itself before it begins: its `config.yaml`, and, if it is a new one, `texts` by the
        names of their files. An older run stays until the first save."""
        self._in_main(lambda: self._start(texts or {}))

    def _start(self, texts: dict[str, str]) -> None:
        if not self.resumed:
            if self._own(self.kind.saved):
                self.place = self.path / NEW
            else:
                self._remove_own()
                self._begun = True
        write_config(self.place, self.kind, self.config)
        if not self.resumed:
            for name, text in texts.items():
                write_text(self.place / name, text)

    def metrics(self, by: str, last: float) -> "MetricsLog":
        """The log of this run, from whose records those after `last` are taken out."""
        return MetricsLog(self.place / METRICS if self.world.is_main else None, by, last)

    def save(self, files: dict[str, Callable[[Path], None]]) -> None:
        """Replace files, one after the other; the last one makes the save count.

        Args:
            files: {name: what writes the file at a path}. A crash between two leaves the earlier save to go on from.
        """
        self._in_main(lambda: self._save(files))

    def _save(self, files: dict[str, Callable[[Path], None]]) -> None:
        *_, last = files
        for name, write in files.items():
            if name == last and self.kind.latest:
                replace_symlink(self.path.parent / "latest", os.path.basename(self.path))
            file = self.place / name
            try:
                with atomic_path(file) as temporary:
                    write(temporary)
            except InputError:
                raise
            except (OSError, RuntimeError, SafetensorError, HdcidError) as error:  # each has its own for a full disk
                why = reason(error.__cause__ if isinstance(error, HdcidError) and error.__cause__ else error)
                raise HdcidError(
                    f"{file} cannot be written (is the disk full? {why}): what was there before is kept; make room "
                    "and run the same command to go on."
                ) from error
        if self.place != self.path:
            self._replace()
            self.place = self.path
        self._begun = False

    def _replace(self) -> None:
        """Put the new run, which is whole, in the old one's place."""
        self._remove_own()
        os.rename(self.path / NEW, self.path / WHOLE)
        self._move_in()

    def _move_in(self) -> None:
        new = self.path / WHOLE
        files = [file for file in new.rglob("*") if file.is_file()]
        for file in sorted(files, key=lambda file: (file.name == self.kind.saved[-1], file.name != CONFIG)):
            target = self.path / file.relative_to(new)
            target.parent.mkdir(exist_ok=True)
            os.replace(file, target)
        shutil.rmtree(new)

    def _own(self, patterns: Iterable[str]) -> list[Path]:
        return [file for pattern in patterns for file in self.path.glob(pattern)]

    def _remove_own(self) -> None:
        """Remove the files of the run that was here, but for `config.yaml`, which says whose folder it is."""
        for file in self._own((*self.kind.saved, *self.kind.noted, *self.kind.derived)):
            file.unlink(missing_ok=True)
            if file.parent != self.path:
                with contextlib.suppress(OSError):  # not empty
                    file.parent.rmdir()

    def _in_main(self, work: Callable[[], Result]) -> Result:
        """What `work` gives in the main process, in all of them; what it raises there is raised in all."""
        found: Result | None = None
        problem = None
        if self.world.is_main:
            try:
                found = work()
            except HdcidError as error:
                problem = error
        found, problem = self.world.collect((found, problem))[0]
        if problem is not None:
            raise problem
        return found

    def close(self) -> None:
        """Let others use the folder; a new run that was not saved leaves nothing, but what was recorded of it where no
        other run is."""
        if self._lock is not None:
            if self.place != self.path:
                shutil.rmtree(self.place, ignore_errors=True)
            elif self._begun and not _holds_something(self.path / METRICS):
                with contextlib.suppress(OSError):  # why the run ended has been told
                    self._remove_own()
                    (self.path / CONFIG).unlink(missing_ok=True)
            self._lock.release()
        remove_empty(self._made)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _holds_something(file: Path) -> bool:
    return file.exists() and file.stat().st_size > 0


def _refuse_strange_folder(path: Path, kind: RunKind) -> None:
    """Raise InputError if something else than such a run is at the path."""
    if not path.exists() or any((path / name).exists() for name in (CONFIG, WHOLE)):
        return
    if not path.is_dir():
        raise InputError(f"{path} is a file and not a {kind.name}: choose another --output.")
    if any(not entry.name.startswith((".lock", f".{CONFIG}.")) for entry in path.iterdir()):
        raise InputError(f"{path} exists and is not a {kind.name}: choose another --output.")


class MetricsLog:
    """Records of a run, one a line of JSON, in the order of a number (`step`, `epoch`).

    Args:
        file: opened (and made) at once; None keeps no records.
        last: records after it, and lines that a crash has cut, are taken out: they will come again.
    """

    def __init__(self, file: Path | None, by: str, last: float):
        self.path = file
        if file is None:
            return
        try:
            if file.exists():
                _keep_lines(file, by, last)
            self._file = open(file, "a", encoding="utf-8")
        except OSError as error:
            raise unwritable(file, error) from error

    def write(self, record: dict) -> None:
        """Add a record; floats are rounded to nine digits."""
        if self.path is None:
            return
        rounded = {name: float(f"{value:.9g}") if isinstance(value, float) else value for name, value in record.items()}
        try:
            self._file.write(json.dumps(rounded) + "\n")
            self._file.flush()
        except OSError as error:
            raise unwritable(self.path, error, "run the same command to go on from the last save") from error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.path is not None:
            with contextlib.suppress(OSError):  # what it could not write has been told
                self._file.close()


def _keep_lines(file: Path, by: str, last: float) -> None:
    """Take out all but whole records up to `last`; where there is nothing else, the file is not touched."""
    with open_regular(file) as opened:
        lines = [(_number(line, by), line.endswith(b"\n")) for line in _pieces(opened)]
    strange = sum(number is None and whole for number, whole in lines)
    if strange:
        warn(f"{file}: {counted(strange, 'line')} taken out, as no records.")
    kept = [number is not None and number <= last for number, _ in lines]
    if all(kept):
        return
    with open_regular(file) as old, atomic_path(file) as temporary, open(temporary, "wb") as new:
        new.writelines(line for line, keep in zip(_pieces(old), kept, strict=True) if keep)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    """Lines with their ends; one that is too long, or that a crash has cut, comes in pieces without."""
    return iter(lambda: file.readline(METRICS_LINE), b"")


def _number(line: bytes, by: str) -> float | None:
    """The number of a record; None for what is no record."""
    if not line.endswith(b"\n"):
        return None
    try:
        number = json.loads(line)[by]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return number if isinstance(number, (int, float)) else None
