"""Commands on codes of every kind: what is read of a code (`--read`), what has one (`--codes`), and blocks of codes."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from segment_world import write_features as write_queries
from segment_world import write_squares
from worlds import write_features

from hdcid_cli.codes.checkpoint import open_checkpoint, write_checkpoint
from hdcid_cli.codes.encode import encode
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import open_features
from hdcid_cli.main import cli
from hdcid_cli.models.assembled import build_model
from hdcid_cli.models.quantizers.aligned import AlignedQuantizer, OwnVectors
from hdcid_cli.models.settings import ModelSettings
from hdcid_cli.tasks.retrieval import RetrievalSettings, code_vectors, retrieve
from hdcid_cli.tasks.segmentation.directory import SegmenterDescription
from hdcid_cli.training.losses.cmcm import code_distribution

SHAPES = {"audio": (12,), "video": (5, 5, 8), "text": (10,)}
# Modalities of a model with each kind of codes.
KINDS = {
    "aligned": {"quantizer": "aligned"},
    "pq": {"quantizer": "pq:4", "layers": 2},
    "fcid": {"kind": "fcid"},
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the command line in a folder with features, labels and three models that have learned nothing."""
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    _, ids = write_features(tmp_path / "features", clips=36, classes=3, modalities=tuple(SHAPES))
    rows = [f"{name},{('train', 'val', 'test')[n % 3]},class{n // 3 % 2}" for n, name in enumerate(ids)]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "classify.csv").write_text("\n".join(["id,split,label", *rows]) + "\n")
    for name, options in KINDS.items():
        checkpoint(tmp_path / "checkpoints" / name, SHAPES, **options)

    def invoke(*arguments):
        done = CliRunner().invoke(cli, [*map(str, arguments), "--json"], obj={}, catch_exceptions=False)
        return [json.loads(line) for line in done.stdout.splitlines()]

    return invoke


def checkpoint(path, inputs, **options):
    torch.manual_seed(0)
    sizes = {"layers": 1, "dim": 16, "codebook": 12, "feedforward": 16, "heads": 2, "map_hidden": 4, "map_specific": 4}
    settings = ModelSettings(inputs=inputs, **{**sizes, **options})
    model = build_model(settings).eval()
    for layer in model.code_layers:
        for module in layer.quantizer.modules():
            if "codebook" in module._buffers:
                module.codebook.normal_()
    align = {"align": ["cpc", "cmcm"]}
    features = {"audio": {"backbone": "logmel"}, "text": {"backbone": "hash"}} if "video" not in inputs else {}
    write_checkpoint(path, {"model": settings.to_dict(), "objective": align, "features": features}, model)
    return settings


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_command_reads_codes_of_every_kind(run, tmp_path, kind):
    at = ("--checkpoint", kind)
    layers, books = (2, 8) if kind == "pq" else (1, 1)
    width = 48 if kind == "aligned" else 16
    kept = run("toc", kind, "--keep", "6")
    assert [(row["kept"], row["of"]) for row in kept] == [(6, width)] * layers
    written = run("encode", *at, "--format", "npz")
    assert [row["shape"] for row in written] == [[6, 6 * layers]] * 3
    assert all(len(row["codes used"]) == books for row in written)
    counted = run("codes", "classify", *at)
    used = [row["metric"] for row in counted if row["metric"].endswith("used") and row["direction"] == "a->a"]
    blocks = [f"layer {k} block {n} used" for k in (1, 2) for n in range(1, 5)]
    assert used == (blocks if kind == "pq" else ["layer 1 used"])
    agreement = run("codes", *at, "--clip", "clip0003")
    assert len(agreement) == 6 and all(0 < row["agreement"] <= 1 + 1e-6 for row in agreement)
    found = run("retrieve", "--query", "v", "--gallery", "t", *at, "--clips", "all", "--toc", "none")
    assert len(found) == 12 and {row.get("codes") for row in found} == {"clips" if kind == "fcid" else None}
    probed = run("cmg", "classify", "--train", "v", "--test", "a", *at, "--epochs", "2")
    assert probed[0]["metric"] == "precision" and probed[0]["toc"] == "6" and "read" not in probed[0]


def test_own_vectors_are_read_in_the_place_of_rows(run, tmp_path):
    at = ("--checkpoint", "aligned", "--read", "own")
    opened = open_checkpoint("aligned", tmp_path / "checkpoints", "cpu", "own")
    whole = open_checkpoint("aligned", tmp_path / "checkpoints", "cpu")
    for name in SHAPES:
        with open_features(tmp_path / "features", name) as file:
            own, rows = encode(opened, file), encode(whole, file)
        assert np.array_equal(own.indices, rows.indices)
        place = 16 * ("video", "audio", "text").index(name)
        np.testing.assert_array_equal(own.quantized, rows.quantized[..., place : place + 16])
        x = torch.zeros(1, 3, *SHAPES[name])
        assert torch.equal(opened.model.encode(name, x)[0], whole.model.encode(name, x)[0][..., place : place + 16])
    [table] = opened.codebooks
    np.testing.assert_allclose(table, np.mean(np.split(whole.codebooks[0], 3, axis=1), axis=0), atol=1e-6)

    probed = run("cmg", "classify", "--train", "v", "--test", "a", *at, "--epochs", "2", "--toc", "5")
    assert probed[0]["read"] == "own" and probed[0]["toc"] == "5"
    found = run("retrieve", "--query", "v", "--gallery", "a", *at, "--clips", "all", "--by", "summary")
    assert found[0]["read"] == "own"
    run("toc", "aligned", "--keep", "40")
    with pytest.raises(InputError, match="with --read own say --toc none"):
        run("retrieve", "--query", "v", "--gallery", "a", *at)
    for other in ("pq", "fcid"):
        with pytest.raises(InputError, match=f"{other}.* has nothing to --read own: of an aligned quantizer's code"):
            run("cmg", "classify", "--train", "v", "--test", "a", "--read", "own", "--checkpoint", other)


