"""CoDAAR's aligned codebook: the published numbers, and what holds of it on data of our own."""

from itertools import combinations

import numpy as np
import pytest
import torch
from references import Reference
from torch.nn.functional import mse_loss

from hdcid_cli.codes.checkpoint import open_checkpoint
from hdcid_cli.core.distributed import World
from hdcid_cli.core.errors import InputError
from hdcid_cli.models.hdcid import HDCID
from hdcid_cli.models.quantizers.aligned import BLOCKS, AlignedQuantizer
from hdcid_cli.models.settings import ModelSettings
from hdcid_cli.published.checkpoint import convert_checkpoint
from hdcid_cli.published.codaar import codaar_decoder_state, codaar_encoder_state
from hdcid_cli.published.names import cpc_state
from hdcid_cli.training.losses.cmcm import cmcm, code_distribution
from hdcid_cli.training.losses.commitment import commitment
from hdcid_cli.training.losses.cpc import CPC
from hdcid_cli.training.losses.infonce import info_nce
from hdcid_cli.training.objective import Objective
from hdcid_cli.training.settings import ObjectiveSettings, TrainSettings
from hdcid_cli.training.trainer import Trainer

SIZES = {"dim": 32, "codebook": 50, "map_hidden": 20, "map_specific": 40, "attention": 12, "specific": 32}
KINDS = [("codaar_avt", ("audio", "video", "text")), ("codaar_av", ("audio", "video"))]

pytestmark = pytest.mark.usefixtures("double")


class CodaarReference(Reference):
    def model(self, modalities):
        """Our model with the published weights; text is read behind the LSTM."""
        inputs = {name: tuple(self[f"in/{name}"].shape[2:]) for name in modalities}
        settings = {"layers": 1, "quantizer": "aligned", "map_encoder": "bn", "text_hidden": 0, "standardize": False}
        model = HDCID(ModelSettings(inputs=inputs, spatial_attention="softmax", **settings, **SIZES)).eval()
        state = codaar_encoder_state(self.module("encoder")) | codaar_decoder_state(self.module("decoder"))
        missing, unexpected = model.load_state_dict(state, strict=False)
        assert not unexpected and all(".specific.video.summary." in name for name in missing)
        model.layers[0].pooling["video"].attention = "sum"
        return model


def close(ours, published):
    torch.testing.assert_close(ours.detach(), published, rtol=1e-8, atol=1e-8)


def published_cmcm(distributions):
    """Cross-modal code matching to the last digit: the published code adds 1e-5 to a sum of exponentials."""
    loss = 0.0
    for p, q in combinations(distributions.values(), 2):
        similarity = p @ (q + 1e-10).log().T + q @ (p + 1e-10).log().T
        scaled = (similarity + (-similarity).max()).exp()
        loss = loss - 0.5 * (scaled.diagonal() / (scaled.sum(dim=1) + 1e-5)).log().mean()
    return loss


@pytest.fixture(params=KINDS, ids=lambda kind: kind[0])
def published(request, shared):
    """(reference vectors, our model, its output, modalities)."""
    file, modalities = request.param
    reference = CodaarReference(shared / "reference" / f"{file}.npz")
    model = reference.model(modalities)
    return reference, model, model({name: reference[f"in/{name}"] for name in modalities})[0], modalities


def test_features_codes_rows_and_reconstructions_are_the_published_ones(published):
    reference, model, out, modalities = published
    rebuilt = model.layers[0].decode(out)
    for name in modalities:
        short = name[0]
        close(out.general[name], reference[f"out/{short}_gen"])
        close(out.specific[name], reference[f"out/{short}_spec_map" if name == "video" else f"out/{short}_spec"])
        close(out.codes[name], reference[f"out/{short}_vq"])
        close(out.quantized[name], reference[f"out/{short}_row"])
        assert torch.equal(out.indices[name][..., 0], reference[f"out/{short}_index"])
        close(rebuilt[name], reference[f"out/recon_{short}"])
        quantized, _ = model.encode(name, reference[f"in/{name}"])
        close(quantized[:, :, 0], reference[f"out/{short}_row"])
    for name in modalities:
        share = np.bincount(out.indices[name].flatten(), minlength=50) / out.indices[name].numel()
        perplexity = np.exp(-(share * np.log(share + 1e-10)).sum())
        assert reference[f"out/{name[0]}_perplexity"].item() == pytest.approx(perplexity)
    commonest = [[np.bincount(clip).argmax() for clip in out.indices[name][..., 0]] for name in modalities]
    assert sum(len(set(codes)) == 1 for codes in zip(*commonest, strict=True)) == reference["out/equal"]


