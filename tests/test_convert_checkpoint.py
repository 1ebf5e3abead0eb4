"""Published checkpoints, made from the reference vectors, converted and put to use."""

import json
import os

import numpy as np
import pytest
import torch
import yaml

from hdcid_cli.codes.checkpoint import open_checkpoint
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import FeatureWriter
from hdcid_cli.main import run
from hdcid_cli.published.checkpoint import convert_checkpoint

SHORT = {"audio": "a", "video": "v", "text": "t"}
KINDS = [("hdcid_avt", "avt", 2), ("dcid_avt", "avt", 1), ("dcid_av", "av", 1)]


def part(arrays, name, prefix=""):
    return {
        prefix + key.partition("/")[2]: torch.from_numpy(arrays[key])
        for key in arrays.files
        if key.startswith(name + "/")
    }


def publish(folder, kind, path, prefix="", drop=()):
    """A file of the published layout, with the reference vectors' weights."""
    arrays = np.load(folder / f"{kind}.npz")
    parts = {
        "Encoder_parameters": part(arrays, "encoder", prefix),
        "CPC_parameters": {},
        "optimizer": {"state": {}},
        "epoch": 4,
        "total_step": 2500,
    }
    if decoder := part(arrays, "decoder", prefix):
        parts["Decoder_parameters"] = decoder
    if "text" in kind or kind.endswith("t"):
        # The text that the encoders read in these files is 20 wide: an LSTM of 10 a direction.
        parts["Text_ar_lstm_parameters"] = part(np.load(folder / "text_lstm.npz"), "text_lstm", prefix)
    torch.save({name: value for name, value in parts.items() if name not in drop}, path)
    return path


@pytest.fixture(scope="module")
def folder(shared):
    torch.set_num_threads(1)
    return shared / "reference"


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("kind,letters,layers", KINDS)
def test_the_converted_model_gives_the_published_codes(folder, tmp_path, kind, letters, layers, prefix):
    convert_checkpoint(publish(folder, kind, tmp_path / "published.pt", prefix), tmp_path / "ours")
    opened, arrays = open_checkpoint(tmp_path / "ours", device="cpu"), np.load(folder / f"{kind}.npz")
    assert opened.describe()["modalities"] == letters and opened.describe()["layers"] == layers
    assert opened.settings.standardize is False
    for name in opened.inputs:
        x = torch.from_numpy(arrays[f"in/{name}"])
        if name == "text":  # the reference starts behind the LSTM
            opened.model.text_front = None
        quantized, _ = opened.model.encode(name, x)
        for number, suffix in enumerate(("", "2")[:layers]):
            key = f"out/{name}_vq" if kind == "dcid_avt" else f"out/{SHORT[name]}_vq{suffix}"
            torch.testing.assert_close(quantized[:, :, number], torch.from_numpy(arrays[key]), rtol=1e-8, atol=1e-8)


def test_a_published_fcid_reads_seconds_and_is_known_by_its_name(folder, tmp_path):
    convert_checkpoint(
        publish(folder, "fcid", tmp_path / "published.pt", drop=("Text_ar_lstm_parameters",)), tmp_path / "ours"
    )
    opened, arrays = open_checkpoint(tmp_path / "ours", device="cpu"), np.load(folder / "fcid.npz")
    described = opened.describe()
    assert (described["method"], described["layers"], described["modalities"]) == ("fcid", 1, "avt")
    for name, short in SHORT.items():
        quantized, indices = opened.model.encode(name, torch.from_numpy(arrays[f"in/{name}"]))
        np.testing.assert_array_equal(indices[:, :, 0, 0], arrays[f"out/seconds_{short}_index"])
        assert quantized.shape[2:] == (1, 32)
    assert [codebook.shape for codebook in opened.codebooks] == [(50, 32)]


def test_micus_files_have_dcids_encoders_and_read_code_0_as_zero_where_published(folder, tmp_path):
    drop = ("Decoder_parameters", "CPC_parameters", "optimizer")
    file = publish(folder, "dcid_avt", tmp_path / "micu.pt", drop=drop)
    assert torch.load(file, weights_only=True).keys() == {
        "Encoder_parameters", "Text_ar_lstm_parameters", "epoch", "total_step",
    }  # fmt: skip
    convert_checkpoint(file, tmp_path / "ours")
    opened, arrays = open_checkpoint(tmp_path / "ours", device="cpu"), np.load(folder / "dcid_avt.npz")
    assert (opened.method, opened.settings.layers, opened.reading) == ("fcmi,cujp", 1, "row")
    published = opened.as_published()
    assert published.reading == published.describe()["read"] == "emptied" and published.digest == opened.digest
    assert open_checkpoint(tmp_path / "ours", device="cpu", reading="row").as_published().reading == "row"  # as asked
    x = torch.from_numpy(arrays["in/audio"])
    quantized, _ = opened.model.encode("audio", x)
    torch.testing.assert_close(quantized[:, :, 0], torch.from_numpy(arrays["out/audio_vq"]), rtol=1e-8, atol=1e-8)
    emptied, others = published.model.encode("audio", x)
    table = np.vstack([np.zeros(32), opened.codebooks[0][1:]])
    np.testing.assert_array_equal(published.codebooks[0], table)
    np.testing.assert_array_equal(emptied[:, :, 0], table[others[:, :, 0, 0]])
    assert (opened.codebooks[0][0] != 0).any()  # as it is stored
    convert_checkpoint(publish(folder, "dcid_avt", tmp_path / "dcid.pt"), tmp_path / "dcid")
    dcid = open_checkpoint(tmp_path / "dcid", device="cpu")
    assert dcid.as_published() is dcid and dcid.method == "cpc,cmcm"


