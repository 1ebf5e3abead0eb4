"""Cross-modal generalisation: protocols on fixed codes, splits, and the command."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hdcid_cli.codes.checkpoint import open_checkpoint
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import open_features
from hdcid_cli.core.records import result
from hdcid_cli.core.terminal import records_table
from hdcid_cli.tasks.annotations.clips import AnnotatedClip, AnnotatedEvent, Annotations
from hdcid_cli.tasks.cmg.inputs import Inputs
from hdcid_cli.tasks.cmg.probe import new_probe, predict
from hdcid_cli.tasks.cmg.protocol import ProbeSettings, schedule_for, split_clips
from hdcid_cli.tasks.cmg.reading import Reading, read_codes, read_features
from hdcid_cli.tasks.cmg.run import Drawings, read_task, run_task
from hdcid_cli.tasks.cmg.scores import Answers, best_cut, value
from hdcid_cli.tasks.cmg.tasks import TASKS
from hdcid_cli.tasks.cmg.trial import Trial

CLASSES = ("dog", "cat", "bell")


def world(clips=60, steps=5, width=8, seed=0, noise=0.6):
    """Annotated clips with one event each, and codes of two modalities that show it."""
    random = np.random.default_rng(seed)
    looks = random.normal(size=(len(CLASSES) + 1, width))
    labels = random.integers(0, len(CLASSES), clips)
    made, shown = [], np.full((clips, steps), len(CLASSES))
    for number, label in enumerate(labels):
        onset = random.integers(0, steps - 1)
        offset = random.integers(onset + 1, steps + 1)
        shown[number, onset:offset] = label
        split = ("train", "train", "val", "test")[number % 4]
        made.append(
            AnnotatedClip(f"clip{number}", split, int(label), [AnnotatedEvent(int(label), float(onset), float(offset))])
        )

    def codes(modality):
        values = (looks[shown] + noise * random.normal(size=(clips, steps, width))).astype(np.float32)
        return Inputs(
            f"{modality}.h5",
            modality,
            [clip.id for clip in made],
            np.full(clips, steps),
            1.0,
            values.shape[1:],
            values.__getitem__,
        )

    return Annotations(Path("world.csv"), CLASSES, made), codes("video"), codes("audio")


def run(task, annotations, train, test, seed=3, target=None, warn=lambda _: None, **settings):
    """One probe: what it was tried on, what it answered, and {metric: score}."""
    reading = Reading(train, test)
    trial = Trial(TASKS[task][0], annotations, target or annotations, reading, ProbeSettings(**settings), "cpu", warn)
    found = trial.probe(seed)
    return trial, found, {score.name: score for score in found.scores}


def headline(task):
    return TASKS[task][0].metric


# --- the published protocol, again in numpy ---


def adam(weights, gradients, state, rate):
    state["t"] = state.get("t", 0) + 1
    for name, gradient in gradients.items():
        m = state["m" + name] = 0.9 * state.get("m" + name, 0) + 0.1 * gradient
        v = state["v" + name] = 0.999 * state.get("v" + name, 0) + 0.001 * gradient**2
        weights[name] -= rate * (m / (1 - 0.9 ** state["t"])) / (np.sqrt(v / (1 - 0.999 ** state["t"])) + 1e-8)


def decode(weights, inputs, classify):
    """[B, T, C] -> logits, and what their gradients need."""
    hidden = inputs @ weights["linear.weight"].T + weights["linear.bias"]
    pooled = hidden.max(1) if classify else hidden
    return pooled @ weights["event.weight"].T + weights["event.bias"], hidden, pooled


def gradients_of(weights, inputs, labels, classify):
    """Gradients of the published losses, by hand."""
    logits, hidden, pooled = decode(weights, inputs, classify)
    softmax = np.exp(logits - logits.max(-1, keepdims=True))
    softmax /= softmax.sum(-1, keepdims=True)
    found = {}
    if classify:
        error = (softmax - np.eye(logits.shape[1])[labels]) / len(logits)
    else:
        segments = logits.shape[0] * logits.shape[1]
        weighted = labels * np.exp(-weights["alpha"])
        error = (1 / (1 + np.exp(-logits)) - labels) / logits.size + (
            softmax * weighted.sum(-1, keepdims=True) - weighted
        ) / segments
        found["alpha"] = (weighted * np.log(softmax)).sum((0, 1)) / segments
    flat = error.reshape(-1, error.shape[-1])
    found["event.weight"], found["event.bias"] = flat.T @ pooled.reshape(-1, pooled.shape[-1]), flat.sum(0)
    back = error @ weights["event.weight"]
    if classify:  # only the step with the maximum learns
        spread = np.zeros_like(hidden)
        np.put_along_axis(spread, hidden.argmax(1, keepdims=True), back[:, None], 1)
        back = spread
    flat = back.reshape(-1, back.shape[-1])
    found["linear.weight"], found["linear.bias"] = flat.T @ inputs.reshape(-1, inputs.shape[-1]), flat.sum(0)
    norm = np.sqrt(sum((gradient**2).sum() for name, gradient in found.items() if name != "alpha"))
    return {
        name: gradient if name == "alpha" else gradient * min(1, 0.5 / (norm + 1e-6))
        for name, gradient in found.items()
    }


def released_score(logits, labels, classify, batch=80):
    """As the released loops over batches: accuracy of clips, or precision of sigmoid > 0.5, weighted by the batch's
    size.
    """
    total = 0.0
    for start in range(0, len(logits), batch):
        part, truth = logits[start : start + batch], labels[start : start + batch]
        if classify:
            total += len(part) * 100 * np.mean(part.argmax(-1) == truth)
        else:
            said = 1 / (1 + np.exp(-part)) > 0.5
            total += len(part) * 100 * ((said * truth).sum() / said.sum() if said.sum() else 0)
    return total / len(logits)


@pytest.mark.parametrize("task", ["ave", "avvp"])
def test_published_protocol_equals_a_plain_numpy_version(task):
    classify = task == "ave"
    annotations, video, audio = world(clips=200)
    seed, epochs = 43, 12
    trial, _, scores = run(task, annotations, video, audio, seed=seed, protocol="published", epochs=epochs)

    clips = [clip for clip in annotations.clips if not classify or clip.split == "train"]
    rows = [int(clip.id.removeprefix("clip")) for clip in clips]
    labels = np.array([clip.label for clip in clips])
    if not classify:
        labels = np.zeros((len(clips), 5, 4))
        for row, clip in enumerate(clips):
            for event in clip.events:
                labels[row, int(event.onset) : int(event.offset), event.label] = 1
        labels[..., -1] = 1 - labels[..., :-1].max(-1)
    probe, loss = new_probe(TASKS[task][0].kind, 8, 8, 3, seed)
    weights = {
        name: value.detach().double().numpy().copy()
        for name, value in [*probe.named_parameters(), *loss.named_parameters()]
    }
    shuffle, state, best = torch.Generator().manual_seed(seed), {}, -1.0
    learned, tested = video.read(rows).astype(float), audio.read(rows).astype(float)
    for epoch in range(1, epochs + 1):
        for batch in torch.randperm(len(rows), generator=shuffle).split(80):
            batch = batch.numpy()
            adam(
                weights,
                gradients_of(weights, learned[batch], labels[batch], classify),
                state,
                4e-4 if epoch <= 10 else 2e-4,
            )
        value = released_score(decode(weights, tested, classify)[0], labels, classify)
        best = max(best, value)
    assert scores[headline(task)].value == pytest.approx(best, abs=0.02)
    assert len(trial.tested) == len(rows)


# --- the held-out protocol ---


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


def test_published_probe_learns_from_other_codes_in_every_epoch():
    """The encoder is in training mode while the probe learns: dropout draws anew, by the seed alone."""
    annotations, video, audio = world()
    drawn = []

    def noisy(rows, seed):
        drawn.append(seed)
        return video.read(rows) + np.random.default_rng(seed).normal(size=(len(rows), 5, 8)).astype(np.float32)

    video.read_noisy, reading = noisy, Reading(video, audio, dropout=0.1)
    task = TASKS["ave"][0]

    def probe(seed=3, **given):
        drawn.clear()
        trial = Trial(task, annotations, annotations, reading, ProbeSettings(epochs=4, **given), "cpu")
        return trial.probe(seed).answers.logits, list(drawn), trial.noisy

    first, seeds, noisy_one = probe(protocol="published")
    again, same, _ = probe(protocol="published")
    assert len(set(seeds)) == 4 and seeds == same and noisy_one and np.array_equal(first, again)
    assert not set(probe(4, protocol="published")[1]) & set(seeds)
    still, none, noisy_other = probe(protocol="published", encoder_dropout=False)
    assert none == [] and not noisy_other and not np.array_equal(first, still)
    assert probe()[1] == [] and len(probe(encoder_dropout=True)[1]) == 4  # held out only where it is asked for


def test_released_epochs_count_from_the_imported_checkpoints_own():
    ave, ucf, avvp = (TASKS[name][0] for name in ("ave", "ucf2vgg", "avvp"))
    published = ProbeSettings(protocol="published")
    assert [schedule_for(task, published, 3339).epochs for task in (ave, ucf, avvp)] == [50, 100, 100]
    assert schedule_for(ave, published, 3339, start=6).epochs == 44
    assert schedule_for(ave, ProbeSettings(protocol="published", epochs=7), 3339, start=6).epochs == 7
    assert schedule_for(ave, ProbeSettings(), 3339, start=6).epochs == 50


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


# --- which clips ---


def split_ids(source, target, protocol="heldout", task="ave"):
    parts = split_clips(TASKS[task][0], protocol, source, target)
    return [{clip.id for clip in part} if part is not None else None for part in (parts.fit, parts.choose, parts.test)]


def listed(**splits):
    clips = [AnnotatedClip(name, split, 0) for split, names in splits.items() for name in names.split()]
    return Annotations(
        Path("x.csv"),
        CLASSES,
        [AnnotatedClip(clip.id, None if clip.split == "none" else clip.split, 0) for clip in clips],
    )


def test_a_recording_that_is_tested_on_is_never_learned_on():
    both = listed(train="a b c", val="d e", test="f b e")
    assert split_ids(both, both) == [{"a", "c"}, {"d"}, {"f", "b", "e"}]


def test_without_validation_clips_a_fifth_is_set_aside():
    names = " ".join(f"n{i}" for i in range(20))
    for source in (
        listed(train=names, test="t"),
        listed(val=names, test="t"),
        listed(none=names),
    ):  # LLP has val and test alone
        fit, choose, test = split_ids(source, listed(test="t"))
        assert (len(fit), len(choose), test) == (16, 4, {"t"}) and not fit & choose


def test_another_data_set_without_splits_is_tested_on_whole():
    assert split_ids(listed(train="a", val="b"), listed(none="c d a"))[2] == {"c", "d", "a"}


def test_published_protocol_tests_ave_on_the_clips_learned_on():
    annotations = listed(train="a b", val="c", test="d")
    assert split_ids(annotations, annotations, "published") == [{"a", "b"}, None, {"a", "b"}]
    assert split_ids(annotations, annotations, "published", "avvp") == [set("abcd"), None, set("abcd")]
    assert split_ids(annotations, annotations, "published", "classify") == [{"a", "b"}, None, {"d"}]


def test_annotations_without_a_test_split_are_refused():
    annotations = listed(train="a b", val="c")
    with pytest.raises(InputError, match=r"x.csv leaves no clips to test on"):
        split_ids(annotations, annotations)


def test_clips_without_features_are_named_and_left_out():
    annotations, video, audio = world()
    annotations.clips.insert(0, AnnotatedClip("nowhere", "train", 0, [AnnotatedEvent(0, 0, 1)]))
    told = []
    trial, *_ = run("ave", annotations, video, audio, warn=told.append, epochs=1)
    assert told == ["video.h5 has no features of 1 annotated clip, left out: nowhere."]
    assert len(trial.fit) == 30
    video.ids = [f"other{row}" for row in range(60)]
    with pytest.raises(
        InputError, match=r"video.h5 has none of the 31 clips that ave needs \(such as nowhere, clip0, clip1\)"
    ):
        run("ave", annotations, video, audio)


def test_llp_names_find_features_named_by_video_or_by_window():
    _, video, _ = world()
    video.ids = ["x_0_10", "x_10_20", "y", "z_0_10", *map(str, range(56))]
    clips = [AnnotatedClip(name) for name in ("x_10_20", "y_5_15", "z_0_100", "x_20_30", "z")]
    found, rows, missing = video.match(clips, CLASSES)
    assert [(clip.id, row) for clip, row in zip(found, rows)] == [
        ("x_10_20", 1),
        ("y_5_15", 2),
        ("z_0_100", 3),
        ("z", 3),
    ]
    assert missing == ["x_20_30"]  # two windows of x: which one is meant cannot be told


def test_text_may_be_one_prompt_a_class():
    _, video, _ = world()
    video.ids, video.modality = ["dog", "cat", "bell"], "text"
    assert video.match([AnnotatedClip("a", label=1), AnnotatedClip("b", label=0)], CLASSES)[1] == [1, 0]
    video.modality = "video"
    assert video.match([AnnotatedClip("a", label=1)], CLASSES)[2] == ["a"]


# --- the command ---


@pytest.fixture
def workplace(tmp_path):
    """Features, annotations of several kinds and a small checkpoint in an empty folder."""
    from worlds import write_features

    events, ids = write_features(tmp_path / "features", clips=48)
    (tmp_path / "data" / "ave").mkdir(parents=True)
    (tmp_path / "data" / "avvp").mkdir()
    lines, rows, table = [], ["filename\tonset\toffset\tevent_labels"], ["id,split,label"]
    for number, (name, row) in enumerate(zip(ids, events)):
        split = ("train", "train", "val", "test")[number % 4]
        lines.append(f"class{row[0]}&{name}&good&0&1\n")
        rows += [f"{name}_0_6\t{second}\t{second + 1}\tclass{label}" for second, label in enumerate(row)]
        table.append(f"{name},{split},class{row[0]}")
        with open(tmp_path / "data" / "ave" / f"{split}Set.txt", "a") as file:
            file.write(lines[-1])
    (tmp_path / "data" / "ave" / "Annotations.txt").write_text("".join(lines))
    for name in ("AVVP_eval_audio.csv", "AVVP_eval_visual.csv"):
        (tmp_path / "data" / "avvp" / name).write_text("\n".join(rows) + "\n")
    (tmp_path / "data" / "avvp" / "split.csv").write_text(
        "\n".join(["category,video_id,split"] + [",".join((r.split(",")[2], *r.split(",")[:2])) for r in table[1:]])
    )
    (tmp_path / "mine.csv").write_text("\n".join(table) + "\n")
    return tmp_path


def test_command_from_features_to_report(hdcid, workplace):
    assert hdcid("pretrain", "--epochs", "1", "--dim", "16", "--codebook", "12").returncode == 0
    done = hdcid(
        "cmg",
        "avvp",
        "--train",
        "v",
        "--test",
        "a",
        "--toc",
        "8/5",
        "--seeds",
        "2",
        "--epochs",
        "3",
        "--timelines",
        "t.jsonl",
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [found[0][name] for name in ("task", "direction", "metric", "protocol", "toc", "layers", "n", "method")] == [
        "avvp", "v->a", "accuracy", "heldout", "8", 2, 12, "cpc,cmcm",
    ]  # fmt: skip
    assert {record["seed"] for record in found} == {0, 1}
    assert {"segment_type", "event_event", "segment_map", "foreground_f1"} <= {record["metric"] for record in found}
    drawn = [json.loads(line) for line in (workplace / "t.jsonl").read_text().splitlines()]
    assert len(drawn) == 12 and drawn[0]["seconds"] == 6 and drawn[0]["true"][0].keys() == {"label", "start", "end"}
    table = hdcid("report", stdin=done.stdout)
    assert table.returncode == 0 and "accuracy" in table.stdout

    def read(layers):
        sides = [open_features(workplace / "features", name) for name in ("audio", "video")]
        return read_codes(open_checkpoint(None, workplace / "checkpoints"), *sides, "ave", layers=layers)

    tasks = read_task("ave", workplace / "data", "audio", "video")
    first = next(run_task(tasks, read(1), ProbeSettings(epochs=1), per_class=True))
    assert set(first["per_class"]) <= {f"class{number}" for number in range(4)} | {"background"}
    assert (first["layers_used"], first["toc"], first["data"]) == (1, "none", "own")
    with pytest.raises(InputError, match="--layers-used 3 cannot be read"):
        read(3)

    codes = read(None).train
    rows, model = [3, 1, 40], open_checkpoint(None, workplace / "checkpoints").model.train()
    torch.manual_seed(9)
    x = torch.from_numpy(open_features(workplace / "features", "audio").read(rows))
    np.testing.assert_allclose(codes.read_noisy(rows, 9), model.encode("audio", x)[0].flatten(2).numpy())
    assert not np.array_equal(codes.read_noisy(rows, 8), codes.read_noisy(rows, 9))
    done = hdcid("cmg", "ave", "--train", "v", "--test", "a", "--protocol", "published", "--epochs", "2")
    first = json.loads(done.stdout.splitlines()[0])
    assert (first["encoder_dropout"], first["probe_epochs"], first["n_pretrained"]) == (0.3, 2, first["n"])


def test_seeds_are_one_row_of_a_table():
    def record(value, **fields):
        return result(
            task="ave",
            train="v",
            test="a",
            metric="precision",
            value=value,
            n=9,
            protocol="heldout",
            method="cpc",
            **fields,
        )

    records = [record(50.0, seed=0), record(60.0, seed=0, toc="128"), record(52.0, seed=1)]
    rows = records_table(records).splitlines()[-2:]
    assert [("51.0 ± 1.4" in row, "60.0" in row) for row in rows] == [(True, False), (False, True)]


def test_own_table_and_supervised_ceiling(workplace):
    reading = read_features(open_features(workplace / "features", "audio"))
    found = next(run_task(read_task("classify", workplace / "mine.csv", "audio", "audio"), reading))
    assert found["method"] == "supervised" and found["checkpoint"] is None
    assert found["value"] > found["chance"] + 15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ave", "--train", "v", "--test", "a"), "There is no checkpoint in checkpoints"),
        (("ave", "--train", "v", "--test", "a", "--supervised"), "A supervised probe reads raw features"),
        (("avvp", "--train", "t", "--test", "a", "--supervised"), "A supervised probe"),
        (("avvp", "--train", "t", "--test", "t", "--supervised"), "words have no seconds"),
        (("ave", "--train", "t", "--test", "t", "--supervised"), "There is no feature file features/text.h5"),
        (("classify", "--train", "v", "--test", "v", "--supervised"), "There is no table of labels data/classify.csv"),
        (("ucf2vgg", "--train", "v", "--test", "a"), "has no UCF101sameVGGSound.txt"),
        (
            ("ave", "--train", "v", "--test", "a", "--lr", "nan"),
            "--lr should be a number above 0 and up to 100, not 'nan'",
        ),
        (
            ("ave", "--train", "v", "--test", "a", "--epochs", "9" * 20),
            "--epochs should be a whole number from 1 to 1,000,000",
        ),
        (("classify", "--train", "v", "--test", "v", "--data", "pipe"), "pipe is a pipe or a device"),
        (("classify", "--train", "v", "--test", "v", "--data", "my.csv"), "There is no file my.csv"),
        (
            ("ave", "--train", "a", "--test", "a", "--supervised", "--timelines", "t.jsonl"),
            "Clips are classified here, and no events localised",
        ),
    ],
)
def test_what_is_missing_is_said_in_a_sentence(hdcid, workplace, arguments, message):
    os.mkfifo(workplace / "pipe")
    done = hdcid("cmg", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr and done.stderr.count("\n") == 1


def test_timelines_of_another_question_are_not_lost(workplace):
    def probe(test="audio", seed=0):
        reading = read_features(open_features(workplace / "features", test))
        tasks = read_task("avvp", workplace / "data", test, test)
        return list(
            run_task(tasks, reading, ProbeSettings(epochs=1), (seed,), drawings=Drawings(workplace / "t.jsonl"))
        )

    probe()
    before = (workplace / "t.jsonl").read_text()
    assert probe() and (workplace / "t.jsonl").read_text() == before  # the same question is answered again
    for other in ({"test": "video"}, {"seed": 1}):
        with pytest.raises(InputError, match=r"holds the timelines of avvp a->a, .* already: name another file"):
            probe(**other)
    (workplace / "t.jsonl").write_text("notes of mine\n")
    with pytest.raises(InputError, match="holds no timelines"):
        probe()
    (workplace / "t.jsonl").write_text("")
    assert probe()


def test_records_say_which_groups_were_left_out_and_what_pretraining_saw(workplace, capsys):
    lines = (workplace / "mine.csv").read_text().splitlines()
    table = workplace / "people.csv"
    speakers = ["speaker", *(("anna", "bob", "carla")[number % 3] for number in range(len(lines) - 1))]
    table.write_text("".join(f"{line},{speaker}\n" for line, speaker in zip(lines, speakers, strict=True)))
    audio = open_features(workplace / "features", "audio")
    anna = {line.split(",")[0] for line in lines[1::3]}

    def probe(leave_out=None, pretrained=(), **settings):
        reading = replace(read_features(audio), pretrained=frozenset(pretrained))
        tasks = read_task("classify", table, "audio", "audio", leave_out)
        return next(run_task(tasks, reading, ProbeSettings(epochs=1, **settings)))

    found = probe("speaker=anna")
    assert (found["n"], found["n_fit"], found["n_choose"]) == (16, 16, 8)  # of 48 clips, half train, a quarter val
    assert (found["protocol"], found["left_out"]) == ("heldout, speaker=anna left out", "speaker=anna")
    tasks = read_task("classify", table, "audio", "audio", "speaker=anna")
    assert {clip.id for clip in tasks[0].target.clips if clip.split == "test"} == anna
    assert found["data_digest"] == probe()["data_digest"]  # the same table, asked in another way

    seen = sorted(anna)[:3]
    found = probe("speaker=anna", seen)
    assert (found["protocol"], found["n_pretrained"]) == ("heldout, speaker=anna left out, seen in pretraining", 3)
    said = capsys.readouterr().err
    assert (
        "3 of the 16 tested clips were among those" in said
        and "`hdcid pretrain --leave-out 'speaker=anna'` leaves" in said
    )
    assert probe(None, [])["protocol"] == "heldout"
    assert probe(None, [line.split(",")[0] for line in lines[1:]])["protocol"] == "heldout, seen in pretraining"
    assert probe(None, [lines[1].split(",")[0]], protocol="published")["protocol"] == "published"
    with pytest.raises(InputError, match="--leave-out goes with --protocol heldout"):
        probe("speaker=anna", protocol="published")


def test_strict_makes_an_oddity_an_error(workplace, capsys):
    path = workplace / "data" / "ave" / "Annotations.txt"
    path.write_text(path.read_text() + "class0&gone&good&5&5\n")
    (workplace / "data" / "ave" / "trainSet.txt").open("a").write("class0&gone&good&5&5\n")

    def probe(**more):
        reading = read_features(open_features(workplace / "features", "audio"))
        return next(
            run_task(read_task("ave", workplace / "data", "audio", "audio"), reading, ProbeSettings(epochs=1), **more)
        )

    assert probe()["n_fit"] == 24
    told = capsys.readouterr().err
    assert (
        "line 49: the interval of class0 is empty (at 5 s)" in told
        and "has no features of 1 annotated clip, left" in told
    )
    with pytest.raises(InputError, match="line 49"):
        probe(strict=True)
