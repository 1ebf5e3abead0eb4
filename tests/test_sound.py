"""Encoders of sound with random weights, saved by transformers, against the library's own way.

The library's feature extractor prepares the same waves, its model is called directly, and its steps are averaged over
the seconds in which their middles lie, found here by following a click through the model's own geometry.
"""

import json
import sys

import numpy as np
import pytest
import torch
import transformers
from media_files import tone, write_media

from hdcid_cli.backbones import Options, load_backbone
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import FeatureFile
from hdcid_cli.media.audio import audio_seconds, wave_parts
from hdcid_cli.media.clips import MediaClip

pytestmark = pytest.mark.filterwarnings("ignore:At least one mel filter")  # of so small a spectrum

LAYERS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
WAVES = {
    **LAYERS, "conv_dim": [8, 8, 8], "conv_kernel": [20, 8, 4], "conv_stride": [16, 5, 4], "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
CLAP_AUDIO = {
    "window_size": 4, "spec_size": 64, "patch_embeds_hidden_size": 8, "hidden_size": 16, "depths": [1, 1],
    "num_attention_heads": [1, 1], "num_mel_bins": 16,
}  # fmt: skip
CLAP = {
    "audio_config": CLAP_AUDIO,
    "text_config": {**LAYERS, "vocab_size": 20, "max_position_embeddings": 20},
    "projection_dim": 12,
}
MASKED = {"return_attention_mask": True}
CLAP_INPUT = {"feature_size": 16, "sampling_rate": 8000, "hop_length": 320, "max_length_s": 10, "fft_window_size": 1024}

FUSED = {**CLAP, "audio_config": {**CLAP_AUDIO, "enable_fusion": True}}
SPEECH = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_source_positions": 200, "num_mel_bins": 20, "vocab_size": 9,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
}  # fmt: skip
AST_SIZE = {"max_length": 256, "num_mel_bins": 32}

# Name -> configuration and its settings, feature extractor and its settings.
FAMILIES = {
    "ast": ("ASTConfig", {**LAYERS, **AST_SIZE}, "ASTFeatureExtractor", AST_SIZE),
    "clap": ("ClapConfig", CLAP, "ClapFeatureExtractor", {**CLAP_INPUT, "truncation": "rand_trunc"}),
    "fused clap": ("ClapConfig", FUSED, "ClapFeatureExtractor", CLAP_INPUT),
    "wav2vec2": ("Wav2Vec2Config", WAVES, "Wav2Vec2FeatureExtractor", {"do_normalize": True}),
    "hubert": ("HubertConfig", {**WAVES, "feat_extract_norm": "layer"}, "Wav2Vec2FeatureExtractor", MASKED),
    "wavlm": ("WavLMConfig", {**WAVES, "do_stable_layer_norm": True}, "Wav2Vec2FeatureExtractor", {}),
    "whisper": ("WhisperConfig", SPEECH, "WhisperFeatureExtractor", {"feature_size": 20, "chunk_length": 4}),
}


@pytest.fixture(scope="session")
def model_of(tmp_path_factory):
    """The folder of a family's tiny model: `model_of("ast")`."""
    folders = {}

    def folder(name):
        if name not in folders:
            config, settings, extractor, prepared = FAMILIES[name]
            folders[name] = tmp_path_factory.mktemp(name.replace(" ", "-"))
            torch.manual_seed(0)
            model = transformers.AutoModel.from_config(getattr(transformers, config)(**settings)).eval()
            model.save_pretrained(folders[name])
            getattr(transformers, extractor)(**prepared).save_pretrained(folders[name])
        return folders[name]

    return folder


@pytest.fixture(scope="module")
def wave():
    """Five seconds that differ, at 16 kHz: [5, 16000]."""
    generator = np.random.default_rng(0)
    notes = [tone(200 * n, 1, loudness=0.1 * n) for n in range(1, 6)]
    return np.stack(notes) + 0.01 * generator.standard_normal((5, 16_000)).astype(np.float32)


