"""Recorded steps: what they must not have is found without a GPU, and played they learn what computed ones do.

A GPU's graph repeats what was asked of the device and nothing that Python did on the way. `Tape` does the same on a
CPU: it notes every operator with the memory that it read and wrote, and plays them without Python's part. `meta`
tensors, which have shapes and no numbers, show what a step would ask of a device that is not the CPU.
"""

import contextlib
from types import SimpleNamespace

import pytest
import torch
from step import as_on_a_gpu, batch, build
from torch.utils._python_dispatch import TorchDispatchMode

from hdcid_cli.core.draws import StepDraws
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.precision import kernels
from hdcid_cli.models.quantizers import QUANTIZERS, completed
from hdcid_cli.training import captured
from hdcid_cli.training.alignments import ALIGNMENTS
from hdcid_cli.training.captured import CudaRecorder, Rules
from hdcid_cli.training.losses.cmcm import CMCM
from hdcid_cli.training.pretrain import record_steps

ARGUMENTS = {"pq": "pq:2", "fsq": "fsq:4,3"}
CHOSEN = [ARGUMENTS.get(name, completed(name, 12)) for name in QUANTIZERS]
EVERY = [{"align": [*sorted(ALIGNMENTS), "cpc:av"], "quantizer": quantizer} for quantizer in CHOSEN]
OTHERS = [
    {"club": "exact", "mask": "channels", "align": ["fcmi"]},
    {"club_gradient": "both", "train": {"codebook_updates": 6, "revival": "published"}},
    {"model": {"map_encoder": "bn", "spatial_attention": "softmax", "prototypes": True}},
    {"model": {"cell_hidden": 4}, "align": ["codis"]},
]
of_each = pytest.mark.parametrize("choice", [*EVERY, *OTHERS], ids=lambda choice: str(choice)[-30:])


