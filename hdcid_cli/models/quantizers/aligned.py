"""Codebooks aligned by index: code i has a vector for each modality (CoDAAR, 2026, https://arxiv.org/abs/2605.12145).

A feature looks for the nearest vector among its own modality's, and stands for the whole row, the vectors of all
modalities side by side: an equal index is an equal input for whoever reads it, whatever the modality. Each block of
vectors follows its modality by moving averages (DTA), then the blocks are drawn to their mean, one by one (CSA).
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from hdcid_cli.core.draws import normal, uniform
from hdcid_cli.models.quantizers.quantizer import Quantized, Readings
from hdcid_cli.models.quantizers.vq import euclidean_distances, nearest, put_on, replacements, straight_through
from hdcid_cli.models.segments import Valid, at_length, common_length, valid_in, valid_rows
from hdcid_cli.models.settings import ModelSettings

# Blocks of a row, in the published order; CSA goes through them from behind.
BLOCKS = ("video", "audio", "text")


def aligned(argument: str, settings: ModelSettings) -> "AlignedQuantizer":
    """`aligned`: a block for each of the model's modalities."""
    if argument:
        raise ValueError("aligned takes no number")
    own, cascade = settings.own_weight, settings.cascade
    return AlignedQuantizer(settings.codebook, settings.dim, settings.modalities, own, cascade)


class OwnVectors(nn.Module):
    """An aligned quantizer read as the vector of one's own modality alone (`--read own`), D channels wide.

    With an equal index the vectors of two modalities are about equal, not equal.
    """

    stages = parts = 1

    def __init__(self, quantizer: "AlignedQuantizer"):
        super().__init__()
        self.quantizer = quantizer

    @property
    def codes(self) -> int:
        return self.quantizer.codes

    @property
    def width(self) -> int:
        return self.quantizer.codebook.shape[2]

    @property
    def table(self) -> Tensor:
        """The mean of the modalities' vectors, which stands for a code where no modality is asked for: [L, D]."""
        return self.quantizer.codebook.mean(dim=0)

    def forward(self, z: Tensor, modality: str) -> tuple[Tensor, Tensor]:
        """z [B, T, D] -> vectors [B, T, D] without gradient, and indices [B, T, 1]."""
        _, indices = self.quantizer(z, modality)
        return self.decode(indices, modality), indices

    def decode(self, indices: Tensor, modality: str) -> Tensor:
        """Indices [..., 1] -> vectors [..., D]."""
        return embedding(indices[..., 0], self.quantizer.block(modality))


