"""The recipe `published_hdcid` learns what the published loop learns, whose structure `published_loop.py`
spells out.
"""

import pytest
import torch
from published_loop import PublishedLoop

from hdcid_cli.models.hdcid import HDCID
from hdcid_cli.training.objective import Objective
from hdcid_cli.training.recipes import recipe_settings
from hdcid_cli.training.settings import PretrainSettings
from hdcid_cli.training.trainer import Trainer

INPUTS = {"audio": (12,), "video": (5, 5, 8), "text": (10,)}
IDLE = 8  # so that codes die within the test
CLIP = 5e-4  # so that every module is clipped


def settings() -> PretrainSettings:
    """The recipe's settings, small, and without dropout, which the two would draw differently."""
    recipe = recipe_settings("published_hdcid")
    small = {"dropout": 0.0, "dim": 16, "codebook": 12, "idle": IDLE, "clip": CLIP, "batch_size": 6, "warmup": 0}
    structure = {"inputs": INPUTS, "text_hidden": 4, "feedforward": 16, "align": ("cpc",)}
    del recipe["modalities"]
    return PretrainSettings.of(**{**recipe, **small, **structure})


def build():
    chosen = settings()
    torch.manual_seed(0)
    model = HDCID(chosen.model)
    return model.double().train(), Objective(chosen.objective, model).double()


def test_one_encoder_pass_a_step_learns_what_six_learn():
    torch.set_num_threads(1)
    trainer = Trainer(*build(), settings().train, 100, "cpu")
    loop = PublishedLoop(*build(), torch.Generator().manual_seed(0), IDLE, CLIP)
    for number in range(4):
        generator = torch.Generator().manual_seed(number)
        features = {name: torch.rand(6, 5, *shape, generator=generator).double() for name, shape in INPUTS.items()}
        ours, published = trainer.step(features, 0), loop.step(features)
        assert published.keys() == {name for name in ours if name.startswith("loss/")}
        for name, value in published.items():
            assert ours[name].item() == pytest.approx(value.item(), rel=1e-8), (number, name)
        norms = {name: value.item() for name, value in ours.items() if name.startswith("gradient/")}
        assert len(norms) == len(loop.groups) and min(norms.values()) > CLIP
    for name, value in loop.model.state_dict().items():
        torch.testing.assert_close(trainer.model.state_dict()[name], value, rtol=1e-7, atol=1e-9, msg=name)
    assert all((layer.quantizer.unused <= IDLE).all() for layer in loop.model.layers)  # 24 updates: some were revived
