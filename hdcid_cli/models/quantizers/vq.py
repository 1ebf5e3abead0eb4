"""Vector quantization with a codebook that all modalities share, learned by MM-EMA; several stages make RVQ.

VQ: van den Oord et al. 2017. RVQ: Barnes et al. 1996, each stage quantizes what the
stages before it left over. MM-EMA: Xia et al. 2023, a code moves towards the features
that chose it *and* towards what the other modalities had at the same clip and step.
"""

from copy import deepcopy
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from hdcid_cli.core.draws import uniform
from hdcid_cli.core.precision import matmul_precision
from hdcid_cli.models.quantizers.levels import MOST_CODES, whole
from hdcid_cli.models.quantizers.quantizer import Quantized, Readings
from hdcid_cli.models.segments import Valid, alike, at_length, valid_in, valid_rows
from hdcid_cli.models.settings import ModelSettings


def vq(argument: str, settings: ModelSettings) -> "VectorQuantizer":
    """`vq`: one codebook."""
    if argument:
        raise ValueError("vq takes no number; rvq:N has N codebooks")
    return VectorQuantizer(settings.codebook, settings.dim)


def rvq(argument: str, settings: ModelSettings) -> "VectorQuantizer":
    """`rvq:N`: N codebooks, two if not said."""
    return VectorQuantizer(settings.codebook, settings.dim, stages=whole(argument or "2"))


def emptied(quantizer: "VectorQuantizer") -> "VectorQuantizer":
    """The quantizer with code 0 at zero (`--read emptied`): MICU's released tasks set it so, then look for codes."""
    copy = deepcopy(quantizer)
    copy.codebook[0, 0] = 0
    return copy