def test_losses_and_their_gradients_are_the_published_ones(published):
    reference, model, _, modalities = published
    layer, inputs = model.layers[0], {name: reference[f"in/{name}"] for name in modalities}
    out = layer(inputs)
    for z in out.general.values():
        z.retain_grad()
    layer.quantize(out)
    committed = commitment(out.general, out.codes, share=layer.quantizer.others_share)
    distributions = {name: code_distribution(layer.quantizer.distances(z, name)) for name, z in out.general.items()}
    cpc = CPC(modalities, dim=32, context=32)
    cpc.load_state_dict(cpc_state(reference.module("cpc")))
    predicted, _ = cpc.score(out.general, reference["out/cpc_t"].tolist())
    rebuilt = layer.decode(out)
    losses = {name: mse_loss(rebuilt[name], x) for name, x in inputs.items()}
    for name in modalities:
        close(committed[name], reference[f"out/{name[0]}_commit"])
        close(losses[name], reference[f"out/recon_loss_{name[0]}"])
    matched = published_cmcm(distributions)
    close(matched, reference["out/cmcm"])
    torch.testing.assert_close(cmcm(distributions), matched, rtol=1e-4, atol=0)
    close(predicted, reference["out/cpc_loss"])
    sum(losses.values()).backward(retain_graph=True)
    for name, z in out.general.items():  # the reconstruction of one modality reaches the encoders of all
        close(z.grad, reference[f"out/grad_recon_{name[0]}_gen"])
    (sum(committed.values()) + matched + predicted).backward()
    for name, z in out.general.items():
        close(z.grad, reference[f"out/grad_total_{name[0]}_gen"])
    total = sum(losses.values()) + sum(committed.values()) + matched + predicted
    close(total, reference["out/total"])


def test_two_updates_make_the_published_codebooks(published):
    reference, model, out, modalities = published
    quantizer, indices = model.layers[0].quantizer, out.indices
    for after in ("after_update", "after_update2"):
        quantizer.update(out.general, indices)
        quantizer.revive(indices, torch.Generator(), idle=300)
        close(quantizer.table, reference[f"out/{after}/embedding"])
        close(torch.cat(quantizer.weight.unbind(), dim=-1), reference[f"out/{after}/ema_weight"])
        close(quantizer.count.sum(dim=0), reference[f"out/{after}/ema_count"])
        close(quantizer.unused, reference[f"out/{after}/unactivated_count"])
        for count, name in zip(quantizer.count, quantizer.blocks, strict=True):
            close(count, reference[f"out/{after}/ema_count_{name[0]}"])
        if after == "after_update":
            pairs = [info_nce(one, other) for one, other in combinations(quantizer.codebook, 2)]
            close(torch.stack(pairs).mean() / 2, reference["out/index_nce"])
        indices = {name: quantizer(z.detach(), name)[1] for name, z in out.general.items()}
        for name in modalities:
            assert torch.equal(indices[name][..., 0], reference[f"out/{after}/{name[0]}_index"])


def test_a_published_file_becomes_a_checkpoint_that_gives_its_rows(shared, tmp_path):
    reference = CodaarReference(shared / "reference" / "codaar_av.npz")
    parts = {f"{name.capitalize()}_parameters": reference.module(name) for name in ("encoder", "decoder")}
    torch.save({**parts, "epoch": 5, "total_step": 3000}, tmp_path / "published.pt")
    convert_checkpoint(tmp_path / "published.pt", tmp_path / "ours")
    opened = open_checkpoint(tmp_path / "ours", device="cpu")
    assert opened.settings.quantizer == "aligned" and opened.settings.map_encoder == "bn"
    assert opened.codebooks[0].shape == (50, 64)
    for name in ("audio", "video"):
        rows, indices = opened.model.encode(name, reference[f"in/{name}"])
        close(rows[:, :, 0], reference[f"out/{name[0]}_row"])
        assert torch.equal(indices[:, :, 0, 0], reference[f"out/{name[0]}_index"])
    odd = {**parts["Encoder_parameters"], "Cross_quantizer.ema_count_v": torch.zeros(3)}
    torch.save({**parts, "Encoder_parameters": odd}, tmp_path / "odd.pt")
    with pytest.raises(InputError, match="does not fit together"):
        convert_checkpoint(tmp_path / "odd.pt", tmp_path / "other")
    parts["Encoder_parameters"].pop("Cross_quantizer.ema_weight")
    torch.save(parts, tmp_path / "broken.pt")
    with pytest.raises(InputError, match=r"not a complete .* layers.0.quantizer.weight"):
        convert_checkpoint(tmp_path / "broken.pt", tmp_path / "other")


