"""examples/mine.py: what somebody adds in a file of their own works in every command, and computes what it says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from media_files import write_media
from worlds import write_features

from hdcid_cli.backbones import BACKBONES
from hdcid_cli.core.features import FeatureFile
from hdcid_cli.models.hdcid import LayerOutput
from hdcid_cli.models.quantizers import QUANTIZERS
from hdcid_cli.models.settings import ModelSettings
from hdcid_cli.tasks.cmg.tasks import TASKS
from hdcid_cli.training.alignments import ALIGNMENTS

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = "--dim 16 --codebook 12 --layers 1 --batch-size 8 --epochs 2"
TRAIN = f"""
import mine
from hdcid_cli.main import run
assert run("pretrain {SMALL} --align cpc,coral:a --quantizer lfq -o model".split(), {{}}) == 0
assert run("toc model --keep 8".split(), {{}}) == 0
assert run("cmg mood --checkpoint model --train v --test a --epochs 2".split(), {{}}) == 0
"""


@pytest.fixture
def mine(monkeypatch):
    """The module, whose entries are taken back afterwards."""
    for registry, name in ((ALIGNMENTS, "coral"), (QUANTIZERS, "lfq"), (BACKBONES["video"], "colour"), (TASKS, "mood")):
        monkeypatch.setitem(registry, name, None)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    import mine

    return mine


def test_every_command_knows_what_the_file_adds(tmp_path):
    _, names = write_features(tmp_path / "features", clips=16)
    write_media(tmp_path / "red.mp4", [np.full((32, 32, 3), (200, 0, 0), np.uint8)] * 25)
    (tmp_path / "data" / "mood").mkdir(parents=True)
    rows = [f"{name},{('calm', 'wild')[n % 2]},{('train', 'test')[n // 2 % 2]}" for n, name in enumerate(names)]
    (tmp_path / "data" / "mood" / "moods.csv").write_text("\n".join(["clip,mood,part", *rows]) + "\n")
    paths = os.pathsep.join([str(EXAMPLES), str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")])

    def python(*arguments):
        call = [sys.executable, *arguments]
        done = subprocess.run(
            call, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}
        )
        assert done.returncode == 0, done.stderr
        return done

    extract = "extract --modality video --backbone colour --fps 4 --workers 1 -o colour.h5 red.mp4"
    assert "warning" not in python(str(EXAMPLES / "mine.py"), *extract.split()).stderr
    with FeatureFile([tmp_path / "colour.h5"]) as file:
        assert file.backbone == "colour@4fps" and np.allclose(file.read([0])[0, 0] * 255, (200, 0, 0), atol=8)
    done = python("-c", TRAIN)
    assert "without 8 test clips of data/mood/moods.csv" in done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines() if '"task"' in line]
    assert {record["task"] for record in records} == {"mood"}
    assert (records[0]["method"], records[0]["quantizer"]) == ("cpc,coral:a", "lfq:4")


def test_coral_is_the_formula_in_plain_numpy(mine, double):
    general = {name: torch.randn(6, 4, 3) for name in ("audio", "video", "text")}
    loss, _ = mine.CORAL()(LayerOutput(inputs=general, general=general), None, None)
    audio, video, text = (np.cov(z.mean(dim=1).numpy(), rowvar=False) for z in general.values())
    pairs = ((audio, video), (audio, text), (video, text))
    assert loss.item() == pytest.approx(sum(((one - other) ** 2).sum() for one, other in pairs) / 36)


def test_lfq_decodes_its_own_indices_and_names_every_corner_once(mine, double):
    made = mine.lfq("3", ModelSettings(inputs={"audio": (3,)}, dim=4))
    z = torch.randn(2, 5, 4)
    code, indices = made(z, "audio")
    torch.testing.assert_close(made.decode(indices, "audio"), code)
    signs = made.project_in(z).detach().numpy() > 0
    assert (indices[..., 0].numpy() == (signs * [1, 2, 4]).sum(axis=-1)).all()
    assert len(made.table.unique(dim=0)) == made.codes == 8
    assert (made.distances(z, "audio").argmin(dim=-1) == indices[..., 0]).all()


def test_a_table_without_clips_is_told_of(mine, tmp_path):
    from hdcid_cli.tasks.survey import survey_data

    (tmp_path / "moods.csv").write_text("clip,mood,part\n")
    write_features(tmp_path / "features", clips=4)
    found = [
        record for record in survey_data(tmp_path, tmp_path / "features", tmp_path) if record.get("task") == "mood"
    ]
    assert [(each["state"], each["findings"]) for each in found] == [
        ("incomplete", [f"{tmp_path / 'moods.csv'} names no clips."])
    ]