def test_own_vectors_do_what_a_quantizer_does_for_tasks():
    torch.manual_seed(0)
    quantizer = AlignedQuantizer(7, 3, ("audio", "video"))
    quantizer.codebook.normal_()
    own, z = OwnVectors(quantizer), torch.randn(4, 5, 3)
    vectors, indices = own(z, "audio")
    nearest = ((z[:, :, None] - quantizer.codebook[1]) ** 2).sum(-1).argmin(-1)
    assert torch.equal(indices[..., 0], nearest) and torch.equal(vectors, quantizer.codebook[1][nearest])
    assert (own.codes, own.stages, own.parts, own.width, own.table.shape) == (7, 1, 1, 3, (7, 3))


def test_clips_ask_by_the_codes_that_fcid_was_trained_on(run, tmp_path):
    opened = open_checkpoint("fcid", tmp_path / "checkpoints", "cpu")
    with open_features(tmp_path / "features", "video") as file:
        clips, seconds = encode(opened, file, each="clips"), encode(opened, file)
        x = torch.from_numpy(file.read(range(36))).float()
    assert clips.indices.shape == (36, 1, 1, 1) and seconds.indices.shape == (36, 6, 1, 1)
    assert clips.length.tolist() == [1] * 36
    expected = opened.model.encode_clips("video", x)
    assert np.array_equal(clips.indices, expected[1]) and np.array_equal(clips.quantized, expected[0])
    with open_features(tmp_path / "features", "video") as file:  # of the cache, each kind for itself
        assert np.array_equal(encode(opened, file, each="clips").indices, clips.indices)
        assert np.array_equal(encode(opened, file).indices, seconds.indices)
    asked = ("retrieve", "--query", "v", "--gallery", "t", "--checkpoint", "fcid", "--clips", "all", "--codes")
    found = {each: run(*asked, each) for each in ("clips", "seconds")}
    assert [{row["codes"] for row in rows} for rows in found.values()] == [{"clips"}, {"seconds"}]
    assert [row["value"] for row in found["clips"]] != [row["value"] for row in found["seconds"]]
    with pytest.raises(InputError, match=r"\(hdcid\) has one code a second, or word: --codes clips goes with --model"):
        run(*asked[:5], "--checkpoint", "pq", "--codes", "clips")


def test_codes_of_blocks_are_compared_block_by_block(run, tmp_path):
    opened = open_checkpoint("pq", tmp_path / "checkpoints", "cpu")
    with open_features(tmp_path / "features", "audio") as audio, open_features(tmp_path / "features", "video") as video:
        sides = [encode(opened, file) for file in (audio, video)]
        found = list(retrieve(opened, audio, video, RetrievalSettings(by="codes", clips="all")))
    assert [(book.layer, book.block, book.rows.shape) for book in opened.books] == [
        (k, n, (12, 4)) for k in (1, 2) for n in (1, 2, 3, 4)
    ]
    vectors = code_vectors(*((each.by_book, each.length) for each in sides), [book.rows for book in opened.books])
    total = torch.zeros(36, 36)
    for k, layer in enumerate(opened.model.layers):
        for n, block in enumerate(layer.quantizer.blocks):
            p, q = (
                code_distribution(block.distances(block.table[torch.from_numpy(each.indices[:, :, k, n])]))
                for each in sides
            )
            total += p @ q.log().T + (q @ p.log().T).T
    np.testing.assert_allclose(vectors.query @ vectors.gallery.T, total, rtol=1e-3, atol=1e-3)
    assert found[0]["metric"] == "codes r@1" and len(found) == 4


def test_a_segmenter_remembers_what_it_reads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    write_queries(tmp_path / "features", write_squares(tmp_path / "data", {"train": 6, "val": 3, "test": 3}))
    inputs, options = {"audio": (12,), "text": (12,)}, {"text_hidden": 0, "dim": 8}
    small = ("--backbone", "resnet10", "--random-weights", "--size", 32, "--width", 8, "--epochs", 1)
    fcid = {"kind": "fcid", "inputs": {**inputs, "video": (5, 5, 8)}}
    for name, made, read in (
        ("one", {"quantizer": "aligned"}, "own"),
        ("two", {"quantizer": "pq:2"}, "row"),
        ("three", fcid, "row"),
    ):
        checkpoint(tmp_path / "checkpoints" / name, **{"inputs": inputs, **options, **made})
        asked = ("segment", "--train", "a", "--test", "t", *small, "--checkpoint", name, "-o", f"s-{name}")
        done = CliRunner().invoke(cli, [*map(str, asked), "--read", read, "--json"], obj={}, catch_exceptions=False)
        records = [json.loads(line) for line in done.stdout.splitlines()]
        assert records[0]["metric"] == "miou" and records[0].get("read", "row") == read
        described = SegmenterDescription.read(tmp_path / f"s-{name}")
        assert described.read_as == read and described.settings.query == 8
