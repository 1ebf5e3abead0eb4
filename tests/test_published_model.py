"""Our model with the published weights gives the published outputs (float64, reference vectors)."""

import pytest
import torch
from references import Reference

from hdcid_cli.models.hdcid import HDCID
from hdcid_cli.models.settings import ModelSettings
from hdcid_cli.published.names import club_state, cpc_state, decoder_state, encoder_state, text_state
from hdcid_cli.training.losses.club import Club
from hdcid_cli.training.losses.cmcm import cmcm, code_distribution
from hdcid_cli.training.losses.commitment import commitment
from hdcid_cli.training.losses.cpc import CPC

SHORT = {"audio": "a", "video": "v", "text": "t"}


def close(ours, reference, tolerance=1e-8):
    torch.testing.assert_close(
        ours.detach(), torch.as_tensor(reference, dtype=ours.dtype), rtol=tolerance, atol=tolerance
    )


def build(reference, modalities, layers, decoders=True):
    """Sizes of the reference files: D = 32, L = 50, maps of 24 channels."""
    config = ModelSettings(
        inputs={name: tuple(reference.arrays[f"in/{name}"].shape[2:]) for name in modalities},
        layers=layers,
        dim=32,
        codebook=50,
        map_hidden=20,
        map_specific=40,
        attention=12,
        specific={"audio": 12, "video": 24, "text": 14},
        text_hidden=0,
        standardize=False,
        spatial_attention="softmax",  # so that every published tensor has a place to be loaded into
    )
    model = HDCID(config).double().eval()
    state = encoder_state(reference.module("encoder"))
    if decoders:
        state |= decoder_state(reference.module("decoder"))
        model.load_state_dict(state)
    else:
        missing, unexpected = model.load_state_dict(state, strict=False)
        assert not unexpected and all(".decoder." in name for name in missing)
    for layer in model.layers:
        for pooling in layer.pooling.values():
            pooling.attention = "sum"
    return model


@pytest.fixture(scope="module")
def folder(shared):
    torch.set_num_threads(1)
    return shared / "reference"


def test_two_layer_model_reproduces_every_published_output(folder):
    reference = Reference(folder / "hdcid_avt.npz")
    model = build(reference, ("audio", "video", "text"), layers=2)
    outputs = model(reference.inputs(("audio", "video", "text")))
    for suffix, layer, out in zip(("", "2"), model.layers, outputs, strict=True):
        rebuilt, losses = layer.decode(out), commitment(out.general, out.codes)
        for name, short in SHORT.items():
            close(out.general[name], reference.arrays[f"out/{short}_gen{suffix}"])
            close(out.summary[name], reference.arrays[f"out/{short}_spec{suffix}"])
            close(out.quantized[name], reference.arrays[f"out/{short}_vq{suffix}"])
            close(losses[name], reference.arrays[f"out/{short}_commit{suffix}"])
            close(
                torch.nn.functional.mse_loss(rebuilt[name], out.inputs[name]),
                reference.arrays[f"out/recon_{short}{suffix}"],
            )
        if not suffix:
            close(out.specific["video"], reference.arrays["out/v_spec_map"])


@pytest.mark.parametrize("suffix,layer", [("", 0), ("2", 1)])
@pytest.mark.parametrize("modality", ["audio", "video", "text"])
def test_club_reproduces_likelihood_and_bound(folder, suffix, layer, modality):
    reference, short = Reference(folder / "hdcid_avt.npz"), SHORT[modality]
    x, y = reference[f"out/{short}_vq{suffix}"], reference[f"out/{short}_spec{suffix}"]
    club = Club(32, y.shape[-1], hidden=12).double()
    club.load_state_dict(club_state(reference.module(f"club_{short}{suffix}")))
    close(club.log_likelihood(x, y), reference.arrays[f"out/club_{short}{suffix}_loglikelihood"])
    permutation = reference[f"out/club_{short}{suffix}_perm"]
    close(club.sampled_bound(x, y, permutation), reference.arrays[f"out/club_{short}{suffix}_mi"])


