"""A fixed pseudo-random vector for every word: a text backbone without weights.

The same word gives the same 768 numbers on every machine and in every run; different words are nearly
orthogonal. Uniform with mean 0 and standard deviation 1/2, about the scale of BERT's hidden states.
"""

import hashlib
import unicodedata
from collections.abc import Iterator
from functools import partial

import numpy as np

from hdcid_cli.backbones.backbone import Backbone, Options
from hdcid_cli.backbones.words import word_spans
from hdcid_cli.core.errors import InputError
from hdcid_cli.media.clips import MediaClip

WIDTH = 768  # as BERT


def load(options: Options) -> Backbone:
    """The backbone; `options.seconds` is the number of words."""
    return Backbone(name="hash", modality="text", shape=(WIDTH,), prepare=partial(_prepare, words=options.seconds))


def _prepare(clip: MediaClip, words: int) -> Iterator[np.ndarray]:
    vectors = [word_vector(word) for word in split_words(clip.source)[:words]]
    if not vectors:
        raise InputError(f"The text of {clip.id!r} has no word.")
    yield np.stack(vectors)


def split_words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    text = unicodedata.normalize("NFKC", text)
    return [text[begin:end].lower() for begin, end in word_spans(text)]


def word_vector(word: str) -> np.ndarray:
    """[768] float32 in +-sqrt(3)/2, from the word's SHAKE-256 digest."""
    numbers = np.frombuffer(hashlib.shake_256(word.encode("utf-8")).digest(2 * WIDTH), "<u2")
    return ((numbers + 0.5) * (np.sqrt(3) / 2**16) - np.sqrt(3) / 2).astype(np.float32)
