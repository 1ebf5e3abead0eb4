"""YAML from outside: mappings, lists, words and numbers, of bounded size and depth; no aliases, tags or dates."""

from pathlib import Path
from typing import Any

import yaml

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.files import read_text, reason

# Ours have a hundred lines; one that lists the channels of a thousand layers has less than this.
LIMIT = 1 << 20
DEEPEST = 20


class _PlainLoader(yaml.SafeLoader):
    """YAML without what nobody writes in settings; all of it could make a small file a large object."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not read here")
        if self.peek_event().tag is not None:
            raise yaml.YAMLError("tags (!name) are not read here")
        return super().compose_node(parent, index)

    def fetch_more_tokens(self) -> Any:
        if self.flow_level + len(self.indents) > DEEPEST:
            raise yaml.YAMLError(f"nested more than {DEEPEST} deep")
        return super().fetch_more_tokens()


# A date is a word.
_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if not tag.endswith((":timestamp", ":merge", ":value"))]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(path: Path) -> dict:
    """The mapping that a YAML file holds; an empty file is an empty one.

    Raises:
        InputError: it cannot be read, or is something else.
    """
    text = read_text(path, LIMIT)
    try:
        found = yaml.load(text, _PlainLoader)  # a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as YAML ({_problem(error)}).") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InputError(f"{path} should be a mapping of names to values.")
    return found


def _problem(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    words = getattr(error, "problem", None) or reason(error)
    return words if mark is None else f"line {mark.line + 1}: {words}"
