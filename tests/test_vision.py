"""Encoders of pictures and clips with random weights, saved by transformers, against the library's own way.

The library prepares the same frames with its processors on Pillow, and its model is called directly.
"""

import json

import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from media_files import tone, write_media

from hdcid_cli.backbones import Options, load_backbone
from hdcid_cli.backbones.picture_input import center_crop, read_picture_input
from hdcid_cli.backbones.resize import resize
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import FeatureFile
from hdcid_cli.media.clips import MediaClip

VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
STAGES = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}
PVT = {
    "image_size": 64,
    "hidden_sizes": [8] * 4,
    "depths": [1] * 4,
    "num_attention_heads": [1] * 4,
    "sr_ratios": [4, 2, 1, 1],
    "mlp_ratios": [1] * 4,
}
CLIP_HALVES = {
    "vision_config": {**VIT, "image_size": 32, "patch_size": 8},
    "text_config": {**VIT, "vocab_size": 20, "max_position_embeddings": 16},
    "projection_dim": 12,
}
MEAN, DEVIATION = [0.48, 0.45, 0.4], [0.26, 0.25, 0.28]

VIT_32 = {**VIT, "image_size": 32, "patch_size": 8}
DINO = {**VIT, "image_size": 42, "patch_size": 14}
SWIN = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 1], "window_size": 4}
CLIP_OF_4 = {**VIT, "image_size": 32, "patch_size": 16, "num_frames": 4}
RESNET = {"hidden_sizes": [8, 16], "depths": [1, 1], "embedding_size": 8, "hidden_act": "tanh"}
SQUARE = {"size": {"height": 32, "width": 32}}
CROPPED = {"size": {"shortest_edge": 50}, "crop_size": {"height": 42, "width": 42}}
REDUCED = {"sequence_reduction_ratios": [4, 2, 1, 1]}

# Name -> (configuration and its settings, processor on Pillow and its settings, tokens before the patches).
# None for the last: a feature map.
FAMILIES = {
    "vit": ("ViTConfig", {**VIT, "image_size": 32, "patch_size": 4}, "ViTImageProcessor", SQUARE, 1),
    "deit": ("DeiTConfig", VIT_32, "DeiTImageProcessor", {"size": {"height": 40, "width": 40}, "crop_size": 32}, 2),
    "dinov2": ("Dinov2Config", DINO, "BitImageProcessor", CROPPED, 1),
    "registers": ("Dinov2WithRegistersConfig", {**DINO, "num_register_tokens": 4}, "BitImageProcessor", CROPPED, 5),
    "clip": ("CLIPConfig", CLIP_HALVES, "CLIPImageProcessor", {"size": {"shortest_edge": 32}, "crop_size": 32}, 1),
    "siglip": ("SiglipConfig", CLIP_HALVES, "SiglipImageProcessor", SQUARE, 0),
    "swin": ("SwinConfig", SWIN, "ViTImageProcessor", {**SQUARE, "resample": 3}, 0),
    "convnext": ("ConvNextConfig", STAGES, "ConvNextImageProcessor", {"size": {"shortest_edge": 32}}, None),
    "resnet": ("ResNetConfig", RESNET, "ConvNextImageProcessor", {"size": {"shortest_edge": 384}}, None),
    "pvt": ("PvtConfig", {**PVT, **REDUCED}, "PvtImageProcessor", {"size": {"height": 64, "width": 64}}, 1),
    "pvt_v2": ("PvtV2Config", PVT, "PvtImageProcessor", {"size": {"height": 64, "width": 64}}, None),
}  # fmt: skip
CLIPS = {
    "videomae": ("VideoMAEConfig", CLIP_OF_4, "VideoMAEImageProcessor"),
    "vivit": ("VivitConfig", {**CLIP_OF_4, "tubelet_size": [2, 16, 16]}, "VivitImageProcessor"),
    "timesformer": ("TimesformerConfig", CLIP_OF_4, "VideoMAEImageProcessor"),
}


def processor_class(name):
    return getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)


def save(folder, config, settings, processor, prepared):
    torch.manual_seed(0)
    config = getattr(transformers, config)(**settings)
    model = transformers.AutoModel.from_config(config).eval()
    for name, value in model.named_buffers():  # as after training: not 0 and 1
        if "running_" in name:
            value.uniform_(0.5, 1.5)
    model.save_pretrained(folder)
    processor_class(processor)(image_mean=MEAN, image_std=DEVIATION, **prepared).save_pretrained(folder)


