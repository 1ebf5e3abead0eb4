"""Every recipe is understood and trains."""

import json
import re

import pytest
import torch
import yaml
from worlds import write_features

from hdcid_cli.codes.checkpoint import CHECKPOINT, open_checkpoint
from hdcid_cli.core.run_directory import read_config
from hdcid_cli.main import run
from hdcid_cli.models.quantizers import completed
from hdcid_cli.training.recipes import find_recipe, recipe_names, summary

RECIPES = [find_recipe(name) for name in recipe_names()]
# What makes a recipe's run small; everything else is the recipe's own.
SMALL = ["--dim", "16", "--batch-size", "6", "--epochs", "2", "--warmup", "1", "--dropout", "0"]


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes")
    write_features(folder, clips=6, steps=4, modalities=("audio", "video", "text"))
    return folder


def test_every_row_of_the_papers_tables_has_its_recipe():
    names = {path.stem for path in RECIPES}
    assert sum(name.startswith("table3_") for name in names) == 17
    assert sum(name.startswith("table2_") for name in names) == 7
    for method in ("dcid", "hdcid"):
        assert {f"table1_{method}", f"figure5_{method}", f"published_{method}"} <= names
    assert "table5_dcid" in names


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_trains_as_it_says(path, features, tmp_path):
    torch.set_num_threads(1)
    recipe = yaml.safe_load(path.read_text())
    assert (
        run(
            ["pretrain", "--recipe", path.stem, "--features", str(features), "-o", str(tmp_path / "model"), *SMALL],
            {"debug": True},
        )
        == 0
    )
    checkpoint = open_checkpoint(tmp_path / "model")
    described, align, model = checkpoint.describe(), recipe["align"], recipe.pop("model", "hdcid")
    assert described["modalities"] == recipe["modalities"] and described["layers"] == recipe.get("layers", 1)
    assert described["method"] == (align if model == "hdcid" else model) and described["codebook"] == recipe.get(
        "codebook", 400
    )
    assert described["quantizer"] == completed(recipe.pop("quantizer", "vq"), described["codebook"])
    config = read_config(checkpoint.path, CHECKPOINT)
    settings = {key: value for section in ("model", "objective", "train") for key, value in config[section].items()}
    own = recipe.keys() - {"modalities", "align", *(option.removeprefix("--") for option in SMALL[::2])}
    assert all(settings[key.replace("-", "_")] == recipe[key] for key in own)
    last = json.loads((tmp_path / "model" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 2
    layers = recipe.get("layers", 2)
    found = [{name.partition("/")[2] for name in last if name.startswith(f"loss/{k + 1}/")} for k in range(layers or 1)]
    found = [{name.partition("/")[2] for name in terms} for terms in found]
    if model == "hdcid":  # every layer has every alignment; FCID's levels share them out
        assert all(set(align.split(",")) <= terms for terms in found)
    assert set(align.split(",")) <= set.union(*found)
    assert ("reconstruction" in found[0]) is (layers > 0)


def test_a_summary_is_a_whole_sentence():
    for name in recipe_names():
        said = summary(name)
        assert said.endswith(".") and said.count("(") == said.count(")") and not re.search(r"\b(al|eq)\.$", said), name
    assert summary("fcid").startswith("FCID (Huang et al. 2024) as its authors' code trains it")
