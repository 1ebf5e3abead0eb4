"""VGG19 and VGGish with random weights of the true layout, against plain functional calls."""

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hdcid_cli.backbones import Options, load_backbone
from hdcid_cli.backbones.vgg19 import VGG19, read_vgg19
from hdcid_cli.backbones.vggish import LogMel, VGGish, Whitening
from hdcid_cli.core.errors import InputError

VGG19_CONVOLUTIONS = [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]
VGG19_WIDTHS = [64, 64, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512, 512, 512, 512, 512]
KERAS_LAYERS = [f"block{block}_conv{n + 1}" for block, count in enumerate([2, 2, 4, 4, 4], 1) for n in range(count)]
VGGISH_CONVOLUTIONS = {0: 64, 3: 128, 6: 256, 8: 256, 11: 512, 13: 512}


def convolutions(widths: dict[int, int], channels: int) -> dict[str, torch.Tensor]:
    """Random weights whose activations keep their size from layer to layer."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for number, width in widths.items():
        state[f"features.{number}.weight"] = (
            torch.randn(width, channels, 3, 3, generator=generator) * (2 / (9 * channels)) ** 0.5
        )
        state[f"features.{number}.bias"] = 0.1 * torch.randn(width, generator=generator)
        channels = width
    return state


def layer_by_layer(state: dict[str, torch.Tensor], pooled_after: set[int], x: torch.Tensor) -> list[torch.Tensor]:
    """The output of every convolution with ReLU and every pooling, computed with functional calls alone."""
    outputs = []
    for number in sorted({int(name.split(".")[1]) for name in state}):
        x = F.relu(F.conv2d(x, state[f"features.{number}.weight"], state[f"features.{number}.bias"], padding=1))
        outputs.append(x)
        if number in pooled_after:
            x = F.max_pool2d(x, 2)
            outputs.append(x)
    return outputs


def module_outputs(module, x) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The outputs of `module.features`' ReLU and pooling layers, and the module's own."""
    outputs, hooks = [], []
    for layer in module.features:
        if not isinstance(layer, torch.nn.Conv2d):
            hooks.append(layer.register_forward_hook(lambda _, __, output: outputs.append(output.clone())))
    with torch.inference_mode():
        final = module(x)
    for hook in hooks:
        hook.remove()
    return outputs, final


def assert_close(found, expected, relative=1e-5):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= relative * expected.abs().max()


@pytest.fixture(scope="module")
def vgg19_state():
    return convolutions(dict(zip(VGG19_CONVOLUTIONS, VGG19_WIDTHS, strict=True)), 3)