class AlignedQuantizer(nn.Module):
    """The nearest vector of one's own modality, read as the row of all modalities.

    Args:
        codes: L.
        dim: D, channels of one modality's vector; a row has M D.
        modalities: their names, M of them.
        own_weight: weight of a modality's own features in its moving average, the others share the rest; published,
            and if None: 0.75 with two modalities, 0.6 with three.
        cascade: CSA after each update; without, the blocks have in common what each sees of the others.
        epsilon: of the moving averages' counts.
        recent: a replacement is a code used within so many updates.

    Buffers, blocks in the order v, a, t: codebook [M, L, D], weight [M, L, D], count [M, L], unused [L].
    """

    learns_by_ema = True
    stages = parts = 1
    others_share = 0.5  # of beta, for each other modality in commitment, with two modalities too
    readings: ClassVar[Readings] = {"own": OwnVectors}

    codebook: Tensor
    weight: Tensor
    count: Tensor
    unused: Tensor

    def __init__(
        self,
        codes: int,
        dim: int,
        modalities: tuple[str, ...],
        own_weight: float | None = None,
        cascade: bool = True,
        epsilon: float = 1e-5,
        recent: int = 100,
    ):
        super().__init__()
        if codes < 2:
            raise ValueError("a codebook needs two codes or more")
        self.blocks = tuple(name for name in BLOCKS if name in modalities)
        self.own_weight = {1: 1.0, 2: 0.75, 3: 0.6}[len(self.blocks)] if own_weight is None else own_weight
        self.cascade, self.epsilon, self.recent = cascade, epsilon, recent
        codebook = torch.empty(len(self.blocks), codes, dim).uniform_(-1 / codes, 1 / codes)
        self.register_buffer("codebook", codebook)
        self.register_buffer("weight", codebook.clone())
        self.register_buffer("count", torch.zeros(len(self.blocks), codes))
        self.register_buffer("unused", torch.full((codes,), -1.0))  # -1: never used yet

    @property
    def codes(self) -> int:
        return self.codebook.shape[1]

    @property
    def width(self) -> int:
        return self.codebook.shape[0] * self.codebook.shape[2]

    @property
    def table(self) -> Tensor:
        """The rows, [L, M D]."""
        return torch.cat(self.codebook.unbind(), dim=-1)

    def block(self, modality: str) -> Tensor:
        """One modality's vectors, [L, D]."""
        return self.codebook[self.blocks.index(modality)]

    def forward(self, z: Tensor, modality: str) -> tuple[Tensor, Tensor]:
        """z [B, T, D] -> rows [B, T, M D] without gradient, and indices [B, T, 1]."""
        index = nearest(z.detach(), self.block(modality))
        return embedding(index, self.table), index.unsqueeze(-1)

    def quantize(self, general: dict[str, Tensor], valid: Valid = None) -> Quantized:
        """The vector of one's own modality as the code; the row with the gradient of all modalities' features.

        So the reconstruction of one modality trains the general encoders of all.
        """
        codes, quantized, indices = {}, {}, {}
        for name, z in general.items():
            row, indices[name] = self(z, name)
            codes[name] = embedding(indices[name][..., 0], self.block(name))
            quantized[name] = straight_through(self._side_by_side(general, z.shape[1], valid), row)
        return Quantized(codes, quantized, indices)

    def _side_by_side(self, general: dict[str, Tensor], steps: int, valid: Valid) -> Tensor:
        """Features of all modalities, in the order of a row [B, steps, M D]; zeros for one that is not there, no
        gradient for segments that do not count.
        """
        parts = []
        for name in self.blocks:
            z = general.get(name)
            if z is None:
                z = torch.zeros_like(next(iter(general.values())))
            x = at_length(z, steps)
            if valid is not None and name in general:
                x = torch.where(valid_in(valid, steps, name).unsqueeze(-1), x, x.detach())
            parts.append(x)
        return torch.cat(parts, dim=-1)

    def decode(self, indices: Tensor, modality: str) -> Tensor:
        """Indices [..., 1] -> rows [..., M D]."""
        return embedding(indices[..., 0], self.table)

    def distances(self, z: Tensor, modality: str) -> Tensor:
        """Euclidean distance to every vector of the own modality, with gradient to z: [B, T, D] -> [B, T, L]."""
        return euclidean_distances(z, self.block(modality))

    @torch.no_grad()
    def start(self, general: dict[str, Tensor], generator: torch.Generator, valid: Valid = None) -> None:
        """Put row i on what all modalities have at one clip and segment, drawn at random."""
        steps = common_length(general)
        features = {name: at_length(z.detach(), steps) for name, z in general.items()}
        together = valid_in(valid, steps, *features)
        if together is not None and not together.any():
            together = None  # never valid at once: any segment is as good
        for name, z in features.items():
            features[name] = valid_rows(z, together)
        rows = torch.randint(len(next(iter(features.values()))), (self.codes,), generator=generator)
        for number, name in enumerate(self.blocks):
            self.codebook[number] = put_on(features[name], rows, generator)
        self.count.fill_(1.0)
        self.weight.copy_(self.codebook)

    @torch.no_grad()
    def update(
        self,
        general: dict[str, Tensor],
        indices: dict[str, Tensor],
        valid: Valid = None,
        cross: bool = True,
        decay: float = 0.99,
    ) -> None:
        """DTA, then CSA.

        DTA moves each block by its own modality's indices: the counts as in MM-EMA, one a modality, the vectors
        towards own_weight z_m and an equal share of the rest for each other modality at the same clip and segment. The
        blocks do not see one another in it.

        CSA replaces each block by the mean of all of them, as they are at that moment, in the order t, a, v. It does
        not add up: the next update computes the blocks from the weights again.
        """
        others = max(1, len(general) - 1)
        own = self.own_weight if cross and len(general) > 1 else 1.0
        for number, name in enumerate(self.blocks):
            if name not in general:
                continue
            z, steps = general[name].detach(), general[name].shape[1]
            target = own * z
            if own < 1:
                target = target + sum((1 - own) / others * x for x in self._elsewhere(general, name, steps, valid))
            hits = (indices[name].reshape(-1, 1) == torch.arange(self.codes, device=z.device)).to(z.dtype)
            if valid is not None:
                hits = hits * valid[name].reshape(-1, 1)
            count = decay * self.count[number] + (1 - decay) * hits.sum(dim=0)
            total = count.sum()
            self.count[number] = (count + self.epsilon) / (total + self.codes * self.epsilon) * total
            self.weight[number] = decay * self.weight[number] + (1 - decay) * (hits.T @ target.flatten(0, 1))
            self.codebook[number] = self.weight[number] / self.count[number].unsqueeze(-1)
        if self.cascade:
            for number in reversed(range(len(self.blocks))):
                self.codebook[number] = self.codebook.mean(dim=0)

    @staticmethod
    def _elsewhere(general: dict[str, Tensor], name: str, steps: int, valid: Valid) -> list[Tensor]:
        """What the other modalities have at one's steps; what one has itself where theirs do not count."""
        found = []
        for other, z in general.items():
            if other != name:
                x = at_length(z.detach(), steps)
                if valid is not None:
                    x = torch.where(valid_in(valid, steps, other).unsqueeze(-1), x, general[name].detach())
                found.append(x)
        return found

    @torch.no_grad()
    def revive(
        self,
        indices: dict[str, Tensor],
        generator: torch.Generator,
        idle: int,
        persist: bool = True,
        valid: Valid = None,
    ) -> None:
        """Replace rows that no modality used for more than `idle` updates by a recently used one plus 0.001 N(0, 1)."""
        noise = normal(self.codebook.shape, generator, self.codebook.device).to(self.codebook)
        draw = uniform((self.codes,), generator, self.codebook.device)
        chosen = {name: index[..., 0] for name, index in indices.items()}
        replaced, donor, unused = replacements(chosen, self.unused, draw, idle, self.recent, valid)
        fresh = self.codebook[:, donor] + 0.001 * noise
        self.codebook.copy_(torch.where(replaced.unsqueeze(-1), fresh, self.codebook))
        if persist:
            self.count.copy_(torch.where(replaced, self.count.mean(dim=-1, keepdim=True), self.count))
            self.weight.copy_(torch.where(replaced.unsqueeze(-1), fresh * self.count.unsqueeze(-1), self.weight))
        self.unused.copy_(unused)
