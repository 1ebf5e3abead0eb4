"""The losses of Table 3's baselines against their equations in plain numpy."""

from itertools import permutations

import numpy as np
import pytest
import torch

from hdcid_cli.core.errors import InputError
from hdcid_cli.models.hdcid import HDCID
from hdcid_cli.models.settings import ModelSettings
from hdcid_cli.training.alignments import asked_of_model
from hdcid_cli.training.losses.codis import Teacher, prototype_loss, sinkhorn
from hdcid_cli.training.losses.mst import symmetric_infonce
from hdcid_cli.training.losses.smit import masked_margin_softmax, smit
from hdcid_cli.training.losses.turn import TURN
from hdcid_cli.training.objective import Objective
from hdcid_cli.training.settings import ObjectiveSettings, TrainSettings
from hdcid_cli.training.trainer import Trainer

INPUTS = {"audio": (12,), "video": (5, 5, 8), "text": (10,)}


pytestmark = pytest.mark.usefixtures("double")


def embeddings(batch=5, dim=4):
    return {name: torch.randn(batch, dim) for name in INPUTS}


def unit(x):
    x = x.detach().numpy()
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def build(align, layers=1, **options):
    sizes = {"dim": 16, "codebook": 7, "feedforward": 16, "text_hidden": 4, "dropout": 0.0}
    asked = asked_of_model(align.split(","))
    return HDCID(ModelSettings(inputs=INPUTS, layers=layers, **asked, **sizes, **options))


def clips(batch=6, steps=4):
    return {name: torch.rand(batch, steps, *shape) for name, shape in INPUTS.items()}


def test_masked_margin_softmax_is_the_formula():
    s = torch.randn(5, 5).numpy()
    expected = []
    for i in range(5):
        others = [s[i, j] for j in range(5) if j != i]
        margin = 0.5 * (s[i, i] - np.mean(others))
        top = np.exp(s[i, i] - margin)
        expected.append(-np.log(top / (top + np.exp(others).sum())))
    assert masked_margin_softmax(torch.from_numpy(s)).item() == pytest.approx(np.mean(expected), rel=1e-12)


def test_smit_contrasts_cosines_in_both_directions_of_every_pair():
    x = embeddings()
    expected = 0.0
    for one, other in permutations(x, 2):
        expected += masked_margin_softmax(torch.from_numpy(unit(x[one]) @ unit(x[other]).T / 0.07)).item()
    assert smit(x).item() == pytest.approx(expected, rel=1e-12)


def test_symmetric_infonce_is_the_formula():
    x = embeddings()
    loss, accuracy = symmetric_infonce(x, torch.tensor(-np.log(0.07)))
    expected, right = 0.0, []
    for one, other in permutations(x, 2):
        scores = unit(x[one]) @ unit(x[other]).T / 0.07
        expected += 0.5 * -np.log(np.diag(softmax(scores))).mean()
        if list(x).index(one) < list(x).index(other):
            right.append((scores.argmax(axis=1) == np.arange(5)).mean())
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    assert accuracy.item() == pytest.approx(np.mean(right))


def test_infonce_learns_its_temperature_and_holds_it_above_a_hundredth():
    x, log_scale = embeddings(), torch.tensor(0.0, requires_grad=True)
    capped, hundred = (symmetric_infonce(x, torch.tensor(np.log(scale)))[0].item() for scale in (1e4, 100))
    assert hundred == pytest.approx(capped)
    symmetric_infonce(x, log_scale)[0].backward()
    assert log_scale.grad.abs() > 0


def test_sinkhorn_gives_every_clip_whole_and_every_prototype_nearly_as_much():
    scores = torch.randn(12, 4) * 0.1
    three, many = sinkhorn(scores), sinkhorn(scores, iterations=200)
    np.testing.assert_allclose(three.sum(dim=1), np.ones(12), rtol=1e-12)
    np.testing.assert_allclose(many.sum(dim=0), np.full(4, 3.0), rtol=1e-6)
    plan = np.exp(scores.numpy() / 0.05)
    for _ in range(3):
        plan = plan / plan.sum(axis=0)
        plan = plan / plan.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(three, plan, rtol=1e-9)


def test_codis_supervises_each_modality_by_the_teacher_of_the_others():
    student, teacher, prototypes = embeddings(), embeddings(), torch.randn(7, 4)
    loss = prototype_loss(student, teacher, prototypes, temperature=0.1)
    prototypes = unit(prototypes)
    expected = 0.0
    for one, other in permutations(student, 2):
        target = sinkhorn(torch.from_numpy(unit(teacher[other]) @ prototypes.T)).numpy()
        expected -= (target * np.log(softmax(unit(student[one]) @ prototypes.T / 0.1))).sum(axis=1).mean()
    assert loss.item() == pytest.approx(expected, rel=1e-10)


def test_turn_rebuilds_its_own_and_every_other_input():
    z = {name: torch.randn(3, 4, 6) for name in ("audio", "video")}
    targets = {"audio": torch.randn(3, 4, 5), "video": 3 + 0.1 * torch.randn(3, 4, 2)}
    module = TURN({"audio": 5, "video": 2}, dim=6)
    expected = 0.0
    for name, y in targets.items():
        rows = y.numpy().reshape(12, -1)
        wanted = (rows - rows.mean(axis=0)) / np.sqrt(rows.var(axis=0).mean())
        rebuilt = [module.decoder[name](x).detach().numpy().reshape(12, -1) for x in z.values()]
        expected += sum(((x - wanted) ** 2).mean() for x in rebuilt)
    assert module.rebuild(z, targets).item() == pytest.approx(expected, rel=1e-12)


