"""Cross-modal contrastive predictive coding (Oord et al. 2018; Xia et al. 2023; paper eq. 7, 13)."""

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hdcid_cli.models.hdcid import Layer, LayerOutput
from hdcid_cli.models.segments import Valid, at_length, common_length, masked_mean, valid_in
from hdcid_cli.training.losses.alignment import Alignment, measured
from hdcid_cli.training.settings import ObjectiveSettings


class CPC(Alignment):
    """From what modality m did until step t, tell which clip's step t + r of modality n is the right one.

    Args:
        modalities: names of the modalities.
        dim: width D of the general features.
        context: width of the LSTM's context.
        context_layers: layers of the LSTM: 2 as published, 1 in the paper.
        horizon: R, how many future steps are predicted.
        own_weight: weight of the pairs m = n (0.1); pairs m != n weigh 1.
        scored: "all" steps of a clip, or one drawn at "random" for each batch (published).
    """

    def __init__(
        self,
        modalities,
        dim: int = 256,
        context: int = 256,
        context_layers: int = 2,
        horizon: int = 1,
        own_weight: float = 0.1,
        scored: str = "all",
    ):
        super().__init__()
        self.horizon, self.own_weight, self.scored = horizon, own_weight, scored
        self.context = nn.ModuleDict({m: nn.LSTM(dim, context, context_layers, batch_first=True) for m in modalities})
        self.predictors = nn.ModuleDict(
            {m: nn.ModuleList(nn.Linear(context, dim) for _ in range(horizon)) for m in modalities}
        )

    @classmethod
    def of(cls, settings: ObjectiveSettings, layer: Layer) -> Self:
        dim = layer.config.dim
        modalities, layers, horizon = layer.config.modalities, settings.cpc_layers, settings.cpc_horizon
        return cls(modalities, dim, dim, layers, horizon, scored=settings.cpc_steps)

    def forward(self, out: LayerOutput, layer: Layer, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        steps = list(self.steps(common_length(out.general)))
        if self.scored == "random":
            steps = [steps[int(torch.randint(len(steps), (), generator=generator))]]
        loss, accuracy = self.score(out.general, steps, out.valid)
        return loss, measured("cpc_accuracy", accuracy, out)

    def steps(self, time: int) -> range:
        """The steps t that may be drawn: [1, T - R); the last usable one where T is too short for that."""
        return (
            range(1, time - self.horizon)
            if time - self.horizon > 1
            else range(max(0, time - 1 - self.horizon), max(1, time - self.horizon))
        )

    def score(self, general: dict[str, Tensor], steps: list[int], valid: Valid = None) -> tuple[Tensor, Tensor]:
        """Loss and accuracy of the given steps t.

        Args:
            general: z_m [B, T_m, D]; modalities of different T are resampled to the longest.
            steps: which t to score, one after the other; one drawn at random is the published choice, all of
                `self.steps(T)` uses the whole clip for the price of the same LSTM pass.
            valid: a clip takes part in step t, as question and as answer, if m is valid at t and n at t + r.

        Returns:
            The weighted sum over ordered pairs of the mean InfoNCE, and the share of clips
            whose right partner scored highest over the pairs m != n.
        """
        time = common_length(general)
        general = {m: at_length(z, time) for m, z in general.items()}
        valid = valid and {m: valid_in(valid, time, m) for m in general}
        ahead = min(self.horizon, time - 1)  # T = 1: a step tells itself, which is InfoNCE
        first, last = steps[0], steps[-1]
        if len(steps) != last - first + 1:
            raise ValueError(f"steps should follow one another, not {steps}")
        contexts = {m: self.context[m](z[:, : last + 1])[0][:, first:] for m, z in general.items()}  # [B, S, context]
        loss, right, pairs = 0.0, 0.0, 0
        for m, context in contexts.items():
            for r, predictor in enumerate(self.predictors[m], 1 if ahead else 0):
                predicted = predictor(context).transpose(0, 1)  # [S, B, D]
                for n, z in general.items():
                    later = slice(first + min(r, ahead), last + min(r, ahead) + 1)
                    scores = z[:, later].transpose(0, 1) @ predicted.transpose(1, 2)  # [S, B (truth), B (prediction)]
                    part = None if valid is None else (valid[m][:, first : last + 1] & valid[n][:, later]).T  # [S, B]
                    value, accuracy = _info_nce(scores, part)
                    loss = loss + (self.own_weight if m == n else 1.0) / self.horizon * value
                    if m != n:
                        right, pairs = right + accuracy, pairs + 1
        return loss, right / max(1, pairs)


def _info_nce(scores: Tensor, part: Tensor | None) -> tuple[Tensor, Tensor]:
    """-log softmax along the columns at the diagonal of [S, B, B], and how often that is the largest.

    Rows and columns of clips that take no part [S, B] are left out.
    """
    target = torch.arange(scores.shape[-1], device=scores.device).expand(scores.shape[:2])
    if part is not None:
        # A row that is left out keeps its own column, so that no row is empty; it does not count below.
        own = torch.eye(scores.shape[-1], dtype=torch.bool, device=scores.device)
        scores = scores.masked_fill(~(part.unsqueeze(1) | own), -torch.inf)
    losses = cross_entropy(scores.flatten(0, 1), target.flatten(), reduction="none").view_as(target)
    right = (scores.detach().argmax(dim=-1) == target).to(scores.dtype)
    return masked_mean(losses, part), masked_mean(right, part)
