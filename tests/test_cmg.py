"""Held-out probes on fixed codes: what they learn, choose and score."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cmg_world import CLASSES, headline, run, world

from hdcid_cli.core.errors import InputError
from hdcid_cli.tasks.annotations.clips import AnnotatedClip, AnnotatedEvent, Annotations
from hdcid_cli.tasks.cmg.inputs import Inputs
from hdcid_cli.tasks.cmg.probe import predict
from hdcid_cli.tasks.cmg.protocol import ProbeSettings
from hdcid_cli.tasks.cmg.reading import Reading
from hdcid_cli.tasks.cmg.scores import Answers, best_cut, value
from hdcid_cli.tasks.cmg.tasks import TASKS
from hdcid_cli.tasks.cmg.trial import Trial


def test_held_out_protocol_looks_at_test_labels_only_to_score():
    """Permuting the labels of the test clips changes the score and nothing else; those of validation change
    the choice.
    """
    annotations, video, audio = world(clips=120)

    def permuted(split):
        random = np.random.default_rng(5)
        where = [row for row, clip in enumerate(annotations.clips) if clip.split == split]
        clips = list(annotations.clips)
        for row, other in zip(where, random.permutation(where)):
            donor = annotations.clips[other]
            clips[row] = AnnotatedClip(clips[row].id, split, donor.label, donor.events)
        return Annotations(annotations.source, CLASSES, clips)

    for task in ("ave", "avvp"):
        straight, test_permuted, val_permuted = (
            run(task, given, video, audio, epochs=20, lr=0.01)
            for given in (annotations, permuted("test"), permuted("val"))
        )
        assert straight[1].learned.epoch == test_permuted[1].learned.epoch
        np.testing.assert_array_equal(straight[1].answers.logits, test_permuted[1].answers.logits)
        assert straight[2][headline(task)].value > test_permuted[2][headline(task)].value + 10
        assert straight[1].learned.epoch != val_permuted[1].learned.epoch


def test_held_out_probe_generalises_across_modalities_and_chance_does_not():
    annotations, video, audio = world(clips=200)
    trial, found, scores = run("ave", annotations, video, audio, epochs=20, lr=0.01)
    assert scores["precision"].value > 85 and trial.chances["precision"] < 50
    assert (found.scores[0].name, len(trial.tested), len(trial.choose)) == ("precision", 50, 50)
    trial, found, scores = run("avvp", annotations, audio, video, epochs=20, lr=0.01)
    assert found.scores[0].name == "accuracy"
    assert scores["foreground_f1"].value > 60 > trial.chances["foreground_f1"]
    assert scores["event_f1"].interval[0] < scores["event_f1"].value < scores["event_f1"].interval[1]


def test_repeating_a_run_gives_the_same_numbers():
    annotations, video, audio = world()
    one, other, different = (
        run("avvp", annotations, video, audio, epochs=4, seed=seed)[1].answers.logits for seed in (3, 3, 4)
    )
    assert np.array_equal(one, other) and not np.array_equal(one, different)


def test_segments_past_the_end_of_a_clip_count_only_as_published():
    annotations, video, audio = world()
    audio.length = np.full(60, 2)
    for clip in annotations.clips:
        clip.events = [AnnotatedEvent(clip.label, 0.0, 2.0)]  # background begins where the clips end
    assert (
        run("avvp", annotations, video, audio, epochs=2)[0].chances["accuracy"] < 60
    )  # the best blind answer is one class
    assert run("avvp", annotations, video, audio, epochs=2, protocol="published")[0].chances[
        "accuracy"
    ] == pytest.approx(60)


def test_parsing_scores_answer_both_modalities_of_the_same_clips():
    annotations, video, audio = world(clips=80)
    trial, found, scores = run("avvp", annotations, video, audio, epochs=10, lr=0.01)
    by_name = {score.name: score.value for score in found.further.scores}
    assert len(found.further.clips) == 20 and len(by_name) == 10
    assert by_name["segment_a"] == pytest.approx(scores["segment_f1"].value)
    assert by_name["event_a"] == pytest.approx(scores["event_f1"].value)
    assert by_name["segment_type"] == pytest.approx(np.mean([by_name[f"segment_{each}"] for each in ("a", "v", "av")]))
    assert found.further.chances["segment_a"] == pytest.approx(trial.chances["segment_f1"])
    assert found.further.chances["event_v"] == pytest.approx(trial.chances["event_f1"])  # the same truth in both


def test_threshold_is_chosen_on_validation_clips_for_all_scores_of_a_localizer():
    annotations, video, audio = world(clips=160, noise=1.0)
    settings = {"epochs": 10, "lr": 0.01}
    half = run("avvp", annotations, video, audio, **settings)[1]
    trial, found, scores = run("avvp", annotations, video, audio, threshold="chosen", **settings)
    np.testing.assert_array_equal(found.answers.logits, half.answers.logits)
    learned = Answers(predict(found.learned.probe, trial.choose), trial._truth(trial.choose))
    cut = best_cut(learned)
    assert found.answers.cut == cut != 0 and found.threshold == pytest.approx(1 / (1 + np.exp(-cut)))
    assert half.threshold == 0.5
    assert value("localization", "f1", replace(learned, cut=cut)) > value("localization", "f1", learned)
    [further] = [score for score in found.further.scores if score.name == "segment_a"]
    assert further.value == pytest.approx(scores["segment_f1"].value)
    with pytest.raises(InputError, match="no validation clips: --threshold chosen"):
        ProbeSettings("published", threshold="chosen")


def test_context_helps_where_a_segment_alone_does_not_tell():
    """The event of a segment shows in the one before."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, (160, 8))
    clips = [
        AnnotatedClip(
            f"clip{n}",
            ("train", "val", "test")[n % 3],
            None,
            [AnnotatedEvent(int(c), t, t + 1) for t, c in enumerate(row)],
        )
        for n, row in enumerate(labels)
    ]
    values = random.normal(size=(3, 24)).astype(np.float32)[np.roll(labels, -1, 1)]
    side = Inputs("video.h5", "video", [clip.id for clip in clips], np.full(160, 8), 1.0, (8, 24), values.__getitem__)
    annotations = Annotations(Path("x"), CLASSES, clips)
    found = {
        name: run("localise", annotations, side, side, lr=0.01, epochs=60, localizer=name)[2]["f1"].value
        for name in ("linear", "tcn")
    }
    assert found["tcn"] > 85 > 60 > found["linear"]


def test_supervised_dropout_is_chosen_on_validation_clips():
    annotations, video, _ = world(clips=160, noise=3.0)

    def trial(**settings):
        given = ProbeSettings(epochs=15, lr=0.01, **settings)
        return Trial(TASKS["ave"][0], annotations, annotations, Reading(video, video, supervised=True), given, "cpu")

    tried = {dropout: trial(dropout=dropout).probe(3).learned for dropout in (0.0, 0.5)}
    found = trial().probe(3).learned
    assert found.judgement == max(each.judgement for each in tried.values())
    assert found.dropout == max(tried, key=lambda dropout: tried[dropout].judgement)
    assert tried[0.0].judgement != tried[0.5].judgement
    assert trial(protocol="published").probe(3).learned.dropout == 0
