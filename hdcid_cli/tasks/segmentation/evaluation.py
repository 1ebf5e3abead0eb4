"""A segmenter on the clips of a split: the scores of every clip, and of guessing."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from hdcid_cli.core.loading import prefetch
from hdcid_cli.core.progress import progress
from hdcid_cli.tasks.metrics import Bootstrap, Score, sums_score
from hdcid_cli.tasks.segmentation.avsbench import Clip, Reader
from hdcid_cli.tasks.segmentation.metrics import THRESHOLDS, f_curve, f_score, iou
from hdcid_cli.tasks.segmentation.segmenter import Segmenter


@dataclass
class ClipScores:
    """Scores of clip after clip.

    Attributes:
        iou: mean over the clip's frames of the intersection over union.
        fscore: AVSBench's F-score of the clip, at its own best threshold.
        curve: [256] a clip: the sum of the F-curves of its frames with an object, and their number.
    """

    iou: list[float] = field(default_factory=list)
    fscore: list[float] = field(default_factory=list)
    curve: list[np.ndarray] = field(default_factory=list)

    def add(self, logits: Tensor, truth: Tensor) -> None:
        """Add one clip: logits and true masks [T, H, W]."""
        curve = f_curve(logits, truth)
        with_object = truth.flatten(1).any(1)
        self.iou.append(float(iou(logits, truth).mean()))
        self.fscore.append(float(f_score(curve, truth)))
        self.curve.append(np.append(curve[with_object].sum(0).cpu().numpy(), float(with_object.sum())))

    @property
    def miou(self) -> float:
        """Mean over clips, in percent."""
        return 100 * float(np.mean(self.iou))

    def scores(self, seed: int = 0, groups: Sequence[str] | None = None) -> list[Score]:
        """`miou` and `fscore` as AVSBench's released test computes them, clip by clip, and `fscore_shared`,
        for which one threshold must serve all clips (each clip's own best one is chosen with the truth in hand)."""
        ones, bootstrap = np.ones(len(self.iou)), Bootstrap(groups or range(len(self.iou)), seed)
        curve = np.array(self.curve).reshape(-1, THRESHOLDS + 1)
        return [
            sums_score("miou", np.stack([self.iou, ones], 1), _mean, bootstrap),
            sums_score("fscore", np.stack([self.fscore, ones], 1), _mean, bootstrap),
            sums_score("fscore_shared", curve, _best_of_curve, bootstrap),
        ]


def _mean(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def _best_of_curve(sums: np.ndarray) -> np.ndarray:
    return (sums[..., :-1] / np.maximum(sums[..., -1:], 1)).max(-1)


Keep = Callable[[Clip, np.ndarray, np.ndarray, dict[str, np.ndarray]], None]


@torch.inference_mode()
def evaluate(
    model: Segmenter,
    reader: Reader,
    batch_size: int,
    device,
    precision: str = "float32",
    keep: Sequence[Keep] = (),
    description: str = "test",
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, ClipScores]:
    """Scores for the queries of every modality that the reader has; the pictures are encoded once for all of them.

    Args:
        keep: each is called with every clip, its pictures [5, S, S, 3], true masks [5, S, S] and {modality:
            probabilities [5, S, S]}.
        stop: asked between batches; once it says yes KeyboardInterrupt is raised.
    """
    scores = {name: ClipScores() for name in reader.queries}
    model.eval()
    for batch in _batches(reader, batch_size, device, description):
        if stop():
            raise KeyboardInterrupt
        with autocast(device, precision):
            stages = model.stages(batch["pictures"])
            logits = {name: model.decoder(stages, query).float() for name, query in batch["queries"].items()}
        for number, clip in enumerate(batch["clips"]):
            truth = batch["masks"][number]
            for name, found in logits.items():
                scores[name].add(found[number], truth)
            if keep:
                found = {name: values[number].sigmoid().cpu().numpy() for name, values in logits.items()}
                for function in keep:
                    function(clip, batch["pictures"][number].cpu().numpy(), truth.cpu().numpy(), found)
    return scores


class Guess:
    """What needs no learning: marking everything, or nothing. One of `evaluate`'s `keep`, so it sees the same clips."""

    def __init__(self):
        self._answers = {1e3: ClipScores(), -1e3: ClipScores()}

    def __call__(self, clip: Clip, pictures: np.ndarray, truth: np.ndarray, found: dict[str, np.ndarray]) -> None:
        truth = torch.from_numpy(truth)
        for logit, scores in self._answers.items():
            scores.add(torch.full(truth.shape, logit), truth)

    def chance(self) -> dict[str, float]:
        """{metric: the better score of the two}, in percent."""
        everything, nothing = (scores.scores() for scores in self._answers.values())
        return {one.name: max(one.value, other.value) for one, other in zip(everything, nothing)}


def autocast(device, precision: str):
    """bfloat16 where that was asked for, nothing otherwise."""
    return torch.autocast(torch.device(device).type, torch.bfloat16) if precision == "bf16" else nullcontext()


def to_device(batch: dict, device) -> dict:
    """The arrays of a batch as tensors on the device."""
    device = torch.device(device)

    def move(array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)

    if batch["pictures"] is None:
        return batch
    queries = {name: move(values) for name, values in batch["queries"].items()}
    return {**batch, "pictures": move(batch["pictures"]), "masks": move(batch["masks"]), "queries": queries}


def _batches(reader: Reader, batch_size: int, device, description: str) -> Iterator[dict]:
    positions = [np.arange(start, min(start + batch_size, len(reader))) for start in range(0, len(reader), batch_size)]
    with progress(total=len(reader), description=description, unit="clip") as bar:
        for taken, batch in prefetch((taken, to_device(reader.read(taken), device)) for taken in positions):
            if batch["clips"]:
                yield batch
            bar.update(len(taken))
