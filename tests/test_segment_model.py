"""The segmenter's parts against computations written out step by step."""

import numpy as np
import pytest
import torch
from segment_world import TINY as TINY_RESNET

from hdcid_cli.core.errors import InputError
from hdcid_cli.tasks.segmentation.augment import augment
from hdcid_cli.tasks.segmentation.backbones import PUBLISHED, build_backbone, layout_of, load_backbone
from hdcid_cli.tasks.segmentation.decoder import DILATIONS, Decoder, DilatedSum, Head, RefinementUnit
from hdcid_cli.tasks.segmentation.queries import to_frames
from hdcid_cli.tasks.segmentation.segmenter import Segmenter, SegmenterSettings
from hdcid_cli.tasks.segmentation.tpavi import TPAVI

TINY = {
    "model_type": "pvt_v2",
    "num_attention_heads": [1, 1, 2, 2],
    "hidden_sizes": [8, 8, 16, 16],
    "depths": [1, 1, 1, 1],
}


def randomise(module: torch.nn.Module) -> torch.nn.Module:
    """Random values in place of zeros and ones, so that every parameter and statistic matters."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in module.state_dict().items():
        if tensor.dtype.is_floating_point:
            value = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
            tensor.copy_(value + 0.5 if name.endswith("running_var") else value - 0.5)
    return module


def numpy_tpavi(block: TPAVI, x: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Pixel by pixel, with the map of all pairs that the published code builds; one clip [C, T, H, W], [T, Q]."""
    p = {name: value.numpy() for name, value in block.state_dict().items()}
    _, frames, height, width = x.shape

    def conv(name, vector):
        return p[f"{name}.weight"].reshape(len(p[f"{name}.bias"]), -1) @ vector + p[f"{name}.bias"]

    pixels = [(t, i, j) for t in range(frames) for i in range(height) for j in range(width)]
    theta = np.stack([conv("theta", x[:, t, i, j]) for t, i, j in pixels])
    g = np.stack([conv("g", x[:, t, i, j]) for t, i, j in pixels])
    phi = np.stack([conv("phi", conv("align", query[t])) for t, _, _ in pixels])
    y = (theta @ phi.T / len(pixels)) @ g
    result = np.empty_like(x)
    for number, (t, i, j) in enumerate(pixels):
        w = conv("w_z.0", y[number])
        w = (w - p["w_z.1.running_mean"]) / np.sqrt(p["w_z.1.running_var"] + 1e-5) * p["w_z.1.weight"] + p["w_z.1.bias"]
        z = x[:, t, i, j] + w
        z = (z - z.mean()) / np.sqrt(z.var() + 1e-5)
        result[:, t, i, j] = z * p["norm.weight"] + p["norm.bias"]
    return result


def test_tpavi_equals_a_step_by_step_computation():
    block = randomise(TPAVI(channels=6, query=4).double()).eval()
    random = np.random.default_rng(0)
    x, query = random.normal(size=(2, 6, 3, 4, 5)), random.normal(size=(2, 3, 4))
    found = block(torch.from_numpy(x), torch.from_numpy(query)).detach().numpy()
    for clip in range(2):
        np.testing.assert_allclose(found[clip], numpy_tpavi(block, x[clip], query[clip]), rtol=1e-10, atol=1e-12)


def test_tpavi_only_normalises_at_first():
    block = TPAVI(channels=8, query=4)
    x = torch.randn(2, 8, 5, 3, 3)
    expected = torch.nn.functional.layer_norm(x.movedim(1, -1), (8,)).movedim(-1, 1)
    torch.testing.assert_close(block(x, torch.randn(2, 5, 4)), expected)


def test_tpavi_can_heed_the_query_from_the_first_step():
    torch.manual_seed(0)
    block = TPAVI(channels=8, query=4, start=1.0)
    x = torch.randn(2, 8, 5, 3, 3)
    one, other = (block(x, torch.randn(2, 5, 4)) for _ in range(2))
    assert (one - other).abs().max() > 0.01


