"""What codes mean: counts, purity, mutual information, shared codes, and where they occur."""

import csv
import json

import numpy as np
import pytest
from described import undocumented
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

from hdcid_cli.codes.checkpoint import open_checkpoint
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import open_features
from hdcid_cli.synth import annotations as made
from hdcid_cli.synth.classes import KINDS
from hdcid_cli.synth.world import SynthWorld
from hdcid_cli.tasks.analysis.counts import (
    CodeCounts,
    count,
    count_permuted,
    mutual_information,
    normalized_mutual_information,
    purity,
    shared_codes,
)
from hdcid_cli.tasks.analysis.location import agreement_map
from hdcid_cli.tasks.analysis.meaning import analyze, read_labels
from hdcid_cli.tasks.annotations.clips import segment_labels
from hdcid_cli.tasks.cmg.scores import CLASSIFICATION
from hdcid_cli.tasks.cmg.tasks import TASKS


def test_segments_with_several_events_count_in_parts():
    codes = np.array([[0, 1, 1], [2, 2, 0]])
    labels = np.zeros((2, 3, 3))
    labels[0] = [[1, 1, 0], [1, 0, 0], [0, 1, 0]]
    labels[1] = [[0, 0, 1], [0, 0, 1], [1, 0, 0]]
    valid = np.array([[True, True, True], [True, True, False]])  # the last segment does not count
    assert count(codes, labels, valid, 4).tolist() == [[0.5, 0.5, 0], [1, 1, 0], [0, 0, 2], [0, 0, 0]]


def test_purity_and_mutual_information_equal_their_definitions():
    random = np.random.default_rng(0)
    code, label = random.integers(0, 6, 500), random.integers(0, 4, 500)
    label = np.where(random.random(500) < 0.6, code % 4, label)
    table = np.zeros((6, 4))
    np.add.at(table, (code, label), 1)
    assert purity(table) == pytest.approx(sum(np.bincount(label[code == c]).max() for c in range(6)) / 500)

    information = entropy_code = entropy_label = 0.0
    for c in range(6):
        entropy_code -= np.mean(code == c) * np.log(np.mean(code == c))
        for y in range(4):
            joint = np.mean((code == c) & (label == y))
            information += joint * np.log(joint / np.mean(code == c) / np.mean(label == y)) if joint else 0
    for y in range(4):
        entropy_label -= np.mean(label == y) * np.log(np.mean(label == y))
    assert normalized_mutual_information(table) == pytest.approx(2 * information / (entropy_code + entropy_label))


def test_mutual_information_is_one_for_names_and_nothing_for_noise():
    assert normalized_mutual_information(np.eye(5)[[3, 1, 0, 2, 4]] * 7) == pytest.approx(1)
    assert normalized_mutual_information(np.ones((5, 3))) == pytest.approx(0)
    assert normalized_mutual_information(np.array([[3.0, 0], [0, 0]])) == 0  # one code, one label


def segments(clips=200, steps=1, codes=12, labels=4, agree=0.6, seed=0):
    """Codes [N, T], labels [N, T, labels] with one 1 a segment, and valid."""
    random = np.random.default_rng(seed)
    label = random.integers(0, labels, (clips, steps))
    code = np.where(random.random((clips, steps)) < agree, label, random.integers(0, codes, (clips, steps)))
    return code, np.eye(labels)[label], np.ones((clips, steps), bool)


def counted(code, label, valid, size=12, permutations=100):
    return CodeCounts(
        1, "video", count(code, label, valid, size), count_permuted(code, label, valid, size, permutations)
    )


def test_measures_are_scikit_learns_where_every_clip_is_a_segment():
    """Then permuting clips is permuting segments, which the hypergeometric model of `adjusted` is about."""
    for agree in (0.0, 0.3, 0.9):
        code, label, valid = segments(agree=agree, seed=1)
        truth, found = label[:, 0].argmax(1), counted(code, label, valid, permutations=2000).measures()
        assert found["nmi"][0] == pytest.approx(normalized_mutual_info_score(truth, code[:, 0]))
        assert found["ami"][0] == pytest.approx(adjusted_mutual_info_score(truth, code[:, 0]), abs=0.003)
        table = contingency_matrix(truth, code[:, 0])
        expected = expected_mutual_information(table, len(truth))
        permuted = count_permuted(code, label, valid, 12, 2000)
        assert np.mean([mutual_information(each) for each in permuted]) == pytest.approx(expected, rel=0.02)


def test_codes_that_say_nothing_get_chance_and_no_more():
    """Random codes, many for few segments: purity and NMI are high by themselves, and so is their chance."""
    random = np.random.default_rng(2)
    code = random.integers(0, 300, (60, 10))
    label = np.eye(10)[random.integers(0, 10, (60, 10))]
    found = counted(code, label, np.ones((60, 10), bool), 300).measures()
    for name in ("purity", "nmi"):
        value, chance = found[name]
        assert value > 0.35 and value == pytest.approx(chance, abs=0.03)
    assert found["ami"][0] == pytest.approx(0, abs=0.03) and found["ami"][1] == 0


def test_a_code_of_its_own_for_every_clip_says_nothing_of_labels():
    """Permuting segments would call this far above chance: a clip's segments have one label, and one code."""
    label = np.repeat(np.eye(4)[np.arange(40) % 4][:, None], 10, axis=1)
    code = np.repeat(np.arange(40)[:, None], 10, axis=1)
    found = counted(code, label, np.ones((40, 10), bool), 40).measures()
    assert found["purity"] == pytest.approx((1, 1)) and found["ami"][0] == pytest.approx(0, abs=1e-9)