@pytest.fixture(scope="module")
def torchvision_file(vgg19_state, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "vgg19.pth"
    torch.save({**vgg19_state, "classifier.0.bias": torch.zeros(4096)}, path)
    return path


@pytest.fixture(scope="module")
def frame():
    return np.random.default_rng(0).integers(0, 256, (1, 1, 64, 64, 3), np.uint8)  # small: convolutions do not mind


def test_vgg19_layer_by_layer(vgg19_state, torchvision_file, frame):
    mean, spread = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((torch.from_numpy(frame[0]) / 255 - mean) / spread).permute(0, 3, 1, 2)
    expected = layer_by_layer(vgg19_state, {2, 7, 16, 25, 34}, x)
    layers, features = module_outputs(read_vgg19(torchvision_file), torch.from_numpy(frame))
    assert len(layers) == 21
    for found, wanted in zip(layers, expected, strict=True):
        assert_close(found, wanted)
    assert_close(features[0], expected[-1][0].permute(1, 2, 0))


def test_vgg19_from_keras_sees_bgr_minus_the_mean(vgg19_state, tmp_path, frame):
    path = tmp_path / "keras.h5"
    kernels = [vgg19_state[f"features.{number}.weight"].numpy().transpose(2, 3, 1, 0) for number in VGG19_CONVOLUTIONS]
    biases = [vgg19_state[f"features.{number}.bias"].numpy() for number in VGG19_CONVOLUTIONS]
    with h5py.File(path, "w") as file:
        for layer, kernel, bias in zip(KERAS_LAYERS, kernels, biases, strict=True):
            file[f"{layer}/{layer}_W_1:0"], file[f"{layer}/{layer}_b_1:0"] = kernel, bias
        file.create_group("block5_pool")
    bgr = torch.from_numpy(frame[0][..., ::-1].astype(np.float32)) - torch.tensor([103.939, 116.779, 123.68])
    expected = layer_by_layer(vgg19_state, {2, 7, 16, 25, 34}, bgr.permute(0, 3, 1, 2))[-1]
    _, features = module_outputs(read_vgg19(path), torch.from_numpy(frame))
    assert_close(features[0], expected[0].permute(1, 2, 0))


def test_vgg19_gives_the_last_pooling_layer_of_full_size_frames():
    with torch.device("meta"):
        module = VGG19().to("meta")
        assert module(torch.empty(2, 16, 224, 224, 3, dtype=torch.uint8)).shape == (2, 7, 7, 512)


def test_vgg19_is_the_mean_over_a_seconds_frames_whatever_the_batch(torchvision_file):
    seconds = np.random.default_rng(1).integers(0, 256, (2, 2, 64, 64, 3), np.uint8)
    options = Options(weights=str(torchvision_file), device="cpu", batch_size=2)
    network = load_backbone("video", "vgg19", options).network
    together = network([seconds[:1], seconds[1:]])
    alone = network([seconds[1:]])
    assert np.array_equal(together[1], alone[0])
    single = network([seconds[:1, :1].repeat(2, axis=1), seconds[:1, 1:].repeat(2, axis=1)])
    assert np.allclose(together[0], (single[0] + single[1]) / 2, rtol=1e-4, atol=1e-4)


def features_of(file, frames, **options) -> np.ndarray:
    backbone = load_backbone("video", "vgg19", Options(weights=str(file), **options))
    return backbone.network([frames])[0]


def test_lower_precision_stays_near(torchvision_file, frame):
    exact = features_of(torchvision_file, frame, device="cpu")
    rough = features_of(torchvision_file, frame, device="cpu", precision="bf16")
    assert 0 < np.abs(rough - exact).max() < 0.03 * exact.max()
    with pytest.raises(InputError, match="float16 needs a GPU"):
        features_of(torchvision_file, frame, device="cpu", precision="float16")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("tf32", 1e-2), ("float16", 1e-2)])
def test_a_gpu_gives_the_same_features_whatever_the_batch(torchvision_file, precision, tolerance):
    seconds = np.random.default_rng(1).integers(0, 256, (8, 2, 224, 224, 3), np.uint8)
    options = Options(weights=str(torchvision_file), device="cuda", precision=precision, batch_size=8)
    network = load_backbone("video", "vgg19", options).network
    together = network(list(seconds[:, None]))
    assert np.array_equal(network([seconds[5:6]])[0], together[5])
    exact = features_of(torchvision_file, seconds[5:6], device="cpu")
    assert np.abs(together[5] - exact).max() < tolerance * exact.max()


@pytest.mark.parametrize("name", ["vgg19", "vggish"])
def test_a_wrong_file_of_weights_is_named(tmp_path, name):
    modality = "video" if name == "vgg19" else "audio"
    other, words = tmp_path / "other.pth", tmp_path / "words.pth"
    torch.save({"features.0.weight": torch.zeros(2, 2)}, other)
    words.write_text("not weights")
    for path, said in (
        (other, "features.0.weight|features.0.bias"),
        (words, "torch saved"),
        (tmp_path / "none.pth", "no file of weights"),
    ):
        with pytest.raises(InputError, match=said) as caught:
            load_backbone(modality, name, Options(weights=str(path), device="cpu"))
        assert str(path) in str(caught.value)


def test_weights_that_run_code_are_refused(tmp_path):
    import pickle

    marker = tmp_path / "ran"

    class Hostile:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    path = tmp_path / "hostile.pth"
    path.write_bytes(pickle.dumps({"features.0.weight": Hostile()}, protocol=2))
    with pytest.raises(InputError, match="torch saved"):
        load_backbone("audio", "vggish", Options(weights=str(path), device="cpu"))
    assert not marker.exists()


# --- VGGish --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vggish_state():
    generator = torch.Generator().manual_seed(1)
    state = convolutions(VGGISH_CONVOLUTIONS, 1)
    width = 512 * 6 * 4
    for number, out in ((0, 4096), (2, 4096), (4, 128)):
        state[f"embeddings.{number}.weight"] = torch.randn(out, width, generator=generator) * (2 / width) ** 0.5
        state[f"embeddings.{number}.bias"] = 0.1 * torch.randn(out, generator=generator)
        width = out
    return state


