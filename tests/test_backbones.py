"""Backbones without weights: what their numbers mean."""

import hashlib

import numpy as np
import pytest

from hdcid_cli.backbones import BACKBONES, Options, load_again, load_backbone
from hdcid_cli.backbones.hash import split_words, word_vector
from hdcid_cli.backbones.hog import SCALE, hog
from hdcid_cli.backbones.logmel import logmel
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import FeatureFile
from hdcid_cli.media.mel import frame_magnitudes, mel_filterbank

RATE = 16_000


def frames(picture: np.ndarray) -> np.ndarray:
    """[56, 56] brightness 0..1 -> two equal frames [2, 56, 56, 3] uint8."""
    return np.repeat((255 * picture).round().astype(np.uint8)[None, ..., None], 2, axis=0).repeat(3, axis=-1)


def groups(features: np.ndarray) -> np.ndarray:
    """[7, 7, 68] -> [7, 7, 4 corners, 17]."""
    return features.reshape(7, 7, 4, 17)


def test_hog_of_nothing_is_zero():
    assert np.array_equal(hog(frames(np.zeros((56, 56)))), np.zeros((7, 7, 68), np.float32))


def test_hog_of_an_even_picture_is_its_brightness_alone():
    cells = groups(hog(frames(np.full((56, 56), 0.25)))).sum(axis=2)
    assert np.allclose(cells[..., 16], SCALE * np.sqrt(0.25), atol=0.02)
    assert np.allclose(cells[..., :16], 0)


@pytest.mark.parametrize("direction", range(16))
def test_hog_puts_a_slope_into_the_bin_of_its_direction(direction):
    angle = 2 * np.pi * direction / 16
    y, x = np.mgrid[-1:1:56j, -1:1:56j]
    picture = 0.5 + 0.3 * (np.cos(angle) * x + np.sin(angle) * y)
    inner = groups(hog(frames(picture))).sum(axis=2)[3, 3, :16]
    assert inner.argmax() == direction
    assert inner[direction] ** 2 > 0.6 * (inner**2).sum()


def test_hog_says_in_which_cell_and_near_which_corner_something_is():
    picture = np.zeros((56, 56))
    picture[2:6, 50:54] = 1  # top right
    features = groups(hog(frames(picture)))
    assert set(zip(*np.nonzero(features.any(axis=(2, 3))), strict=True)) == {(0, 6)}
    assert (features[0, 6] > 0).any(axis=1).tolist() == [False, True, False, False]
    # A sum over the grid, all that the published encoder sees, still tells the corners apart.
    turned = groups(hog(frames(picture[::-1, ::-1]))).sum(axis=(0, 1))
    assert not np.allclose(features.sum(axis=(0, 1)), turned)


def test_hog_of_a_second_is_the_root_of_the_mean_over_its_frames():
    picture = np.full((1, 56, 56, 3), 200, np.uint8)
    both = groups(hog(np.concatenate([picture, 0 * picture]))).sum(axis=2)[..., 16]
    assert np.allclose(both, SCALE * np.sqrt(100 / 255), atol=1e-3)


def test_logmel_of_silence_is_zero():
    assert np.array_equal(logmel(np.zeros(RATE, np.float32)), np.zeros(128, np.float32))