@pytest.fixture(scope="session")
def model_of(tmp_path_factory):
    """The folder of a family's tiny model: `model_of("vit")`."""
    folders = {}

    def folder(name):
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name.replace(" ", "-"))
            if name in FAMILIES:
                save(folders[name], *FAMILIES[name][:4])
            else:
                save(folders[name], *CLIPS[name], {"size": {"shortest_edge": 40}, "crop_size": 32})
        return folders[name]

    return folder


@pytest.fixture(scope="module")
def frames():
    """A second of four frames that are smooth, as pictures are, with sharp edges in them: [4, 60, 90, 3] uint8."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[0:1:60j, 0:1:90j]
    waves = [np.sin(20 * generator.uniform() * x + 30 * generator.uniform() * y + n) for n in range(12)]
    pictures = np.stack(waves).reshape(4, 3, 60, 90).transpose(0, 2, 3, 1)
    pictures[:, 20:30, 30:50] = generator.uniform(-1, 1, (4, 1, 1, 3))
    return (127.5 * (1 + pictures)).round().astype(np.uint8)


def the_librarys_pixels(folder, processor, frames, **options):
    loaded = processor_class(processor).from_pretrained(folder)
    return loaded(list(frames), return_tensors="pt", **options)["pixel_values"]


def features_of(folder, frames, **options):
    backbone = load_backbone("video", str(folder), Options(device="cpu", fps=len(frames), **options))
    return backbone, backbone.network([frames[None]])[0][0]


# --- what a frame becomes ------------------------------------------------------------------------


@pytest.fixture
def rows_first(monkeypatch):
    """Pillow scales along the rows first, as all versions before 13 always did."""
    whole = PIL.Image.Image.resize

    def resize(picture, size, resample=None, *_, **__):
        return whole(whole(picture, (size[0], picture.height), resample), size, resample)

    monkeypatch.setattr(PIL.Image.Image, "resize", resize)


def assert_same_pixels(found, expected):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-4


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("turned", [False, True])
def test_frames_are_prepared_as_the_library_does(model_of, frames, rows_first, name, turned):
    frames = frames.transpose(0, 2, 1, 3) if turned else frames
    expected = the_librarys_pixels(model_of(name), FAMILIES[name][2], frames)
    prepared = read_picture_input(model_of(name))
    assert_same_pixels(prepared(torch.from_numpy(frames.copy())), expected)
    assert tuple(expected.shape[2:]) == prepared.shape


@pytest.mark.parametrize("name", CLIPS)
def test_clips_are_prepared_as_the_library_does(model_of, frames, rows_first, name):
    expected = the_librarys_pixels(model_of(name), CLIPS[name][2], frames)[0]
    assert_same_pixels(read_picture_input(model_of(name))(torch.from_numpy(frames)), expected)


# As the files of well-known models say it, from the years when a size was one number.
@pytest.mark.parametrize(
    ("said", "processor", "settings"),
    [
        ({"feature_extractor_type": "CLIPFeatureExtractor", "size": 24, "crop_size": 24, "resample": 3,
          "do_center_crop": True}, "CLIPImageProcessor", {"size": {"shortest_edge": 24}, "crop_size": 24}),
        ({"do_resize": True, "size": 24}, "ViTImageProcessor", {"size": {"height": 24, "width": 24}}),
        ({"feature_extractor_type": "ConvNextFeatureExtractor", "size": 28, "crop_pct": 0.875, "resample": 3},
         "ConvNextImageProcessor", {"size": {"shortest_edge": 28}}),
        ({"image_processor_type": "SiglipImageProcessor", "size": {"height": 24, "width": 20}, "resample": 0},
         "SiglipImageProcessor", {"size": {"height": 24, "width": 20}, "resample": 0}),
        ({"image_processor_type": "BitImageProcessorFast", "size": {"shortest_edge": 30},
          "crop_size": {"height": 40, "width": 24}},
         "BitImageProcessor", {"size": {"shortest_edge": 30}, "crop_size": {"height": 40, "width": 24}}),
        ({"image_processor_type": "CLIPImageProcessor", "do_resize": False, "crop_size": 70, "do_rescale": False},
         "CLIPImageProcessor", {"do_resize": False, "crop_size": 70, "do_rescale": False}),
    ],
)  # fmt: skip
def test_old_and_terse_files_are_understood(frames, rows_first, tmp_path, said, processor, settings):
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": MEAN, "image_std": DEVIATION, "do_normalize": True, **said})
    )
    loaded = processor_class(processor)(image_mean=MEAN, image_std=DEVIATION, **settings)
    expected = loaded(list(frames), return_tensors="pt")["pixel_values"].float()
    found = read_picture_input(tmp_path)(torch.from_numpy(frames))
    assert_same_pixels(found, expected)


def test_fractions_are_scaled_without_rounding_where_the_processor_does_so(frames, tmp_path):
    """DINOv3's processor exists for torchvision alone, which calls this function of torch on fractions of 255."""
    said = {"image_processor_type": "DINOv3ViTImageProcessorFast", "size": {"height": 32, "width": 32}, "resample": 2}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**said, "image_mean": MEAN, "image_std": DEVIATION}))
    x = torch.from_numpy(frames).permute(0, 3, 1, 2) / 255
    x = torch.nn.functional.interpolate(x, (32, 32), mode="bilinear", antialias=True)
    expected = (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None]
    assert torch.allclose(read_picture_input(tmp_path)(torch.from_numpy(frames)), expected, atol=1e-5)


