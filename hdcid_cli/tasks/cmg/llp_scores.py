"""LLP's official scores (Tian et al. 2020, section 6.1): F-scores of segments and of events, clip by clip.

For every clip and class the F-score counts segments, or whole events that overlap the true
one by at least half of their union; a clip's score is the mean over the classes that occur in
truth or answer, 1 if there is none.
"""

from itertools import groupby

import numpy as np


def segment_f1(said: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """[N, T, C] bool twice -> [N] in 0..1."""
    return _clip_f1(segment_counts(said, actual))


def event_f1(said: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """[N, T, C] bool twice -> [N] in 0..1."""
    return _clip_f1(event_counts(said, actual))


def parsing_scores(audio: tuple, video: tuple) -> dict[str, np.ndarray]:
    """All official scores of clips whose two modalities were both answered.

    Args:
        audio, video: (said, actual), each [N, T, C] bool.

    Returns:
        {`segment_a`, `segment_v`, `segment_av`, `segment_type`, `segment_event`, `event_a`, ...: [N] in 0..1}.
        `av` is where both modalities agree, `type` the mean of a, v and av, `event` pools the counts of a and v.
    """
    both = (audio[0] & video[0], audio[1] & video[1])
    scores = {}
    for level, counts in (("segment", segment_counts), ("event", event_counts)):
        of_audio, of_video = counts(*audio), counts(*video)
        a, v, av = (_clip_f1(each) for each in (of_audio, of_video, counts(*both)))
        scores |= {f"{level}_a": a, f"{level}_v": v, f"{level}_av": av}
        scores |= {f"{level}_type": (a + v + av) / 3, f"{level}_event": _clip_f1(of_audio + of_video)}
    return scores


def segment_counts(said: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """True positives, false positives and false negatives: [3, N, C] segments."""
    return np.stack([(said & actual).sum(1), (said & ~actual).sum(1), (~said & actual).sum(1)])


def event_counts(said: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """True positives, false positives and false negatives: [3, N, C] events.

    As in the official code an answer is right if it fits any true event, and a true event is
    missed if no answer fits it, so that two answers may fit the same event.
    """
    counts = np.zeros((3, len(said), said.shape[2]), int)
    for clip, label in np.argwhere(said.any(1) | actual.any(1)):
        answers, truths = runs(said[clip, :, label]), runs(actual[clip, :, label])
        right = sum(any(_fits(answer, truth) for truth in truths) for answer in answers)
        missed = sum(not any(_fits(truth, answer) for answer in answers) for truth in truths)
        counts[:, clip, label] = right, len(answers) - right, missed
    return counts


def runs(active: np.ndarray) -> list[tuple[int, int]]:
    """[T] bool -> [(start, end)] of every stretch of ones."""
    runs, start = [], 0
    for value, stretch in groupby(active.tolist()):
        end = start + len(list(stretch))
        if value:
            runs.append((start, end))
        start = end
    return runs


def _fits(one: tuple[int, int], other: tuple[int, int]) -> bool:
    shared = max(0, min(one[1], other[1]) - max(one[0], other[0]))
    return shared >= 0.5 * (one[1] - one[0] + other[1] - other[0] - shared)


def _clip_f1(counts: np.ndarray) -> np.ndarray:
    """[3, N, C] -> [N]: mean F over the classes that occur."""
    hit, wrong, missed = counts
    total = 2 * hit + wrong + missed
    occurs = hit + wrong + missed > 0
    f1 = 2 * hit / np.maximum(total, 1)
    return np.where(occurs.any(1), (f1 * occurs).sum(1) / np.maximum(occurs.sum(1), 1), 1.0)
