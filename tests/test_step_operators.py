"""How many operators a step dispatches, which a GPU feels one by one, and that none of them waits for its result."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hdcid_cli.models.assembled import build_model
from hdcid_cli.models.quantizers import QUANTIZERS, completed
from hdcid_cli.models.settings import ModelSettings
from hdcid_cli.training.alignments import ALIGNMENTS, asked_of_model
from hdcid_cli.training.objective import Objective
from hdcid_cli.training.settings import ObjectiveSettings, TrainSettings
from hdcid_cli.training.trainer import Trainer

INPUTS = {"audio": (12,), "video": (7, 7, 16), "text": (10,)}

# Operators whose result, or the shape of it, the host must know before it goes on.
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal.", "index.Tensor_bool")

ARGUMENTS = {"pq": "pq:2", "fsq": "fsq:4,3"}


class Operators(TorchDispatchMode):
    """Counts what is dispatched, but for views, which launch nothing."""

    def __init__(self):
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        name = str(function)
        if name == "aten.index.Tensor" and any(i is not None and i.dtype == torch.bool for i in arguments[1]):
            name = "aten.index.Tensor_bool"
        if not function.is_view:
            self.count[name] += 1
        return function(*arguments, **(keywords or {}))

    @property
    def waits(self) -> list[str]:
        return [name for name in self.count if name.removeprefix("aten.").startswith(WAITING)]


def count_step(precision: str = "float32", quantizer: str = "vq", align=("cpc", "cmcm"), **losses) -> Operators:
    """The operators of a step in which both layers take part and nothing starts."""
    torch.manual_seed(0)
    sizes = {"dim": 16, "codebook": 12, "text_hidden": 4, "feedforward": 16}
    model = build_model(ModelSettings(inputs=INPUTS, quantizer=quantizer, **sizes, **asked_of_model(align)))
    objective = Objective(ObjectiveSettings(align=tuple(align), **losses), model)
    settings = TrainSettings(warmup=0, batch_size=6, epochs=4, precision=precision)
    trainer = Trainer(model, objective, settings, 100, "cpu")
    features = {name: torch.rand(6, 4, *shape) for name, shape in INPUTS.items()}
    trainer.step(features, 0)
    with Operators() as operators:
        trainer.step(features, 0)
    return operators


@pytest.mark.parametrize(("precision", "most", "casts"), [("float32", 4000, 40), ("bf16", 4500, 540)])
def test_a_step_of_all_defaults_dispatches_no_more_operators_than_it_needs(precision, most, casts):
    operators = count_step(precision).count
    assert sum(operators.values()) <= most
    assert operators["aten._to_copy.default"] <= casts


@pytest.mark.parametrize("align", sorted(ALIGNMENTS))
def test_no_alignment_makes_the_host_wait(align):
    assert not count_step(align=[align]).waits


@pytest.mark.parametrize("quantizer", [ARGUMENTS.get(name, completed(name, 12)) for name in QUANTIZERS])
@pytest.mark.parametrize("club", ["sampled", "exact"])
def test_no_quantizer_and_no_club_bound_makes_the_host_wait(quantizer, club):
    assert not count_step(quantizer=quantizer, club=club).waits


def test_a_wait_is_seen():
    with Operators() as operators:
        x = torch.ones(3)
        float(x.sum())
        x[x > 0]
    assert len(operators.waits) == 2
