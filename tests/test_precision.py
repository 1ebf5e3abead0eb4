"""Mixed precision: what computes in it, what does not, and codes that a product of few digits still tells apart."""

import os
import runpy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tf32 import RoundedProducts
from torch import nn

from hdcid_cli.core import precision
from hdcid_cli.core.device import resolve_device
from hdcid_cli.core.precision import has_bfloat16, kernels, matmul_precision, set_matmul_precision
from hdcid_cli.models.encoders import MapPooling, Standardize
from hdcid_cli.models.hdcid import HDCID
from hdcid_cli.models.quantizers.vq import VectorQuantizer, nearest, squared_distances
from hdcid_cli.models.settings import ModelSettings
from hdcid_cli.training import trainer as trainer_module
from hdcid_cli.training.alignments import asked_of_model
from hdcid_cli.training.losses.infonce import alike, cosines
from hdcid_cli.training.objective import Objective
from hdcid_cli.training.settings import ObjectiveSettings, TrainSettings
from hdcid_cli.training.trainer import Meter, Trainer

INPUTS = {"audio": (12,), "video": (5, 5, 8), "text": (10,)}


def build(precision: str, **losses) -> Trainer:
    torch.manual_seed(0)
    chosen = ObjectiveSettings(**losses)
    sizes = {"dim": 16, "codebook": 12, "text_hidden": 4, "feedforward": 16}
    model = HDCID(ModelSettings(inputs=INPUTS, **sizes, **asked_of_model(chosen.align)))
    goal = Objective(chosen, model)
    return Trainer(model, goal, TrainSettings(warmup=0, batch_size=6, epochs=4, precision=precision), 100, "cpu")


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.rand(6, 5, *shape, generator=generator) for name, shape in INPUTS.items()}


@pytest.mark.parametrize("align", [("cpc", "cmcm"), ("codis", "turn", "mst")])
def test_networks_compute_in_mixed_precision_and_losses_and_lstms_do_not(align, monkeypatch):
    trainer, seen = build("bf16", align=align), {}

    def watch(name: str):
        return lambda *_: seen.setdefault(name, set()).add(torch.is_autocast_enabled("cpu"))

    layer, losses = trainer.model.layers[0], trainer.objective.layers[0]
    for module in (layer.general["audio"], layer.specific["video"], layer.decoder["video"], layer.decoder["audio"]):
        module.register_forward_pre_hook(watch("network"))
    for module in losses.alignments.values():
        module.register_forward_pre_hook(watch("loss"))
    for module in losses.modules():
        if isinstance(module, nn.LSTM):
            module.register_forward_pre_hook(watch("loss"))
    lstm = nn.LSTM.forward
    monkeypatch.setattr(nn.LSTM, "forward", lambda *given: (watch("lstm")(), lstm(*given))[1])
    likelihood = trainer_module.log_likelihood
    monkeypatch.setattr(trainer_module, "log_likelihood", lambda *given: (watch("loss")(), likelihood(*given))[1])
    distances = VectorQuantizer.distances
    monkeypatch.setattr(VectorQuantizer, "distances", lambda *given: (watch("loss")(), distances(*given))[1])
    trainer.start_layers(batch(), 2, None)
    seen.clear()
    terms = trainer.step(batch(), 0)
    assert seen == {"network": {True}, "loss": {False}, "lstm": {False}}
    assert all(value.dtype == torch.float32 for name, value in terms.items() if name.startswith("loss"))


def test_a_step_in_mixed_precision_has_nearly_the_losses_of_one_in_single():
    mixed, single = build("bf16").step(batch(), 0), build("float32").step(batch(), 0)
    for name in ("loss/1/cpc", "loss/1/cmcm", "loss/2/cpc", "loss/1/reconstruction", "loss/2/reconstruction"):
        assert mixed[name].item() == pytest.approx(single[name].item(), rel=0.03), name


def test_tf32_finds_the_same_codes_where_features_are_nearly_alike():
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(64, generator=generator, dtype=torch.float64)
    z = common + 0.1 * torch.randn(4000, 64, generator=generator, dtype=torch.float64)
    codebook = common + 0.1 * torch.randn(400, 64, generator=generator, dtype=torch.float64)
    exact = torch.cdist(z, codebook).argmin(dim=1)
    with RoundedProducts():
        z, codebook = z.float(), codebook.float()
        found = nearest(z, codebook)
        plain = ((codebook**2).sum(dim=-1) - 2 * z @ codebook.T).argmin(dim=-1)
        squared = squared_distances(z, codebook)
    assert (plain != exact).double().mean() > 0.02  # the rounding is felt
    assert (found != exact).double().mean() < 0.002
    nearest_of_all = torch.cdist(z.double(), codebook.double()).min(dim=1).values
    torch.testing.assert_close(squared.min(dim=1).values.double().sqrt(), nearest_of_all, rtol=2e-3, atol=0)


