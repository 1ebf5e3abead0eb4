"""What counts as a word."""

import re

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where each word begins and ends; punctuation is none, an apostrophe within a word belongs to it."""
    return [match.span() for match in _WORD.finditer(text)]