def the_librarys(folder, wave, pool=False, **options):
    """Inputs by the library's extractor of one wave [samples], and the output of its model."""
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    inputs = extractor(wave, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    inputs.pop("attention_mask", None)
    if "is_longer" in inputs:
        inputs["is_longer"] = torch.zeros_like(inputs["is_longer"])
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        if pool:
            output = model.get_audio_features(**inputs)
            return getattr(output, "pooler_output", output)
        if isinstance(model, transformers.WhisperModel):
            model = model.encoder
        return getattr(model, "audio_model", model)(**inputs, **options)


def by_second(steps, middles, seconds) -> np.ndarray:
    """[steps, width] -> [seconds, width]: the mean over those whose middles lie in each."""
    found = [[step for step, middle in zip(steps, middles, strict=True) if s <= middle < s + 1] for s in range(seconds)]
    return np.stack([np.mean(some, axis=0) for some in found])


def expected_of(name, folder, wave) -> np.ndarray:
    """Vectors of one window [seconds, samples a second] by the definition."""
    seconds = len(wave)
    states = the_librarys(folder, wave.ravel()).last_hidden_state[0].numpy()
    if name == "ast":  # patches of 16 x 16 every 10 x 10 of 32 frequencies x 256 spectra, after two tokens
        states = states[2:].reshape(2, 25, 16).mean(axis=0)
        return by_second(states, [(10 * step + 8) / 100 for step in range(25)], seconds)
    if "clap" in name:  # [width, frequencies, steps] over ten seconds
        states = states.mean(axis=1).T
        return by_second(states, [10 * (step + 0.5) / len(states) for step in range(len(states))], seconds)
    if name == "whisper":
        return by_second(states, [0.02 * (step + 0.5) for step in range(200)], seconds)
    # A step of the last convolution begins where that of the first does, and ends where its last one ends.
    middles = []
    for step in range(len(states)):
        first = last = step
        for kernel, stride in ((4, 4), (8, 5), (20, 16)):
            first, last = first * stride, last * stride + kernel - 1
        middles.append((first + last + 1) / 2 / 16_000)
    return by_second(states, middles, seconds)


def rate_of(name) -> int:
    return 8000 if "clap" in name else 16_000


WINDOWS = {"ast": 2, "clap": 10, "fused clap": 10, "whisper": 4}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_second_is_the_mean_of_the_librarys_steps_in_it(model_of, wave, name):
    wave = wave[:, :: 16_000 // rate_of(name)]
    folder = model_of(name)
    backbone = load_backbone("audio", str(folder), Options(device="cpu", seconds=5, batch_size=3))
    window = WINDOWS.get(name, 30)
    assert backbone.prepare.keywords == {"seconds": 5, "rate": rate_of(name), "window": window}
    parts = [wave[start : start + window] for start in range(0, 5, window)]
    found = backbone.network(parts)
    assert backbone.shape == (16,) and [len(vectors) for vectors in found] == [len(part) for part in parts]
    for part, vectors in zip(parts, found, strict=True):
        assert np.allclose(vectors, expected_of(name, folder, part), atol=1e-4)
    assert np.std(np.concatenate(found), axis=0).min() > 0  # seconds differ


@pytest.mark.parametrize("name", FAMILIES)
def test_the_vectors_of_a_window_do_not_depend_on_its_neighbours(model_of, wave, name):
    wave = wave[:, :: 16_000 // rate_of(name)]
    network = load_backbone("audio", str(model_of(name)), Options(device="cpu", batch_size=3)).network
    parts = [wave[:2], wave[2:3], wave[3:5]]
    for part, together in zip(parts, network(parts), strict=True):
        assert np.array_equal(network([part])[0], together)


@pytest.mark.parametrize("name", ["wav2vec2", "whisper"])
def test_a_hidden_layer_is_the_librarys(model_of, wave, name):
    backbone = load_backbone("audio", str(model_of(name)), Options(device="cpu", layer=1))
    states = the_librarys(model_of(name), wave[:1].ravel(), output_hidden_states=True).hidden_states[1][0].numpy()
    inside = states[:50] if name == "whisper" else states
    assert backbone.name == f"{model_of(name)} layer=1"
    assert np.allclose(backbone.network([wave[:1]])[0][0], inside.mean(axis=0), atol=1e-4)


def test_the_layers_of_clap_are_unfolded_as_its_output_is(model_of, wave):
    """Before its last norm: the norm of what is unfolded is what the library unfolds of the norm."""
    wave = wave[:, ::2]
    norm = transformers.AutoModel.from_pretrained(model_of("clap")).audio_model.audio_encoder.norm
    network = load_backbone("audio", str(model_of("clap")), Options(device="cpu", layer=2)).network
    network.encoder.half.audio_encoder.layers[-1].register_forward_hook(lambda *a: (norm(a[2][0]), *a[2][1:]))
    assert np.allclose(network([wave])[0], expected_of("clap", model_of("clap"), wave), atol=1e-4)


@pytest.mark.parametrize("name", ["clap", "fused clap", "ast"])
def test_the_summary_of_a_second_is_the_librarys(model_of, wave, name):
    wave = wave[:, :: 16_000 // rate_of(name)]
    backbone = load_backbone("audio", str(model_of(name)), Options(device="cpu", pool="cls", batch_size=4))
    assert backbone.prepare.keywords["window"] == 1 and backbone.shape == (16 if name == "ast" else 12,)
    found = backbone.network([wave[:1], wave[1:2]])
    for second, vector in zip(wave, found, strict=False):
        if name == "ast":
            expected = the_librarys(model_of(name), second).pooler_output
        else:
            expected = the_librarys(model_of(name), second, pool=True)
        assert np.allclose(vector, expected, atol=1e-4)


def test_sound_comes_at_the_models_rate_in_windows(tmp_path):
    path = write_media(tmp_path / "a.wav", sound=tone(440, 4.6, 48_000), rate=48_000, codecs=("", "pcm_s16le"))
    parts = list(wave_parts(MediaClip("a", str(path)), 10, 8000, 2))
    assert [part.shape for part in parts] == [(2, 8000), (2, 8000), (1, 8000)]
    assert np.array_equal(np.concatenate(parts), list(audio_seconds(path, 10, rate=8000)))
    assert np.argmax(np.abs(np.fft.rfft(parts[1][0]))) == 440


def test_extract_takes_a_folder_for_a_backbone(model_of, tmp_path):
    from hdcid_cli.commands.extract import command

    path = write_media(tmp_path / "a.wav", sound=tone(440, 2.5), codecs=("", "pcm_s16le"))
    arguments = [
        "--modality",
        "a",
        "--backbone",
        model_of("ast"),
        "--seconds",
        4,
        "--workers",
        0,
        "-o",
        tmp_path / "a.h5",
    ]
    assert command.main([*map(str, arguments), str(path)], standalone_mode=False, obj={}) == 0
    with FeatureFile([tmp_path / "a.h5"]) as file:
        assert (file.shape, file.length.tolist(), file.backbone) == ((4, 16), [3], str(model_of("ast")))
        waves = list(audio_seconds(path, 4))
        expected = [expected_of("ast", model_of("ast"), np.stack(some)) for some in (waves[:2], waves[2:])]
        assert np.allclose(file.read([0])[0, :3], np.concatenate(expected), atol=1e-4)


def test_lower_precision_stays_near(model_of, wave):
    for name in ("wav2vec2", "clap"):
        part = wave[:2, :: 16_000 // rate_of(name)]
        exact, rough = (
            load_backbone("audio", str(model_of(name)), Options(device="cpu", precision=precision)).network([part])[0]
            for precision in ("float32", "bf16")
        )
        assert 0 < np.abs(rough - exact).max() < 0.1 * np.abs(exact).max()


# --- what is refused -----------------------------------------------------------------------------


def refusal(folder, **options) -> str:
    with pytest.raises(InputError) as caught:
        load_backbone("audio", str(folder), Options(device="cpu", **options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_does_not_fit_is_one_sentence_each(model_of, tmp_path):
    assert "has the layers 0 to 2, not 7" in refusal(model_of("whisper"), layer=7)
    assert "no vector that sums up its input" in refusal(model_of("whisper"), pool="cls")
    assert "not --pool words" in refusal(model_of("whisper"), pool="words")
    for path in model_of("wav2vec2").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    said = tmp_path / "preprocessor_config.json"
    said.write_text(json.dumps({**json.loads(said.read_text()), "sampling_rate": 5}))
    assert "names no sampling rate" in refusal(tmp_path)
    said.unlink()
    assert "it has no preprocessor_config.json" in refusal(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "cannot be loaded" in refusal(tmp_path)


def test_a_picture_encoder_is_no_sound_encoder(tmp_path):
    transformers.ViTModel(transformers.ViTConfig(**LAYERS, image_size=32, patch_size=16)).save_pretrained(tmp_path)
    assert "(vit) is no sound encoder" in refusal(tmp_path)


def test_without_torchaudio_its_user_learns_which_versions_go_together(model_of, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    said = refusal(model_of("ast"))
    assert "needs torchaudio, which cannot be imported beside torch" in said
    assert "torch>=2.6,<2.15 and torchaudio>=2.6 together" in said
