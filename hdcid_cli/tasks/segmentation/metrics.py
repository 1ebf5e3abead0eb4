"""mIoU and F-score as AVSBench's released code computes them (Zhou et al. 2022, section 5.1).

Everything works frame by frame, so scores of single frames can be kept, and a data set
is never held in memory.
"""

import torch
from torch import Tensor

BETA2 = 0.3
THRESHOLDS = 255
_EPS = 1e-7


def iou(logits: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union of sigmoid(logits) > 0.5 with the true mask.

    A frame without an object scores the share of its pixels that are left empty.

    Args:
        logits: [N, H, W].
        truth: [N, H, W], 0 or 1.

    Returns:
        [N], in 0..1; their mean is AVSBench's mIoU.
    """
    found, truth = logits.float().sigmoid() > 0.5, truth > 0.5
    both = (found & truth).sum((1, 2)).float()
    either = (found | truth).sum((1, 2)).float()
    neither = (~found & ~truth).sum((1, 2)).float()
    pixels = float(truth.shape[1] * truth.shape[2])
    empty = ~truth.any(2).any(1)
    return torch.where(empty, neither / (pixels + _EPS), both / (either + _EPS))


def f_curve(logits: Tensor, truth: Tensor) -> Tensor:
    """F-score (beta^2 = 0.3) of a frame at each of 255 thresholds between 0 and 1; 0 where it is not defined.

    Pixels are counted once by the number of thresholds they reach; the counts above each
    threshold are sums of those, which replaces 255 passes over the picture by one.

    Args:
        logits: [N, H, W].
        truth: [N, H, W], 0 or 1.

    Returns:
        [N, 255]
    """
    count = len(logits)
    thresholds = torch.linspace(0, 1 - 1e-10, THRESHOLDS, device=logits.device)
    reached = torch.bucketize(logits.float().sigmoid().reshape(count, -1), thresholds, right=True)
    truth = (truth > 0.5).reshape(count, -1)

    def pixels_at_each_threshold(weight: Tensor) -> Tensor:
        counts = torch.zeros(count, THRESHOLDS + 1, dtype=torch.float64, device=logits.device)
        counts.scatter_add_(1, reached, weight.double())
        return counts.flip(1).cumsum(1).flip(1)[:, 1:]

    hits = pixels_at_each_threshold(truth)
    precision = hits / (pixels_at_each_threshold(torch.ones_like(truth)) + 1e-20)
    recall = hits / (truth.sum(1, keepdim=True) + 1e-20)
    curve = (1 + BETA2) * precision * recall / (BETA2 * precision + recall)
    return curve.nan_to_num(0.0)


def f_score(curve: Tensor, truth: Tensor) -> Tensor:
    """Maximum over thresholds of the mean curve over the frames with an object; 0 if none has one.

    Args:
        curve: [N, 255] of `f_curve`.
        truth: [N, H, W]; tells the frames with an object.

    Returns:
        A scalar. AVSBench's published score is the mean of this over clips, each with its own best threshold.
    """
    with_object = truth.flatten(1).any(1)
    return curve[with_object].mean(0).max() if with_object.any() else curve.new_zeros(())