# What holds without the published numbers.


def quantizer_of(modalities=("audio", "video", "text"), codes=7, dim=3, **options):
    quantizer = AlignedQuantizer(codes, dim, modalities, **options)
    quantizer.codebook.normal_()
    quantizer.weight.copy_(quantizer.codebook * 2)
    quantizer.count.fill_(2.0)
    return quantizer


def features(steps=5, dim=3, modalities=("audio", "video", "text")):
    return {name: torch.randn(4, steps, dim) for name in modalities}


def test_dta_and_csa_are_the_formulas():
    quantizer, z = quantizer_of(), features()
    before = {
        name: (quantizer.weight[k].numpy().copy(), quantizer.count[k].numpy().copy()) for k, name in enumerate(BLOCKS)
    }
    indices = {name: quantizer(x, name)[1] for name, x in z.items()}
    quantizer.update(z, indices)
    book = {}
    for name, (weight, count) in before.items():
        onehot = np.eye(7)[indices[name].flatten()]
        flat = {other: x.reshape(-1, 3).numpy() for other, x in z.items()}
        target = 0.6 * flat[name] + sum(0.2 * x for other, x in flat.items() if other != name)
        count = 0.99 * count + 0.01 * onehot.sum(0)
        count = (count + 1e-5) / (count.sum() + 7e-5) * count.sum()
        book[name] = (0.99 * weight + 0.01 * onehot.T @ target) / count[:, None]
    video, audio, text = book["video"], book["audio"], book["text"]
    wanted = ((16 * video + 7 * audio + 4 * text) / 27, (4 * video + 4 * audio + text) / 9, (video + audio + text) / 3)
    np.testing.assert_allclose(quantizer.codebook, np.stack(wanted), rtol=1e-10)


def test_without_the_cascade_blocks_are_their_own_averages():
    quantizer, z = quantizer_of(cascade=False, own_weight=1.0), features()
    indices = {name: quantizer(x, name)[1] for name, x in z.items()}
    alone = quantizer_of(cascade=False)
    alone.load_state_dict(quantizer.state_dict())
    quantizer.update(z, indices)
    alone.update(z, indices, cross=False)
    torch.testing.assert_close(quantizer.codebook, alone.codebook)
    torch.testing.assert_close(quantizer.codebook, quantizer.weight / quantizer.count.unsqueeze(-1))


def test_an_equal_index_is_read_as_an_equal_row_whatever_the_modality():
    quantizer = quantizer_of()
    rows = [quantizer.decode(torch.tensor([[[4]]]), name) for name in BLOCKS]
    assert torch.equal(rows[0], rows[1]) and torch.equal(rows[0], rows[2]) and rows[0].shape == (1, 1, 9)
    z = features()["audio"]
    distance = torch.cdist(z, quantizer.block("audio"))
    torch.testing.assert_close(quantizer.distances(z, "audio"), distance)
    assert torch.equal(quantizer(z, "audio")[1][..., 0], distance.argmin(-1))


def test_the_row_passes_the_gradient_of_one_reconstruction_to_all_modalities_that_count():
    quantizer, z = quantizer_of(), {name: x.requires_grad_() for name, x in features().items()}
    valid = {name: torch.ones(4, 5, dtype=torch.bool) for name in z}
    valid["text"][0, 2:] = False
    quantizer.quantize(z, valid).quantized["audio"].sum().backward()
    for name, x in z.items():
        assert torch.equal(x.grad, valid[name].unsqueeze(-1).expand_as(x).double())


