"""Options that were given and make no difference are told, and no others."""

import re

import pytest
from made_records import lines, record
from step import INPUTS, SIZES

from hdcid_cli.core.modalities import modalities
from hdcid_cli.main import run
from hdcid_cli.models.assembled import build_model
from hdcid_cli.models.quantizers import completed
from hdcid_cli.training.alignments import ALIGNMENTS, READS, asked_of_model
from hdcid_cli.training.idle import tell_idle_settings
from hdcid_cli.training.objective import Objective
from hdcid_cli.training.plan import usual
from hdcid_cli.training.recipes import recipe_names, recipe_settings
from hdcid_cli.training.settings import ObjectiveSettings, PretrainSettings


def told(capsys):
    return re.findall(r"^(?:warning: )?(--\S+) makes no difference", capsys.readouterr().err, re.MULTILINE)


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("codes avvp --train v --test v", ["--train", "--test"]),
        ("codes avvp --modalities av --split val --data data", []),
        ("codes --clip x --modalities av --split val", ["--modalities", "--split"]),
        ("codes --clip x --train v --test v", []),
        ("cmg ave --supervised --train a --test a --toc 8 --layers-used 1 --checkpoint x --read own",
         ["--toc", "--read", "--layers-used", "--checkpoint"]),
        ("cmg ave --train a --test a --toc 8 --layers-used 1 --checkpoint x --read own", []),
        ("toc --criterion variance --lambda 0.5", ["--lambda"]),
        ("toc --lambda 0.5", []),
        ("encode features/x.h5 --features features", ["--features"]),
        ("encode features/x.h5 -o x.h5 --format npz", ["--format"]),
        ("encode --features features -o codes --format npz", []),
        ("extract --modality t --backbone hash --batch-size 3 --workers 2 -o x.h5 --features f words.csv",
         ["--features", "--workers", "--batch-size"]),
        ("extract --modality t --backbone hash --features f words.csv", []),
        ("convert features x.h5 --modality a -o y.h5 --features f", ["--features"]),
        ("convert checkpoint x.pt -o y --checkpoints z", ["--checkpoints"]),
        ("pretrain -o mine --checkpoints checkpoints --split none --data data", ["--data", "--checkpoints"]),
        ("pretrain --split none --data data", ["--data"]),
        ("pretrain --split none --data data --leave-out a=b", []),
        ("report RECORDS --explain --best --figures figures", ["--best", "--figures"]),
        ("report RECORDS --layout table1 --metrics f1 --best", ["--metrics"]),
        ("report RECORDS --format json --best --spread none --examples 3", ["--spread", "--best", "--examples"]),
        ("report RECORDS --format csv --spread none --metrics f1", []),
    ],
)  # fmt: skip
def test_options_of_commands(line, options, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HDCID_DATA", "data")  # what the environment says is for all commands
    monkeypatch.setenv("HDCID_CHECKPOINTS", "checkpoints")
    (tmp_path / "records.jsonl").write_text(lines(record(metric="f1")))
    (tmp_path / "words.csv").write_text("id,text\na,some words\n")
    run(line.replace("RECORDS", "records.jsonl").split(), {})
    assert told(capsys) == options


def test_a_file_of_options_says_as_much_as_the_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "codes.yaml").write_text("train: v\n")
    run(["codes", "avvp", "--config", "codes.yaml"], {})
    assert told(capsys) == ["--train"]


def tell(names=("audio", "video", "text"), **values):
    """What `pretrain` says of settings, for tiny networks."""
    settings = usual(PretrainSettings.of(**{**{"dim": 16, "codebook": 12}, **values}))
    inputs = {name: INPUTS[name] for name in names}
    sizes = {name: size for name, size in SIZES.items() if name not in ("dim", "codebook")}
    asked = asked_of_model(settings.objective.align)
    quantizer = completed(settings.model.quantizer, settings.model.codebook)
    model = build_model(settings.model.but(inputs=inputs, quantizer=quantizer, **sizes, **asked))
    filled = PretrainSettings(settings.model.but(quantizer=quantizer), settings.objective, settings.train, settings.run)
    tell_idle_settings(filled, model, Objective(settings.objective, model))


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({}, []),
        ({"temperature": 0.2}, ["--temperature"]),
        ({"temperature": 0.2, "align": ("cpc:av", "infonce:t")}, []),
        ({"align": ("cmcm",), "cpc_steps": "random", "mask": "channels", "jigsaw_parts": 4},
         ["--cpc-steps", "--mask", "--jigsaw-parts"]),
        ({"align": ("fcmi", "cujp"), "mask": "channels", "jigsaw_parts": 4}, []),
        ({"align": ("cmcm", "cujp:av"), "align_on": "both"}, ["--align-on"]),
        ({"kind": "fcid", "align": ("cpc",), "align_on": "both"}, ["--align-on"]),
        ({"align_on": "both"}, []),
        ({"cascade": False}, ["--no-cascade"]),
        ({"cascade": False, "quantizer": "aligned"}, []),
        ({"quantizer": "fsq:3,3", "codebook": 20}, ["--codebook"]),
        ({"quantizer": "fsq", "codebook": 20}, []),
        ({"quantizer": "fsq", "codebook": 9, "mm_ema": False, "idle": 9, "decay": 0.5},
         ["--no-mm-ema", "--decay", "--idle"]),
        ({"mm_ema": False, "idle": 9, "decay": 0.5, "codebook_updates": 2}, []),
        ({"revival": "none", "idle": 9}, ["--idle"]),
        ({"club": "none", "club_weight": 1, "club_gradient": "both"}, ["--club-weight", "--club-gradient"]),
        ({"layers": 1, "deeper": 1, "warmup": 2}, ["--deeper", "--warmup"]),
        ({"layers": 0, "club_weight": 1, "map_encoder": "bn"}, ["--map-encoder", "--club-weight"]),
        ({"deeper": 1, "warmup": 2, "club_weight": 1}, []),
        ({"names": ("audio", "text"), "spatial_attention": "softmax", "cell_hidden": 8},
         ["--spatial-attention", "--cell-hidden"]),
        ({"names": ("audio", "video"), "spatial_attention": "softmax", "map_encoder": "bn"}, []),
        ({"kind": "fcid"}, []),
    ],
)  # fmt: skip
def test_settings_of_a_run(settings, options, capsys):
    tell(**settings)
    assert told(capsys) == options


@pytest.mark.parametrize("name", recipe_names())
def test_no_recipe_says_what_makes_no_difference(name, capsys):
    said = recipe_settings(name)
    tell(modalities(said.pop("modalities")), **{**said, "dim": 16})
    assert told(capsys) == []


class Noting:
    """Settings that note what is asked of them."""

    def __init__(self):
        self.settings, self.asked = ObjectiveSettings(), set()

    def __getattr__(self, name):
        self.asked.add(name)
        return getattr(self.settings, name)


def test_it_is_known_what_alignments_read():
    assert READS.keys() == ALIGNMENTS.keys()
    for name, entry in ALIGNMENTS.items():
        sizes = {**SIZES, **asked_of_model([name])}
        model = build_model(PretrainSettings().model.but(inputs=INPUTS, **sizes))
        noting = Noting()
        entry.load().of(noting, model.layers[0])
        assert noting.asked == set(READS[name]), name


def test_of_an_alignment_from_outside_nothing_is_known(monkeypatch, capsys):
    monkeypatch.setitem(ALIGNMENTS, "mine", ALIGNMENTS["infonce"])
    tell(align=("mine",), temperature=0.2, cpc_layers=1)
    assert told(capsys) == []
