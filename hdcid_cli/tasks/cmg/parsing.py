"""LLP's official scores of audio-visual video parsing, from one probe that answers both modalities of the
test clips.
"""

from hdcid_cli.tasks.annotations.clips import Annotations, Clip
from hdcid_cli.tasks.cmg.inputs import Inputs
from hdcid_cli.tasks.cmg.llp_scores import parsing_scores
from hdcid_cli.tasks.cmg.tasks import Outcome, Settings, Task, make_samples, split_clips
from hdcid_cli.tasks.metrics import Score, mean_score


def parsing(
    task: Task, settings: Settings, outcome: Outcome, annotations: dict[str, Annotations], inputs: dict[str, Inputs]
) -> tuple[list[Score], int]:
    """`segment_a`, `segment_v`, `segment_av`, `segment_type`, `segment_event` and the same of events, and the number of
    clips.

    As in the official code a clip that only one of the two files names has no event in the
    other modality. Nothing is returned if no clip has the features of both modalities.

    Args:
        annotations, inputs: of "audio" and "video".
    """
    from hdcid_cli.tasks.cmg.probe import predict

    device = outcome.tested.inputs.device
    tested = {
        name: {clip.id: clip for clip in split_clips(task, settings.protocol, each, each).test}
        for name, each in annotations.items()
    }
    ids = list(dict.fromkeys([*tested["audio"], *tested["video"]]))
    classes = annotations["audio"].classes
    known = {
        name: {clip.id for clip in each.match([Clip(name) for name in ids], classes)[0]}
        for name, each in inputs.items()
    }
    ids = [name for name in ids if name in known["audio"] and name in known["video"]]
    if not ids:
        return [], 0
    answers = {}
    for name in ("audio", "video"):
        clips = [tested[name].get(clip, Clip(clip)) for clip in ids]
        samples = make_samples(task, clips, inputs[name], classes, settings.protocol != "published", [])
        said = (predict(outcome.probe, samples.to(device)) > 0) & samples.valid.numpy()[..., None]
        actual = (samples.labels.numpy() > 0) & samples.valid.numpy()[..., None]
        answers[name] = said[..., :-1], actual[..., :-1]
    if answers["audio"][0].shape != answers["video"][0].shape:
        return [], 0  # clips of different numbers of segments cannot agree on one
    return [mean_score(name, values) for name, values in parsing_scores(**answers).items()], len(ids)
