"""Open sets: measures against their definitions, the two protocols, and the command."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cmg_world import CLASSES, world
from sklearn.metrics import accuracy_score, recall_score, roc_auc_score, roc_curve

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.records import CURVES_SCHEMA, read_records
from hdcid_cli.tasks.annotations import ave
from hdcid_cli.tasks.annotations.clips import AnnotatedClip, Annotations
from hdcid_cli.tasks.cmg import trial as trials
from hdcid_cli.tasks.cmg.openset import (
    MEASURES,
    SCORES,
    OpenAnswers,
    curves,
    keep_threshold,
    known_classes,
    measure,
    open_scores,
)
from hdcid_cli.tasks.cmg.protocol import PROTOCOLS, ProbeSettings, split_clips
from hdcid_cli.tasks.cmg.reading import Reading
from hdcid_cli.tasks.cmg.run import AnnotatedTask, Drawings, run_task
from hdcid_cli.tasks.cmg.scores import CLASSIFICATION, Answers, Truth
from hdcid_cli.tasks.cmg.tasks import TASKS
from hdcid_cli.tasks.cmg.trial import Trial
from hdcid_cli.tasks.metrics import Bootstrap


def answered(clips=60, known=4, seed=0, tied=True):
    """Random answers; scores of few values, so that many are equal."""
    random = np.random.default_rng(seed)
    is_known = random.random(clips) < 0.6
    score = random.integers(0, 12, clips) / 12 if tied else random.random(clips)
    score = score + 0.2 * is_known
    return OpenAnswers(score, is_known & (random.random(clips) < 0.7), is_known)


def defined(answers, threshold):
    """Every measure by its definition, pair by pair."""
    s, known = answers.score, answers.known
    of_known, of_unknown = s[known], s[~known]
    right = answers.right[known]
    wins = [[float(x > u) + 0.5 * float(x == u) for u in of_unknown] for x in of_known]
    t95 = max(t for t in of_known if np.mean(of_known >= t) >= 0.95)
    os_star, unk = np.mean(right & (of_known >= threshold)), np.mean(of_unknown < threshold)
    return {
        "os_star": os_star,
        "unk": unk,
        "hos": 2 * os_star * unk / (os_star + unk) if os_star + unk else 0.0,
        "kept": np.mean(of_known >= threshold),
        "closed": right.mean(),
        "auroc": np.mean(wins),
        "oscr": np.mean(np.array(wins) * right[:, None]),
        "fpr95": np.mean(of_unknown >= t95),
    }


def values(answers, threshold, weights=None):
    found, _ = measure(answers, threshold, weights)
    return {name: float(each[0]) for name, each in found.items()}


# --- measures ---


@pytest.mark.parametrize("tied", [True, False])
def test_measures_equal_their_definitions_pair_by_pair(tied):
    for seed in range(5):
        answers = answered(seed=seed, tied=tied)
        for threshold in (-1.0, 0.5, 0.7, 2.0):
            found = values(answers, threshold)
            assert found == pytest.approx(defined(answers, threshold), abs=1e-12) and set(found) == set(MEASURES)
        assert found["auroc"] == pytest.approx(roc_auc_score(answers.known, answers.score))
        assert found["oscr"] <= min(found["closed"], found["auroc"])


def test_measures_equal_scikit_learns():
    random, unknown = np.random.default_rng(0), 4
    for number in range(4):
        labels = random.integers(0, unknown + 1, 80)
        known = labels < unknown
        logits = random.normal(size=(80, unknown)) + 1.5 * np.eye(unknown + 1)[labels][:, :unknown]
        logits = logits.round(number)  # of whole numbers many are equal
        answers = OpenAnswers.of(Answers(logits, Truth(labels, np.ones((80, 1), bool), unknown)), "logit")
        score, likeliest = logits.max(1), logits.argmax(1)
        threshold = float(np.median(score))
        said = np.where(score >= threshold, likeliest, unknown)
        os_star = accuracy_score(labels[known], said[known])
        unk = recall_score(labels, said, labels=[unknown], average="micro")
        false, true, _ = roc_curve(known, score, drop_intermediate=False)
        right = known & (likeliest == labels)
        closed = accuracy_score(labels[known], likeliest[known])
        judged = {
            "os_star": os_star,
            "unk": unk,
            "hos": 2 / (1 / os_star + 1 / unk),
            "kept": recall_score(known, score >= threshold),
            "closed": closed,
            "auroc": roc_auc_score(known, score),
            "oscr": closed * roc_auc_score(right[right | ~known], score[right | ~known]),
            "fpr95": false[np.argmax(true >= 0.95)],
        }
        assert values(answers, threshold) == pytest.approx(judged)


def test_measures_equal_the_stored_vectors(shared):
    stored = np.load(shared / "reference" / "micu.npz")
    logits, labels, known = stored["in/open_logits"], stored["in/open_labels"], int(stored["in/open_known"])
    truth = Truth(stored["out/open_target"], np.ones((len(labels), 1), bool), known)
    answers = OpenAnswers.of(Answers(logits, truth), "softmax")
    published, threshold = measure(answers, None)
    best = [float(published[name][0]) for name in ("hos", "os_star", "unk")]
    np.testing.assert_allclose([*best, threshold[0]], stored["out/open_best"], rtol=1e-10)
    for number, tau in enumerate(stored["out/open_thresholds"]):
        found = values(answers, float(tau))
        for name in ("os_star", "unk", "hos"):
            assert found[name] == pytest.approx(float(stored[f"out/open_{name}"][number]), abs=1e-10)
    for name in ("auroc", "oscr", "closed", "fpr95"):
        assert found[name] == pytest.approx(float(stored[f"out/own_{name}"]), abs=1e-12)
    tau95 = keep_threshold(answers.score[answers.known], 0.95)
    assert tau95 == pytest.approx(float(stored["out/own_tau95"]), abs=1e-12)


def test_a_clip_that_is_drawn_twice_counts_as_two_clips():
    answers = answered(clips=40)
    times = np.random.default_rng(1).integers(0, 3, 40)
    often = np.repeat(np.arange(40), times)
    several = OpenAnswers(answers.score[often], answers.right[often], answers.known[often])
    for threshold in (0.6, None):
        assert values(answers, threshold, times[None]) == pytest.approx(values(several, threshold))


def test_scores_of_logits():
    logits = np.random.default_rng(0).normal(size=(5, 3)) * 4
    soft = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(SCORES["softmax"](logits), soft.max(1))
    np.testing.assert_allclose(SCORES["logit"](logits), logits.max(1))
    np.testing.assert_allclose(SCORES["energy"](logits), np.log(np.exp(logits).sum(1)))


def test_threshold_keeps_at_least_the_share_and_no_larger_one_does():
    random = np.random.default_rng(0)
    for size in (1, 19, 20, 21, 100):
        score = random.integers(0, 9, size).astype(float)
        found = keep_threshold(score, 0.95)
        assert np.mean(score >= found) >= 0.95
        assert not any(np.mean(score >= other) >= 0.95 for other in score if other > found)
    assert keep_threshold(np.arange(20.0), 0.95) == 1 and keep_threshold(np.arange(4.0), 1) == 0


def test_published_search_takes_the_first_best_of_ten_thresholds():
    answers = answered(seed=3)
    low, high = answers.score.min(), answers.score.max()
    tried = [low + k / 9 * (high - low) for k in range(10)]
    hos = [defined(answers, tau)["hos"] for tau in tried]
    found, threshold = measure(answers, None)
    assert found["hos"][0] == pytest.approx(max(hos))
    assert threshold[0] == pytest.approx(tried[int(np.argmax(hos))])
    hopeless = OpenAnswers(np.array([0.2, 0.9]), np.array([False, False]), np.array([True, False]))
    assert measure(hopeless, 0.5)[0]["hos"][0] == 0  # where the released code divides by zero


def test_intervals_come_from_resamplings_that_have_both_kinds_of_clips():
    answers = answered(clips=12, tied=False)
    few = replace(answers, known=np.arange(12) < 11)
    bootstrap = Bootstrap(range(12), resamples=200)
    drawn = bootstrap.drawn_with(few.known, ~few.known)
    assert (drawn[:, :11].sum(1) > 0).all() and (drawn[:, 11] > 0).all() and (drawn.sum(1) == 12).all()
    assert not (bootstrap.drawn[:, 11] > 0).all()
    found = open_scores(few, 0.5, bootstrap, 0.3)
    each = [values(few, 0.5, row[None].astype(float)) for row in drawn]
    for score in found.scores:
        expected = np.percentile([100 * row[score.name] for row in each], (2.5, 97.5))
        np.testing.assert_allclose(score.interval, expected)
    with pytest.raises(InputError, match="Of 12 tested clips none is of an unknown class"):
        open_scores(replace(few, known=np.ones(12, bool)), 0.5, bootstrap, 0.3)


def test_chance_is_what_random_scores_get():
    random = np.random.default_rng(0)
    known = np.arange(20000) < 12000
    answers = OpenAnswers(random.random(20000), known & (random.random(20000) < 0.6), known)
    found = open_scores(answers, 0.5, Bootstrap([0] * 20000), 0.25)
    by_name = {score.name: score.value for score in found.scores}
    for name in ("auroc", "oscr", "fpr95"):
        assert by_name[name] == pytest.approx(found.chances[name], abs=1)
    best = max(values(answers, tau)["hos"] for tau in np.linspace(0, 1, 100))
    assert 100 * best == pytest.approx(found.chances["hos"], abs=1)
    assert found.chances["closed"] == 25 and found.scores[0].interval is None


def test_curve_has_the_area_that_oscr_says():
    answers = answered(clips=150)
    drawn = curves(answers)
    area = np.trapezoid(drawn["oscr"]["ccr"], drawn["oscr"]["fpr"])
    assert area == pytest.approx(values(answers, 0.5)["oscr"])
    assert sum(drawn["histogram"]["known"]) == answers.known.sum()
    assert sum(drawn["histogram"]["unknown"]) == (~answers.known).sum()


# --- which classes are known ---


def test_known_classes_go_by_number_or_by_name():
    classes = ("Bark", "Race car, auto racing", "Cat", "Horn")
    assert known_classes("2", classes) == (0, 1)
    assert known_classes("Cat, Race car, auto racing,Bark", classes) == (2, 1, 0)
    for text, message in (
        ("1", "from 2 to 3 of the 4 classes"),
        ("4", "from 2 to 3 of the 4 classes"),
        ("9" * 40, "from 2 to 3 of the 4 classes"),
        ("Cat", "from 2 to 3 of the 4 classes"),
        ("Cat,Dog", "there is no class 'Dog'; there are Bark"),
        ("Cat,Cat", "names a class twice"),
        ("", "there is no class ''"),
    ):
        with pytest.raises(InputError, match=message):
            known_classes(text, classes)
    for classes, message in (
        ("a", "one that is not; the table has 1"),
        ("abc", "--open-set 3: 2 of the 3 classes can be known"),
    ):
        with pytest.raises(InputError, match=message):
            known_classes("3", classes)


# --- protocols ---


def open_trial(annotations, video, audio, known="2", task="classify", **settings):
    reading = Reading(video, audio)
    given = ProbeSettings(open_set=known, **{"epochs": 12, "lr": 0.01, **settings})
    return Trial(TASKS[task][0], annotations, annotations, reading, given, "cpu")


def test_held_out_threshold_and_epoch_come_from_known_validation_clips_of_the_modality_learned_on():
    annotations, video, audio = world(clips=160)
    trial = open_trial(annotations, video, audio)
    found = trial.probe(3)
    assert set(trial.fit.labels.tolist()) == set(trial.choose.labels.tolist()) == {0, 1}
    assert set(trial.tested.labels.tolist()) == {0, 1, 2} and len(trial.tested) == 40
    logits = trials.predict(found.learned.probe, trial.choose).astype(float)
    assert found.threshold == keep_threshold(SCORES["softmax"](logits), 0.95)
    by_name = {score.name: score.value for score in found.scores}
    assert list(by_name) == list(MEASURES)
    assert by_name["closed"] > 85 and by_name["auroc"] > found.chances["auroc"]
    assert by_name == pytest.approx(
        {name: 100 * value for name, value in values(found.opened, found.threshold).items()}
    )

    blank = np.zeros((160, 5, 8), np.float32)  # other tested inputs, and no clip of the third class but tested ones
    learned = [clip for clip in annotations.clips if clip.split == "test" or clip.label < 2]
    other = open_trial(replace(annotations, clips=learned), video, replace(audio, read=blank.__getitem__)).probe(3)
    assert (other.learned.epoch, other.threshold) == (found.learned.epoch, found.threshold)


def test_held_out_epoch_is_the_first_of_equally_good_ones():
    annotations, video, audio = world(clips=160, noise=0.01)
    assert open_trial(annotations, video, audio, epochs=30, lr=0.05).probe(3).learned.epoch < 30


def test_published_protocol_takes_the_best_of_all_epochs_and_thresholds():
    annotations, video, audio = world(clips=120)
    runs = [
        open_trial(annotations, video, audio, protocol="published", epochs=epochs, lr=0.01).probe(3)
        for epochs in range(1, 9)
    ]
    hos = [run.scores[0].value for run in runs]
    assert hos == sorted(hos) and hos[0] < hos[-1]
    assert runs[-1].learned.epoch == 1 + hos.index(hos[-1])
    assert runs[-1].scores[0].value == pytest.approx(100 * measure(runs[-1].opened, None)[0]["hos"][0])


def test_published_open_sets_have_clips_and_epochs_of_their_own():
    clips = [AnnotatedClip(split, split, 0) for split in ("train", "val", "test")]
    annotations, settings = Annotations(Path("x"), CLASSES, clips), ProbeSettings("published", open_set="2")
    found = {}
    for name in ("ave", "ucf51", "ucf2vgg"):
        task = settings.task(TASKS[name][0])
        parts = split_clips(task, "published", annotations, annotations)
        found[name] = len(parts.fit), [clip.id for clip in parts.test], task.epochs
    assert found["ave"] == (1, ["test"], 25)  # the closed task is tested on the clips learned from
    assert found["ucf51"] == (3, ["train", "val", "test"], 16) and found["ucf2vgg"][2] == 25


def test_first_classes_of_ave_are_the_published_known_ones(shared):
    annotations = ave.read(shared / "annotations")
    for known, train, test in ((14, 1857, (223, 179)), (21, 2628, (316, 86))):
        learned = [clip for clip in annotations.clips if clip.split == "train" and clip.label < known]
        tested = [clip.label < known for clip in annotations.clips if clip.split == "test"]
        assert len(learned) == train and (sum(tested), len(tested) - sum(tested)) == test


def test_known_classes_without_clips_are_said(shared, capsys):
    source, target = TASKS["ucf2vgg"][0].read(shared / "annotations", "video", "audio")
    _, video, _ = world()
    ids = [clip.id for clip in source.clips]
    tested = [clip.id for clip in target.clips]
    blank = np.zeros((1, 5, 8), np.float32)
    sides = [
        replace(
            video, ids=names, modality=name, length=np.full(len(names), 5), read=lambda rows: blank[[0] * len(rows)]
        )
        for names, name in ((ids, "video"), (tested, "audio"))
    ]
    settings = ProbeSettings("published", open_set="12")
    Trial(TASKS["ucf2vgg"][0], source, target, Reading(*sides), settings, "cpu")
    told = capsys.readouterr().err
    assert told.startswith("No clip to learn from is of the known bowling") and "playing frisbee" in told


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_task_of_clips_can_have_an_open_set(protocol):
    annotations, video, audio = world(clips=60)
    reading = Reading(video, audio, {"method": "none", "checkpoint": None})
    settings = ProbeSettings(protocol, open_set="2", epochs=2)
    offered = [task for tasks in TASKS.values() for task in tasks if task.kind == CLASSIFICATION]
    assert {task.name for task in offered} == {"ave", "ucf51", "ucf2vgg", "vggsound", "classify"}
    for task in offered:
        found = list(run_task([AnnotatedTask(task, annotations, annotations)], reading, settings))
        assert [record["metric"] for record in found] == list(MEASURES)
        assert all(record["interval"] and record["open_set"] == 2 for record in found)
        chance = {record["metric"]: record["chance"] for record in found if record["chance"] is not None}
        assert chance.keys() == {"hos", "closed", "auroc", "oscr", "fpr95"} and chance["auroc"] == 50


# --- the command ---


def test_command_records_an_open_set_and_its_curves(hdcid, tmp_path):
    from worlds import write_features

    events, ids = write_features(tmp_path / "features", clips=60)
    rows = [
        f"{name},{('train', 'train', 'val', 'test')[n % 4]},c{row[0]}" for n, (name, row) in enumerate(zip(ids, events))
    ]
    (tmp_path / "mine.csv").write_text("\n".join(["id,split,label", *rows]) + "\n")
    base = ("cmg", "classify", "--data", "mine.csv", "--train", "a", "--test", "a", "--supervised", "--epochs", "5")
    done = hdcid(*base, "--open-set", "c0,c2", "--keep", "0.8", "--score", "energy", "--curves", "curves.jsonl")
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["metric"] for record in found] == list(MEASURES)
    first = found[0]
    assert (first["open_set"], first["known"], first["score"], first["keep"]) == (2, ["c0", "c2"], "energy", 0.8)
    unknown = sum(row.endswith(("test,c1", "test,c3")) for row in rows)
    assert (first["n_unknown"], first["n"], first["task"]) == (unknown, 15, "classify")
    [(_, drawn)] = read_records(io.BytesIO((tmp_path / "curves.jsonl").read_bytes()), "x", schema=CURVES_SCHEMA)
    assert sum(drawn.histogram["unknown"]) == unknown and drawn.threshold == first["threshold"]


def test_what_cannot_be_drawn_or_has_no_classes_of_clips_is_refused():
    annotations, video, audio = world(clips=8)
    clips, seconds = (AnnotatedTask(TASKS[name][0], annotations, annotations) for name in ("ave", "avvp"))
    for tasks, settings, message in (
        ([clips], ProbeSettings(), "nothing to write to x.jsonl without --open-set"),
        ([seconds], ProbeSettings(open_set="2"), "one class each: ave, ucf51, ucf2vgg, vggsound, classify"),
    ):
        with pytest.raises(InputError, match=message):
            next(run_task(tasks, Reading(video, audio), settings, drawings=Drawings(curves=Path("x.jsonl"))))
    for wrong in ({"keep": 0.0}, {"keep": float("nan")}, {"score": "entropy"}):
        with pytest.raises(InputError):
            ProbeSettings(**wrong)


@pytest.mark.parametrize("damage", [{"oscr": None}, {"histogram": {"edges": [0, 1], "known": [1, 2], "unknown": [1]}}])
def test_damaged_curves_are_said(damage):
    whole = {"schema": CURVES_SCHEMA, "oscr": {"fpr": [0, 1], "ccr": [0, 1]}}
    whole |= {"histogram": {"edges": [0, 1], "known": [1], "unknown": [1]}}
    assert list(read_records(io.BytesIO(json.dumps(whole).encode()), "x", schema=CURVES_SCHEMA))
    with pytest.raises(InputError, match="x, line 1 has"):
        list(read_records(io.BytesIO(json.dumps(whole | damage).encode()), "x", schema=CURVES_SCHEMA))