class VectorQuantizer(nn.Module):
    """Nearest code by Euclidean distance, straight-through gradient.

    Args:
        codes: L, size of each codebook.
        dim: D.
        stages: codebooks applied one after the other to the residual (1 is plain VQ).
        epsilon: of the moving averages' counts.
        recent: a replacement is a code used within so many updates.

    Buffers (S stages): codebook [S, L, D], weight [S, L, D], count [S, L], unused [S, L].
    """

    learns_by_ema = True
    others_share = None
    readings: ClassVar[Readings] = {"emptied": emptied}
    parts = 1
    same_for_all = True

    def __init__(self, codes: int, dim: int, stages: int = 1, epsilon: float = 1e-5, recent: int = 100):
        super().__init__()
        if codes < 2 or stages < 1:
            raise ValueError("a codebook needs two codes or more, and one stage or more")
        if stages * codes > MOST_CODES:
            raise ValueError(f"its codebooks have more than {MOST_CODES:,} codes")
        self.epsilon, self.recent = epsilon, recent
        codebook = torch.empty(stages, codes, dim).uniform_(-1 / codes, 1 / codes)
        self.register_buffer("codebook", codebook)
        self.register_buffer("weight", codebook.clone())
        self.register_buffer("count", torch.zeros(stages, codes))
        self.register_buffer("unused", torch.full((stages, codes), -1.0))  # -1: never used yet

    @property
    def stages(self) -> int:
        return len(self.codebook)

    @property
    def codes(self) -> int:
        return self.codebook.shape[1]

    @property
    def width(self) -> int:
        return self.codebook.shape[2]

    @property
    def table(self) -> Tensor:
        return self.codebook[0]

    def quantize(self, general: dict[str, Tensor], valid: Valid = None) -> Quantized:
        return quantize_alike(self, general)

    def forward(self, z: Tensor, modality: str = "") -> tuple[Tensor, Tensor]:
        """z [..., D] -> codes [..., D] (sum over stages, no gradient) and indices [..., S]; of any modality."""
        residual, codes, indices = z.detach(), [], []
        for codebook in self.codebook:
            if codes:
                residual = residual - codes[-1]
            indices.append(nearest(residual, codebook))
            codes.append(embedding(indices[-1], codebook))
        return sum(codes[1:], codes[0]), torch.stack(indices, dim=-1)

    def decode(self, indices: Tensor, modality: str = "") -> Tensor:
        """Indices [..., S] -> codes [..., D]."""
        return sum(embedding(indices[..., stage], codebook) for stage, codebook in enumerate(self.codebook))

    def distances(self, z: Tensor, modality: str = "") -> Tensor:
        """Euclidean distance to every code of the first stage, with gradient to z: [..., D] -> [..., L]."""
        return euclidean_distances(z, self.codebook[0])

    @torch.no_grad()
    def update(
        self,
        general: dict[str, Tensor],
        indices: dict[str, Tensor],
        valid: Valid = None,
        cross: bool = True,
        decay: float = 0.99,
    ) -> None:
        """One MM-EMA update of every stage, the modalities in the given order (published: a, v, t).

        Args:
            general: features [B, T_m, D] of each modality.
            indices: the codes that they chose [B, T_m, S], all from the codebook before this update.
            cross: move codes towards the other modalities' features too; without, it is the plain moving average.
            decay: share of the old averages that is kept.
        """
        residual = {m: x.detach() for m, x in general.items()}
        for stage in range(self.stages):
            codebook = self.codebook[stage].clone()
            chosen = {m: index[..., stage] for m, index in indices.items()}
            self._update_stage(stage, residual, chosen, valid, cross, decay)
            if stage + 1 < self.stages:
                residual = {m: x - embedding(chosen[m], codebook) for m, x in residual.items()}

    def _update_stage(
        self, stage: int, z: dict[str, Tensor], chosen: dict[str, Tensor], valid: Valid, cross: bool, decay: float
    ) -> None:
        codes = self.codes
        hits, sums = {}, {}  # how often each code was chosen [L], and the sum of what it is to follow there [L, D]
        for names, x in alike(z):
            index = torch.stack([chosen[m] for m in names]).flatten(1)
            # One-hot rows [M, B*T, L]; the library's function would wait to see the largest index.
            one_hot = (index.unsqueeze(-1) == torch.arange(codes, device=index.device)).to(x.dtype)
            if valid is not None:
                one_hot = one_hot * torch.stack([valid[m] for m in names]).reshape(*index.shape, 1)
            target = self._targets(names, x, z, valid) if cross and len(z) > 1 else x
            hits |= zip(names, one_hot.sum(dim=1).unbind())
            sums |= zip(names, (one_hot.mT @ target.flatten(1, 2)).unbind())
        count, weight = self.count[stage], self.weight[stage]
        for m in chosen:
            count = count.lerp(hits[m], 1 - decay)
            total = count.sum()
            count = (count + self.epsilon) * (total / (total + codes * self.epsilon))
            weight = weight.lerp(sums[m], 1 - decay)
        self.count[stage], self.weight[stage] = count, weight
        torch.div(weight, count.unsqueeze(-1), out=self.codebook[stage])

    @staticmethod
    def _targets(names: list[str], x: Tensor, z: dict[str, Tensor], valid: Valid) -> Tensor:
        """The mean of what modalities have [M, B, T, D] and of what the others had there: half and half.

        Where another one is not valid, what the modality has itself stands in its place.
        """
        steps = x.shape[2]
        pairs = [(m, n) for m in names for n in z if n != m]
        elsewhere = torch.stack([at_length(z[n], steps) for _, n in pairs]).unflatten(0, (len(names), -1))
        if valid is not None:
            there = torch.stack([valid_in(valid, steps, n) for _, n in pairs]).view(*elsewhere.shape[:-1], 1)
            elsewhere = torch.where(there, elsewhere, x.unsqueeze(1))
        return x.lerp(elsewhere.mean(dim=1), 0.5)

    @torch.no_grad()
    def revive(
        self,
        indices: dict[str, Tensor],
        generator: torch.Generator,
        idle: int,
        persist: bool = True,
        valid: Valid = None,
    ) -> None:
        """Replace codes that no modality used for more than `idle` updates by a recently used one plus noise.

        The published code writes the new vector into the codebook alone; the next update
        computes it anew from the old moving averages, so the code is lost again at once.
        `persist` gives the averages to the code as well.
        """
        stages, codes, dim = self.codebook.shape
        for stage in range(stages):
            noise = uniform((codes, dim), generator, self.codebook.device).to(self.codebook) * 2 - 1
            draw = uniform((codes,), generator, self.codebook.device)
            chosen = {m: index[..., stage] for m, index in indices.items()}
            replaced, donor, unused = replacements(chosen, self.unused[stage], draw, idle, self.recent, valid)
            fresh = self.codebook[stage][donor] + noise / 1024
            replace = replaced.unsqueeze(-1)
            self.codebook[stage] = torch.where(replace, fresh, self.codebook[stage])
            if persist:
                count = torch.where(replaced, self.count[stage].mean(), self.count[stage])
                self.weight[stage] = torch.where(replace, fresh * count.unsqueeze(-1), self.weight[stage])
                self.count[stage] = count
            self.unused[stage] = unused

    @torch.no_grad()
    def start(self, general: dict[str, Tensor], generator: torch.Generator, valid: Valid = None) -> None:
        """Put the codes on features drawn at random, so that all of them are in reach from the first step.

        With the published start (count 0) a code that the first batch does not choose gets
        weight / count with a count of about epsilon: it is thrown hundreds of units away.
        """
        codes = self.codes
        residual = torch.cat([valid_rows(z.detach(), valid and valid[m]) for m, z in general.items()])  # [N, D]
        for stage in range(self.stages):
            rows = torch.randint(len(residual), (codes,), generator=generator)
            self.codebook[stage] = put_on(residual, rows, generator)
            self.count[stage] = 1.0
            self.weight[stage] = self.codebook[stage]
            residual = residual - embedding(nearest(residual, self.codebook[stage]), self.codebook[stage])


