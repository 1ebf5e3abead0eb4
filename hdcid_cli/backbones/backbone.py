"""What a backbone is: how to read a clip, and what to compute from it."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hdcid_cli.media.clips import MediaClip

if TYPE_CHECKING:  # the command line reads this module for its options and should not wait for numpy
    import numpy as np

POOLS = ("grid", "words", "mean", "cls")
PRECISIONS = ("auto", "float32", "tf32", "float16", "bf16")


@dataclass(frozen=True)
class Options:
    """What the user may choose about a backbone; each takes what concerns it.

    Attributes:
        seconds: segments a clip at most: seconds of video and audio, words of text.
        fps: frames sampled a second.
        weights: file of weights, or the name of a published one; None for the backbone's own.
        pca: the same for VGGish's post-processing; None for raw embeddings.
        model: a model of transformers, a local folder or a name on the Hugging Face hub, `NAME` or `NAME@REVISION`.
        pool: one of `POOLS`, how such a model's states become features; None for the usual way of the modality.
        grid: of such a model's video features: cells along each side of a map; 1 gives vectors.
        prompt: of such a model's texts: the sentence that a text is put into, at `{}`; None for the text alone.
        layer: hidden layer of such a model, 0 the embeddings; None for its output.
        allow_pickle: take a model's pickled weights where it has none in safetensors.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: one of `PRECISIONS`; "auto" is float16 on a GPU and float32 elsewhere.
        batch_size: parts (seconds, captions) that go through the network together; None for what suits the device.
    """

    seconds: int = 10
    fps: int = 16
    weights: str | None = None
    pca: str | None = None
    model: str = "bert-base-uncased"
    allow_pickle: bool = False
    pool: str | None = None
    grid: int | None = None
    layer: int | None = None
    prompt: str | None = None
    device: str = "auto"
    precision: str = "auto"
    batch_size: int | None = None

    def sampled(self, name: str) -> str:
        """A video backbone's name, with the frames a second if they are not the usual ones."""
        return name if self.fps == Options.fps else f"{name}@{self.fps}fps"

    def described(self, name: str) -> str:
        """A model's name, with what was chosen about it: `facebook/dinov2-base grid=1 fps=8`."""
        fps = None if self.fps == Options.fps else self.fps
        prompt = None if self.prompt is None else json.dumps(self.prompt, ensure_ascii=False)
        chosen = {"pool": self.pool, "grid": self.grid, "layer": self.layer, "fps": fps, "prompt": prompt}
        return " ".join([name, *(f"{key}={value}" for key, value in chosen.items() if value is not None)])


_CHOSEN = re.compile(r' (?:(pool)=(\w+)|(grid|layer|fps)=(\d+)|prompt=("(?:[^"\\]|\\.)*"))$')
_FPS = re.compile(r"@(\d+)fps$")


def read_description(description: str) -> tuple[str, dict[str, Any]]:
    """What `Options.described` and `Options.sampled` have written -> the name, and the options that it tells of."""
    chosen: dict[str, Any] = {}
    while match := _CHOSEN.search(description):
        pool, how, option, number, prompt = match.groups()
        chosen |= {"prompt": json.loads(prompt)} if prompt else {pool: how} if pool else {option: int(number)}
        description = description[: match.start()]
    if match := _FPS.search(description):
        description, chosen["fps"] = description[: match.start()], int(match[1])
    return description, chosen


@dataclass(frozen=True)
class Backbone:
    """A source of features.

    Attributes:
        name, modality: as the feature file says them.
        shape: of one segment, such as (7, 7, 512).
        prepare: clip -> its parts one after the other; runs in worker processes, so it can be pickled and
            imports no torch. A part is an array whose first axis counts segments, or whatever `network` takes.
        network: parts -> features [t, *shape] of each part, in arrays of their own; None if the parts are the
            features. It may have `begin(parts)`, which gives a function that waits for the features, and `empty(size)`,
            which gives bytes for parts to lie in (`network.Network` has both).
        batch_size: parts that `network` takes at once.
        weights: digest of the weights; "none" without.
        revision: commit of a model of the hub; empty without.
        dtype: of the feature file.
    """

    name: str
    modality: str
    shape: tuple[int, ...]
    prepare: Callable[[MediaClip], Iterator[Any]]
    network: Callable[[Sequence[Any]], "Sequence[np.ndarray]"] | None = None
    batch_size: int = 1
    weights: str = "none"
    revision: str = ""
    dtype: str = "float32"
