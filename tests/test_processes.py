"""Every quantizer, alignment and gradient of CLUB: two and three processes learn what one does, to 1e-6 in float64.

The processes are threads here, so that the whole table of combinations takes seconds; `test_distributed.py` starts
real ones under torchrun.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
import torch

from hdcid_cli.core.distributed import World
from hdcid_cli.models.assembled import build_model
from hdcid_cli.models.settings import ModelSettings
from hdcid_cli.training.alignments import ALIGNMENTS, asked_of_model
from hdcid_cli.training.objective import Objective
from hdcid_cli.training.settings import ObjectiveSettings, TrainSettings
from hdcid_cli.training.trainer import Trainer

INPUTS = {"audio": (6,), "video": (5, 5, 4), "text": (5,)}
VECTORS = {"audio": (6,), "video": (5,)}
BATCH, STEPS = 6, 3

pytestmark = pytest.mark.usefixtures("double")


@dataclass
class Table:
    """Where the threads of one world put what the others are to see."""

    size: int
    parts: list = field(default_factory=list)

    def __post_init__(self):
        self.parts = [None] * self.size
        self.barrier = threading.Barrier(self.size, timeout=60)

    def exchange(self, rank, value):
        self.parts[rank] = value
        self.barrier.wait()
        parts = list(self.parts)
        self.barrier.wait()
        return parts


@dataclass(frozen=True)
class Threads(World):
    """A world of threads, which exchanges what torch.distributed would."""

    table: Table | None = None

    def _all_gather(self, sent):
        return torch.stack(self.table.exchange(self.rank, sent.clone()))

    def _all_reduce(self, summed):
        parts = self.table.exchange(self.rank, summed.clone())
        return lambda: summed.copy_(sum(parts))

    def collect(self, value):
        return self.table.exchange(self.rank, value)


def build(inputs, quantizer, align, club, **options):
    torch.manual_seed(0)
    sizes = {"dim": 8, "codebook": 9, "feedforward": 8, "heads": 2, "transformer_layers": 1, "map_hidden": 3}
    config = ModelSettings(
        inputs=inputs,
        quantizer=quantizer,
        dropout=0.0,
        **asked_of_model(align.split(",")),
        specific=4,
        map_specific=3,
        **sizes,
        **options,
    )
    bound, _, gradient = club.partition("/")
    losses = {"align": align.split(","), "club": bound, "club_gradient": gradient or "both", "club_weight": 1.0}
    objective = ObjectiveSettings(**losses, club_hidden=4, club_steps=2, cpc_steps="random", cpc_layers=1)
    model = build_model(config)
    return model, Objective(objective, model)


def learn(model, objective, world, lengths=None, **options):
    """A few steps on this rank's part of the clips; the weights in the end."""
    settings = {"idle": 1, "codebook_updates": 2, "warmup": 1, "lr": 1e-2, **options}
    trainer = Trainer(model, objective, TrainSettings(epochs=9, precision="float64", **settings), 2, "cpu", world)
    share = slice(world.rank * BATCH // world.size, (world.rank + 1) * BATCH // world.size)
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(step)
        inputs = model.config.inputs
        clips = {name: torch.rand(BATCH, 4, *shape, generator=generator) for name, shape in inputs.items()}
        mine = lengths and {name: length[share] for name, length in lengths.items()}
        trainer.step({name: x[share] for name, x in clips.items()}, step // 2, mine)
    return {**model.state_dict(), **{f"objective.{name}": x for name, x in objective.state_dict().items()}}


def assert_processes_agree(*built, lengths=None, model=None, sizes=(2, 3), **options):
    def parts():
        return build(*built, **(model or {}))

    before = parts()[0].state_dict()
    expected = learn(*parts(), World(), lengths, **options)
    for size in sizes:
        table = Table(size)
        with ThreadPoolExecutor(size) as pool:
            worlds = [Threads(rank, size, table) for rank in range(size)]
            runs = [pool.submit(learn, *parts(), world, lengths, **options) for world in worlds]
            found = [run.result() for run in runs]
        for name, value in expected.items():
            for state in found:
                torch.testing.assert_close(state[name], value, rtol=1e-6, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")
    assert any((expected[name] - before[name]).abs().max() > 1e-3 for name in before if "general" in name)


CLUB = [
    "sampled/both",
    *(pytest.param(club, marks=pytest.mark.slow) for club in ("sampled/specific", "exact/both", "none")),
]


@pytest.mark.parametrize("club", CLUB)
@pytest.mark.parametrize(
    "quantizer",
    ["vq", "fsq:3,3", *(pytest.param(name, marks=pytest.mark.slow) for name in ("rvq:2", "pq:2", "aligned"))],
)
@pytest.mark.parametrize("align", ALIGNMENTS)
def test_processes_learn_what_one_does(quantizer, align, club):
    assert_processes_agree(VECTORS, quantizer, align, club, model={"layers": 1, "text_hidden": 0})


@pytest.mark.parametrize("quantizer", ["vq", "rvq:2", "fsq:3,3", "pq:2", "aligned"])
def test_with_all_alignments_at_once_and_clips_of_any_length_they_do_too(quantizer):
    lengths = {name: torch.tensor([4, 1, 3, 2, 4, 2]).roll(number) for number, name in enumerate(INPUTS)}
    model = {"layers": 2, "text_hidden": 2, "padding": "mask"}
    assert_processes_agree(
        INPUTS, quantizer, ",".join(ALIGNMENTS), "sampled/both", lengths=lengths, model=model, revival="published"
    )


@pytest.mark.parametrize("padding", ["repeat", "mask"])
def test_fcids_two_levels_do_too(padding):
    lengths = {name: torch.tensor([4, 1, 3, 2, 4, 2]).roll(number) for number, name in enumerate(INPUTS)}
    model = {"kind": "fcid", "padding": padding}
    assert_processes_agree(
        INPUTS,
        "vq",
        "cpc:av,cmcm,infonce:t",
        "sampled/both",
        lengths=lengths if padding == "mask" else None,
        model=model,
    )


@pytest.mark.parametrize("attention", ["sum", "softmax"])
def test_cells_that_are_read_before_they_are_added_up_do_too(attention):
    model = {"layers": 1, "text_hidden": 2, "cell_hidden": 3, "spatial_attention": attention}
    assert_processes_agree(INPUTS, "vq", "fcmi,seconds,codis", "none", model=model)


def test_processes_let_the_same_clips_exchange_seconds():
    lengths = {name: torch.tensor([4, 1, 3, 2, 4, 2]).roll(number) for number, name in enumerate(INPUTS)}
    model = {"layers": 1, "text_hidden": 2, "padding": "mask"}
    assert_processes_agree(INPUTS, "vq", "smit", "none", lengths=lengths, model=model, sizes=(3,), mix=0.5)
