"""How many operators a step dispatches, which a GPU feels one by one. That none of them waits: test_captured.py."""

from collections import Counter

import pytest
from step import ask_as_of_cuda, batch, build
from torch.utils._python_dispatch import TorchDispatchMode

# Of what is no view, what launches nothing all the same.
IDLE = ("_unsafe_view", "empty", "new_empty", "profiler", "detach", "prim", "promote_types", "_record_function")


class Operators(TorchDispatchMode):
    """Counts what is dispatched and launches something."""

    def __init__(self):
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        name = str(function).removeprefix("aten.")
        if not function.is_view and not name.startswith(IDLE):
            self.count[name] += 1
        return function(*arguments, **(keywords or {}))


@pytest.mark.parametrize(("precision", "most"), [("float32", 1450), ("bf16", 1500)])
def test_a_step_of_all_defaults_asks_a_gpu_for_fewer_than_1500_operators(precision, most, monkeypatch):
    """Three modalities of ten segments. A step of CPC's LSTMs is a few for each segment."""
    ask_as_of_cuda(monkeypatch)
    trainer, features = build(precision, model={"transformer_layers": 2}), batch(steps=10)
    trainer.step(features, 0)
    with Operators() as operators:
        trainer.step(features, 0)
    assert operators.count["hdcid_tests.one.default"] == 2 * (2 * 9 + 2 * 2 + 1)  # cells, attention, text; and back
    assert 1000 < sum(operators.count.values()) < most


@pytest.mark.parametrize(("precision", "casts"), [("float32", 20), ("bf16", 180)])
def test_numbers_are_converted_no_more_often_than_they_have_to_be(precision, casts):
    trainer = build(precision, model={"transformer_layers": 2})
    trainer.step(batch(), 0)
    with Operators() as operators:
        trainer.step(batch(), 0)
    assert operators.count["_to_copy.default"] <= casts
