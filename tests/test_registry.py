"""Alignments and quantizers by name: what somebody else adds by one entry works like our own."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from hdcid_cli.codes.checkpoint import open_checkpoint, write_checkpoint
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.registry import Entry, listed
from hdcid_cli.models.hdcid import HDCID
from hdcid_cli.models.quantizers import QUANTIZERS
from hdcid_cli.models.quantizers.quantizer import Quantized
from hdcid_cli.models.quantizers.vq import nearest, straight_through
from hdcid_cli.models.settings import ModelSettings
from hdcid_cli.training.alignments import ALIGNMENTS
from hdcid_cli.training.losses.alignment import Alignment, clip_embeddings
from hdcid_cli.training.objective import Objective, current_names
from hdcid_cli.training.plan import plan
from hdcid_cli.training.settings import ObjectiveSettings, PretrainSettings, TrainSettings
from hdcid_cli.training.trainer import Trainer

INPUTS = {"audio": (12,), "video": (5, 5, 8)}

pytestmark = pytest.mark.usefixtures("double")


class Closeness(Alignment):
    """Squared distance of two modalities' clip embeddings, each scaled by a number that is learned."""

    def __init__(self, modalities):
        super().__init__()
        self.scale = nn.ParameterDict({name: nn.Parameter(torch.ones(())) for name in modalities})
        self.steps = 0

    @classmethod
    def of(cls, settings, layer):
        return cls(layer.config.modalities)

    def observe(self, out, layer):
        return {name: x.flatten(1).sum(dim=1) for name, x in out.inputs.items()}

    def forward(self, out, layer, generator):
        assert out.observed[self]["audio"].shape == (6,)
        one, other = (self.scale[name] * x for name, x in clip_embeddings(out.general, out).items())
        return (one - other).square().mean(), {"closeness": torch.rand((), generator=generator)}

    def follow(self, layer):
        self.steps += 1


class Corners(nn.Module):
    """Codes that stay where they are."""

    learns_by_ema, others_share, readings, stages, parts = False, None, {}, 1, 1

    def __init__(self, codes, dim):
        super().__init__()
        self.codes, self.width = codes, dim
        self.register_buffer("table", torch.randn(codes, dim))

    def forward(self, z, modality):
        index = nearest(z, self.table)
        return self.table[index], index.unsqueeze(-1)

    def quantize(self, general, valid=None):
        found = {name: self(z, name) for name, z in general.items()}
        codes, indices = ({name: pair[part] for name, pair in found.items()} for part in (0, 1))
        return Quantized(codes, {m: straight_through(z, codes[m]) for m, z in general.items()}, indices)

    def decode(self, indices, modality):
        return self.table[indices[..., 0]]

    def distances(self, z, modality):
        return torch.cdist(z, self.table)

    def start(self, *arguments, **more):
        pass

    update = revive = start


def corners(argument, settings):
    return Corners(int(argument), settings.dim)


def train(steps, quantizer="vq", align="cpc", layers=2):
    sizes = {"layers": layers, "dim": 16, "codebook": 7, "feedforward": 16, "dropout": 0.0, "map_hidden": 4}
    config = ModelSettings(inputs=INPUTS, quantizer=quantizer, map_specific=4, **sizes)
    model = HDCID(config)
    objective = Objective(ObjectiveSettings(align=align.split(",")), model)
    settings = TrainSettings(epochs=30, batch_size=6, warmup=0, lr=3e-3, precision="float64")
    trainer = Trainer(model, objective, settings, 1, "cpu")
    batch = {name: torch.rand(6, 4, *shape) for name, shape in INPUTS.items()}
    return trainer, [trainer.step(batch, 0) for _ in range(steps)]


def test_an_alignment_from_outside_learns_like_our_own(monkeypatch):
    monkeypatch.setitem(ALIGNMENTS, "closeness", Entry("as near as can be", f"{__name__}:Closeness"))
    trainer, metrics = train(8, align="closeness", layers=1)
    assert metrics[-1]["loss/1/closeness"] < metrics[0]["loss/1/closeness"]
    assert 0 < metrics[0]["closeness/1"] < 1
    added = trainer.objective.layers[0].alignments["closeness"]
    assert added.steps == 8 and added.scale["video"] != 1


def test_a_quantizer_from_outside_serves_training_and_encoding(monkeypatch):
    monkeypatch.setitem(QUANTIZERS, "corners", Entry("codes that stay", f"{__name__}:corners", "corners:L"))
    trainer, metrics = train(8, "corners:5", "cmcm,cpc")
    assert metrics[-1]["loss"] < metrics[0]["loss"] and "loss/1/commitment" not in metrics[0]
    codes, indices = trainer.model.eval().encode("video", torch.rand(3, 4, 5, 5, 8))
    assert codes.shape == (3, 4, 2, 16) and indices.shape == (3, 4, 2, 1)
    torch.testing.assert_close(trainer.model.layers[1].quantizer.decode(indices[:, :, 1], "video"), codes[:, :, 1])
    with pytest.raises(InputError, match=r"fsq\[:levels\].* or corners:L"):
        train(0, "edges")
    with pytest.raises(InputError, match="'corners:many' cannot be understood"):
        train(0, "corners:many")


def test_a_name_stands_for_its_number_or_levels_when_a_run_is_planned(tmp_path):
    for name, full in (("fsq", "fsq:5,5,4,4"), ("rvq", "rvq:2"), ("pq:4", "pq:4"), ("vq", "vq")):
        assert (
            plan(tmp_path, PretrainSettings.of(quantizer=name), modalities=("audio",)).settings.model.quantizer == full
        )


def test_fsq_without_levels_in_an_older_checkpoint_has_those_of_its_time(tmp_path):
    settings = ModelSettings(inputs=INPUTS, layers=1, dim=16, map_specific=4, quantizer="fsq:8,5,5,2")
    config = {"model": {**settings.to_dict(), "quantizer": "fsq"}, "train": {"precision": "float64"}}
    write_checkpoint(tmp_path / "old", config, HDCID(settings))
    opened = open_checkpoint(tmp_path / "old", device="cpu")
    assert opened.model.layers[0].quantizer.levels == [8, 5, 5, 2]
    assert opened.describe()["quantizer"] == "fsq:8,5,5,2"


@pytest.mark.parametrize("module", ["hdcid_cli.models.quantizers", "hdcid_cli.training.alignments"])
def test_names_and_summaries_are_known_without_torch(module):
    program = f"import sys, {module}; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_entry_is_there_and_says_what_it_is():
    for entry in [*ALIGNMENTS.values(), *QUANTIZERS.values()]:
        assert callable(entry.load()) and entry.summary and not entry.summary.endswith(".")
    assert listed(QUANTIZERS).startswith("vq, rvq:N") and listed({"one": ALIGNMENTS["cpc"]}) == "one"


def test_the_losses_that_version_0_1_saved_are_taken_up_again():
    trainer, _ = train(2, align="codis,mst,cpc")
    state = trainer.objective.state_dict()
    old = {}
    for name, value in state.items():
        name = name.replace(".alignments.", ".methods.")
        for part, was in (("log_scale", "loss.contrast.log_scale"), ("prototypes", "loss.prototypes")):
            name = name.replace(f".codis.{part}", f".codis.{was}")
        old[name] = value
    assert old.keys() != state.keys()
    assert current_names(old).keys() == state.keys()
