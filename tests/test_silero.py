"""examples/silero.py: a backbone from outside, of weights that a package brings along, in one file."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from media_files import tone, write_media
from safetensors.torch import save_file

from hdcid_cli.backbones import BACKBONES, Options, load_backbone
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import FeatureFile
from hdcid_cli.media.audio import audio_seconds

EXAMPLE = Path(__file__).parents[1] / "examples" / "silero.py"
SHAPES = {"conv1": (128, 129, 3), "conv2": (64, 128, 3), "conv3": (64, 64, 3), "conv4": (128, 64, 3)}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of that name with random weights, which must not be imported; and the example where Python finds it."""
    generator = torch.Generator().manual_seed(0)
    weights = {
        "stft_conv.weight": torch.randn(258, 1, 256, generator=generator) / 16,
        "final_conv.bias": torch.zeros(1),
    }
    for name, shape in SHAPES.items():
        weights[f"{name}.weight"] = torch.randn(shape, generator=generator) / (shape[1] * 1.5) ** 0.5
        weights[f"{name}.bias"] = torch.randn(shape[0], generator=generator) / 10
    folder = tmp_path / "packages" / "silero_vad"
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('it was imported')")
    save_file(weights, folder / "data" / "silero_vad_16k.safetensors")
    for place in (EXAMPLE.parent, folder.parent):
        monkeypatch.syspath_prepend(str(place))
    monkeypatch.setitem(BACKBONES["audio"], "silero", "silero")
    yield weights
    sys.modules.pop("silero", None)


def by_definition(weights, wave: np.ndarray) -> np.ndarray:
    """[16000] -> [128]: window by window, layer by layer."""
    wave = np.concatenate([np.zeros(64, np.float32), wave])
    found = []
    for start in range(0, 16_000 - 511, 512):
        window = wave[start : start + 576]
        window = np.concatenate([window, window[-2:-66:-1]])  # mirrored at its end
        frames = np.stack([window[128 * n : 128 * n + 256] for n in range(4)])
        spectra = frames @ weights["stft_conv.weight"][:, 0].numpy().T
        x = torch.from_numpy(np.hypot(spectra[:, :129], spectra[:, 129:]).T[None])
        for name, stride in (("conv1", 1), ("conv2", 2), ("conv3", 2), ("conv4", 1)):
            x = F.relu(F.conv1d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride=stride, padding=1))
        found.append(x[0, :, 0].numpy())
    assert len(found) == 31
    return np.mean(found, axis=0)


def test_a_second_is_the_mean_over_its_windows(package):
    backbone = load_backbone("audio", "silero", Options(device="cpu", batch_size=3))
    waves = np.random.default_rng(0).uniform(-1, 1, (2, 1, 16_000)).astype(np.float32)
    for wave, features in zip(waves, backbone.network(list(waves)), strict=True):
        assert np.allclose(features[0], by_definition(package, wave[0]), atol=1e-4)
    assert backbone.weights.startswith("sha256:")


def test_the_example_runs(package, tmp_path, monkeypatch, capsys):
    write_media(tmp_path / "a.wav", sound=tone(440, 1.7), codecs=("", "pcm_s16le"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["silero.py", "a.wav"])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert capsys.readouterr().out == "features/audio.h5\n"
    with FeatureFile([tmp_path / "features/audio.h5"]) as file:
        assert (file.backbone, file.shape, file.length.tolist()) == ("silero", (10, 128), [2])
        second = list(audio_seconds(tmp_path / "a.wav", 10))[1]
        assert np.allclose(file.read([0])[0, 1], by_definition(package, second), atol=1e-4)


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    monkeypatch.setitem(BACKBONES["audio"], "silero", "silero")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    sys.modules.pop("silero", None)
    with pytest.raises(InputError, match="pip install silero-vad"):
        load_backbone("audio", "silero", Options(device="cpu"))
    sys.modules.pop("silero", None)
