"""JSON Lines from anywhere: read line by line with limits; one odd line costs no other."""

import json
from collections.abc import Callable, Iterator
from typing import BinaryIO, NoReturn

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.files import TEXT_LIMIT

LINE_LIMIT = 16 << 20  # bytes; the scores of a million clips fit
DIGITS = 18  # of a whole number: what fits into 64 bits

JSON_NAMES = {list: "a list", str: "a text", int: "a number", float: "a number", bool: "true or false"}
JSON_NAMES |= {type(None): "null"}

Skip = Callable[[str], None]


def refuse(message: str) -> NoReturn:
    """What to do with an odd line where none is expected."""
    raise InputError(message)


def objects(stream: BinaryIO, source: str, skip: Skip) -> Iterator[tuple[str, dict]]:
    """("FILE, line N", object) of every line that is a JSON object; blank lines are passed over.

    Args:
        skip: is handed a sentence on every line that is none.

    Raises:
        InputError: all lines together are beyond the limit for a text.
    """
    number, within = 0, False  # a line that is too long comes in several parts
    for raw in _parts(stream, source):
        begins, too_long = not within, len(raw) > LINE_LIMIT
        within = too_long and not raw.endswith(b"\n")
        if not begins:
            continue
        number += 1
        place = f"{source}, line {number}"
        try:
            if too_long:
                raise InputError(f"is longer than {LINE_LIMIT:,} bytes.")
            text = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            if text.strip():
                yield place, parse(text)
        except InputError as error:
            skip(f"{place} {error}")


def _parts(stream: BinaryIO, source: str) -> Iterator[bytes]:
    """Lines, those that are too long in parts, up to the limit for a text."""
    size = 0
    while raw := stream.readline(LINE_LIMIT + 1):
        size += len(raw)
        if size > TEXT_LIMIT:
            raise InputError(f"{source} is larger than {TEXT_LIMIT:,} bytes, the limit for such a file.")
        yield raw


def parse(raw: bytes) -> dict:
    """A line as a JSON object in which every number and every text can be used.

    Raises:
        InputError: it is none, or has a number beyond 64 bits, NaN, infinity, or half a character (a lone surrogate).
            The sentence lacks its subject: "is not JSON (...)."
    """
    try:
        found: object = json.loads(
            raw.decode("utf-8"), parse_int=_integer, parse_float=_float, parse_constant=_constant
        )
        json.dumps(found, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError:
        raise InputError("is not UTF-8 text.") from None
    except UnicodeEncodeError:
        raise InputError("has a text with half a character (a lone surrogate).") from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"is not JSON ({getattr(error, 'msg', 'too deep')}).") from error
    if not isinstance(found, dict):
        raise InputError(f"is no JSON object but {JSON_NAMES[type(found)]}.")
    return found


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > DIGITS:
        _refuse_number(text)
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    return value if abs(value) < float("inf") else _refuse_number(text)


def _constant(text: str) -> NoReturn:
    _refuse_number(text)


def _refuse_number(text: str) -> NoReturn:
    raise InputError(f"has the number {shown(text)}, which is too large for any result or none at all.")


def shown(value: object, limit: int = 40) -> str:
    """What a file holds as a message shows it: cut after so many characters."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."
