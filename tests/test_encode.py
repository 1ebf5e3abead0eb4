"""`encode`: codes as files that other tools read."""

import json
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from described import undocumented
from worlds import write_features

from hdcid_cli.codes.checkpoint import open_checkpoint, write_checkpoint
from hdcid_cli.codes.columns import codebook, columns
from hdcid_cli.codes.encode import decode, encode
from hdcid_cli.codes.toc import Selection, apply_toc
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import FeatureFile, open_features
from hdcid_cli.main import cli
from hdcid_cli.models.hdcid import HDCID
from hdcid_cli.models.settings import ModelSettings


@pytest.fixture
def hdcid(tmp_path, monkeypatch):
    """Run the command line in an empty folder, in this process."""
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    return lambda *arguments: CliRunner().invoke(cli, arguments, obj={"debug": False})


def test_encoded_files_hold_codes_and_their_vectors(hdcid, tmp_path):
    _, ids = write_features(tmp_path / "features", clips=12)
    assert hdcid("pretrain", "--epochs", "1", "--dim", "16", "--codebook", "12").exit_code == 0
    done = hdcid("encode", "--toc", "5")
    assert done.exit_code == 0, done.stderr
    assert not undocumented(done.stdout)
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
    for layer, all_codes in enumerate(checkpoint.codebooks):
        part = values[..., 5 * layer : 5 * layer + 5]  # five whole channels of each layer's code, whichever TOC chose
        rows = all_codes[indices[:, :, layer, 0]]
        assert all(np.isclose(rows, part[..., column, None], atol=1e-5).all((0, 1)).any() for column in range(5))

    with h5py.File(tmp_path / "codes" / "audio.h5") as file:
        where, table = file["columns"][:], file["codebook"][:]
    assert np.array_equal(where[:, 0], np.repeat([1, 2], 5)) and table.shape == (1, 12, 10)
    layer, places = where[:, 0] - 1, np.arange(10)
    assert np.array_equal(values, table[0][indices[:, :, layer, 0], places])  # as the manual shows
    own = [checkpoint.codebooks[each][:, channel] for each, channel in zip(layer, where[:, 1], strict=True)]
    np.testing.assert_allclose(table[0].T, own, atol=1e-6)

    said = hdcid("info", "codes")
    assert said.exit_code == 0
    assert not undocumented(said.stdout)
    record = json.loads(said.stdout.splitlines()[0])
    assert (record["layers"], record["codes_a_layer"], record["codebook"]) == (2, 1, [1, 12, 10])
    assert (record["columns"], record["toc"]) == ("1-5 layer 1, 6-10 layer 2", "5")

    assert hdcid("encode", "--toc", "5", "--format", "npz").exit_code == 0
    assert hdcid("encode", "--toc", "5", "--format", "npz").exit_code == 0  # what holds codes may be replaced
    with np.load(tmp_path / "codes" / "audio.npz") as arrays, h5py.File(tmp_path / "codes" / "audio.h5") as file:
        assert arrays["ids"].tolist() == ids and arrays["toc"] == "5" and arrays["segment_seconds"] == 1.0
        for name in ("features", "indices", "codebook", "columns", "length"):
            assert np.array_equal(arrays[name], file[name][:]) and arrays[name].dtype == file[name].dtype
    np.savez(tmp_path / "mine.npz", a=np.zeros(3))
    for arguments, message in (
        (("features/audio.h5", "-o", "features/audio.h5"), "is the input"),
        (("features/audio.h5", "features/audio.h5"), "Several files would become"),
        (("features/audio.h5", "-o", "mine.npz"), "mine.npz exists and holds no codes"),
        (("nothing.h5",), "There is no feature file nothing.h5"),
    ):
        with pytest.raises(InputError, match=message):
            cli.main(["encode", *arguments], standalone_mode=False, obj={})


@pytest.mark.parametrize("quantizer", ["vq", "rvq:3", "pq:4", "aligned", "fsq:4,3"])
def test_features_are_the_sum_of_what_codes_say_in_every_column(quantizer):
    torch.manual_seed(0)
    settings = ModelSettings(inputs={"audio": (12,), "text": (5,)}, layers=2, dim=16, codebook=12, quantizer=quantizer)
    model = HDCID(settings).eval().requires_grad_(False)
    stored = SimpleNamespace(model=model)
    said = model.layers[0].quantizer
    indices = np.random.default_rng(0).integers(said.codes, size=(7, 5, 2, said.stages))
    for selection in (None, Selection([np.array([0, 3, 15]), np.array([2, 4])], "some")):
        features = apply_toc(decode(stored, indices, "audio"), selection)
        where, table = columns(stored, selection), codebook(stored, "audio", selection)
        assert table.shape == (said.stages, said.codes, features.shape[-1])
        places = np.arange(len(where))
        total = sum(table[stage][indices[:, :, where[:, 0] - 1, stage], places] for stage in range(said.stages))
        np.testing.assert_allclose(total, features, atol=1e-6)
    assert where.tolist() == [[1, 0], [1, 3], [1, 15], [2, 2], [2, 4]]


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


@pytest.mark.parametrize("quantizer", ["vq", "rvq:3", "fsq:4,3"])
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


def test_a_file_in_which_every_clip_failed_is_refused(model):
    checkpoint, features = model()
    features.close()
    with h5py.File(features.paths[0], "r+") as file:
        file["length"][:] = 0
    with FeatureFile(features.paths) as empty, pytest.raises(InputError, match="holds no clip that could be read"):
        encode(checkpoint, empty)