def test_logmel_shows_when_and_at_what_pitch():
    wave = np.zeros(RATE, np.float32)
    time = np.arange(RATE // 4) / RATE
    wave[RATE // 4 : RATE // 2] = 0.5 * np.sin(2 * np.pi * 1000 * time)
    wave[3 * RATE // 4 :] = 0.5 * np.sin(2 * np.pi * 4000 * time)
    energy = logmel(wave).reshape(4, 32)
    centres = np.linspace(*(1127 * np.log1p(np.array([50, 7600]) / 700)), 34)[1:-1]
    for quarter, pitch in ((1, 1000), (3, 4000)):
        assert abs(centres - 1127 * np.log1p(pitch / 700)).argmin() == energy[quarter].argmax()
    assert energy[[0, 2]].max() < 0.2 * energy[[1, 3]].max()


def test_logmel_is_never_negative_and_of_order_one():
    loud = logmel(np.random.default_rng(0).uniform(-1, 1, RATE).astype(np.float32))
    assert loud.min() >= 0 and 1 < loud.mean() < 3


def test_spectrum_is_numpys_of_each_windowed_frame():
    wave = np.random.default_rng(0).standard_normal(1000)
    hann = np.hanning(401)[:-1]  # periodic
    expected = [np.abs(np.fft.rfft(wave[start : start + 400] * hann, 512)) for start in range(0, 601, 160)]
    assert np.allclose(frame_magnitudes(wave, 400, 160, 512), expected)


def test_mel_filters_are_triangles_on_the_mel_scale():
    weights = mel_filterbank(8, 512, RATE, 100, 7000)
    mel = 1127 * np.log1p(np.arange(257) * RATE / 512 / 700)
    edges = np.linspace(1127 * np.log1p(100 / 700), 1127 * np.log1p(7000 / 700), 10)
    for band in range(8):
        expected = np.interp(mel, edges[band : band + 3], [0, 1, 0], left=0, right=0)
        assert np.allclose(weights[:, band], expected)


def test_a_word_has_one_vector_everywhere():
    vector = word_vector("dog")
    digest = hashlib.shake_256(b"dog").digest(1536)
    assert vector[5] == np.float32(((digest[10] + 256 * digest[11] + 0.5) / 65536 - 0.5) * np.sqrt(3))
    assert vector.std() == pytest.approx(0.5, abs=0.02)
    assert abs(np.corrcoef(vector, word_vector("dogs"))[0, 1]) < 0.15


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A dog, barking.", ["a", "dog", "barking"]),
        ("  the CAT's  2 paws ", ["the", "cat's", "2", "paws"]),
        ("ﬁre — Ärger\n火", ["fire", "ärger", "火"]),
        ("?!", []),
    ],
)
def test_words_of_a_text(text, words):
    assert split_words(text) == words


@pytest.mark.parametrize(("modality", "name"), [(modality, list(names)[1]) for modality, names in BACKBONES.items()])
def test_weight_free_backbones_are_found_by_name(modality, name):
    backbone = load_backbone(modality, name, Options())
    assert (backbone.name, backbone.modality, backbone.network) == (name, modality, None)


def test_a_backbone_of_another_modality_is_refused():
    with pytest.raises(InputError, match="no audio backbone 'hog': use vggish or logmel"):
        load_backbone("audio", "hog", Options())


OUTSIDE = """
import numpy as np
from hdcid_cli.backbones.backbone import Backbone

def prepare(clip):
    yield np.full((2, 3), clip.start, np.float32)

def load(options):
    return Backbone("mine", "audio", (3,), prepare, weights="none", revision="abc")
"""


def test_a_backbone_from_outside_is_one_file_and_one_entry(tmp_path, monkeypatch):
    from hdcid_cli.backbones.extraction import ExtractionSettings, extract
    from hdcid_cli.commands.info import describe

    (tmp_path / "c.wav").touch()
    (tmp_path / "my_backbone.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(BACKBONES["audio"], "mine", "my_backbone")
    (tmp_path / "list.csv").write_text("id,path,start\na,a.wav,0.5\nb,a.wav,2\n")
    path = tmp_path / "audio.h5"
    done = extract([str(tmp_path / "list.csv")], "audio", path, "mine", settings=ExtractionSettings(workers=0))
    assert done.shape == (10, 3) and done.clips == ["a", "b"]
    with FeatureFile([path]) as file:
        assert file.backbone == "mine" and file.read([1])[0, 0].tolist() == [2, 2, 2]
    [record] = describe(path)
    assert (record["backbone"], record["revision"], record["sound"]) == ("mine", "abc", True)
    extract(
        [str(tmp_path / "list.csv"), str(tmp_path / "c.wav")],
        "audio",
        path,
        "mine",
        settings=ExtractionSettings(workers=0),
    )  # takes more in
    assert next(describe(path))["revision"] == "abc"


def test_options_that_a_backbone_does_not_read_are_told(capsys, tmp_path):
    load_backbone("audio", "logmel", Options(model="mine", fps=8))
    assert capsys.readouterr().err == (
        "--fps makes no difference: logmel does not read it, vgg19 and hog would.\n"
        "--model makes no difference: logmel does not read it, bert would.\n"
    )
    load_backbone("video", "hog", Options(fps=8, seconds=5))
    assert capsys.readouterr().err == ""
    load_backbone("text", "hash", Options(batch_size=3, precision="float16", device="cpu", allow_pickle=True))
    assert capsys.readouterr().err.splitlines() == [
        *(f"{name} makes no difference: hash has no network." for name in ("--device", "--precision", "--batch-size")),
        "--allow-pickle makes no difference: hash does not read it, bert would.",
    ]
    load_again("text", "hash", Options(device="cpu"))  # where something else is computed there
    assert capsys.readouterr().err == ""
    with pytest.raises(InputError):
        load_backbone("audio", str(tmp_path), Options(weights="mine", fps=8, batch_size=3, allow_pickle=True))
    assert [line.split()[0] for line in capsys.readouterr().err.splitlines()] == ["--weights", "--fps"]
