"""Files from strangers are read with limits; files are written so that a crash leaves the old one or the new one."""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from hdcid_cli.core.errors import HdcidError, InputError

# No text that we read (annotations, captions, records, settings) comes near this.
TEXT_LIMIT = 256 << 20
# File systems take 255 bytes; callers add endings.
NAME_LIMIT = 200
# Our own open files by name: written through, as the shell that opened them means it.
_DESCRIPTOR = re.compile(r"/dev/(stdin|stdout|stderr|fd/\d+)|/proc/.*")
# What the system says where there can be no such file: a file stands where a folder should, a link leads to itself.
_NO_PLACE = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
# A temporary file that nobody has written to for so long was left by a process that was killed.
_LEFT_SECONDS = 3600.0


@contextlib.contextmanager
def atomic_path(target: Path | str, named: bool = False) -> Iterator[Path]:
    """Yield the path of a temporary file; on success its content becomes that of `target`.

    A regular file (or a new one) is replaced by a rename, so a reader never sees half of it; it keeps its
    permissions, and a symbolic link is followed. If the block raises, nothing has changed.

    Args:
        named: somebody has named this very file, as with `-o FILE`, and may mean a device or a FIFO: it is written to,
            and never replaced. In a folder of ours nobody means one.

    Raises:
        InputError: `target` is a folder, a link that leads nowhere else, or, unless `named`, a device or a FIFO.
        HdcidError: it cannot be written (full disk, read-only folder, no permission).
    """
    mode = _mode(target)
    if not named and mode is not None and not stat.S_ISREG(mode):  # a FIFO would wait for a reader
        raise InputError(f"{target} is a pipe or a device, not a file: remove it.")
    if _written_through(target, mode):
        writing = _straight(target)
    else:
        writing = _by_rename(Path(os.path.realpath(target)), mode)
    with writing as temporary:
        try:
            yield temporary
        except OSError as error:
            if isinstance(error, BrokenPipeError) or error.filename not in (None, temporary, str(temporary)):
                raise
            raise unwritable(target, error) from error


def refuse_to_replace(target: Path | str, instead: str) -> None:
    """Raise InputError if a file is there that would be lost; a device or a FIFO is written to, and loses nothing.

    Args:
        instead: what to do, as the sentence ends.
    """
    mode = _mode(target)
    if mode is not None and not _written_through(target, mode):
        raise InputError(f"{target} is there already: {instead}.")


def refuse_stream(target: Path | str) -> None:
    """Raise InputError for a device or a FIFO, where a file has to be that can be written in any order."""
    if _written_through(target, _mode(target)):
        raise InputError(f"{target} is a pipe or a device, and this has to be a file: name another.")


def _mode(target: Path | str) -> int | None:
    """What is there, as `stat` has it; None for nothing, and InputError for a folder."""
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unwritable(target, error) from error
    if stat.S_ISDIR(mode):
        raise InputError(f"{target} is a folder: name a file in it.")
    return mode


def _written_through(target: Path | str, mode: int | None) -> bool:
    """Whether nothing is replaced there: a device, a FIFO, or a file that is open already, by the name it has then."""
    return bool(_DESCRIPTOR.fullmatch(os.path.abspath(target))) or not (mode is None or stat.S_ISREG(mode))


