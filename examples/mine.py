#!/usr/bin/env python3
"""A loss, a quantizer, a backbone and a task of one's own, outside of the package: a template to copy from.

    python examples/mine.py extract --modality video --backbone colour videos/
    python examples/mine.py pretrain --align cpc,coral --quantizer lfq
    python examples/mine.py cmg mood --train v --test a

Every command of `hdcid` works so, with four names more. What each part has to do is in CONTRIBUTING.md.
"""

from collections.abc import Iterator
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hdcid_cli.__main__ import main
from hdcid_cli.backbones import BACKBONES, Backbone, Options
from hdcid_cli.core import tables
from hdcid_cli.core.registry import Entry
from hdcid_cli.core.splits import split_name
from hdcid_cli.media.clips import MediaClip
from hdcid_cli.media.video import video_seconds
from hdcid_cli.models.hdcid import Layer, LayerOutput
from hdcid_cli.models.quantizers import QUANTIZERS
from hdcid_cli.models.quantizers.quantizer import FixedCodes
from hdcid_cli.models.settings import ModelSettings
from hdcid_cli.tasks.annotations.clips import AnnotatedClip, Annotations
from hdcid_cli.tasks.annotations.places import folders, require
from hdcid_cli.tasks.cmg.tasks import TASKS, classification, twice
from hdcid_cli.training.alignments import ALIGNMENTS
from hdcid_cli.training.losses.alignment import Alignment, clip_embeddings

# --- A loss: --align coral ---


class CORAL(Alignment):
    """Clip embeddings have one covariance: sum over pairs of |C_m - C_n|^2 / (4 D^2) (Sun and Saenko 2016)."""

    pairwise = True

    def forward(self, out: LayerOutput, layer: Layer, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        covariances = [torch.cov(x.T) for x in clip_embeddings(out.general, out).values()]
        loss = covariances[0].new_zeros(())  # where there is one modality alone
        for one, other in combinations(covariances, 2):
            loss = loss + (one - other).square().mean() / 4
        return loss, {}


# --- A quantizer: --quantizer lfq, or lfq:8 ---


def lfq(argument: str, settings: ModelSettings) -> "LookupFree":
    """What follows the colon, and the model's settings -> the quantizer of one layer."""
    return LookupFree(int(argument), settings.dim)


def enough(codebook: int) -> str:
    """What stands for N where nobody says it."""
    return str((codebook - 1).bit_length())


class LookupFree(FixedCodes):
    """The signs of a few channels, 2^bits codes (Yu et al. 2024)."""

    def __init__(self, bits: int, dim: int):
        super().__init__()
        if not 1 <= bits <= 16:
            raise ValueError("lfq takes 1 to 16 bits")
        self.codes, self.width = 2**bits, dim
        self.project_in, self.project_out = nn.Linear(dim, bits), nn.Linear(bits, dim)
        self.register_buffer("powers", 2 ** torch.arange(bits), persistent=False)

    def forward(self, z: Tensor, modality: str) -> tuple[Tensor, Tensor]:
        """[B, T, D] -> what is read in its place [B, T, D], with gradient straight through the sign, and codes."""
        x = self.project_in(z)
        signs = x + (torch.where(x > 0, 1.0, -1.0) - x).detach()
        return self.project_out(signs), ((x > 0) * self.powers).sum(dim=-1, keepdim=True)

    def decode(self, indices: Tensor, modality: str) -> Tensor:
        return self.project_out(self._signs(indices))

    def distances(self, z: Tensor, modality: str) -> Tensor:
        apart = self.project_in(z).unsqueeze(-2) - self._signs(self._every())
        return apart.square().sum(dim=-1).clamp_min(1e-12).sqrt()

    @property
    def table(self) -> Tensor:
        return self.decode(self._every(), "")

    def _every(self) -> Tensor:
        return torch.arange(self.codes, device=self.powers.device).unsqueeze(-1)

    def _signs(self, indices: Tensor) -> Tensor:
        """[..., 1] -> [..., bits]."""
        return ((indices & self.powers) > 0).to(self.project_out.weight) * 2 - 1


# --- A backbone: --modality video --backbone colour ---


def load(options: Options) -> Backbone:
    """The mean colour of each cell of a 7 x 7 grid: [7, 7, 3] a second, 0 to 1."""
    prepare = partial(seconds_of, seconds=options.seconds, fps=options.fps)
    return Backbone(options.sampled("colour"), "video", (7, 7, 3), prepare)


def seconds_of(clip: MediaClip, seconds: int, fps: int) -> Iterator[np.ndarray]:
    """A clip's features, second by second; runs in a worker process."""
    for frames in video_seconds(clip.source, seconds, fps, 56, clip.start):  # [n, 56, 56, 3], uint8
        yield frames.mean(axis=0, dtype=np.float32).reshape(1, 7, 8, 7, 8, 3).mean(axis=(2, 4)) / 255


# --- A task: cmg mood, of the table data/mood/moods.csv ---


def read_moods(data: Path) -> Annotations:
    """Its columns are clip, mood and part."""
    path = require(data, folders(data, "mood"), "moods.csv", what="the table of moods")
    rows = list(tables.table(path, "clip", "mood", "part"))
    classes = sorted({row["mood"] for row in rows})
    clips = [
        AnnotatedClip(row["clip"], split_name(row["part"], path, row.line), classes.index(row["mood"]), None)
        for row in rows
    ]
    return Annotations(path, tuple(classes), clips)


# --- Their names. `mine` is this file, which Python finds because it is the one that runs. ---

ALIGNMENTS["coral"] = Entry("one covariance of clip embeddings (CORAL)", "mine:CORAL")
QUANTIZERS["lfq"] = Entry("signs of N channels", "mine:lfq", "lfq[:N]", enough)
BACKBONES["video"]["colour"] = "mine"
TASKS["mood"] = (classification("mood", "the mood of a clip", twice(read_moods)),)

if __name__ == "__main__":
    main()