@pytest.mark.parametrize("side", [2, 3, 7, 20])
def test_sparing_taps_off_the_map_changes_neither_sum_nor_gradients(side):
    """Against every tap at every place, with the map's surroundings written out as zeros."""
    torch.manual_seed(0)
    block = randomise(DilatedSum(3, 4).double())
    x = torch.randn(2, 3, side, side, dtype=torch.float64, requires_grad=True)
    reach = max(DILATIONS)
    around = torch.nn.functional.pad(x, [reach] * 4)
    expected = torch.zeros(2, 4, side, side, dtype=torch.float64)
    for convolution, step in zip(block.convolutions, DILATIONS, strict=True):
        expected = expected + convolution.bias[:, None, None]
        for row in range(3):
            for column in range(3):
                top, left = reach + (row - 1) * step, reach + (column - 1) * step
                seen = around[:, :, top : top + side, left : left + side]
                expected = expected + torch.einsum("oc,nchw->nohw", convolution.weight[:, :, row, column], seen)
    found = block(x)
    torch.testing.assert_close(found, expected)
    inputs = [x, *block.parameters()]
    for one, other in zip(
        torch.autograd.grad(found.square().sum(), inputs),
        torch.autograd.grad(expected.square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("width", "channels"), [(256, (128, 32)), (32, (16, 16)), (8, (16, 16))], ids=["published", "narrow", "narrowest"]
)
def test_narrow_head_keeps_channels_to_lose(width, channels):
    head = Head(width)
    assert (head.conv1.out_channels, head.conv2.out_channels) == channels
    assert head(torch.randn(2, width, 4, 4)).shape == (2, 8, 8)


def test_residual_unit_sums_the_rectified_input():
    unit = randomise(RefinementUnit(3))
    x = torch.randn(1, 3, 6, 6)
    with torch.no_grad():
        unit.conv2.weight.zero_()
        expected = x.clamp(min=0) + unit.conv2.bias.view(3, 1, 1)
        torch.testing.assert_close(unit(x), expected)


@pytest.mark.parametrize("layout", [TINY, TINY_RESNET], ids=["pvt", "resnet"])
def test_output_is_independent_of_the_batch(layout):
    torch.manual_seed(0)
    model = randomise(Segmenter(SegmenterSettings(layout, query=6, width=16, size=32))).double().eval()
    pictures = torch.randint(0, 256, (3, 5, 32, 32, 3), dtype=torch.uint8)
    query = torch.randn(3, 5, 6).double()
    with torch.no_grad():
        together = model(pictures, query)
        alone = torch.cat([model(pictures[[clip]], query[[clip]]) for clip in range(3)])
    assert together.shape == (3, 5, 32, 32)
    assert together.std() > 1e-3
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-10)


def test_masks_follow_the_query():
    torch.manual_seed(0)
    model = randomise(Segmenter(SegmenterSettings(TINY, query=6, width=16, size=32))).eval()
    pictures = torch.randint(0, 256, (1, 5, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        one, other = (model(pictures, torch.randn(1, 5, 6)) for _ in range(2))
    assert (one - other).abs().max() > 1e-3


def test_sparing_frames_changes_neither_masks_nor_gradients():
    torch.manual_seed(0)
    decoder = randomise(Decoder([8, 8, 16, 16], query=6, width=16).double()).train()
    stages = [
        torch.randn(10, channels, 32 // 2**k, 32 // 2**k).double() for k, channels in enumerate((8, 8, 16, 16), 2)
    ]
    query = torch.randn(2, 5, 6).double()
    gradients, masks = [], []
    for wanted in (None, 1):
        decoder.zero_grad()
        masks.append(decoder(stages, query, wanted)[:, :1])
        masks[-1].square().mean().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in decoder.parameters()]))
    torch.testing.assert_close(masks[0], masks[1])
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_layouts_give_four_stages(name):
    with torch.device("meta"):
        backbone = build_backbone(PUBLISHED[name][1])
        maps = backbone(torch.zeros(1, 3, 64, 64)).feature_maps
    assert [tuple(x.shape[2:]) for x in maps] == [(16, 16), (8, 8), (4, 4), (2, 2)]
    assert [x.shape[1] for x in maps] == list(backbone.channels)
    # As published, without the classifier: 81.4 and 3.4 million (PVT v2), 23.5 and 11.2 (ResNet); 1.2 of the small one.
    millions = sum(parameter.numel() for parameter in backbone.parameters()) / 1e6
    assert millions == pytest.approx(
        {"pvt_v2_b5": 81.4, "pvt_v2_b0": 3.41, "resnet50": 23.5, "resnet18": 11.2, "resnet10": 1.23}[name], rel=0.01
    )