def test_a_row_that_nobody_uses_is_replaced_in_every_block():
    quantizer, generator = quantizer_of(recent=2), torch.Generator().manual_seed(0)
    quantizer.codebook[:, 2:] += 50
    used = {"audio": torch.tensor([[[0]]]), "video": torch.tensor([[[1]]]), "text": torch.tensor([[[0]]])}
    for _ in range(6):
        quantizer.revive(used, generator, idle=3)
    distance = torch.cdist(quantizer.table[2:], quantizer.table[:2]).amin(dim=1)
    assert ((distance > 0) & (distance < 0.05)).all()
    torch.testing.assert_close(quantizer.weight / quantizer.count.unsqueeze(-1), quantizer.codebook)


def test_rows_start_on_what_the_modalities_have_at_one_moment():
    quantizer = quantizer_of(codes=30)
    moments = torch.randn(4, 10, 3)
    z = {"audio": moments, "video": 2 * moments, "text": 3 * moments[:, 1::2]}
    valid = {name: torch.ones(x.shape[:2], dtype=torch.bool) for name, x in z.items()}
    valid["video"][:, 6:] = False
    quantizer.start(z, torch.Generator().manual_seed(0), valid)
    found = torch.cdist(quantizer.block("audio"), moments[:, :6].flatten(0, 1)).amin(dim=1)
    assert found.max() < 0.1
    torch.testing.assert_close(quantizer.block("video"), 2 * quantizer.block("audio"), rtol=0, atol=0.3)


INPUTS = {"audio": (12,), "video": (5, 5, 8), "text": (10,)}


def trainer_of(world=None, **options):
    sizes = {"dim": 16, "codebook": 7, "feedforward": 16, "dropout": 0.0, "text_hidden": 4, "map_hidden": 4}
    settings = {"layers": 1, "quantizer": "aligned", **options}
    model = HDCID(ModelSettings(inputs=INPUTS, map_specific=4, **sizes, **settings))
    objective = Objective(ObjectiveSettings(club="none"), model)
    return Trainer(
        model,
        objective,
        TrainSettings(epochs=30, batch_size=6, warmup=0, lr=3e-3, precision="float64"),
        1,
        "cpu",
        world,
    )


@pytest.mark.parametrize("options", [{"map_encoder": "bn"}, {"layers": 2}, {"layers": 0}])
def test_it_trains_and_encodes(options):
    trainer = trainer_of(**options)
    batch = {name: torch.rand(6, 4 + 2 * (name == "text"), *shape) for name, shape in INPUTS.items()}
    first = trainer.step(batch, 0)
    for _ in range(10):
        last = trainer.step(batch, 0)
    assert last["loss"] < first["loss"]
    model = trainer.model.eval()
    rows, indices = model.encode("text", batch["text"])
    assert rows.shape == (6, 6, max(1, options.get("layers", 1)), 48) and torch.isfinite(rows).all()
    torch.testing.assert_close(model.layers[0].quantizer.decode(indices[:, :, 0], "audio"), rows[:, :, 0])


@pytest.mark.parametrize("map_encoder", ["bn", "residual"])
def test_taken_up_again_it_learns_the_same_bit_for_bit(map_encoder):
    def learn(trainer, steps):
        for step in steps:
            generator = torch.Generator().manual_seed(step)
            batch = {name: torch.rand(6, 4, *shape, generator=generator) for name, shape in INPUTS.items()}
            trainer.step(batch, 0)
        return trainer

    def begin():
        torch.manual_seed(0)
        return trainer_of(map_encoder=map_encoder)

    whole, begun = learn(begin(), range(6)).model.state_dict(), learn(begin(), range(3))
    later = trainer_of(map_encoder=map_encoder)
    later.load_state_dict(begun.state_dict())
    resumed = learn(later, range(3, 6)).model.state_dict()
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_what_does_not_go_together_is_refused_in_a_sentence():
    with pytest.raises(InputError, match="--padding mask"):
        trainer_of(map_encoder="bn", padding="mask")
    with pytest.raises(InputError, match="one process"):
        trainer_of(World(0, 2), map_encoder="bn")
    with pytest.raises(InputError, match="--quantizer aligned"):
        trainer_of(quantizer="vq", own_weight=0.5)
    with pytest.raises(InputError, match="aligned takes no number"):
        trainer_of(quantizer="aligned:3")
