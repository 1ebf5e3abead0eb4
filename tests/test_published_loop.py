"""The recipe `published_hdcid` learns what the published loop learns, whose structure `published_loop.py`
spells out.
"""

from pathlib import Path

import pytest
import torch
import yaml
from published_loop import PublishedLoop

from hdcid_cli.models.hdcid import HDCID
from hdcid_cli.models.settings import ModelSettings
from hdcid_cli.training.objective import Objective
from hdcid_cli.training.recipe import MODEL, OBJECTIVE, TRAIN
from hdcid_cli.training.settings import ObjectiveSettings, TrainSettings
from hdcid_cli.training.trainer import Trainer

INPUTS = {"audio": (12,), "video": (5, 5, 8), "text": (10,)}
IDLE = 8  # so that codes die within the test
RECIPE = Path(__file__).parents[1] / "examples" / "recipes" / "published_hdcid.yaml"


def settings():
    """The recipe's options by configuration, without dropout, which the two would draw differently."""
    recipe = {key.replace("-", "_"): value for key, value in yaml.safe_load(RECIPE.read_text()).items()}
    small = {**recipe, "dropout": 0.0, "dim": 16, "codebook": 12, "idle": IDLE}
    return [{key: small[key] for key in names if key in small} for names in (MODEL, OBJECTIVE, TRAIN)]


def build():
    model, objective, _ = settings()
    torch.manual_seed(0)
    model = HDCID(ModelSettings(inputs=INPUTS, text_hidden=4, feedforward=16, **model))
    return model.double().train(), Objective(ObjectiveSettings(align=("cpc",), **objective), model).double()


def test_one_encoder_pass_a_step_learns_what_six_learn():
    torch.set_num_threads(1)
    trainer = Trainer(*build(), TrainSettings(epochs=5, warmup=0, batch_size=6, **settings()[2]), 100, "cpu")
    loop = PublishedLoop(*build(), torch.Generator().manual_seed(0), IDLE)
    for number in range(4):
        generator = torch.Generator().manual_seed(number)
        features = {name: torch.rand(6, 5, *shape, generator=generator).double() for name, shape in INPUTS.items()}
        ours, published = trainer.step(features, 0), loop.step(features)
        assert published.keys() == {name for name in ours if name.startswith("loss/")}
        for name, value in published.items():
            assert ours[name].item() == pytest.approx(value.item(), rel=1e-8), (number, name)
    for name, value in loop.model.state_dict().items():
        torch.testing.assert_close(trainer.model.state_dict()[name], value, rtol=1e-7, atol=1e-9, msg=name)
    assert all((layer.quantizer.unused <= IDLE).all() for layer in loop.model.layers)  # 24 updates: some were revived