def test_augmented_masks_stay_on_their_objects():
    """Pictures are bright exactly on the mask: so are they afterwards, at other places and sizes."""
    masks = torch.zeros(12, 1, 32, 32, dtype=torch.bool)
    masks[:, :, 8:20, 4:14] = True
    pictures = (masks[..., None] * 255).expand(-1, 5, -1, -1, 3).to(torch.uint8)
    torch.manual_seed(0)
    changed, moved = augment(pictures, masks)
    assert changed.shape == pictures.shape and moved.shape == masks.shape
    assert ((changed[:, 0, ..., 0] > 128) == moved[:, 0]).float().mean() > 0.98
    torch.testing.assert_close(changed[:, :1].expand(-1, 5, -1, -1, -1), changed)
    columns = {tuple(clip[0].any(0).nonzero().flatten().tolist()) for clip in moved}
    assert len(columns) > 8 and any(max(found) > 20 for found in columns if found), "some are mirrored"
    assert max(int(clip.sum()) for clip in moved) > 1.5 * int(masks[0].sum()), "crops enlarge"


def test_backbone_weights_come_from_a_local_folder(tmp_path):
    from transformers import AutoConfig, PvtV2ForImageClassification

    classifier = PvtV2ForImageClassification(AutoConfig.for_model(**TINY))
    classifier.save_pretrained(tmp_path)
    backbone = load_backbone(str(tmp_path))
    weights = classifier.state_dict()
    assert len(backbone.channels) == 4
    assert all(torch.equal(value, weights[f"pvt_v2.{name}"]) for name, value in backbone.state_dict().items())


@pytest.mark.parametrize("layout", [TINY, TINY_RESNET, PUBLISHED["pvt_v2_b5"][1]], ids=["pvt", "resnet", "b5"])
def test_backbone_is_rebuilt_from_its_layout(layout):
    with torch.device("meta"):
        backbone = build_backbone(layout)
        again = build_backbone(layout_of(backbone))
    shapes = [{name: value.shape for name, value in module.state_dict().items()} for module in (backbone, again)]
    assert shapes[0] == shapes[1] and len(shapes[0]) > 50


def test_folder_without_a_backbone_is_refused(tmp_path):
    with pytest.raises(InputError, match="--random-weights"):
        load_backbone(str(tmp_path))


def test_backbone_of_another_kind_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(InputError, match="PVT-v2 or a ResNet"):
        load_backbone(str(tmp_path))


def test_sizes_that_the_stages_cannot_halve_are_refused():
    with pytest.raises(InputError, match="multiple of 32"):
        SegmenterSettings(TINY, query=6, size=100)


def test_steps_are_mapped_to_frames_by_the_valid_length():
    steps = np.arange(10, dtype=np.float32)[None, :, None].repeat(4, 0)
    mapped = to_frames(steps, np.array([10, 5, 1, 7]))[..., 0]
    np.testing.assert_allclose(mapped[0], [0.5, 2.5, 4.5, 6.5, 8.5])
    np.testing.assert_allclose(mapped[1], [0, 1, 2, 3, 4])
    np.testing.assert_allclose(mapped[2], [0, 0, 0, 0, 0])
    np.testing.assert_allclose(mapped[3], [0.5, 1.5, 3, 4.5, 5.5])
