"""What codes mean: counts, purity, mutual information, shared codes, and where they occur."""

import csv
import json

import numpy as np
import pytest

from hdcid_cli.tasks.code_analysis import agreement_map, count, normalised_mutual_information, purity, shared_codes


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
    assert normalised_mutual_information(table) == pytest.approx(2 * information / (entropy_code + entropy_label))


def test_mutual_information_is_one_for_names_and_nothing_for_noise():
    assert normalised_mutual_information(np.eye(5)[[3, 1, 0, 2, 4]] * 7) == pytest.approx(1)
    assert normalised_mutual_information(np.ones((5, 3))) == pytest.approx(0)
    assert normalised_mutual_information(np.array([[3.0, 0], [0, 0]])) == 0  # one code, one label


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
        f"layer {layer} {name}" for layer in (1, 2) for name in ("purity", "nmi", "used", "shared")
    }
    record = found["v->v", "layer 1 purity"]
    assert record["n"] == 20 and record["value"] >= record["chance"] > 100 / 5
    with open(tmp_path / "codes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    by_code = {}
    for row in rows:
        by_code.setdefault((row["layer"], row["modality"], row["code"]), []).append(float(row["probability"]))
    assert all(sum(each) == pytest.approx(1, abs=1e-4) for each in by_code.values())

    looked = hdcid("codes", "--clip", ids[3], "--plot", "map.png")
    assert looked.returncode == 0, looked.stderr
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
