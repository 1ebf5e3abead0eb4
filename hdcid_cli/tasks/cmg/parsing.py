"""Audio-visual video parsing: LLP's official scores (Tian et al. 2020, section 6.1), clip by clip.

They ask about both modalities of a clip, so one probe answers both.
"""

import numpy as np

from hdcid_cli.tasks.annotations.clips import AnnotatedClip
from hdcid_cli.tasks.cmg.protocol import Further, Probed
from hdcid_cli.tasks.cmg.scores import Answers, clip_f1, event_counts, segment_counts
from hdcid_cli.tasks.metrics import Bootstrap, mean_score

BOTH = ("audio", "video")


def parsing(probed: Probed) -> Further:
    """The official scores of a trained probe, with the chance of the blind answers to `segment_f1` and `event_f1`.

    As in the official code a clip that only one of the two files names has no event in the
    other modality. Nothing is returned if no clip has both modalities, each in as many segments.
    """
    if set(probed.inputs) != set(BOTH):
        return Further()
    clips = {name: {clip.id: clip for clip in probed.tested[name]} for name in BOTH}
    either = clips["audio"] | clips["video"]
    known = [{clip.id for clip in probed.inputs[name].match(list(either.values()), probed.classes)[0]} for name in BOTH]
    ids = [name for name in either if all(name in names for names in known)]
    if not ids or len({probed.inputs[name].shape[0] for name in BOTH}) > 1:
        return Further()
    answers = [
        probed.answer([clips[name].get(clip, AnnotatedClip(clip)) for clip in ids], probed.inputs[name])
        for name in BOTH
    ]
    bootstrap = Bootstrap([either[name].group for name in ids])
    found = parsing_scores(*((each.said[..., :-1], each.truth.actual[..., :-1]) for each in answers))
    chances: dict[str, float] = {}
    for level in ("segment", "event"):
        blind = parsing_scores(*(_blindly(each, probed.blind[f"{level}_f1"]) for each in answers))
        chances |= {name: 100 * float(values.mean()) for name, values in blind.items() if name.startswith(level)}
    return Further([mean_score(name, values, bootstrap) for name, values in found.items()], chances, ids)


def _blindly(answers: Answers, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(what the blind answer says, what is so), each [N, T, C] bool."""
    return answers.truth.valid[..., None] & (row[:-1] > 0), answers.truth.actual[..., :-1]


def parsing_scores(audio: tuple[np.ndarray, np.ndarray], video: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
    """All official scores of clips whose two modalities were both answered.

    Args:
        audio, video: (said, actual), each [N, T, C] bool.

    Returns:
        {`segment_a`, `segment_v`, `segment_av`, `segment_type`, `segment_event`, `event_a`, ...: [N] in 0..1}.
        `av` is where both modalities agree, `type` the mean of a, v and av, `event` pools the counts of a and v.
    """
    both = (audio[0] & video[0], audio[1] & video[1])
    scores: dict[str, np.ndarray] = {}
    for level, counts in (("segment", segment_counts), ("event", event_counts)):
        of_audio, of_video = counts(*audio), counts(*video)
        a, v, av = (clip_f1(each) for each in (of_audio, of_video, counts(*both)))
        scores |= {f"{level}_a": a, f"{level}_v": v, f"{level}_av": av}
        scores |= {f"{level}_type": (a + v + av) / 3, f"{level}_event": clip_f1(of_audio + of_video)}
    return scores
