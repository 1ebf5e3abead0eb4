"""`--align-on`: alignments that compare codes as well as general features."""

from dataclasses import replace

import pytest
import torch
from step import batch, build
from worlds import write_features

import hdcid_cli as hdcid
from hdcid_cli.core.distributed import World
from hdcid_cli.core.errors import InputError
from hdcid_cli.training.alignments import ALIGNMENTS

SMALL = {"dim": 16, "heads": 2, "feedforward": 8, "text_hidden": 4, "layers": 0, "align": ("smit",), "epochs": 1}


def losses_of(trainer):
    """(terms, output) of layer 1 for one batch, without dropout."""
    trainer.model.eval()
    out = trainer.model(batch(), 1)
    trainer.objective.observe(trainer.model.layers, out, out, World())
    _, terms = trainer.objective(trainer.model, out, out, [{}], torch.Generator().manual_seed(0), World())
    return terms, out[0]


@pytest.mark.parametrize(
    ("quantizer", "asked", "on"),
    [
        *(("vq", "auto", "features"), ("vq", "both", "both"), ("rvq:2", "auto", "features")),
        *(("aligned", "auto", "features"), ("fsq:3,3", "auto", "both"), ("fsq:3,3", "features", "features")),
    ],
)
def test_codes_that_learn_by_gradient_are_compared_unless_told_otherwise(quantizer, asked, on):
    trainer = build(quantizer=quantizer, align=["smit"], align_on=asked, model={"layers": 0})
    assert trainer.objective.config.align_on == on
    assert ("loss/1/smit_of_codes" in losses_of(trainer)[0]) == (on == "both")


def test_alignments_that_look_at_codes_anyway_learn_and_are_recorded_as_before():
    for align, on in ((["cmcm"], "features"), (["cmcm", "cujp:av"], "features"), (["cmcm", "smit:av"], "both")):
        assert build(quantizer="fsq:3,3", align=align).objective.config.align_on == on, align
    assert build(quantizer="aligned", align=["cmcm"], align_on="both").objective.config.align_on == "features"


@pytest.mark.parametrize("name", [name for name in ALIGNMENTS if name not in ("cmcm", "cujp", "turn")])
def test_the_loss_of_codes_is_that_of_features_with_codes_in_their_place(name):
    trainer = build(quantizer="vq", align=[name], align_on="both", model={"layers": 1})
    terms, out = losses_of(trainer)
    alignment, generator = trainer.objective.layers[0].alignments[name], torch.Generator().manual_seed(0)
    trainer.objective.layers[0].permutations(
        trainer.objective.layers[0].samples(out, trainer.model.layers[0]), generator
    )
    for suffix, seen in (("", out), ("_of_codes", replace(out, general=out.quantized))):
        loss, _ = alignment(seen, trainer.model.layers[0], generator)
        torch.testing.assert_close(terms[f"loss/1/{name}{suffix}"], loss.detach())
    assert terms[f"loss/1/{name}"] != terms[f"loss/1/{name}_of_codes"]


def test_layers_compare_their_codes_together_as_each_by_itself(monkeypatch):
    """CPC computes all layers at once."""
    terms = []
    for together in (True, False):
        trainer = build("float64", quantizer="fsq:3,3", align=["cpc", "cmcm"])
        if not together:
            monkeypatch.setattr(trainer.objective, "_aligned", lambda outputs: [{} for _ in outputs])
        trainer.model.eval()
        outs = trainer.model({name: x.double() for name, x in batch().items()})
        trainer.objective.observe(trainer.model.layers, outs, outs, World())
        drawn = torch.Generator().manual_seed(0)
        terms.append(trainer.objective(trainer.model, outs, outs, [{}, {}], drawn, World())[1])
    assert {"loss/1/cpc_of_codes", "loss/2/cpc_of_codes", "cpc_accuracy_of_codes/2"} <= terms[0].keys()
    assert "loss/1/cmcm_of_codes" not in terms[0]  # it compares codes anyway
    for name, value in terms[1].items():
        torch.testing.assert_close(terms[0][name], value, msg=name)


@pytest.mark.parametrize("on", ["both", "features"])
def test_without_decoders_the_projections_of_fsq_learn_only_where_codes_are_compared(on):
    trainer = build(quantizer="fsq:3,3", align=["smit"], align_on=on, model={"layers": 0})
    parameters = dict(trainer.model.layers[0].quantizer.named_parameters())
    before = {name: value.clone() for name, value in parameters.items()}
    trainer.step(batch(), 0)
    assert {name for name, value in parameters.items() if not torch.equal(value, before[name])} == (
        {"project_in.weight", "project_in.bias", "project_out.weight", "project_out.bias"} if on == "both" else set()
    )


def test_of_some_pairs_the_codes_of_those_are_compared():
    trainer = build(quantizer="fsq:3,3", align=["smit:av"], model={"layers": 0})
    terms, out = losses_of(trainer)
    alone = {name: out.quantized[name] for name in ("audio", "video")}
    alignment = trainer.objective.layers[0].alignments["smit:av"].inner
    loss, _ = alignment(replace(out, general=alone), trainer.model.layers[0], torch.Generator())
    torch.testing.assert_close(terms["loss/1/smit:av_of_codes"], loss.detach())


def test_codes_wider_than_features_are_not_compared_as_features_are():
    with pytest.raises(InputError, match=r"--align-on both .* of 16 channels; those of --quantizer aligned have 48"):
        build(quantizer="aligned", align_on="both")


def test_a_model_says_what_was_compared_where_it_is_not_features_alone(tmp_path):
    write_features(tmp_path / "features", clips=8)
    for quantizer, said in (("fsq:3,3", {"align_on": "both"}), ("vq", {})):
        model = hdcid.pretrain(tmp_path / "features", tmp_path / quantizer, quantizer=quantizer, codebook=9, **SMALL)
        assert {name: value for name, value in model.describe().items() if name == "align_on"} == said


def test_a_run_from_before_compared_features_and_is_not_taken_up_as_one_that_compares_codes(tmp_path):
    write_features(tmp_path / "features", clips=8)
    given = (tmp_path / "features", tmp_path / "model")
    hdcid.pretrain(*given, quantizer="fsq:3,3", align_on="features", **SMALL)
    config = tmp_path / "model/config.yaml"
    config.write_text("".join(line for line in config.read_text().splitlines(True) if "align_on" not in line))
    with pytest.raises(InputError, match="align_on was 'features', now 'both'"):
        hdcid.pretrain(*given, quantizer="fsq:3,3", **SMALL)
    model = hdcid.pretrain(*given, quantizer="fsq:3,3", align_on="features", **{**SMALL, "epochs": 2})
    assert model.epochs_done == 2 and "align_on" not in model.describe()