def quantize_alike(quantizer: nn.Module, general: dict[str, Tensor]) -> Quantized:
    """`Quantizer.quantize` where all modalities have the same codes, straight through."""
    codes: dict[str, Tensor] = {}
    quantized: dict[str, Tensor] = {}
    indices: dict[str, Tensor] = {}
    for names, z in alike(general):
        code, index = quantizer(z, names[0])
        codes |= zip(names, code.unbind())
        quantized |= zip(names, straight_through(z, code).unbind())
        indices |= zip(names, index.unbind())
    return Quantized(*({name: each[name] for name in general} for each in (codes, quantized, indices)))


def put_on(z: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
    """Codes on the features z [N, D] of `rows` [L], a hundredth of their deviation apart where N < L: [L, D]."""
    deviation = z.std(dim=0, correction=min(1, len(z) - 1))  # 0, not NaN, of a single row
    spread = deviation * torch.randn(len(rows), z.shape[1], generator=generator).to(z)
    return z[rows.to(z.device)] + 0.01 * spread


def replacements(
    chosen: dict[str, Tensor], unused: Tensor, draw: Tensor, idle: int, recent: int, valid: Valid
) -> tuple[Tensor, Tensor, Tensor]:
    """Which codes are replaced, bool [L]; by which recently used one each would be, [L]; and the new `unused`, [L].

    Everything is computed for all codes, so nothing waits for the device.

    Args:
        chosen: {modality: index [B, T]}.
        unused: updates since a code was last used, -1 if never, [L].
        draw: of [0, 1), a number for each code, [L].
        idle: a code is replaced after more updates without use than that.
        recent: a replacement is a code used within so many updates.
    """
    codes = len(unused)
    # Segments that are not valid use a code after the last one, which nobody looks at.
    used = [index if valid is None else index.masked_fill(~valid[m], codes) for m, index in chosen.items()]
    unused = torch.cat([unused + 1, unused.new_zeros(1)])
    unused = unused.index_fill(0, torch.cat([index.flatten() for index in used]), 0)[:codes]
    dead = unused > idle
    donors = (unused >= 0) & (unused < recent) & ~dead
    # The j-th donor for each code, j uniform: donors first in a stable sort.
    order = torch.argsort(donors.logical_not().to(torch.int8), stable=True)
    donor = order[(draw * donors.sum()).long().clamp_max(codes - 1)]
    return dead & donors.any(), donor, torch.where(dead, torch.zeros_like(unused), unused)


def euclidean_distances(z: Tensor, codebook: Tensor) -> Tensor:
    """Distance to every code, with gradient to z: [..., D], [L, D] -> [..., L]."""
    squared = squared_distances(z, codebook.clone())  # a copy: the codebook changes before backward()
    return squared.clamp_min(1e-12).sqrt()  # the root's slope at 0 is infinite


def squared_distances(z: Tensor, codebook: Tensor) -> Tensor:
    """|z|^2 - 2 z.e + |e|^2, both less the codebook's mean: [..., D], [L, D] -> [..., L]."""
    z, codebook = _centred(z, codebook)
    return (z**2).sum(dim=-1, keepdim=True) - _products(2 * z, codebook) + (codebook**2).sum(dim=-1)


def nearest(z: Tensor, codebook: Tensor) -> Tensor:
    """Index of the nearest code: [..., D], [L, D] -> [...]. |z|^2 is the same for all codes and left out."""
    z, codebook = _centred(z, codebook)
    return ((codebook**2).sum(dim=-1) - _products(2 * z, codebook)).argmin(dim=-1)


def _products(z: Tensor, codebook: Tensor) -> Tensor:
    """z . e with all digits, in whatever precision networks compute: it takes a GPU no time to speak of."""
    with matmul_precision("float32"):
        return z @ codebook.T


def _centred(z: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Both less the codebook's mean. No distance changes, but what features have in common no longer takes the digits
    of the product that tell codes apart.
    """
    mean = codebook.mean(dim=0)
    return z - mean, codebook - mean


def straight_through(z: Tensor, code: Tensor) -> Tensor:
    """The code's value with z's gradient."""
    return z + (code - z).detach()