def test_permutations_keep_clips_whole_and_segments_valid():
    code, label, valid = segments(clips=9, steps=5, seed=3)
    valid[2, 3:] = valid[5, 1:] = False
    tables = count_permuted(code, label, valid, 12, permutations=4, seed=7)
    random = np.random.default_rng(7)
    for table in tables:
        order, expected = random.permutation(9), np.zeros((12, 4))
        for clip, other in enumerate(order):
            for step in range(5):
                if valid[clip, step] and valid[other, step]:
                    expected[code[other, step]] += label[clip, step]
        np.testing.assert_allclose(table, expected)
    assert counted(code[:1], label[:1], valid[:1]).measures()["purity"][1] is None  # one clip has nobody to change with


def test_shared_codes_stand_for_one_label_in_both_modalities():
    first = np.array([[5, 1, 0], [0, 4, 0], [9, 0, 0], [1, 0, 0], [0, 0, 6]], float)
    second = np.array([[3, 0, 1], [4, 0, 0], [2, 1, 0], [8, 0, 0], [0, 0, 2]], float)
    # Code 1 means different labels, code 3 occurs once in the first modality.
    assert shared_codes(first, second) == [[2, 0], [], [4]]


def test_agreement_is_one_where_codes_are_equal_and_falls_with_distance():
    codebook = np.array([[0.0, 0], [0.5, 0], [9, 9]])
    agreement = agreement_map(np.array([[0], [2]]), np.array([[0], [1], [2]]), [codebook])
    np.testing.assert_allclose(agreement[[0, 1], [0, 2]], 1, rtol=1e-5)
    assert 1 > agreement[0, 1] > agreement[0, 2] and agreement[0, 2] < 0.01


def test_command_counts_codes_and_looks_into_a_clip(hdcid, tmp_path):
    from worlds import write_features

    events, ids = write_features(tmp_path / "features", clips=40)
    with open(tmp_path / "mine.csv", "w") as file:
        file.write("id,split,label,onset,offset\n")
        for number, (name, row) in enumerate(zip(ids, events)):
            file.writelines(
                f"{name},{'train' if number < 20 else 'test'},class{label},{second},{second + 1}\n"
                for second, label in enumerate(row)
            )
    assert hdcid("pretrain", "--epochs", "2", "--dim", "16", "--codebook", "12").returncode == 0
    done = hdcid("codes", "localise", "--data", "mine.csv", "-o", "codes.csv")
    assert done.returncode == 0, done.stderr
    found = {(record["direction"], record["metric"]): record for record in map(json.loads, done.stdout.splitlines())}
    assert set(metric for _, metric in found) == {
        f"layer {layer} {name}" for layer in (1, 2) for name in ("purity", "nmi", "ami", "used", "shared")
    }
    record = found["v->v", "layer 1 purity"]
    assert (record["n"], record["data"]) == (20, "own") and record["value"] >= record["chance"] > 100 / 5
    with open(tmp_path / "codes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    by_code = {}
    for row in rows:
        by_code.setdefault((row["layer"], row["modality"], row["code"]), []).append(float(row["probability"]))
    assert all(sum(each) == pytest.approx(1, abs=1e-4) for each in by_code.values())

    looked = hdcid("codes", "--clip", ids[3], "--plot", "map.png")
    assert looked.returncode == 0, looked.stderr
    assert not undocumented(done.stdout + looked.stdout)
    seconds = [json.loads(line) for line in looked.stdout.splitlines()]
    assert [row["second"] for row in seconds] == [0, 1, 2, 3, 4, 5]
    assert all(0 <= row["agreement"] <= 1 for row in seconds)
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")

    for arguments, message in (
        ((), "Say either"),
        (("--clip", "nobody"), "has no clip 'nobody'"),
        (("localise", "--data", "mine.csv", "--split", "val"), "has no clips in split val"),
    ):
        refused = hdcid("codes", *arguments)
        assert refused.returncode == 2 and message in refused.stderr


def test_every_task_that_is_offered_can_be_counted(hdcid, tmp_path):
    """Where nobody says what happens when, a clip's class holds all along."""
    from worlds import write_features

    clips = SynthWorld(clips=16, classes=4)
    ids = [clip.name for clip in clips.videos]
    for name, text in made.files(clips).items():
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    rows = [(clip.name, clip.split, KINDS[clip.kind].name) for clip in clips.videos]
    for name, columns in (("classify", ""), ("localise", ",onset,offset")):
        lines = [",".join(row) + columns.replace("onset", "0").replace("offset", "4") for row in rows]
        (tmp_path / "data" / f"{name}.csv").write_text("\n".join([f"id,split,label{columns}", *lines]))
    write_features(tmp_path / "features", ids=ids)
    assert hdcid("pretrain", "--epochs", "1", "--dim", "16", "--codebook", "12", "--split", "none").returncode == 0
    opened = open_checkpoint(None, tmp_path / "checkpoints")
    files = [open_features(tmp_path / "features", name) for name in ("audio", "video")]
    for task in TASKS:
        labels = {file.modality: read_labels(task, tmp_path / "data", file.modality) for file in files}
        found = {record["metric"]: record for record in analyze(opened, files, labels, "all", task=task)}
        assert found["layer 2 ami"]["value"] <= 100 and found["layer 1 purity"]["data"] == "synth", task
        assert found["layer 1 used"]["n_pretrained"] == found["layer 1 used"]["n"] > 0
    for task in TASKS:
        if TASKS[task][0].kind == CLASSIFICATION and task != "ucf2vgg":
            assert read_labels(task, tmp_path / "data", "text").clips  # a word is of its clip's class
        else:
            with pytest.raises(InputError, match=r"no seconds|no text"):
                read_labels(task, tmp_path / "data", "text")
    labels = read_labels("classify", tmp_path / "data", "audio")
    assert not segment_labels(labels.clips, len(labels.classes), 6)[..., -1].any()  # no background