@pytest.mark.parametrize("resample", [0, 2, 3])
def test_pictures_are_scaled_as_pillow_does_to_the_last_digit(rows_first, resample):
    generator = np.random.default_rng(1)
    for height, width, target in ((61, 90, (32, 32)), (40, 33, (80, 70)), (90, 50, (13, 50)), (64, 64, (32, 16))):
        picture = generator.integers(0, 256, (height, width, 3), np.uint8)
        expected = np.asarray(PIL.Image.fromarray(picture).resize(target[::-1], resample=resample))
        assert np.array_equal(resize(torch.from_numpy(picture)[None], target, resample)[0].numpy(), expected)


def test_a_crop_larger_than_the_picture_is_filled_with_zeros():
    from transformers.image_transforms import center_crop as expected

    for height, width, want in ((5, 8, (7, 4)), (4, 4, (7, 6)), (6, 9, (3, 12)), (9, 9, (4, 5))):
        x = np.arange(3.0 * height * width).reshape(3, height, width)
        assert np.array_equal(center_crop(torch.from_numpy(x), *want).numpy(), expected(x, want))


# --- what the features are -----------------------------------------------------------------------


def pooled(maps: np.ndarray, grid: int) -> np.ndarray:
    """[frames, width, side, side] -> [grid, grid, width] by the definition: means over cells, then over frames."""
    side = maps.shape[-1]
    edges = [(side * k // grid, -(-side * (k + 1) // grid)) for k in range(grid)]
    rows = [[maps[:, :, a:b, c:d].mean(axis=(2, 3)) for c, d in edges] for a, b in edges]
    return np.array([[cell.mean(axis=0) for cell in row] for row in rows])


@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_the_librarys_hidden_states_averaged_over_cells_and_frames(model_of, frames, name):
    folder, (_, _, _, _, before) = model_of(name), FAMILIES[name]
    model = transformers.AutoModel.from_pretrained(folder)
    model = getattr(model, "vision_model", model).eval()
    pixels = read_picture_input(folder)(torch.from_numpy(frames))
    with torch.inference_mode():
        states = model(pixel_values=pixels).last_hidden_state
    if before is not None:
        side = int((states.shape[1] - before) ** 0.5)
        assert side**2 + before == states.shape[1] and side > 1
        states = states[:, before:].reshape(len(frames), side, side, -1).permute(0, 3, 1, 2)
    backbone, found = features_of(folder, frames, grid=2)
    assert backbone.shape == (2, 2, states.shape[1]) and backbone.name == f"{folder} grid=2 fps=4"
    assert np.allclose(found, pooled(states.numpy(), 2), atol=1e-4)
    if name in ("vit", "resnet"):
        assert features_of(folder, frames)[0].shape == (7, 7, states.shape[1])
        assert np.allclose(features_of(folder, frames)[1], pooled(states.numpy(), 7), atol=1e-4)
        backbone, vector = features_of(folder, frames, grid=1)
        assert backbone.shape == vector.shape == (states.shape[1],)
        assert np.allclose(vector, states.numpy().mean(axis=(0, 2, 3)), atol=1e-4)


def test_the_class_token_is_the_librarys_first(model_of, frames):
    pixels = read_picture_input(model_of("dinov2"))(torch.from_numpy(frames))
    with torch.inference_mode():
        output = transformers.AutoModel.from_pretrained(model_of("dinov2")).eval()(pixel_values=pixels)
    backbone, found = features_of(model_of("dinov2"), frames, pool="cls")
    assert backbone.shape == (16,) and backbone.name.endswith(" pool=cls fps=4")
    assert np.allclose(found, output.pooler_output.mean(dim=0), atol=1e-4)  # DINOv2's pooler takes the first token


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_a_paired_models_summary_is_its_embedding(model_of, frames, name):
    pixels = read_picture_input(model_of(name))(torch.from_numpy(frames))
    model = transformers.AutoModel.from_pretrained(model_of(name)).eval()
    with torch.inference_mode():
        states = model.vision_model(pixel_values=pixels).pooler_output
        expected = model.visual_projection(states) if name == "clip" else states
    backbone, found = features_of(model_of(name), frames, pool="cls")
    assert backbone.shape == expected.shape[1:]
    assert np.allclose(found, expected.mean(dim=0), atol=1e-4)


def test_a_hidden_layer_is_the_librarys(model_of, frames):
    pixels = read_picture_input(model_of("vit"))(torch.from_numpy(frames))
    with torch.inference_mode():
        model = transformers.AutoModel.from_pretrained(model_of("vit")).eval()
        states = model(pixel_values=pixels, output_hidden_states=True).hidden_states
    backbone, found = features_of(model_of("vit"), frames, grid=1, layer=1)
    assert backbone.name.endswith(" grid=1 layer=1 fps=4")
    assert np.allclose(found, states[1][:, 1:].mean(dim=(0, 1)), atol=1e-4)
    with pytest.raises(InputError, match="has the layers 0 to 2, not 3"):
        features_of(model_of("vit"), frames, layer=3)


@pytest.mark.parametrize("name", CLIPS)
def test_a_second_is_one_clip_of_a_video_encoder(model_of, frames, name):
    """By the definition: each patch of each step has the place that the model's own embedding gives it."""
    folder = model_of(name)
    pixels = read_picture_input(folder)(torch.from_numpy(frames))
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        states = model(pixel_values=pixels[None]).last_hidden_state[0]
    before = {"videomae": 0, "vivit": 1, "timesformer": 1}[name]
    if name == "timesformer":  # patch by patch, each with all its times
        expected = states[before:].reshape(2, 2, 4, 16).mean(dim=2)
    else:  # pairs of frames, row by row
        expected = states[before:].reshape(2, 2, 2, 16).mean(dim=0)
    _, found = features_of(folder, frames, grid=2)
    assert np.allclose(found, expected, atol=1e-4)
    if before:
        assert np.allclose(features_of(folder, frames, pool="cls")[1], states[0], atol=1e-4)
    else:
        with pytest.raises(InputError, match="no class token: use --grid 1"):
            features_of(folder, frames, pool="cls")
    assert (
        load_backbone("video", str(folder), Options(device="cpu")).prepare.keywords["fps"] == 4
    )  # as many as it takes
    twice = np.repeat(frames, 2, axis=0)
    assert np.allclose(features_of(folder, twice, grid=2)[1], found, atol=1e-5)


def test_frames_of_any_shape_go_through_together_and_change_nothing(model_of, frames):
    backbone = load_backbone("video", str(model_of("vit")), Options(device="cpu", fps=4, batch_size=3))
    parts = [frames[None], np.ascontiguousarray(frames[None, :, :40, :33]), frames[None, :, ::2]]
    together = backbone.network(parts)
    for part, features in zip(parts, together, strict=True):
        assert np.array_equal(backbone.network([part])[0], features)


def test_lower_precision_stays_near(model_of, frames):
    for name in ("dinov2", "resnet"):
        exact = features_of(model_of(name), frames)[1]
        rough = features_of(model_of(name), frames, precision="bf16")[1]
        assert exact.any()
        assert 0 < np.abs(rough - exact).max() < 0.05 * np.abs(exact).max()


def test_extract_takes_a_folder_for_a_backbone(model_of, frames, tmp_path):
    from hdcid_cli.commands.extract import command

    path = write_media(tmp_path / "a.mp4", np.repeat(frames, 5, axis=0), fps=10, sound=tone(300, 2))
    arguments = [
        "--modality",
        "v",
        "--backbone",
        model_of("vit"),
        "--fps",
        4,
        "--grid",
        5,
        "--seconds",
        3,
        "--workers",
        0,
    ]
    assert (
        command.main([*map(str, arguments), "-o", str(tmp_path / "v.h5"), str(path)], standalone_mode=False, obj={})
        == 0
    )
    with FeatureFile([tmp_path / "v.h5"]) as file:
        assert (file.shape, str(file.dtype), file.length.tolist()) == ((3, 5, 5, 16), "float16", [2])
        assert file.backbone == f"{model_of('vit')} grid=5 fps=4" and file.weights.startswith("sha256:")
        backbone = load_backbone("video", str(model_of("vit")), Options(device="cpu", fps=4, grid=5))
        expected = [backbone.network([part])[0][0] for part in backbone.prepare(MediaClip("a", str(path)))]
        assert np.allclose(file.read([0])[0, :2], expected, atol=2e-3)


def test_large_frames_are_halved_on_the_way(model_of, tmp_path):
    path = write_media(tmp_path / "a.mp4", np.zeros((2, 200, 120, 3), np.uint8), fps=2)
    backbone = load_backbone("video", str(model_of("vit")), Options(device="cpu", fps=2))
    assert next(backbone.prepare(MediaClip("a", str(path)))).shape == (1, 2, 107, 64, 3)  # the model wants 32


# --- what is refused -----------------------------------------------------------------------------


def refusal(folder, modality="video", **options) -> str:
    with pytest.raises(InputError) as caught:
        load_backbone(modality, str(folder), Options(device="cpu", **options))
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    return str(caught.value)


@pytest.fixture
def copy(model_of, tmp_path):
    def make(name):
        for path in model_of(name).iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        return tmp_path

    return make


def test_a_model_of_another_modality_is_refused(tmp_path):
    transformers.BertModel(transformers.BertConfig(**VIT, vocab_size=9)).save_pretrained(tmp_path)
    assert "(bert) is no picture encoder: name a picture encoder" in refusal(tmp_path)


def test_missing_and_damaged_parts_are_one_sentence_each(copy):
    folder = copy("vit")
    config = folder / "preprocessor_config.json"
    said = json.loads(config.read_text())
    for change, expected in (
        ({"image_processor_type": "LevitImageProcessor"}, "prepared by LevitImageProcessor, which is not known"),
        ({"size": {"shortest_edge": 32}}, "its pictures would not have one size"),
        ({"size": "large"}, "cannot be understood"),
        ({"size": {"height": 10**9, "width": 4}}, "cannot be understood"),
        ({"image_std": [0, 0, 0]}, "cannot be understood"),
        ({"resample": 1}, "Pillow's filter 1"),
        ({"size": {"height": 48, "width": 48}}, "does not take what its own files prepare"),
    ):
        config.write_text(json.dumps({**said, **change}))
        assert expected in refusal(folder)
    config.write_text("{")
    assert "preprocessor_config.json is not JSON" in refusal(folder)
    config.unlink()
    assert "it has no preprocessor_config.json" in refusal(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "cannot be loaded" in refusal(folder)


def test_weights_that_are_missing_are_not_drawn_at_random(copy):
    from safetensors.torch import load_file, save_file

    folder = copy("vit")
    weights = load_file(folder / "model.safetensors")
    for name in [name for name in weights if "pooler" in name]:  # which no feature is made of
        del weights[name]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    first, second = (load_backbone("video", str(folder), Options(device="cpu")) for _ in range(2))
    assert first.weights == second.weights
    del weights[next(name for name in weights if "layernorm" in name)]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert "it has no weights" in refusal(folder)


def test_a_picture_model_that_draws_at_random_is_refused(tmp_path):
    config = transformers.ViTMAEConfig(
        **VIT, image_size=32, patch_size=8, decoder_hidden_size=8, decoder_num_attention_heads=1
    )
    transformers.ViTMAEModel(config).save_pretrained(tmp_path)
    assert "at random" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pool": "words"}, "not by --pool words"),
        ({"pool": "cls", "grid": 3}, "--grid is for video features, without --pool cls"),
    ],
)
def test_options_that_do_not_fit_are_refused(model_of, options, said):
    with pytest.raises(InputError, match=said):
        load_backbone("video", str(model_of("vit")), Options(**options))
    with pytest.raises(InputError, match="for models of transformers, not for hog"):
        load_backbone("video", "hog", Options(grid=3))