def test_vggish_layer_by_layer(vggish_state):
    examples = torch.randn(2, 96, 64, generator=torch.Generator().manual_seed(2))
    features = {name: value for name, value in vggish_state.items() if name.startswith("features")}
    expected = layer_by_layer(features, {0, 3, 8, 13}, examples[:, None])
    x = expected[-1].permute(0, 2, 3, 1).reshape(2, -1)  # height, width, channel, as TensorFlow flattens
    for number in (0, 2, 4):
        x = F.relu(F.linear(x, vggish_state[f"embeddings.{number}.weight"], vggish_state[f"embeddings.{number}.bias"]))
    with torch.device("meta"):
        module = VGGish()
    module.load_state_dict(vggish_state, assign=True)
    layers, embedding = module_outputs(module, examples)
    for found, wanted in zip(layers, expected, strict=True):
        assert_close(found, wanted)
    assert embedding.shape == (2, 128) and (embedding >= 0).all()
    assert_close(embedding, x)


def test_vggish_input_equals_the_published_front_end(shared):
    reference = np.load(shared / "reference" / "vggish_input.npz")
    wave = torch.from_numpy(reference["in/wave_16k"]).float()
    found = LogMel()(wave.reshape(-1, 16_000)).numpy()
    assert np.abs(found - reference["out/examples_per_second"]).max() < 1e-4
    # Without seconds an example follows the other after 0.96 s: each has the samples of its 96 windows.
    examples = reference["out/examples_hop096"]
    waves = torch.stack([wave[n * 15_360 : n * 15_360 + 95 * 160 + 400] for n in range(len(examples))])
    assert np.abs(LogMel()(waves).numpy() - examples).max() < 1e-4


def test_vggish_input_is_the_logarithm_of_spectra_in_mel_bands():
    wave = np.random.default_rng(0).uniform(-1, 1, 16_000)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    spectra = [np.abs(np.fft.rfft(wave[160 * n : 160 * n + 400] * hann, 512)) for n in range(96)]
    mel = 1127 * np.log(1 + np.arange(257) * 8000 / 256 / 700)
    edges = np.linspace(1127 * np.log(1 + 125 / 700), 1127 * np.log(1 + 7500 / 700), 66)
    bands = np.stack([np.interp(mel, edges[band : band + 3], [0, 1, 0], 0, 0) for band in range(64)], axis=1)
    found = LogMel()(torch.from_numpy(wave[None]).float())[0].numpy()
    assert np.abs(found - np.log(spectra @ bands + 0.01)).max() < 1e-4


def test_vggish_takes_waves_of_many_clips_together(vggish_state, tmp_path):
    torch.save(vggish_state, tmp_path / "vggish.pth")
    network = load_backbone(
        "audio", "vggish", Options(weights=str(tmp_path / "vggish.pth"), device="cpu", batch_size=3)
    )
    waves = np.random.default_rng(0).uniform(-1, 1, (2, 1, 16_000)).astype(np.float32)
    together = network.network(list(waves))
    assert together[0].shape == (1, 128) and np.array_equal(network.network([waves[1]])[0], together[1])
    with torch.device("meta"):
        module = VGGish()
    module.load_state_dict(vggish_state, assign=True)
    with torch.inference_mode():
        assert_close(torch.from_numpy(together[0]), module(LogMel()(torch.from_numpy(waves[0]))), 1e-4)


def test_vggish_post_processing_is_audiosets():
    generator = np.random.default_rng(0)
    vectors, means = (
        generator.standard_normal((128, 128)).astype(np.float32),
        generator.standard_normal((128, 1)).astype(np.float32),
    )
    embedding = generator.uniform(0, 1, (5, 128)).astype(np.float32)
    module = Whitening()
    module.load_state_dict({"pca_eigen_vectors": torch.from_numpy(vectors), "pca_means": torch.from_numpy(means)})
    projected = (vectors @ (embedding.T - means)).T.clip(-2, 2)
    expected = np.round((projected + 2) * 255 / 4)
    found = module(torch.from_numpy(embedding)).numpy()
    assert (np.abs(found - expected) <= (np.abs((projected + 2) * 255 / 4 % 1 - 0.5) < 1e-3)).all()
    assert found.min() == 0 and found.max() == 255
