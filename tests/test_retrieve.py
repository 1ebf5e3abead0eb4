"""Retrieval: similarities and ranks against plain loops."""

import json

import numpy as np
import pytest
import torch

from hdcid_cli.tasks import retrieval
from hdcid_cli.tasks.retrieval import (
    Vectors,
    both_vectors,
    code_vectors,
    rank_counts,
    retrieval_scores,
    soft_codes,
    summary_vectors,
)
from hdcid_cli.training.losses.cmcm import code_distribution, code_similarity


@pytest.fixture
def coded():
    """Codes of 30 clips in two modalities, two layers, and clips of several lengths."""
    random = np.random.default_rng(0)
    codebooks = [random.normal(size=(12, 5)), random.normal(size=(12, 5))]
    query = random.integers(0, 12, (30, 6, 2))
    gallery = np.where(random.random(query.shape) < 0.5, query, random.integers(0, 12, query.shape))
    length = random.integers(2, 7, 30)
    return codebooks, (query, length), (gallery, length[::-1].copy())


def similarities(vectors):
    return vectors.query @ vectors.gallery.T


def test_code_similarity_is_code_matching_of_the_quantized_features(coded):
    """p_i . log q_j + q_j . log p_i, with p and q as training computes them, but of a query i and any clip j."""
    codebooks, query, gallery = coded
    expected = np.zeros((30, 30))
    for layer, codebook in enumerate(codebooks):
        sides = []
        for codes, length in (query, gallery):
            quantized = torch.tensor(codebook[codes[:, :, layer]])
            valid = torch.arange(6) < torch.tensor(length)[:, None]
            sides.append(
                code_distribution(torch.cdist(quantized, torch.tensor(codebook)[None].expand(30, -1, -1)), valid)
            )
        p, q = (side.numpy() for side in sides)
        expected += [[p[i] @ np.log(q[j]) + q[j] @ np.log(p[i]) for j in range(30)] for i in range(30)]
    found = similarities(code_vectors(query, gallery, codebooks))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(
        code_similarity(*sides).diagonal(), [p[i] @ np.log(q[i]) + q[i] @ np.log(p[i]) for i in range(30)]
    )  # a pair, as in training


def test_summary_similarity_is_the_cosine_of_means_over_valid_segments():
    random = np.random.default_rng(1)
    query, gallery = random.normal(size=(2, 8, 4, 3)).astype(np.float32)
    length = np.array([4, 4, 1, 2, 3, 4, 1, 4])
    found = similarities(summary_vectors((query.__getitem__, length), (gallery.__getitem__, length)))
    for i in range(8):
        for j in range(8):
            a, b = query[i, : length[i]].mean(0), gallery[j, : length[j]].mean(0)
            assert found[i, j] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-5)


def test_both_weighs_the_two_alike(coded):
    random = np.random.default_rng(2)
    summary = Vectors(*random.normal(size=(2, 30, 4)).astype(np.float32))
    codes = code_vectors(coded[1], coded[2], coded[0])
    parts = [similarities(vectors) / similarities(vectors).std() for vectors in (summary, codes)]
    np.testing.assert_allclose(similarities(both_vectors(summary, codes)), sum(parts), rtol=1e-3, atol=1e-4)


def test_vectors_do_not_depend_on_how_many_clips_are_in_memory(coded, monkeypatch):
    features = np.random.default_rng(4).normal(size=(30, 6, 5)).astype(np.float32)
    sides = [(features.__getitem__, length) for _, length in coded[1:]]
    whole = [code_vectors(coded[1], coded[2], coded[0]), summary_vectors(*sides)]
    monkeypatch.setattr(retrieval, "SLAB", 7)
    parts = [code_vectors(coded[1], coded[2], coded[0]), summary_vectors(*sides)]
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one.query, other.query, rtol=1e-6)
        np.testing.assert_allclose(one.gallery, other.gallery, rtol=1e-6)


def test_ranks_do_not_depend_on_the_blocks(monkeypatch):
    random = np.random.default_rng(3)
    vectors = Vectors(*random.normal(size=(2, 50, 6)).astype(np.float32))
    similarity = similarities(vectors)
    expected = [(similarity[i] > similarity[i, i]).sum() for i in range(50)]
    monkeypatch.setattr(retrieval, "BLOCK", (7, 11))
    better, tied = rank_counts(vectors)
    assert better.tolist() == expected and not tied.any()


def test_scores_by_hand_and_ties_count_as_chance():
    identity = np.eye(4, dtype=np.float32)
    perfect = {score.name: (score.value, chance) for score, chance in retrieval_scores(Vectors(identity, identity))}
    assert perfect == {"r@1": (100, 25), "r@5": (100, 100), "r@10": (100, 100), "median_rank": (1, 2.5)}
    same = np.ones((4, 1), np.float32)  # every clip looks the same
    blind = {score.name: (score.value, chance) for score, chance in retrieval_scores(Vectors(same, same))}
    assert blind["r@1"] == (25, 25) and blind["median_rank"] == (2.5, 2.5)


def test_soft_codes_are_distributions_centred_on_the_code(coded):
    soft = soft_codes(coded[0][0])
    np.testing.assert_allclose(soft.sum(1), 1, rtol=1e-5)
    assert (soft.argmax(1) == np.arange(12)).all()


def test_command_ranks_the_clips_not_pretrained_on(hdcid, tmp_path):
    from worlds import write_features

    _, ids = write_features(tmp_path / "features", clips=40)
    (tmp_path / "split.csv").write_text(
        "id,split\n" + "".join(f"{name},{'train' if number < 24 else 'test'}\n" for number, name in enumerate(ids))
    )
    assert hdcid("pretrain", "--epochs", "2", "--dim", "16", "--codebook", "12", "--split", "split.csv").returncode == 0
    done = hdcid("retrieve", "--query", "v", "--gallery", "a")
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["metric"] for record in found[:4]] == [
        "summary r@1",
        "summary r@5",
        "summary r@10",
        "summary median_rank",
    ]
    assert len(found) == 12 and {record["n"] for record in found} == {16}
    fewer = hdcid("retrieve", "--query", "v", "--gallery", "a", "--limit", "5", "--by", "codes")
    assert {json.loads(line)["n"] for line in fewer.stdout.splitlines()} == {5}, fewer.stderr
    table = hdcid("report", "--metrics", "all", stdin=done.stdout)
    assert table.returncode == 0 and {"codes", "r@1"} <= set(table.stdout.split())
