"""The small decoder that learns on frozen codes of one modality and is tested on another's.

Codes do not change while it learns, so all of them lie on the device as one tensor and an
epoch is nothing but a few dozen small matrix products.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hdcid_cli.models.segments import time_mean
from hdcid_cli.tasks.cmg.protocol import Schedule
from hdcid_cli.tasks.cmg.scores import CLASSIFICATION, LOCALIZATION


class Classifier(nn.Module):
    """Linear, maximum over time, Linear: one class a clip (AVE, UCF, VGGSound)."""

    def __init__(self, width: int, hidden: int, classes: int):
        super().__init__()
        self.linear: nn.Module = nn.Linear(width, hidden)
        self.event = nn.Linear(hidden, classes)

    def forward(self, inputs: Tensor, valid: Tensor) -> Tensor:
        """[B, T, C], [B, T] bool -> [B, classes]; segments that are not valid do not take part."""
        return self.event(self.over_time(self.linear(inputs), valid))

    def over_time(self, hidden: Tensor, valid: Tensor) -> Tensor:
        """[B, T, H], [B, T] bool -> [B, H]."""
        if not valid.all():
            hidden = hidden.masked_fill(~valid[..., None], -torch.inf)
        return hidden.amax(1)  # amax: thirty times faster than max on a CPU


class MeanClassifier(Classifier):
    """As Classifier, with the mean over time, in which every segment has its say: a linear probe of a clip's mean."""

    def over_time(self, hidden: Tensor, valid: Tensor) -> Tensor:
        return time_mean(hidden, valid)


class Localizer(nn.Module):
    """Linear, Linear: all events of each segment (AVVP); the last output is the background."""

    def __init__(self, width: int, hidden: int, classes: int):
        super().__init__()
        self.linear: nn.Module = nn.Linear(width, hidden)
        self.event = nn.Linear(hidden, classes + 1)

    def forward(self, inputs: Tensor, valid: Tensor) -> Tensor:
        """[B, T, C] -> [B, T, classes + 1]."""
        return self.event(self.linear(inputs))


class TemporalLocalizer(nn.Module):
    """As Localizer, but each segment is read with its neighbours: between the two Linear layers stand three residual
    convolutions over time, with steps of 1, 2 and 4 segments (the dilated residual layers of MS-TCN, Farha and Gall
    2019, https://arxiv.org/abs/1903.01945, without their 1x1 convolutions).
    """

    STEPS = (1, 2, 4)
    DROPOUT = 0.3

    def __init__(self, width: int, hidden: int, classes: int):
        super().__init__()
        self.linear: nn.Module = nn.Linear(width, hidden)
        self.context = nn.ModuleList(nn.Conv1d(hidden, hidden, 3, padding=step, dilation=step) for step in self.STEPS)
        self.drop = nn.Dropout(self.DROPOUT)
        self.event = nn.Linear(hidden, classes + 1)

    def forward(self, inputs: Tensor, valid: Tensor) -> Tensor:
        """[B, T, C], [B, T] bool -> [B, T, classes + 1]; segments that are not valid tell their neighbours nothing."""
        there = valid[:, None].to(inputs.dtype)
        hidden = self.drop(self.linear(inputs)).transpose(1, 2) * there
        for layer in self.context:
            hidden = hidden + self.drop(F.relu(layer(hidden))) * there
        return self.event(hidden.transpose(1, 2))


Probe = Classifier | Localizer | TemporalLocalizer
# By kind of task; the first of each is the published one.
PROBES: dict[str, dict[str, type[Probe]]] = {
    CLASSIFICATION: {"max": Classifier, "mean": MeanClassifier},
    LOCALIZATION: {"linear": Localizer, "tcn": TemporalLocalizer},
}


def regularize(probe: Probe, dropout: float) -> None:
    """Let the probe learn with dropout of its hidden layer."""
    probe.linear = nn.Sequential(probe.linear, nn.Dropout(dropout))


