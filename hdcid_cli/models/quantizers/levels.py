"""Numbers of a quantizer: those in its name, and how many levels finite scalar quantization has where nobody says."""

import math
import re
from collections.abc import Iterable
from itertools import chain, product

MOST_CODES = 1 << 20  # of a codebook, or of all that are added up
# As Mentzer et al. 2023 recommend for these sizes (table 1).
RECOMMENDED = {256: (8, 6, 5), 1000: (8, 5, 5, 5)}


def whole(word: str) -> int:
    """A number after a quantizer's colon; a ValueError says that it is none."""
    if not re.fullmatch("[0-9]{1,9}", word):
        raise ValueError(f"{word[:20]!r} is no whole number")
    return int(word)


def default_levels(codes: int) -> tuple[int, ...]:
    """Levels whose product is as near to `codes` as can be: the recommended ones, else the most even ones.

    No channel has two: features around zero all fall on the upper one, and only an encoder that learned to shift them
    by four deviations would ever use the other. 400 codes are 5 x 5 x 4 x 4, of which a first batch uses 350; of
    8 x 5 x 5 x 2 it uses 190.
    """
    if codes in RECOMMENDED:
        return RECOMMENDED[codes]
    return _nearest(codes, *(product(range(3, 17), repeat=channels) for channels in (4, 3, 2)))


def former_levels(codes: int) -> tuple[int, ...]:
    """What `fsq` without levels meant in checkpoints of version 0.1."""
    known = {**RECOMMENDED, 400: (8, 5, 5, 2)}
    return known.get(codes) or _nearest(codes, product(range(2, 17), repeat=4))


def _nearest(codes: int, *candidates: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    """The levels in falling order whose product is nearest; of several those with most channels, then the most even."""
    falling = (levels for levels in chain(*candidates) if list(levels) == sorted(levels, reverse=True))
    return min(falling, key=lambda levels: (abs(math.prod(levels) - codes), -len(levels), max(levels) - min(levels)))
