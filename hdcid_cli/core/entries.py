"""Mappings that anybody may have written, whose values are asked for by the type that they have to have."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hdcid_cli.core import json_lines
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.files import open_regular, reason
from hdcid_cli.core.settings import SHOWN

JSON_LIMIT = 4 << 20
LARGEST = 1 << 63


def read_json(path: Path) -> "Entries":
    """The object in a JSON file; anything else is an InputError."""
    try:
        with open_regular(path) as file:
            content = file.read(JSON_LIMIT + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {reason(error)}.") from error
    if len(content) > JSON_LIMIT:
        raise InputError(f"{path} is larger than {JSON_LIMIT:,} bytes, the limit for such a file.")
    try:
        return Entries(json_lines.parse(content), path)
    except InputError as error:
        raise InputError(f"{path} {error}") from None


_REQUIRED: Any = object()


class Entries:
    """A mapping of a file, whose values are asked for by the type that they have to have.

    Args:
        values: as the file says; anything but a mapping is an InputError.
        source: the file, for messages.
        name: of the section in the file; the whole of it if empty.
    """

    def __init__(self, values: Any, source: Path | str, name: str = ""):
        self.source, self.name = source, name
        if not isinstance(values, dict):
            raise InputError(f"{source}: {name or 'all of it'} should be a mapping, not {SHOWN.repr(values)}.")
        self.values = values

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def wrong(self, key: str, wanted: str) -> InputError:
        """The sentence for a value that is not as it has to be."""
        shown = SHOWN.repr(self.values[key]) if key in self.values else "missing"
        place = f"{self.name}.{key}" if self.name else key
        return InputError(f"{self.source}: `{place}` should be {wanted}, not {shown}.")

    def _get(self, key: str, default: Any, is_right: Callable[[Any], bool], wanted: str) -> Any:
        if default is not _REQUIRED and self.values.get(key) is None:
            return default
        if not is_right(self.values.get(key)):
            raise self.wrong(key, wanted)
        return self.values[key]

    def text(self, key: str, default: Any = _REQUIRED) -> Any:
        """A text; what is missing or null is the default, if there is one (so it is below)."""
        return self._get(key, default, lambda value: isinstance(value, str), "a text")

    def flag(self, key: str, default: Any = _REQUIRED) -> Any:
        return self._get(key, default, lambda value: isinstance(value, bool), "true or false")

    def whole(self, key: str, default: Any = _REQUIRED, least: int = 0, most: int = LARGEST - 1) -> Any:
        """A whole number in a range."""
        return self._get(
            key,
            default,
            lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most,
            f"a whole number from {least}" if most >= LARGEST - 1 else f"a whole number from {least} to {most}",
        )

    def number(self, key: str, default: Any = _REQUIRED, least: float = -math.inf, most: float = math.inf) -> Any:
        """A number in a range."""
        return self._get(
            key,
            default,
            lambda value: type(value) in (int, float) and math.isfinite(value) and least <= value <= most,
            f"a number from {least} to {most}" if math.isfinite(least) else "a number",
        )

    def texts(self, key: str, default: Any = _REQUIRED) -> Any:
        """A list of texts, as a tuple."""
        found = self._get(
            key, default, lambda value: _all(value, lambda item: isinstance(item, str)), "a list of texts"
        )
        return tuple(found) if found is not None else None

    def wholes(self, key: str, default: Any = _REQUIRED, least: int = 0, most: int = LARGEST - 1) -> Any:
        """A list of whole numbers in a range, as a tuple."""
        found = self._get(
            key,
            default,
            lambda value: _all(value, lambda item: type(item) is int and least <= item <= most),
            f"a list of whole numbers from {least} to {most}",
        )
        return tuple(found) if found is not None else None

    def section(self, key: str) -> "Entries":
        """A section within; an empty one if it is missing."""
        return Entries(self.values.get(key, {}), self.source, f"{self.name}.{key}" if self.name else key)


def _all(values: Any, is_right: Callable[[Any], bool]) -> bool:
    return isinstance(values, (list, tuple)) and all(map(is_right, values))
