"""What torch saved: tensors and plain values, and no more bytes of them than the file has."""

import io
import os
import pickletools
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.files import open_regular, reason

OLD_PICKLES = 5
# What tensors and plain values ask for when they are unpickled. torch admits more: a bytearray of any length, say.
NEEDED = re.compile(
    r"torch\._utils\._rebuild_(tensor|tensor_v2|parameter)|torch\.(\w+Storage|[a-z]+\d*|Size)"
    r"|collections\.OrderedDict|_codecs\.encode"
)


class _Unsound(Exception):
    """Something in a file is not as it has to be; the message completes `FILE is not ...: MESSAGE.`"""


def read_saved(file: Path, what: str, admitted: Sequence[tuple[type, str]] = ()) -> dict:
    """The mapping in a file that `torch.save` wrote; nothing in it is executed.

    Args:
        what: the file should be, for messages, such as "a training state".
        admitted: (class, name in the file) beside torch's own, as `torch.serialization.safe_globals` takes them.

    Raises:
        InputError: it is missing, damaged, something else, or holds more than tensors and plain values.
    """
    with open_regular(file) as opened:
        try:
            _check(opened, [name for _, name in admitted])
        except _Unsound as problem:
            raise InputError(f"{file} is not {what}: {problem}.") from None
        except Exception as error:  # zipfile and pickletools raise many kinds
            raise InputError(f"{file} is not {what}, or is damaged.") from error
    try:
        with torch.serialization.safe_globals(list(admitted)):
            found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for files that are not its own
        raise InputError(f"{file} is not {what}, or holds more than tensors ({reason(error)}).") from error
    if not isinstance(found, dict):
        raise InputError(f"{file} is not {what}: it holds a {type(found).__name__}, not values by name.")
    for tensor in _tensors(found):
        if not _is_plain(tensor):
            raise InputError(f"{file} is not {what}: a tensor {list(tensor.shape)} in it has no numbers of its own.")
    return found


def _check(opened: BinaryIO, admitted: list[str]) -> None:
    """Raise _Unsound if the file claims more than it has, or asks for what no tensor needs.

    torch packs nothing, so a zip file of its own unpacks to less than the file has.
    """
    size = opened.seek(0, os.SEEK_END)
    opened.seek(0)
    if opened.read(4) != b"PK\3\4":  # until 2020 pickles came one after the other: three of numbers, values, keys
        opened.seek(0)
        for _ in range(OLD_PICKLES):
            _check_names(opened, admitted)
        return
    with zipfile.ZipFile(opened) as archive:
        entries = archive.infolist()
        if (unpacked := sum(entry.file_size for entry in entries)) > size:
            raise _Unsound(f"it has {size:,} bytes and claims to hold {unpacked:,}")
        for entry in entries:
            if entry.filename.endswith(".pkl"):
                _check_names(io.BytesIO(archive.read(entry)), admitted)


def _check_names(pickle: BinaryIO, admitted: list[str]) -> None:
    for operation, argument, _ in pickletools.genops(pickle):
        if operation.name == "GLOBAL":
            name = str(argument).replace(" ", ".", 1)
            if name not in admitted and not NEEDED.fullmatch(name):
                raise _Unsound(f"it asks for {name[:80]}, and only tensors and plain values are admitted")


def _tensors(found: dict) -> Iterator[torch.Tensor]:
    """All tensors in mappings and lists, one in another."""
    waiting: list[Any] = [found]
    seen: set[int] = set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (dict, list, tuple, set)) and id(value) not in seen:
            seen.add(id(value))
            waiting += [*value, *value.values()] if isinstance(value, dict) else value


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether each of its numbers is in memory; a view may repeat one a million times, another layout may claim any."""
    return (
        tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
        and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
    )
