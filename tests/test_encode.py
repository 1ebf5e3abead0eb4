"""`encode`: codes as files that other tools read."""

import json

import h5py
import numpy as np
import pytest
import torch
from worlds import write_features

from hdcid_cli.codes.checkpoint import open_checkpoint, write_checkpoint
from hdcid_cli.codes.encode import encode
from hdcid_cli.codes.toc import Selection
from hdcid_cli.core.features import FeatureFile, open_features
from hdcid_cli.models.hdcid import HDCID
from hdcid_cli.models.settings import ModelSettings


def test_encoded_files_hold_codes_and_their_vectors(hdcid, tmp_path):
    _, ids = write_features(tmp_path / "features", clips=12)
    assert hdcid("pretrain", "--epochs", "1", "--dim", "16", "--codebook", "12").returncode == 0
    done = hdcid("encode", "--toc", "5")
    assert done.returncode == 0, done.stderr
    written = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(record["modality"], record["clips"], record["shape"]) for record in written] == [
        ("audio", 12, [6, 10]),
        ("video", 12, [6, 10]),
    ]

    checkpoint = open_checkpoint(None, tmp_path / "checkpoints")
    with FeatureFile([tmp_path / "features" / "audio.h5"]) as features:
        codes = encode(checkpoint, features)
    with FeatureFile([tmp_path / "codes" / "audio.h5"]) as file:
        assert file.ids == ids and not file.damaged() and file.weights == checkpoint.digest
        values = file.read(range(12))
    with h5py.File(tmp_path / "codes" / "audio.h5") as file:
        indices = file["indices"][:]
    assert np.array_equal(indices, codes.indices) and indices.shape == (12, 6, 2, 1)
    for layer, codebook in enumerate(checkpoint.codebooks):
        part = values[..., 5 * layer : 5 * layer + 5]  # five whole channels of each layer's code, whichever TOC chose
        rows = codebook[indices[:, :, layer, 0]]
        assert all(np.isclose(rows, part[..., column, None], atol=1e-5).all((0, 1)).any() for column in range(5))

    assert hdcid("info", "codes").returncode == 0
    for arguments, message in (
        (("features/audio.h5", "-o", "features/audio.h5"), "is the input"),
        (("features/audio.h5", "features/audio.h5"), "Several files would become"),
        (("nothing.h5",), "There is no feature file nothing.h5"),
    ):
        refused = hdcid("encode", *arguments)
        assert refused.returncode == 2 and message in refused.stderr


@pytest.fixture
def model(tmp_path):
    """A checkpoint of a model that has learned nothing, and a file of features that it reads."""

    def make(precision="float32", quantizer="vq"):
        write_features(tmp_path / "features", clips=10, modalities=("audio",), dtype="float16")
        settings = ModelSettings(
            inputs={"audio": (12,), "video": (5, 5, 8)}, layers=2, dim=16, codebook=20, quantizer=quantizer, heads=2
        )
        torch.manual_seed(0)
        config = {"model": settings.to_dict(), "train": {"precision": precision}}
        write_checkpoint(tmp_path / "model", config, HDCID(settings))
        return open_checkpoint(tmp_path / "model", device="cpu"), open_features(tmp_path / "features", "audio")

    return make


def matmul_flags():
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("precision", ["float32", "float64", "tf32", "bf16"])
def test_codes_are_computed_as_exactly_as_the_model_learned(model, precision, monkeypatch):
    checkpoint, features = model(precision)
    seen, before = set(), matmul_flags()
    compute = checkpoint.model.encode

    def watched(*arguments):
        seen.add((*matmul_flags(), arguments[1].dtype))
        return compute(*arguments)

    monkeypatch.setattr(checkpoint.model, "encode", watched)
    with features:
        encode(checkpoint, features, cache=False)
    rounded = precision in ("tf32", "bf16")
    assert seen == {(rounded, rounded, torch.float64 if precision == "float64" else torch.float32)}
    assert matmul_flags() == before


@pytest.mark.parametrize("quantizer", ["vq", "rvq:3", "fsq"])
def test_some_clips_are_decoded_as_all_of_them_are(model, quantizer, monkeypatch):
    checkpoint, features = model(quantizer=quantizer)
    with features:
        codes = encode(checkpoint, features, batch_size=3)
        x = torch.from_numpy(features.read(range(10)).astype(np.float32))
    direct, indices = checkpoint.model.encode("audio", x)
    assert np.array_equal(codes.indices, indices)
    np.testing.assert_allclose(codes.quantized, direct, atol=1e-6)
    selection = Selection([np.array([1, 5]), np.array([2])], "some")
    monkeypatch.setattr("hdcid_cli.codes.encode.SLAB", 4)
    rows = [7, 0, 3, 3, 9]
    expected = np.concatenate([direct[rows, :, 0][..., [1, 5]], direct[rows, :, 1][..., [2]]], -1)
    np.testing.assert_allclose(codes.read(rows, selection), expected, atol=1e-6)
    np.testing.assert_allclose(codes.read(rows, None, layers=1), direct[rows, :, 0], atol=1e-6)
    assert codes.read([]).shape == (0, 6, 32)
