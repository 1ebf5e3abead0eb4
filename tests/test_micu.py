"""MICU's losses and InfoNCE: equal to the published ones and to formulas written out, on all pairs and on some."""

import itertools
import math

import numpy as np
import pytest
import torch
from test_fcid import Reference, close

from hdcid_cli.core.errors import InputError
from hdcid_cli.models.hdcid import HDCID, LayerOutput
from hdcid_cli.models.quantizers.vq import VectorQuantizer
from hdcid_cli.models.settings import ModelSettings
from hdcid_cli.training.losses.cujp import CUJP
from hdcid_cli.training.losses.fcmi import FCMI, fcmi
from hdcid_cli.training.losses.infonce import InfoNCE, info_nce
from hdcid_cli.training.losses.pairs import OfPairs, groups_of
from hdcid_cli.training.objective import Objective
from hdcid_cli.training.settings import ObjectiveSettings, TrainSettings
from hdcid_cli.training.trainer import Trainer

NAMES = ("audio", "video", "text")


@pytest.fixture(scope="module")
def reference(shared):
    torch.set_num_threads(1)
    return Reference(shared / "reference" / "micu.npz")


def test_fcmi_is_the_published_one_with_its_gradients(reference):
    general = {name: reference[f"in/{name}_general"].requires_grad_() for name in NAMES}
    fine, coarse = fcmi(general, reference["out/fcmi_mask"].unsqueeze(-1))
    close(fine, reference["out/fcmi_fine"])
    close(coarse, reference["out/fcmi_coarse"])
    (fine + coarse).backward()
    for name in NAMES:
        close(general[name].grad, reference[f"out/fcmi_grad_{name}"])


def test_fcmi_pair_by_pair_is_the_published_one(reference):
    mask = reference["out/fcmi_mask"].unsqueeze(-1)
    for i, m in enumerate(NAMES):
        for j, n in enumerate(NAMES):
            z, other = reference[f"in/{m}_general"], reference[f"in/{n}_general"]
            fine = torch.stack([info_nce(mask[b] * z[b], other[b]) for b in range(len(z))]).mean()
            close(fine, reference["out/fcmi_fine_pairs"][i, j])
            close(info_nce((mask * z).mean(1), other.mean(1)), reference["out/fcmi_coarse_pairs"][i, j])


@pytest.mark.parametrize("parts", [2, 4])
def test_cujp_is_the_published_one_with_its_gradients(reference, parts):
    codes = {name: reference[f"in/{name}_code"].requires_grad_() for name in NAMES}
    permutations = reference[f"out/cujp{parts}_permutations"]
    cujp = CUJP(32, parts, len(permutations), hidden=20).double()
    cujp.permutations.copy_(permutations)
    head = {name.removeprefix("enc_net."): x for name, x in reference.module(f"jigsaw{parts}").items()}
    cujp.head.load_state_dict(head)
    flat = [codes[name].flatten(0, 1) for name in NAMES]
    logits, labels = cujp.solve(flat, reference[f"out/cujp{parts}_modality"].long())
    close(logits, reference[f"out/cujp{parts}_logits"])
    assert torch.equal(labels, reference[f"out/cujp{parts}_labels"])
    loss = torch.nn.functional.cross_entropy(logits, labels)
    close(loss, reference[f"out/cujp{parts}_loss"])
    loss.backward()
    for name in NAMES:
        grad = codes[name].grad
        close(torch.zeros_like(codes[name]) if grad is None else grad, reference[f"out/cujp{parts}_grad_{name}"])


def test_infonce_one_sided_is_fcids(shared):
    reference = Reference(shared / "reference" / "fcid.npz")
    coarse = {name: reference[f"out/{name}_coarse_gen"] for name in "avt"}
    close(info_nce(coarse["v"], coarse["t"]), reference["out/infonce_vt"])
    close(info_nce(coarse["a"], coarse["t"]), reference["out/infonce_at"])