@pytest.fixture(autouse=True)
def plain_lstm():
    """The fused one gives something else away where no gradient is asked for, as when a tape is played."""
    with torch.backends.mkldnn.flags(enabled=False):
        yield


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Steps are recorded as soon as one has been computed."""
    monkeypatch.setattr(captured, "WARM_UP", 1)


class Tape(TorchDispatchMode):
    """A recorder on the CPU: operators, and the memory that each read and wrote."""

    def __init__(self):
        super().__init__()
        self.operators = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        made = function(*arguments, **(keywords or {}))
        if not function.is_view:
            self.operators.append((function, arguments, keywords or {}, made))
        return made

    def beside(self):
        return contextlib.nullcontext()

    def record(self, work):
        state = torch.get_rng_state()
        kept = [(x, x.clone()) for x in self.changed()]
        with self:
            made = work()
        for x, before in kept:  # recording computes nothing on a GPU
            x.copy_(before)
        torch.set_rng_state(state)
        return made, self.play

    def play(self):
        with torch.no_grad():
            for function, arguments, keywords, made in self.operators:
                for old, new in zip(leaves(made), leaves(function(*arguments, **keywords)), strict=True):
                    if old.data_ptr() != new.data_ptr():
                        old.copy_(new)


def leaves(made):
    return [x for x in torch.utils._pytree.tree_leaves(made) if torch.is_tensor(x)]


def state_of(trainer):
    found = [*trainer.model.state_dict().values(), *trainer.objective.state_dict().values()]
    for optimizer in filter(None, (trainer.optimizer, trainer.club_optimizer)):
        found += leaves(list(optimizer.state.values()))
    return found


def capture(trainer):
    refused, tape = [], Tape()
    tape.changed = lambda: state_of(trainer)
    trainer.capture(tape, refused.append)
    return tape, refused


@of_each
def test_played_steps_learn_what_computed_ones_do(choice):
    # In single precision Adam blows up the rounding of gradients that are zero but for it.
    computed, played = build("float64", **choice), build("float64", **choice)
    tape, refused = capture(played)
    draws = [torch.manual_seed(3).get_state()] * 2
    for number in range(3):
        measured = []
        for which, trainer in enumerate((computed, played)):
            torch.set_rng_state(draws[which])
            measured.append(trainer.step({m: x.double() for m, x in batch(seed=number).items()}, 0))
            draws[which] = torch.get_rng_state()
        ours, theirs = measured
        assert list(ours) == list(theirs)
        torch.testing.assert_close(theirs, ours, rtol=1e-6, atol=1e-7)
    assert tape.operators and not refused
    for mine, other in zip(state_of(computed), state_of(played), strict=True):
        torch.testing.assert_close(other, mine, rtol=1e-5, atol=1e-6)
    assert torch.equal(computed.generator.get_state(), played.generator.get_state())


def rules_of(trainer) -> list[str]:
    """What is wrong with a step on a device that is not the CPU."""
    rules, drawn, features = Rules(trainer.device), StepDraws(), batch("meta")
    with as_on_a_gpu(trainer), drawn.noted(), rules:
        trainer.compute(features, trainer.started)
    return rules.broken + [drawn.chosen] * bool(drawn.chosen)


@of_each
def test_a_step_neither_waits_nor_copies_nor_computes_elsewhere(choice):
    assert not rules_of(build(device="meta", **choice))


def test_a_number_that_is_asked_for_and_a_copy_from_the_host_are_found(monkeypatch):
    observe = CMCM.observe

    def copying(self, out, layer):
        torch.ones(3).to(next(iter(out.general.values())).device)
        return observe(self, out, layer)

    monkeypatch.setattr(CMCM, "observe", copying)
    assert "_to_copy.default has a tensor on the cpu" in rules_of(build(device="meta"))

    def asking(self, out, layer):
        next(iter(out.general.values())).sum().item()
        return observe(self, out, layer)

    monkeypatch.setattr(CMCM, "observe", asking)
    with pytest.raises(RuntimeError, match="item"):  # there is no number on this device
        rules_of(build(device="meta"))
    trainer = build()
    _, refused = capture(trainer)
    for _ in range(2):
        trainer.step(batch(), 0)
    assert refused == ["_local_scalar_dense.default waits for the device"] and trainer.captured.gave_up


def test_what_the_program_decides_by_lot_is_not_recorded():
    trainer = build(cpc_steps="random")
    tape, refused = capture(trainer)
    for _ in range(2):
        trainer.step(batch(), 0)
    assert not tape.operators and len(refused) == 1 and "--cpc-steps random" in refused[0]


def test_each_number_of_layers_is_recorded_on_its_own_and_a_saved_state_has_plain_numbers():
    trainer = build(train={"warmup": 1})
    tape, refused = capture(trainer)
    for epoch in (0, 1):
        tape.operators = []
        for number in range(3):
            measured = trainer.step(batch(), epoch)
            assert ("loss/2/cpc" in measured) == bool(epoch)
            assert bool(tape.operators) == (number >= 1)
    assert not refused
    group = trainer.state_dict()["optimizer"]["param_groups"][0]
    assert group["lr"] == pytest.approx(trainer.learning_rate(trainer.step_number - 1)) and group["capturable"] is False
    again = build(train={"warmup": 1})
    again.load_state_dict(trainer.state_dict())
    capture(again)
    again.step(batch(), 1)
    assert torch.is_tensor(again.optimizer.param_groups[0]["lr"])


def test_what_a_step_has_learned_from_is_gone_when_it_is_over():
    """Else the next one would add up gradients on the stream of this one, which a recording on another cannot have."""
    trainer = build(align=["cpc", "codis", "cujp"])
    trainer.start_layers(batch(), 2, None)
    parameters = [p for group in trainer.optimizer.param_groups for p in group["params"] if p.requires_grad]
    with torch.enable_grad():
        ends = [p.view_as(p).grad_fn.next_functions[0][0] for p in parameters]
        for end in ends:
            end.metadata["of"] = "the step"
        measured = trainer.step(batch(), 0)  # keeps all that it returns
        del ends, end
        later = [p.view_as(p).grad_fn.next_functions[0][0].metadata for p in parameters]
    assert measured and all(p.grad is not None for p in trainer.modules["encoder"]) and not any(later)


def test_a_recording_that_fails_leaves_stream_and_generator_as_they_were_and_its_reason_is_told(monkeypatch):
    ordinary, side = (SimpleNamespace(name=name, device="cpu", device_index=0) for name in ("ordinary", "side"))
    now = [ordinary]

    class Recording:
        def __init__(self, graph, stream, capture_error_mode):
            assert stream is side and capture_error_mode == "thread_local"

        def __enter__(self):
            now[:] = [side]

        def __exit__(self, *_):  # as that of torch: its stream stays
            raise RuntimeError("operation failed due to a previous error during capture\nSearch for it")

    kept = torch.Generator().manual_seed(5)
    state = kept.get_state()
    default = SimpleNamespace(graphsafe_set_state=lambda generator: kept.set_state(generator.get_state()))
    for name, value in {
        "Stream": lambda device: side,
        "CUDAGraph": object,
        "graph": Recording,
        "current_stream": lambda device: now[0],
        "set_stream": lambda stream: now.__setitem__(0, stream),
        "get_rng_state": lambda device: state,
        "default_generators": [default],
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    trainer, refused = build(), []
    recorder = CudaRecorder(torch.device("cuda:0"))
    monkeypatch.setattr(recorder, "beside", contextlib.nullcontext)
    trainer.capture(recorder, refused.append)
    trainer.step(batch(), 0)
    kept.manual_seed(6)

    def failing(*_):
        raise RuntimeError("operation not permitted when stream is capturing\nCompile with")

    monkeypatch.setattr(trainer.captured, "_compute", failing)
    with pytest.raises(RuntimeError, match="not permitted"):  # computed after all: by the same, here
        trainer.step(batch(), 0)
    assert refused == ["operation not permitted when stream is capturing"]
    assert now == [ordinary] and torch.equal(kept.get_state(), state)


def test_on_a_machine_without_cuda_steps_are_computed_and_on_is_refused():
    trainer = build()
    record_steps(trainer, "auto")
    record_steps(trainer, "off")
    assert trainer.captured is None
    with pytest.raises(InputError, match=r"--graph on: .* this run computes on cpu; use --graph auto"):
        record_steps(trainer, "on")


def test_deterministic_kernels_are_asked_for_while_a_run_lasts():
    def now():
        return torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark

    before = now()
    with kernels(deterministic=True):
        assert now() == (True, False)
        build().step(batch(), 0)
    with kernels(deterministic=False):
        assert now() == (False, True)
    assert now() == before