def test_the_texts_lstm_comes_along(folder, tmp_path):
    model = convert_checkpoint(publish(folder, "hdcid_avt", tmp_path / "published.pt"), tmp_path / "ours")
    arrays = np.load(folder / "text_lstm.npz")
    text = model.front({"text": torch.from_numpy(arrays["in/words"])})["text"]
    torch.testing.assert_close(text, torch.from_numpy(arrays["out/text"]), rtol=1e-8, atol=1e-8)


def test_the_configuration_says_where_it_comes_from(folder, tmp_path):
    convert_checkpoint(publish(folder, "hdcid_avt", tmp_path / "published.pt"), tmp_path / "ours")
    config = yaml.safe_load((tmp_path / "ours" / "config.yaml").read_text())
    assert config["converted"]["from"] == "published.pt" and config["converted"]["total_step"] == 2500
    assert config["features"] == {
        "audio": {"backbone": "vggish"},
        "video": {"backbone": "vgg19"},
        "text": {"backbone": "bert"},
    }
    assert config["objective"]["align"] == ["cpc"] and config["train"]["precision"] == "float64"
    assert config["objective"]["align_on"] == "features"  # what was done, not what a new run would choose
    assert os.readlink(tmp_path / "latest") == "ours"


def test_a_converted_checkpoint_serves_the_commands(folder, tmp_path, hdcid):
    publish(folder, "dcid_av", tmp_path / "dcid_av.pt")
    done = hdcid("convert", "checkpoint", "dcid_av.pt")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "checkpoints/dcid_av"
    arrays = np.load(folder / "dcid_av.npz")
    for name, backbone in (("audio", "vggish"), ("video", "vgg19")):
        x = arrays[f"in/{name}"]
        attributes = {"modality": name, "backbone": backbone, "weights": "made", "segment_seconds": 1.0}
        with FeatureWriter(
            tmp_path / "features" / f"{name}.h5",
            [f"clip{i}" for i in range(len(x))],
            x.shape[1:],
            attributes,
            dtype="float32",
        ) as writer:
            for i, clip in enumerate(x):
                writer.write(f"clip{i}", clip, len(clip))
            writer.finish()
    done = hdcid("toc", "--keep", "8")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kept"] == 8
    again = hdcid("convert", "checkpoint", "dcid_av.pt")
    assert again.returncode == 2 and "--overwrite" in again.stderr
    assert hdcid("convert", "checkpoint", "features/audio.h5").returncode == 2


@pytest.mark.parametrize(
    "damage,reason",
    [
        (lambda parts: parts.pop("Encoder_parameters"), "no Encoder_parameters"),
        (lambda parts: parts.pop("Text_ar_lstm_parameters"), "no Text_ar_lstm_parameters"),
        (lambda parts: parts["Encoder_parameters"].pop("Cross_quantizer.embedding"), "no Cross_quantizer"),
        (lambda parts: parts["Encoder_parameters"].pop("audio_self_att_2.affine_matrix.bias"), "not a complete"),
        (lambda parts: parts["Encoder_parameters"].update(surprise=torch.zeros(1)), "'surprise'"),
        (
            lambda parts: parts["Encoder_parameters"].update({"audio_self_att.affine_matrix.bias": torch.zeros(3)}),
            "does not fit together",
        ),
    ],
)
def test_what_is_no_published_checkpoint_is_refused_in_a_sentence(folder, tmp_path, damage, reason):
    file = publish(folder, "hdcid_avt", tmp_path / "published.pt")
    parts = torch.load(file, weights_only=True)
    damage(parts)
    torch.save(parts, file)
    with pytest.raises(InputError, match=reason):
        convert_checkpoint(file, tmp_path / "ours")


class Hostile:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_a_hostile_file_is_refused_and_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"Encoder_parameters": Hostile()}, tmp_path / "hostile.pt")
    (tmp_path / "text.pt").write_text("not a checkpoint")
    for name in ("hostile.pt", "text.pt", "missing.pt"):
        with pytest.raises(InputError, match=name):
            convert_checkpoint(tmp_path / name, tmp_path / "ours")
    assert not (tmp_path / "executed").exists()


def test_a_file_in_the_place_of_a_checkpoint_directory_is_refused(tmp_path, capsys):
    for name in ("mine.txt", "theirs.pt"):
        (tmp_path / name).write_text("words")
    assert run(["convert", "checkpoint", str(tmp_path / "theirs.pt"), "-o", str(tmp_path / "mine.txt")], {}) == 2
    assert (tmp_path / "mine.txt").read_text() == "words"
