"""What a backbone is: how to read a clip, and what to compute from it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hdcid_cli.media.clips import Clip


@dataclass(frozen=True)
class Options:
    """What the user may choose about a backbone; each takes what concerns it.

    Attributes:
        seconds: segments a clip at most: seconds of video and audio, words of text.
        fps: frames sampled a second.
    """

    seconds: int = 10
    fps: int = 16


@dataclass(frozen=True)
class Backbone:
    """A source of features.

    Attributes:
        name, modality: as the feature file says them.
        shape: of one segment, such as (7, 7, 512).
        prepare: clip -> its parts one after the other; runs in worker processes, so it can be pickled and
            imports no torch. A part is an array whose first axis counts segments, or whatever `network` takes.
        network: parts -> features [t, *shape] of each part; None if the parts are the features.
        weights: digest of the weights; "none" without.
        dtype: of the feature file.
    """

    name: str
    modality: str
    shape: tuple[int, ...]
    prepare: Callable[[Clip], Iterator[Any]]
    network: Callable[[Sequence[Any]], Sequence[np.ndarray]] | None = None
    weights: str = "none"
    dtype: str = "float32"