@pytest.mark.parametrize("parts", [2, 4])
def test_orders_go_by_their_numbers_in_the_published_list(reference, parts):
    listed = torch.tensor(list(itertools.permutations(range(parts))))
    numbers = reference[f"out/cujp{parts}_permutation_numbers"]
    assert torch.equal(listed[numbers], reference[f"out/cujp{parts}_permutations"])
    torch.manual_seed(3)
    ours = CUJP(8, parts, 2)
    torch.manual_seed(3)
    torch.nn.Linear(8, 512), torch.nn.Linear(512, 2)  # which draw before the orders do
    assert torch.equal(ours.permutations, listed[torch.randperm(len(listed))[:2]])


def test_codes_of_text_alone_count_as_unused_in_the_published_code_and_not_in_ours(reference):
    """Its counter looks at audio and video; ours, given those two, counts the same."""
    codebook = reference["in/codebook"]
    published, ours = (VectorQuantizer(*codebook.shape).double() for _ in range(2))
    for quantizer in (published, ours):
        quantizer.codebook[0] = codebook
    indices = {name: ours(reference[f"in/{name}_general"])[1] for name in NAMES}
    for _ in range(2):
        published.revive({name: indices[name] for name in ("audio", "video")}, torch.Generator(), idle=300)
        ours.revive(indices, torch.Generator(), idle=300)
    assert torch.equal(published.unused[0], reference["out/unused_after_2"])
    of_text = set(indices["text"].flatten().tolist()) - set(
        torch.cat([indices["audio"], indices["video"]]).flatten().tolist()
    )
    assert set(torch.nonzero(ours.unused[0] != published.unused[0]).flatten().tolist()) == of_text != set()


def test_its_tasks_read_code_0_as_zero(reference):
    codebook = reference["in/codebook"]
    quantizer = VectorQuantizer(*codebook.shape).double()
    quantizer.codebook[0] = codebook
    read = quantizer.readings["emptied"](quantizer)
    for name in NAMES:
        codes, indices = read(reference[f"in/{name}_general"], name)
        close(codes, reference[f"out/infer_{name}_code"])
        assert torch.equal(indices[..., 0], reference[f"out/infer_{name}_index"])
        close(read.decode(indices, name), reference[f"out/infer_{name}_code"])
    assert torch.equal(quantizer.codebook[0], codebook)


# --- the same on data of our own ---


def output(steps=(4, 4, 4), clips=5, dim=8, seed=0):
    rng = np.random.default_rng(seed)
    made = {name: torch.from_numpy(rng.normal(size=(clips, t, dim))) for name, t in zip(NAMES, steps)}
    return LayerOutput(dict(made), general=dict(made), quantized=dict(made))


def by_hand(x, y, temperature=0.1):
    """InfoNCE row by row, in plain numpy."""
    x, y = x.numpy(), y.numpy()
    total = 0.0
    for i, row in enumerate(x):
        scores = [row @ other / max(np.linalg.norm(row) * np.linalg.norm(other), 1e-12) / temperature for other in y]
        total += math.log(sum(math.exp(score) for score in scores)) - scores[i]
    return total / len(x)


def test_infonce_is_its_formula_and_a_row_of_zeros_costs_the_logarithm():
    x, y = torch.randn(6, 8).double(), torch.randn(6, 8).double()
    assert info_nce(x, y).item() == pytest.approx(by_hand(x, y))
    x[:] = 0
    assert info_nce(x.requires_grad_(), y).item() == pytest.approx(math.log(6))


def test_infonce_sums_over_pairs_of_any_length():
    out = output(steps=(4, 2, 7))
    loss, metrics = InfoNCE(0.2)(out, None, torch.Generator())
    means = [z.mean(1) for z in out.general.values()]
    pairs = [(0, 1), (0, 2), (1, 2)]
    expected = sum(by_hand(means[a], means[b], 0.2) + by_hand(means[b], means[a], 0.2) for a, b in pairs) / 2
    assert loss.item() == pytest.approx(expected) and metrics["infonce_alike"] == 0


def test_captions_that_are_alike_are_counted():
    out = output()
    out.general["text"][1] = out.general["text"][0]
    assert InfoNCE()(out, None, torch.Generator())[1]["infonce_alike"] == pytest.approx(2 / 5)