def test_turn_takes_mean_and_variance_of_valid_segments_alone():
    z, module = {"audio": torch.randn(3, 4, 6)}, TURN({"audio": 5}, dim=6)
    target, valid = torch.randn(3, 4, 5), torch.arange(4) < torch.tensor([[4], [2], [3]])
    rows = target[valid].numpy()
    wanted = (rows - rows.mean(axis=0)) / np.sqrt(rows.var(axis=0).mean())
    rebuilt = module.decoder["audio"](z["audio"])[valid].detach().numpy()
    spoiled = target.masked_fill(~valid[..., None], 1e3)
    got = module.rebuild(z, {"audio": spoiled}, {"audio": valid}).item()
    assert got == pytest.approx(((rebuilt - wanted) ** 2).mean(), rel=1e-12)


def test_what_turn_asks_for_does_not_depend_on_scale_and_offset_of_its_targets():
    z, module, target = {"audio": torch.randn(3, 4, 6)}, TURN({"audio": 5}, dim=6), torch.randn(3, 4, 5)
    moved = module.rebuild(z, {"audio": 0.01 * target + torch.arange(5)})
    assert moved.item() == pytest.approx(module.rebuild(z, {"audio": target}).item(), rel=1e-9)


def test_turn_learns_from_what_does_not_vary():
    module, still = TURN({"audio": 5}, dim=6), torch.ones(3, 4, 5)
    assert torch.isfinite(module.rebuild({"audio": torch.randn(3, 4, 6)}, {"audio": still}))


def test_with_turn_what_is_quantized_is_attention_over_prototypes_of_all_modalities():
    model = build("turn", layers=1).eval()
    layer, inputs = model.layers[0], model.front(clips())
    out = layer(inputs)
    prototypes = layer.prototypes.prototypes.detach().numpy()
    assert prototypes.std() == pytest.approx(1, abs=0.2)  # any less, and each segment is the mean of all prototypes
    for name in ("audio", "video"):
        x = layer.pooling[name](inputs[name]) if name == "video" else inputs[name]
        query = layer.prototypes.query(layer.general[name](x)).detach().numpy()
        expected = softmax(query @ prototypes.T / np.sqrt(16)) @ prototypes
        np.testing.assert_allclose(out.general[name].detach(), expected, rtol=1e-9)


def test_turn_without_prototypes_in_the_model_is_refused():
    with pytest.raises(InputError, match="prototypes"):
        Objective(ObjectiveSettings(align=("turn",)), build("cpc"))


def test_the_teacher_starts_as_the_layer_and_follows_it_slowly():
    layer = build("codis").layers[0]
    teacher = Teacher(layer)
    inputs = {name: x for name, x in clips().items() if name != "text"}
    before = teacher(inputs)["video"]
    torch.testing.assert_close(before, layer.encode_general("video", inputs["video"]))
    old = [p.clone() for p in teacher.general.parameters()]
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(1.0)
    teacher.follow(layer)
    for mine, was, theirs in zip(teacher.general.parameters(), old, layer.general.parameters(), strict=True):
        torch.testing.assert_close(mine, 0.995 * was + 0.005 * theirs)
    assert not any(p.requires_grad for p in teacher.parameters())


def test_mst_shares_one_transformer_but_not_the_input_projections():
    model = build("mst")
    general = model.layers[0].general
    assert general["audio"].transformer is general["video"].transformer is general["text"].transformer
    assert general["audio"].input is not general["video"].input
    assert (
        build("cpc").layers[0].general["audio"].transformer is not build("cpc").layers[0].general["video"].transformer
    )


@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize("align", ["cmcm", "smit", "mst", "codis", "turn", "cpc,cmcm"])
def test_every_method_learns_in_every_layer_and_moves_the_shared_codebook(align, layers):
    model = build(align, layers)
    objective = Objective(ObjectiveSettings(align=align.split(",")), model)
    trainer = Trainer(
        model, objective, TrainSettings(epochs=30, batch_size=6, warmup=0, lr=3e-3, precision="float64"), 1, "cpu"
    )
    batch, names = clips(), align.split(",")
    first = trainer.step(batch, 0)
    books = [layer.quantizer.codebook.clone() for layer in model.layers]
    for _ in range(15):
        last = trainer.step(batch, 0)
    assert all(last[f"loss/1/{name}"] < first[f"loss/1/{name}"] for name in names)
    for layer, book in zip(model.layers, books, strict=True):
        assert (layer.quantizer.codebook - book).abs().max() > 1e-3
    assert ("loss/1/reconstruction" in last) is (layers > 0)


def test_without_mm_ema_each_modality_moves_its_own_codes_alone():
    ours, theirs, mixed = (build("cmcm", layers=0).layers[0].quantizer for _ in range(3))
    for quantizer in (theirs, mixed):
        quantizer.load_state_dict(ours.state_dict())
    z = {name: torch.randn(6, 4, 16) for name in ("audio", "video")}
    indices = {name: ours(x)[1] for name, x in z.items()}
    ours.update(z, indices, cross=False)
    for name in z:
        theirs.update({name: z[name]}, {name: indices[name]})
    mixed.update(z, indices)
    torch.testing.assert_close(ours.weight, theirs.weight)
    assert (ours.weight - mixed.weight).abs().max() > 1e-3


def test_layers_0_of_one_modality_has_nothing_to_learn_from():
    model = HDCID(ModelSettings(inputs={"audio": (12,)}, layers=0, dim=16, codebook=7))
    with pytest.raises(InputError, match="--layers 0"):
        Objective(ObjectiveSettings(), model)


def test_an_unknown_alignment_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="cpc, cmcm, smit, mst, codis, turn"):
        ObjectiveSettings(align=("clip",))
