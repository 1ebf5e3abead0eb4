"""Retrieval: similarities and ranks against plain loops."""

import json

import numpy as np
import pytest
import torch

from hdcid_cli.codes.checkpoint import open_checkpoint
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import open_features
from hdcid_cli.tasks import retrieval
from hdcid_cli.tasks.annotations.captions import read_captions
from hdcid_cli.tasks.ranks import Owned, Vectors, count_ranks, retrieval_scores
from hdcid_cli.tasks.retrieval import (
    RetrievalSettings,
    code_vectors,
    retrieve,
    soft_codes,
    summary_vectors,
    weights,
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
    parts = {"summary": summary, "codes": codes}
    both = sum(weight * similarities(part) for weight, part in zip(weights("both", parts), parts.values()))
    expected = sum(similarities(part) / similarities(part).std() for part in parts.values())
    np.testing.assert_allclose(both, expected, rtol=1e-3, atol=1e-4)
    assert (list(weights("codes", parts)), list(weights("summary", parts))) == ([0, 1], [1, 0])


def test_vectors_do_not_depend_on_how_many_clips_are_in_memory(coded, monkeypatch):
    features = np.random.default_rng(4).normal(size=(30, 6, 5)).astype(np.float32)
    sides = [(features.__getitem__, length) for _, length in coded[1:]]
    whole = [code_vectors(coded[1], coded[2], coded[0]), summary_vectors(*sides)]
    monkeypatch.setattr(retrieval, "SLAB", 7)
    parts = [code_vectors(coded[1], coded[2], coded[0]), summary_vectors(*sides)]
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one.query, other.query, rtol=1e-6)
        np.testing.assert_allclose(one.gallery, other.gallery, rtol=1e-6)


def test_scores_by_hand_and_ties_count_as_chance():
    def scores(side):
        counts = count_ranks([Vectors(side, side)], [(1.0,)], Owned.one_each(np.arange(4), 4))[0]
        return {score.name: (score.value, chance) for score, chance in retrieval_scores(counts)}

    assert scores(np.eye(4, dtype=np.float32)) == {
        "r@1": (100, 25), "r@5": (100, 100), "r@10": (100, 100), "median_rank": (1, 2.5),
    }  # fmt: skip
    blind = scores(np.ones((4, 1), np.float32))  # every clip looks the same
    assert blind["r@1"] == (25, 25) and blind["median_rank"] == (2.5, 2.5)


def test_soft_codes_are_distributions_centred_on_the_code(coded):
    soft = soft_codes(coded[0][0])
    np.testing.assert_allclose(soft.sum(1), 1, rtol=1e-5)
    assert (soft.argmax(1) == np.arange(12)).all()


def test_command_ranks_the_clips_not_pretrained_on_and_their_captions(hdcid, tmp_path, capsys):
    from worlds import write_features

    _, ids = write_features(tmp_path / "features", clips=40, modalities=("audio", "video", "text"))
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

    # Codes are compared whole, whatever channels TOC has chosen.
    assert hdcid("toc", "--keep", "4").returncode == 0
    video, audio = (open_features(tmp_path / "features", name) for name in ("video", "audio"))
    model = open_checkpoint(None, tmp_path / "checkpoints", "cpu")
    chosen = {record["metric"].split()[0]: record["toc"] for record in retrieve(model, video, audio)}
    assert chosen == {"summary": "4", "codes": "none", "both": "4"}
    capsys.readouterr()
    alone = list(retrieve(model, video, audio, RetrievalSettings(by="codes", toc="3")))
    assert {record["toc"] for record in alone} == {"none"}
    assert "--toc makes no difference" in capsys.readouterr().err
    # What asks and is ranked alike finds itself; other features of the modality have to be found.
    assert next(retrieve(model, video, video, RetrievalSettings(by="summary")))["value"] == 100
    assert "video.h5 is asked and ranked alike" in capsys.readouterr().err
    write_features(tmp_path / "other", clips=40, modalities=("video",), seed=1)
    next(retrieve(model, video, open_features(tmp_path / "other", "video")))
    assert "alike" not in capsys.readouterr().err

    # Two texts for every other clip, one for the others, none for the last four; one text has no features.
    rows = [(f"{name}#{part}", name) for n, name in enumerate(ids[:36]) for part in range(2 - n % 2)]
    write_features(tmp_path / "captions", ids=[text for text, _ in rows], modalities=("text",), seed=1)
    (tmp_path / "captions.csv").write_text(
        "id,clip,caption\n" + "".join(f"{text},{clip},hm\n" for text, clip in [*rows, ("x", ids[0])])
    )
    several = RetrievalSettings(captions=tmp_path / "captions.csv")
    model = open_checkpoint(None, tmp_path / "checkpoints", "cpu")
    clips = open_features(tmp_path / "features", "video")
    texts = open_features(tmp_path / "captions", "text")
    for sides, queries, gallery in (((clips, texts), 12, 18), ((texts, clips), 18, 12)):
        found = list(retrieve(model, *sides, several))
        assert [record["metric"].split()[1] for record in found[:7]] == [
            "r@1", "r@5", "r@10", "r@50", "median_rank", "mean_rank", "map@10",
        ]  # fmt: skip
        first = found[0]
        names = ("n", "queries", "gallery", "protocol", "n_pretrained", "train")
        assert [first[name] for name in names] == [12, queries, gallery, "heldout", 0, "v" if queries == 12 else "t"]
        assert len(found) == 21 and found[3]["value"] == found[3]["chance"] == 100
    assert "1 of 55 captions left out, which" in capsys.readouterr().err
    with pytest.raises(InputError, match="either --query or --gallery is t"):
        next(retrieve(model, clips, clips, several))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,caption\na,b\n", "has no column 'clip'"),
        ("clip,caption\na,b\n", "should be id,clip,caption"),
        ("id,clip\na,x\na,y\n", "line 3: the text a was listed before"),
        ("id,clip\na,\n", "line 2: the line has no clip"),
        ("id,clip\n,x\n", "line 2: the line has no id"),
    ],
)
def test_captions_that_cannot_be_read_are_said(tmp_path, text, message):
    (tmp_path / "captions.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_captions(tmp_path / "captions.csv")
