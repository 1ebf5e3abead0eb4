"""Settings: what may be chosen, said once.

A bundle of settings is a frozen dataclass that inherits from `Settings`. Annotations say the fields' types, and
`setting(...)` what else holds of them: bounds or choices, a line of help, what the published code uses. From that alone
come the options of the command line (`commands/options.py`), and the check of every value wherever it comes from: a
keyword in Python, a word on the command line, a line of a YAML file, a stored `config.yaml`.

    @dataclass(frozen=True)
    class TrainSettings(Settings):
        idle: int = setting(30, "Updates after which an unused code is replaced.", least=1, published=300)
"""

import math
import re
import reprlib
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Self

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.progress import makes_no_difference

# Numbers beyond these are slips of the pen, and some of them would take all of the machine.
MOST_INT, MOST_FLOAT = 10**9, 1e9
# Torch and numpy take seeds up to here.
MOST_SEED = 2**32 - 1

# A stranger's value may be a list of lists of lists: messages show the beginning.
SHOWN = reprlib.Repr()
SHOWN.maxstring = SHOWN.maxother = SHOWN.maxlong = 80
SHOWN.maxlevel = 2

NOUNS: dict[type, tuple[str, str]] = {
    bool: ("true or false", "true or false"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("a word", "words"),
    Path: ("a path", "paths"),
}


@dataclass(frozen=True)
class Setting:
    """What one setting is, and which values it may have.

    Attributes:
        kind: bool, int, float, str or Path.
        help: what it does, one or two sentences.
        many: whether it is a tuple of them.
        optional: whether it may be None, which leaves the choice to the data.
        choices, least, above, most: the values allowed; `above` itself is not.
        published: what the published code uses, if it is another value than ours.
        metavar: how its value is called in the help.
        line: whether the command line has it.
        option: its name there, if that is not the field's.
    """

    kind: type
    help: str = ""
    many: bool = False
    optional: bool = False
    choices: Collection = ()
    least: float | None = None
    above: float | None = None
    most: float | None = None
    published: Any = None
    metavar: str | None = None
    line: bool = True
    option: str = ""

    def check(self, value: Any) -> Any:
        """The value in its own type: a list as a tuple, a whole number as a float where a float is meant.

        Raises:
            ValueError: it may not be so; the message says what it should be, as in "should be 1 or more, not 0".
        """
        if value is None and self.optional:
            return None
        if self.many:
            if not isinstance(value, (list, tuple)):
                raise ValueError(self._complaint(value))
            return tuple(self._check_one(item, value) for item in value)
        return self._check_one(value, value)

    def parse(self, text: str) -> Any:
        """The value that a text means, checked; several are separated by commas.

        Raises:
            ValueError: as `check`.
        """
        if self.many:
            return tuple(
                self._check_one(self._read(part.strip(), text), text) for part in text.split(",") if part.strip()
            )
        return self._check_one(self._read(text.strip(), text), text)

    def _read(self, text: str, whole: str) -> Any:
        try:
            if self.kind is bool:
                return {"true": True, "false": False}[text.lower()]
            # Python's own readers take 1_000 and non-ASCII digits; nobody means those.
            if self.kind is int and not re.fullmatch(r"[+-]?[0-9]{1,30}", text):
                raise ValueError
            if self.kind is float and not re.fullmatch(r"[+-]?[0-9.]{1,60}([eE][+-]?[0-9]{1,4})?", text):
                raise ValueError
            return self.kind(text)
        except (ValueError, KeyError):
            raise ValueError(self._complaint(whole)) from None

    def _check_one(self, value: Any, whole: Any) -> Any:
        kind = self.kind
        if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MOST_FLOAT:
            value = float(value)
        if kind is Path and isinstance(value, str) and value and "\0" not in value:
            value = Path(value)
        right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        if not right or (self.choices and value not in self.choices) or not self._within(value):
            raise ValueError(self._complaint(whole, value))
        return value

    def _within(self, value: Any) -> bool:
        if self.kind not in (int, float):
            return True
        return (
            math.isfinite(value)
            and abs(value) <= self._greatest
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
        )

    @property
    def _greatest(self) -> float:
        return self.most if self.most is not None else MOST_INT if self.kind is int else MOST_FLOAT

    @property
    def wanted(self) -> str:
        """What a value should be, in words: "a number above 0", "sum or softmax"."""
        if self.choices:
            *first, last = map(str, self.choices)
            words = f"{', '.join(first)} or {last}" if first else last
            return f"some of {words}, separated by commas" if self.many else words
        noun = NOUNS[self.kind][self.many]
        if self.many and self.kind is str:
            noun = "words separated by commas"
        low = "" if self.least is None else f" from {_plain(self.least)}"
        if self.above is not None:
            low = f" above {_plain(self.above)}"
        high = "" if self.most is None else f" to {_plain(self.most)}"
        if low.startswith(" from") and not high:
            return f"{noun}, {_plain(self.least)} or more"
        if high and (self.above is not None or not low):
            high = f"{' and' if low else ''} up to {_plain(self.most)}"
        return noun + low + high

    def _complaint(self, value: Any, part: Any = None) -> str:
        """What should be instead of a value; `part` is what is wrong of it, a number of its kind or anything else."""
        rule = self
        if self.most is None and isinstance(part, (int, float)) and math.isfinite(part) and part > self._greatest:
            rule = replace(self, most=self._greatest)  # which goes without saying where it is not passed
        shown = str(value) if isinstance(value, (int, float)) and abs(value) < 1e15 else SHOWN.repr(value)
        return f"should be {rule.wanted}, not {shown}"


def _plain(number: float | None) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


def setting(default: Any, help: str = "", **rules: Any) -> Any:
    """A field of `Settings`.

    Args:
        default: what it is if nothing is said.
        help: what it does.
        rules: `choices`, `least`, `above`, `most`, `optional`, `published`, `metavar`, `line`, `option`: see `Setting`.
    """
    return field(default=default, metadata={"setting": {"help": help, **rules}})


def settings_of(cls: type) -> dict[str, Setting]:
    """What the fields of a bundle may be, by their names; fields of other types than ours are not among them."""
    return _read_fields(cls)


@cache
def _read_fields(cls: type) -> dict[str, Setting]:
    hints = typing.get_type_hints(cls)
    return {item.name: _described(item, hints[item.name]) for item in fields(cls) if "setting" in item.metadata}


def _described(item: Field, hint: Any) -> Setting:
    rules = dict(item.metadata["setting"])
    parts = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        rules["optional"] = True
        (hint,) = (part for part in parts if part is not types.NoneType)
        parts = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        return Setting(kind=parts[0], many=True, **rules)
    return Setting(kind=hint, **rules)


@dataclass(frozen=True)
class Settings:
    """A bundle of settings, as above. A value that may not be is an InputError that says its option."""

    def __post_init__(self) -> None:
        for name, rule in settings_of(type(self)).items():
            try:
                object.__setattr__(self, name, rule.check(getattr(self, name)))
            except ValueError as error:
                raise InputError(f"{option_name(name, rule) if rule.line else name} {error}.") from None

    def to_dict(self) -> dict:
        """Plain values, for YAML."""
        return {name: _to_plain(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Any, where: str) -> Self:
        """The inverse of `to_dict`; what is missing has its default.

        Args:
            where: file and section, for the message.

        Raises:
            InputError: not a mapping, an unknown key, or a value that may not be.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"{where} should be a mapping of settings to values, not {SHOWN.repr(values)}.")
        known = {item.name for item in fields(cls)}
        for key in values:
            if key not in known:
                raise InputError(f"{where} has an unknown setting, {SHOWN.repr(key)}.")
        for name, rule in settings_of(cls).items():
            if name in values:
                try:
                    rule.check(values[name])
                except ValueError as error:
                    raise InputError(f"{where}: {name} {error}.") from None
        missing = [
            item.name
            for item in fields(cls)
            if item.name not in values and item.default is MISSING and item.default_factory is MISSING
        ]
        if missing:
            raise InputError(f"{where} does not say {missing[0]}.")
        try:
            return cls(**values)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error

    def but(self, **changes: Any) -> Self:
        """The same with some values changed."""
        return replace(self, **changes)


def option_name(name: str, rule: Setting | None = None) -> str:
    """`batch_size` -> `--batch-size`; the name that the setting itself gives comes first."""
    return rule.option if rule and rule.option else "--" + name.replace("_", "-")


def tell_idle(settings: Settings, names: Iterable[str], why: str) -> None:
    """Say which of these settings were chosen, that is, are not their defaults, and make no difference."""
    for name in names:
        default, rule = getattr(type(settings), name), settings_of(type(settings))[name]
        if getattr(settings, name) != default:
            option = option_name(name, rule)
            makes_no_difference(option.replace("--", "--no-", 1) if default is True else option, why)


def _to_plain(value: Any) -> Any:
    match value:
        case tuple():
            return [_to_plain(item) for item in value]
        case dict():
            return {key: _to_plain(item) for key, item in value.items()}
        case Path():
            return str(value)
        case _:
            return value