def test_fcmi_leaves_out_segments_that_do_not_count():
    out = output(steps=(4, 4, 4))
    valid = {name: torch.ones(5, 4, dtype=torch.bool) for name in NAMES}
    for name in NAMES:
        valid[name][:, 3] = False
    mask = torch.ones(5, 4, 1).double()
    short = {name: z[:, :3] for name, z in out.general.items()}
    for name in NAMES:
        out.general[name] = out.general[name].clone()
        out.general[name][:, 3] = 1e3
    fine, coarse = fcmi(out.general, mask, valid)
    expected_fine, expected_coarse = fcmi(short, mask[:, :3])
    torch.testing.assert_close(fine, expected_fine)
    torch.testing.assert_close(coarse, expected_coarse)


@pytest.mark.parametrize("mask,shape", [("steps", (5, 4, 1)), ("channels", (5, 1, 8))])
def test_fcmi_draws_its_mask_from_the_steps_generator(mask, shape):
    out = output()
    loss, _ = FCMI(0.5, mask)(out, None, torch.Generator().manual_seed(3))
    drawn = (torch.rand(shape, generator=torch.Generator().manual_seed(3)) >= 0.5).double()
    assert loss.item() == pytest.approx(sum(fcmi(out.general, drawn)).item())


@pytest.mark.parametrize("parts,orders,dim", [(3, 2, 8), (2, 3, 8), (2, 1, 8), (9, 2, 18)])
def test_a_jigsaw_that_cannot_be_is_refused(parts, orders, dim):
    with pytest.raises(InputError, match="--jigsaw-p"):
        CUJP(dim, parts, orders)


# --- some pairs alone ---


def test_pairs_within_letters_and_all_pairs_with_one():
    out, inner = output(), InfoNCE()
    means = {name: z.mean(1) for name, z in out.general.items()}

    def pair(a, b):
        return (by_hand(means[a], means[b]) + by_hand(means[b], means[a])) / 2

    within, _ = OfPairs(inner, groups_of("infonce", "av", NAMES))(out, None, torch.Generator())
    with_text, _ = OfPairs(inner, groups_of("infonce", "t", NAMES))(out, None, torch.Generator())
    assert within.item() == pytest.approx(pair("audio", "video"))
    assert with_text.item() == pytest.approx(pair("audio", "text") + pair("video", "text"))


@pytest.mark.parametrize(
    "align,reason",
    [
        ("cpc:t", "two letters or more"),
        ("infonce:av", "not among the --modalities"),
        ("cpc:x", "some of a, v and t"),
        ("cpc:", "some of a, v and t"),
        ("cpc,cpc", "twice"),
        ("clip", "no alignment 'clip'"),
    ],
)
def test_pairs_that_cannot_be_are_refused(align, reason):
    with pytest.raises(InputError, match=reason):
        model = HDCID(ModelSettings(inputs={"audio": (12,), "text": (10,)}, layers=1, dim=16, codebook=7))
        Objective(ObjectiveSettings(align=tuple(align.split(","))), model)


@pytest.mark.parametrize("align", ["fcmi,cujp", "cpc:av,infonce:t", "infonce", "cmcm:at,cpc"])
@pytest.mark.parametrize("padding", ["repeat", "mask"])
def test_they_train_with_masks_and_other_lengths(double, align, padding):
    inputs = {"audio": (12,), "video": (5, 5, 8), "text": (10,)}
    settings = {"dim": 16, "codebook": 7, "text_hidden": 4, "feedforward": 16, "padding": padding}
    model = HDCID(ModelSettings(inputs=inputs, **settings))
    objective = Objective(ObjectiveSettings(align=tuple(align.split(","))), model)
    trainer = Trainer(model, objective, TrainSettings(epochs=9, batch_size=6, warmup=0, precision="float64"), 1, "cpu")
    features = {name: torch.randn(6, steps, *inputs[name]) for name, steps in (("audio", 5), ("video", 5), ("text", 3))}
    lengths = {name: torch.tensor([x.shape[1], 2, 1, 3, 3, 2]) for name, x in features.items()}
    measured = trainer.step(features, 0, lengths if padding == "mask" else None)
    for name in align.split(","):
        assert measured[f"loss/1/{name}"].isfinite() and measured[f"loss/2/{name}"] > 0