@contextlib.contextmanager
def _by_rename(target: Path, mode: int | None) -> Iterator[Path]:
    made: list[Path] = []
    try:
        if mode is not None and not os.access(target, os.W_OK):  # a rename would not mind
            raise PermissionError(13, "Permission denied")
        made = make_folder(target.parent)
        handle, name = tempfile.mkstemp(prefix=f".{target.name[:40]}.", suffix=".tmp", dir=target.parent)
    except OSError as error:
        remove_empty(made)
        raise unwritable(target, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        try:
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
            # mkstemp makes private files; a new file gets the permissions that open() would give it.
            os.chmod(temporary, 0o666 & ~_umask() if mode is None else stat.S_IMODE(mode))
            os.replace(temporary, target)
        except OSError as error:
            raise unwritable(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)
        remove_empty(made)


@contextlib.contextmanager
def _straight(target: Path | str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hdcid-") as folder:
        temporary = Path(folder, "output")
        temporary.touch()
        yield temporary
        try:
            # Appending is all that a FIFO can do, and what standard output means if it is a file.
            with open(temporary, "rb") as written, open(target, "ab") as out:
                shutil.copyfileobj(written, out)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise unwritable(target, error) from error


def unwritable(target: Path | str, error: OSError, consequence: str = "") -> HdcidError:
    """The sentence for a file that cannot be written; an InputError where it never could, by that name."""
    kind = InputError if error.errno in _NO_PLACE else HdcidError
    return kind(f"{target} cannot be written: {reason(error)}{consequence and '; '}{consequence}.")


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def reason(error: BaseException) -> str:
    """What the operating system said, in its own short words, also where HDF5 wraps them in its own long ones."""
    wrapped = re.search(r"error message = '([^']+)'", str(error))
    return getattr(error, "strerror", None) or (
        wrapped[1] if wrapped else str(error).splitlines()[0] if str(error) else "no reason given"
    )


def write_text(target: Path | str, text: str, named: bool = False) -> None:
    """Make `text` (UTF-8) the content of `target`, as `atomic_path` does."""
    with atomic_path(target, named) as temporary:
        temporary.write_text(text, encoding="utf-8")


def make_folder(folder: Path) -> list[Path]:
    """Make a folder and those that it lies in; those that were not there, and that nobody else has made meanwhile, are
    returned, the innermost first.

    Raises:
        OSError: it cannot be made; nothing of it is left.
    """
    missing = [each for each in (folder, *folder.parents) if not os.path.lexists(each)]
    made: list[Path] = []
    try:
        for each in reversed(missing):
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                each.mkdir()
                made.insert(0, each)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        remove_empty(made)
        raise
    return made


def remove_empty(folders: Iterable[Path]) -> None:
    """Take back what `make_folder` made, but for what holds something by now."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left in a folder: temporary files of ours that nobody has touched for an hour."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):  # another process may be tidying too
            if path.is_file() and time.time() - path.stat().st_mtime > _LEFT_SECONDS:
                path.unlink()


def open_regular(path: Path | str) -> BinaryIO:
    """Open a file to read its bytes; what is missing, a folder, a FIFO or a device is an InputError (and no wait)."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would wait for a writer
    except FileNotFoundError:
        raise InputError(f"There is no file {path}.") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(handle, "rb")
    os.close(handle)
    raise InputError(f"{path} is a {'folder' if stat.S_ISDIR(mode) else 'pipe or a device'}, not a file.")


def read_text(path: Path | str, limit: int = TEXT_LIMIT) -> str:
    r"""A text file's content: UTF-8, without a byte order mark, every line ending as `\n`.

    Raises:
        InputError: the file is missing, not a regular one, over `limit` bytes or not UTF-8.
    """
    try:
        with open_regular(path) as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {reason(error)}.") from error
    if len(content) > limit:
        raise InputError(f"{path} is larger than {limit:,} bytes, the limit for such a file.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path} is not UTF-8 text (line {line}).") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"{path}, line {line}: a null character, so this is not text in UTF-8.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def pwrite(file: int, content, place: int) -> None:
    """Write all of some bytes at a place of an open file (os.pwrite may write fewer)."""
    rest = memoryview(content).cast("B")
    while rest:
        written = os.pwrite(file, rest, place)
        place += written
        rest = rest[written:]


def _at_once(path: str, flags: int) -> int:
    """Open a file to write to; of a FIFO it is an OSError that nobody reads it, and no wait."""
    return os.open(path, flags | os.O_NONBLOCK, 0o666)


class Lock:
    """Keeps other processes away from something until it is released, or this process is gone.

    Args:
        path: a file that stands for it; it is made here, and removed when the lock is released.
        refusal: the sentence for who finds it taken.

    Raises:
        InputError: another process has the lock.
        HdcidError: the file cannot be made.
    """

    def __init__(self, path: Path, refusal: str):
        self.path = path
        while True:
            try:
                self._file = open(path, "ab", opener=_at_once)
            except OSError as error:
                raise unwritable(path, error) from error
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(self._file.fileno()), os.stat(path)):
                    return
            except BlockingIOError:
                self._file.close()
                raise InputError(refusal) from None
            except FileNotFoundError:
                pass
            self._file.close()  # who had it has just removed the file: another one counts now

    def release(self) -> None:
        """Let others go on; a second time changes nothing."""
        if not self._file.closed:
            self.path.unlink(missing_ok=True)
            self._file.close()


def safe_name(text: str) -> str:
    """A name from a file, made into exactly one path component; distinct names stay distinct.

    Ordinary names stay as they are. Separators, control and other invisible characters, `%` and a leading dot become
    `%XX`, byte by byte; a name that is too long ends in a digest of the whole.
    """
    name = "".join(
        character
        if character.isprintable() and character not in "/\\%" and not (place == 0 and character == ".")
        else "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
        for place, character in enumerate(text)
    )
    if len(name.encode()) > NAME_LIMIT:  # "%~" is no escape, so no short name looks like a cut one
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        name = f"{name.encode()[: NAME_LIMIT - 34].decode(errors='ignore')}%~{digest}"
    return name or "%"


def file_digest(path: Path | str) -> str:
    """SHA-256 of a file's bytes, as `sha256:<hex>`."""
    with open_regular(path) as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def check_symlink(link: Path) -> None:
    """Raise InputError if `replace_symlink` would replace what is no link."""
    if link.exists() and not link.is_symlink():
        raise InputError(f"{link} is no link: move it away, as it has to show which one of its folder is the latest.")


def replace_symlink(link: Path, target: str) -> None:
    """Point `link` at `target` (relative to the link's folder), atomically; what is no link is an InputError."""
    check_symlink(link)
    for left in link.parent.glob(f".{link.name}.*.tmp"):
        with contextlib.suppress(OSError):
            if left.is_symlink() and time.time() - left.lstat().st_mtime > _LEFT_SECONDS:
                left.unlink()
    temporary = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.replace(temporary, link)
