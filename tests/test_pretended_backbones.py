"""Backbones in a GPU's half precision: on a pretended one they give nearly the features of the CPU."""

import numpy as np
import pytest
import test_sound
import test_text
import test_vision
from pretended import pretended_gpu

from hdcid_cli.backbones import Options, load_backbone

text_of, sound_of, picture_of = test_text.model_of, test_sound.model_of, test_vision.model_of
pytestmark = pytest.mark.filterwarnings("ignore:At least one mel filter")
random = np.random.default_rng(0)
FRAMES = [random.integers(0, 255, (1, 4, 60, 80, 3), np.uint8) for _ in range(2)]
NOISE = random.normal(size=200_000).astype(np.float32)


def nearly_the_same(monkeypatch, modality, folder, parts_of, **options):
    """The features of parts on the CPU, and on the pretended GPU."""

    def features(device, batch):
        backbone = load_backbone(modality, str(folder), Options(device=device, batch_size=batch, fps=4, **options))
        parts = parts_of(backbone.network)
        return [
            made for part in ([parts] if batch > 1 else [[each] for each in parts]) for made in backbone.network(part)
        ]

    ours = features("cpu", 1)
    with pretended_gpu(monkeypatch):
        theirs = features("cuda", 2)
    for one, other in zip(theirs, ours, strict=True):
        assert np.isfinite(one).all() and one.dtype in (other.dtype, np.float16)
        np.testing.assert_allclose(one, other, atol=0.03)
        assert not np.array_equal(one, other)  # the digits are felt


@pytest.mark.parametrize(("name", "pool"), [("bert", "words"), ("t5", "mean"), ("clip", "cls")])
def test_texts(text_of, monkeypatch, name, pool):
    nearly_the_same(monkeypatch, "text", text_of(name), lambda _: ["A dog, barking loudly.", "church bell"], pool=pool)


@pytest.mark.parametrize("name", ["ast", "clap", "wav2vec2", "whisper"])
def test_sounds(sound_of, monkeypatch, name):
    def waves(network):
        seconds = min(network.window, 2)
        return [NOISE[start:][: seconds * network.rate].reshape(seconds, -1) / 10 for start in (0, 1000)]

    nearly_the_same(monkeypatch, "audio", sound_of(name), waves)


@pytest.mark.parametrize("name", ["vit", "clip", "swin", "resnet", "pvt_v2", "timesformer"])
def test_pictures(picture_of, monkeypatch, name):
    nearly_the_same(monkeypatch, "video", picture_of(name), lambda _: FRAMES)