@pytest.mark.parametrize(
    "file,module,suffix,modalities",
    [
        ("hdcid_avt", "cpc_1", "", ("audio", "video", "text")),
        ("hdcid_avt", "cpc_2", "2", ("audio", "video", "text")),
        ("dcid_av", "cpc_av", "", ("audio", "video")),
    ],
)
def test_cpc_reproduces_the_published_loss(folder, file, module, suffix, modalities):
    reference = Reference(folder / f"{file}.npz")
    cpc = CPC(modalities, dim=32, context=32).double()
    cpc.load_state_dict(cpc_state(reference.module(module)))
    general = {name: reference[f"out/{SHORT[name]}_gen{suffix}"] for name in modalities}
    loss, _ = cpc.score(general, reference.arrays[f"out/{module}_t"].tolist())
    close(loss, reference.arrays[f"out/{module}_loss"])


def published_names(file):
    """Outputs of the one-layer files go by two naming schemes."""
    if file == "dcid_av":
        return {"general": "out/{s}_gen", "quantized": "out/{s}_vq", "commit": "out/{s}_commit", "cmcm": "out/cmcm"}
    return {
        "general": "out/{m}_semantic_result",
        "quantized": "out/{m}_vq",
        "commit": "out/{m}_embedding_loss",
        "cmcm": "out/cmcm_loss",
    }


@pytest.mark.parametrize("file,modalities", [("dcid_avt", ("audio", "video", "text")), ("dcid_av", ("audio", "video"))])
def test_one_layer_models_reproduce_outputs_and_code_matching(folder, file, modalities):
    reference, names = Reference(folder / f"{file}.npz"), published_names(file)
    model = build(reference, modalities, layers=1, decoders=file == "dcid_avt")
    out = model(reference.inputs(modalities))[0]
    losses = commitment(out.general, out.codes)
    for name in modalities:
        close(out.general[name], reference.arrays[names["general"].format(m=name, s=SHORT[name])])
        close(out.quantized[name], reference.arrays[names["quantized"].format(m=name, s=SHORT[name])])
        close(losses[name], reference.arrays[names["commit"].format(m=name, s=SHORT[name])])
    if file == "dcid_avt":
        rebuilt = model.layers[0].decode(out)
        for name in modalities:
            close(
                torch.nn.functional.mse_loss(rebuilt[name], out.inputs[name]),
                reference.arrays[f"out/recon_{SHORT[name]}"],
            )
        close(out.specific["video"], reference.arrays["out/video_encoder_result"])
        close(out.summary["video"], reference.arrays["out/video_club_feature"])
    quantizer = model.layers[0].quantizer
    ours = cmcm({name: code_distribution(quantizer.distances(z)) for name, z in out.general.items()})
    close(ours, reference.arrays[names["cmcm"]], tolerance=1e-4)


@pytest.mark.parametrize(
    "file,modalities,layers",
    [
        ("hdcid_avt", ("audio", "video", "text"), 2),
        ("dcid_avt", ("audio", "video", "text"), 1),
        ("dcid_av", ("audio", "video"), 1),
    ],
)
def test_one_mm_ema_update_reproduces_the_published_codebook(folder, file, modalities, layers):
    reference = Reference(folder / f"{file}.npz")
    model = build(reference, modalities, layers, decoders=file != "dcid_av")
    outputs = model(reference.inputs(modalities))
    for number, (layer, out) in enumerate(zip(model.layers, outputs, strict=True)):
        layer.quantizer.update(out.general, out.indices)
        for ours, published in (("codebook", "embedding"), ("count", "ema_count"), ("weight", "ema_weight")):
            expected = reference.arrays[f"out/after_update/{published}"]
            close(getattr(layer.quantizer, ours)[0], expected[number] if layers == 2 else expected)


def test_text_front_reproduces_the_published_lstm(folder):
    reference = Reference(folder / "text_lstm.npz")
    model = HDCID(
        ModelSettings(inputs={"text": (30,)}, layers=0, dim=32, codebook=50, text_hidden=10, standardize=False)
    ).double()
    missing, unexpected = model.load_state_dict(text_state(reference.module("text_lstm")), strict=False)
    assert not unexpected and not any(name.startswith("text_front") for name in missing)
    close(model.front({"text": reference["in/words"]})["text"], reference.arrays["out/text"])
