"""How many operators a step dispatches, which a GPU feels one by one. That none of them waits: test_captured.py."""

from collections import Counter

import pytest
from step import as_on_a_gpu, batch, build
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


def test_a_step_of_all_defaults_gives_a_gpu_no_more_operators_than_it_needs():
    """But for the text's LSTM, which is one on a GPU; a step of the others is several here and one there."""
    trainer, features = build(device="meta", model={"transformer_layers": 2, "text_hidden": 0}), batch("meta")
    with as_on_a_gpu(trainer):
        trainer.compute(features, 2)
        with Operators() as operators:
            trainer.compute(features, 2)
    assert sum(operators.count.values()) <= 2600


@pytest.mark.parametrize(("precision", "casts"), [("float32", 20), ("bf16", 540)])
def test_numbers_are_converted_no_more_often_than_they_have_to_be(precision, casts):
    trainer = build(precision, model={"transformer_layers": 2})
    trainer.step(batch(), 0)
    with Operators() as operators:
        trainer.step(batch(), 0)
    assert operators.count["_to_copy.default"] <= casts
