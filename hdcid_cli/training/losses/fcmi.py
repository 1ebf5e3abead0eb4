"""FCMI: fine and coarse masked InfoNCE (MICU, Huang et al. 2025, https://arxiv.org/abs/2507.14935)."""

from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hdcid_cli.core.draws import uniform
from hdcid_cli.models.hdcid import Layer, LayerOutput
from hdcid_cli.models.segments import Valid, at_length, common_length, masked_mean, time_mean, valid_in
from hdcid_cli.training.losses.alignment import Alignment
from hdcid_cli.training.losses.infonce import cosines, info_nce
from hdcid_cli.training.settings import ObjectiveSettings

TEMPERATURE = 0.1


class FCMI(Alignment):
    """From what a mask leaves of a modality, tell its steps within each clip, and its clips, from every modality.

    Args:
        ratio: share of steps (or channels) that are masked.
        mask: "steps" (published code) or "channels", which all steps and modalities share (the paper's figure).
    """

    def __init__(self, ratio: float = 0.3, mask: str = "steps"):
        super().__init__()
        self.ratio, self.mask = ratio, mask

    @classmethod
    def of(cls, settings: ObjectiveSettings, layer: Layer) -> Self:
        return cls(settings.mask_ratio, settings.mask)

    def forward(self, out: LayerOutput, layer: Layer, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        time = common_length(out.general)
        general = {name: at_length(z, time) for name, z in out.general.items()}
        valid = out.valid and {name: valid_in(out.valid, time, name) for name in general}
        clips, _, dim = next(iter(general.values())).shape
        shape = (clips, time, 1) if self.mask == "steps" else (clips, 1, dim)
        z = next(iter(general.values()))
        mask = (uniform(shape, generator, z.device) >= self.ratio).to(z)
        fine, coarse = fcmi(general, mask, valid)
        return fine + coarse, {"fcmi_fine": fine.detach(), "fcmi_coarse": coarse.detach()}


def fcmi(general: dict[str, Tensor], mask: Tensor, valid: Valid = None) -> tuple[Tensor, Tensor]:
    """Fine and coarse loss: sums over all ordered pairs (m, n), m = n included.

    Args:
        general: z_m [B, T, D], all of one length.
        mask: 1 where a feature is kept, [B, T, 1] or [B, 1, D]; the same for all modalities.
        valid: which segments count; those that do not leave rows and columns.
    """
    fine, coarse = mask.new_zeros(()), mask.new_zeros(())
    for m, z in general.items():
        kept = mask * z
        for n, other in general.items():
            both = valid and valid[m] & valid[n]
            fine = fine + _within_clips(kept, other, both)
            coarse = coarse + info_nce(_mean(kept, valid, m), _mean(other, valid, n), TEMPERATURE)
    return fine, coarse


def _mean(z: Tensor, valid: Valid, name: str) -> Tensor:
    """Over a clip's segments, masked ones too."""
    return time_mean(z, None if valid is None else valid[name])


def _within_clips(x: Tensor, y: Tensor, valid: Tensor | None) -> Tensor:
    """InfoNCE among the T steps of each clip, mean over all steps that count: [B, T, D], [B, T, D] -> []."""
    scores = cosines(x, y) / TEMPERATURE
    target = torch.arange(scores.shape[-1], device=scores.device).expand(scores.shape[:-1])
    if valid is not None:  # a row that does not count keeps its own column, so that none is empty
        own = torch.eye(scores.shape[-1], dtype=torch.bool, device=scores.device)
        scores = scores.masked_fill(~(valid.unsqueeze(1) | own), -torch.inf)
    losses = cross_entropy(scores.flatten(0, 1), target.flatten(), reduction="none").view_as(target)
    return masked_mean(losses, valid)
