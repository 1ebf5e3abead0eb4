"""Digests of files that take long to read, remembered as long as the files are the same."""

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hdcid_cli.core.errors import HdcidError
from hdcid_cli.core.files import read_text, write_text
from hdcid_cli.core.paths import home_dir

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# A file that was written a moment ago may be written again without its time changing.
SETTLED_SECONDS = 10.0


def remembered(paths: Sequence[Path], compute: Callable[[], str]) -> str:
    """What `compute` said of these files when they had the size, the place and the time of the last change that they
    have now; it is asked if nothing is known.
    """
    known = _known(paths)
    with contextlib.suppress(HdcidError, OSError):
        said = read_text(known, 100).strip()
        if _DIGEST.fullmatch(said):
            return said
    digest = compute()
    settled = all(time.time() - path.stat().st_mtime > SETTLED_SECONDS for path in paths)
    if settled and _known(paths) == known:  # they did not change while they were read
        with contextlib.suppress(HdcidError, OSError):  # a home that cannot be written is no reason to fail
            write_text(known, digest + "\n")
    return digest


def _known(paths: Sequence[Path]) -> Path:
    """Where the digest of these files, as they are now, is kept."""
    sha = hashlib.sha256()
    for path in paths:
        stat = path.stat()
        identity = (os.path.realpath(path), stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        sha.update(repr(identity).encode("utf-8", "surrogatepass"))
    return home_dir() / "digests" / f"{sha.hexdigest()[:32]}.txt"