class Standardize(nn.Module):
    """Zero mean and unit deviation of every channel."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Tensor, deviation: Tensor):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs - self.mean) / self.deviation


def standardize(probe: Probe, samples: "Samples") -> None:
    """Let the probe see raw features as the valid segments of `samples` standardize them."""
    count = samples.valid.sum().clamp(min=1)
    weight = samples.valid[..., None]
    total = sum((part.float() * each).sum((0, 1)) for part, each in zip(samples.inputs.split(256), weight.split(256)))
    mean = total / count
    square = sum(
        (((part.float() - mean) ** 2) * each).sum((0, 1))
        for part, each in zip(samples.inputs.split(256), weight.split(256))
    )
    deviation = (square / count).sqrt()
    deviation[deviation < 1e-6] = 1.0  # a channel that never changes says nothing
    probe.linear = nn.Sequential(Standardize(mean, deviation), probe.linear)


class ClassificationLoss(nn.Module):
    """Cross-entropy of one class a clip."""

    def forward(self, logits: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        """[B, classes], [B] class numbers."""
        return F.cross_entropy(logits, labels)


class LocalizationLoss(nn.Module):
    """Binary cross-entropy plus the published term with a learned weight for every class:
    -mean(sum_c target_c log_softmax_c exp(-alpha_c)), alpha starting at 0.1."""

    def __init__(self, classes: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.full((classes + 1,), 0.1))

    def forward(self, logits: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        """[B, T, classes + 1] twice, [B, T] bool; the mean is over valid segments."""
        logits, labels = logits[valid], labels[valid]
        weighted = (labels * F.log_softmax(logits, -1) * torch.exp(-self.alpha)).sum(-1)
        return F.binary_cross_entropy_with_logits(logits, labels) - weighted.mean()


@dataclass
class Samples:
    """What the probe sees of some clips.

    Attributes:
        ids: [N] clip names.
        groups: [N] the recording that each is cut from.
        inputs: [N, T, C] codes or features, float32 (float16 to save memory).
        labels: [N] class numbers, or [N, T, classes + 1] zeros and ones.
        valid: [N, T] bool, the segments that count.
    """

    ids: list[str]
    groups: list[str]
    inputs: Tensor
    labels: Tensor
    valid: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> "Samples":
        """The same on a device."""
        return replace(self, inputs=self.inputs.to(device), labels=self.labels.to(device), valid=self.valid.to(device))


def new_probe(
    kind: str, width: int, hidden: int, classes: int, seed: int, name: str | None = None
) -> tuple[Probe, nn.Module]:
    """Decoder and loss for a kind of task, with weights that only the seed decides.

    Args:
        name: which of the kind's PROBES; None: the published one.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = PROBES[kind][name or published_probe(kind)](width, hidden, classes)
        return probe, ClassificationLoss() if kind == CLASSIFICATION else LocalizationLoss(classes)


def published_probe(kind: str) -> str:
    """The name of the decoder that the papers use for a kind of task."""
    return next(iter(PROBES[kind]))


def fit(
    probe: nn.Module,
    loss: nn.Module,
    samples: Samples,
    schedule: Schedule,
    seed: int,
    judge: Callable[[nn.Module], float],
    renew: Callable[[int], Tensor] | None = None,
    earliest: bool = False,
) -> tuple[nn.Module, int, list[float]]:
    """Learn, and keep the weights of the epoch that `judge` likes best.

    Args:
        samples: on the device on which to learn.
        renew: epoch -> the inputs that it learns from instead of those of `samples`.
        judge: called after every epoch with the probe in eval mode; the larger the better. Of
            equally good epochs the last is kept: it has learned longest.
        earliest: keep the first of them.

    Returns:
        the probe with the best weights, the number of that epoch (from 1) and all judgements.
    """
    device = samples.inputs.device
    probe, loss = probe.to(device), loss.to(device)
    optimizer = torch.optim.Adam([*probe.parameters(), *loss.parameters()], lr=schedule.lr)
    halve = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(schedule.milestones), gamma=0.5)
    shuffle = torch.Generator().manual_seed(seed)
    best, judgements = (-float("inf"), 0, probe.state_dict()), []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)  # of dropout
        for epoch in range(1, schedule.epochs + 1):
            probe.train()
            inputs = samples.inputs if renew is None else renew(epoch)
            for rows in torch.randperm(len(samples), generator=shuffle).to(device).split(schedule.batch_size):
                valid = samples.valid[rows]
                value = loss(probe(inputs[rows].float(), valid), samples.labels[rows], valid)
                optimizer.zero_grad(set_to_none=True)
                value.backward()
                nn.utils.clip_grad_norm_(probe.parameters(), schedule.clip)
                optimizer.step()
            halve.step()
            probe.eval()
            judgements.append(judge(probe))
            if judgements[-1] > best[0] or (judgements[-1] == best[0] and not earliest):
                best = (judgements[-1], epoch, copy.deepcopy(probe.state_dict()))
    probe.load_state_dict(best[2])
    return probe.eval(), best[1], judgements


@torch.inference_mode()
def predict(probe: nn.Module, samples: Samples, batch_size: int = 1024) -> np.ndarray:
    """Logits of all clips, [N, classes] or [N, T, classes + 1]."""
    parts = [
        probe(inputs.float(), valid)
        for inputs, valid in zip(samples.inputs.split(batch_size), samples.valid.split(batch_size), strict=True)
    ]
    return torch.cat(parts).cpu().numpy()
