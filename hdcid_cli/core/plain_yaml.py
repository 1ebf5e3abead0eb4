"""YAML from outside: mappings, lists, words and numbers, of bounded size and depth; no aliases, tags or dates."""

from pathlib import Path
from typing import Any, NoReturn

import yaml

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.files import read_text

# Ours have a hundred lines; one that lists the channels of a thousand layers has less than this.
LIMIT = 1 << 20
DEEPEST = 20
# Whole numbers beyond 64 bits are sizes of nothing, and Python does not even write the long ones down.
LARGEST = 1 << 63

# Written in C where PyYAML has it: a megabyte takes it a second.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NUMBERS = tuple(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float"))


class _Refused(Exception):
    """A value that is not read here; the message completes `FILE cannot be read as YAML (line N: MESSAGE).`"""

    def __init__(self, event: yaml.Event, why: str):
        super().__init__(f"line {event.start_mark.line + 1}: {why}")


def read_yaml(path: Path) -> dict:
    """The mapping that a YAML file holds; an empty file is an empty one.

    Raises:
        InputError: it cannot be read, or is something else.
    """
    found = parse_yaml(read_text(path, LIMIT), path)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InputError(f"{path} should be a mapping of names to values.")
    return found


def parse_yaml(text: str, source: Path | str) -> Any:
    """The one value in a YAML text; None if it is empty.

    Args:
        source: what messages call the text.
    """
    loader = _Loader(text)
    try:
        return _document(loader)
    except _Refused as error:
        _complain(source, str(error))
    except yaml.MarkedYAMLError as error:
        problem = f"{error.problem or error.context}".replace("exceeded maximum nesting depth", "nested too deep")
        _complain(source, f"line {error.problem_mark.line + 1}: {problem}" if error.problem_mark else problem)
    except yaml.reader.ReaderError as error:
        _complain(source, error.reason)
    finally:
        loader.dispose()


def _complain(source: Path | str, problem: str) -> NoReturn:
    raise InputError(f"{source} cannot be read as YAML ({problem}).") from None


def _document(loader) -> Any:
    loader.get_event()  # of the stream
    if loader.check_event(yaml.StreamEndEvent):
        return None
    loader.get_event()  # of the document
    value = _value(loader, loader.get_event(), 0)
    loader.get_event()
    if not loader.check_event(yaml.StreamEndEvent):
        raise _Refused(loader.get_event(), "a second document, where there is to be one")
    return value


def _value(loader, event: yaml.Event, level: int) -> Any:
    """The value that begins with an event; values are made here, so that none is larger than its text."""
    if level > DEEPEST:
        raise _Refused(event, f"nested more than {DEEPEST} deep")
    if isinstance(event, yaml.AliasEvent):
        raise _Refused(event, f"aliases (*{event.anchor}) are not read here")
    if event.tag is not None:
        raise _Refused(event, f"tags ({event.tag}) are not read here")
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(loader, event)
    if isinstance(event, yaml.SequenceStartEvent):
        values = []
        while not isinstance(item := loader.get_event(), yaml.SequenceEndEvent):
            values.append(_value(loader, item, level + 1))
        return values
    mapping: dict = {}
    while not isinstance(item := loader.get_event(), yaml.MappingEndEvent):
        key = _value(loader, item, level + 1)
        if isinstance(key, (list, dict)):
            raise _Refused(item, "a key that is not a word or a number")
        if key in mapping:
            raise _Refused(item, f"the key {key!r} is there twice")
        mapping[key] = _value(loader, loader.get_event(), level + 1)
    return mapping


def _scalar(loader, event: yaml.ScalarEvent) -> Any:
    """A word, or the number or truth value that it stands for; a date is a word, and so are 3:1 (in YAML's old way 181)
    and 1_000.
    """
    tag = loader.resolve(yaml.ScalarNode, event.value, event.implicit) if event.implicit[0] else None
    if tag not in _NUMBERS or ":" in event.value or "_" in event.value:
        return event.value
    try:
        value = loader.construct_object(yaml.ScalarNode(tag, event.value))
    except ValueError:  # more digits than Python takes, or none at all
        value = LARGEST if event.value.lstrip("+-").isdigit() else event.value
    if isinstance(value, int) and abs(value) >= LARGEST:
        raise _Refused(event, "a whole number of more than 64 bits")
    return value