def test_what_networks_may_round_distances_and_equality_do_not():
    generator = torch.Generator().manual_seed(0)
    z, codebook = (5 + torch.randn(count, 64, generator=generator) for count in (500, 40))
    x = torch.cat([z[:20], z[:5], z[20:25] + 1e-3])  # ten are alike, five only nearly

    def measured():
        return nearest(z, codebook), squared_distances(z, codebook), alike(x), cosines(x, x)

    exact = measured()
    with RoundedProducts(asked=True), matmul_precision("bf16"):
        found = measured()
    assert not torch.equal(exact[-1], found[-1])  # the rounding is felt
    for one, other in zip(exact[:-1], found[:-1], strict=True):
        assert torch.equal(one, other)
    assert exact[2] == pytest.approx(10 / 30)


def test_a_run_leaves_the_precision_of_products_as_it_was():
    def now():
        return (
            torch.backends.cuda.matmul.allow_tf32,
            torch.backends.cudnn.allow_tf32,
            torch.backends.cudnn.deterministic,
        )

    before = now()
    for deterministic in (True, False):
        with kernels(deterministic):
            set_matmul_precision("bf16")
            assert now() == (True, True, deterministic)
    assert now() == before


@pytest.mark.parametrize(("given", "found"), [(None, ":4096:8"), (":16:8", ":16:8")])
def test_deterministic_products_are_prepared_before_the_first_one(given, found, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    if given:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", given)
    runpy.run_path(precision.__file__)  # as when it is imported
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == found


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_a_pooled_map_is_the_sum_of_its_gated_cells(dtype, rtol):
    torch.manual_seed(0)
    pooling, maps = MapPooling(24).to(dtype), torch.rand(3, 2, 7, 7, 24, dtype=dtype)
    gated = maps + maps * pooling.gate(maps.mean(dim=(2, 3)))[:, :, None, None]
    torch.testing.assert_close(pooling(maps), gated.sum(dim=(2, 3)), rtol=rtol, atol=0)


@pytest.mark.parametrize("attention", ["sum", "softmax"])
def test_a_perceptron_adds_to_each_cell_what_it_makes_of_it_before_cells_are_weighed(attention):
    torch.manual_seed(0)
    pooling, maps = MapPooling(6, attention=attention, hidden=5).double(), torch.randn(2, 3, 5, 4, 6).double()
    weights = {name: value.detach().numpy() for name, value in pooling.named_parameters()}

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0)

    x = maps.numpy()
    gate = 1 / (1 + np.exp(-linear(np.maximum(linear(x.mean(axis=(2, 3)), "gate.0"), 0), "gate.2")))
    cells = (x * (1 + gate)[:, :, None, None]).reshape(2, 3, 20, 6)
    cells = cells + linear(np.maximum(linear(cells, "perceptron.0"), 0), "perceptron.2")
    share = np.ones((2, 3, 20, 1))
    if attention == "softmax":
        mean = np.maximum(linear(cells.mean(axis=2, keepdims=True), "mean"), 0)
        share = np.exp(np.tanh(linear(np.maximum(linear(cells, "cell"), 0) * mean, "score")))
        share /= share.sum(axis=2, keepdims=True)
    expected = (share * cells).sum(axis=2)
    np.testing.assert_allclose(pooling(maps).detach().numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("device", "generation", "precision"),
    [("cuda", 9, "bf16"), ("cuda", 8, "bf16"), ("cuda", 7, "float32"), ("cpu", 0, "float32"), ("mps", 0, "float32")],
)
def test_the_precision_is_the_device_s_unless_one_is_asked_for(device, generation, precision, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(major=generation))
    own = has_bfloat16(torch.device(device))
    assert TrainSettings().resolved(280, own).precision == precision
    assert TrainSettings(precision="tf32").resolved(280, own).precision == "tf32"


class OnMps(torch.Tensor):
    """A tensor that says it is on an Apple GPU, where there is no float64."""

    device = property(lambda self: torch.device("mps"))

    def cpu(self):
        return self.as_subclass(torch.Tensor)

    def double(self):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")


def test_means_over_much_are_in_float64_where_the_device_has_none_too():
    x = torch.rand(50, 7)
    expected, found = Standardize(7), Standardize(7)
    expected.fit(x)
    found.fit(x.as_subclass(OnMps))
    assert torch.equal(found.mean, expected.mean) and torch.equal(found.scale, expected.scale)
    records = []
    for kind in (torch.Tensor, OnMps):
        meter = Meter(4)
        meter.add(
            {"loss": torch.tensor(1.5).as_subclass(kind), "codes/1/audio": torch.tensor([0, 2]).as_subclass(kind)}
        )
        records.append(meter.take())
    assert records[0] == records[1] == {"loss": 1.5, "used/1/audio": 2, "perplexity/1/audio": 2.0}


def test_an_apple_gpu_is_used_where_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto").type == "cpu" and resolve_device("mps").type == "mps"
