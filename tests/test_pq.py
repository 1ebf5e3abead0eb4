"""Product quantization: blocks that know nothing of each other, and VQ where there is one."""

import numpy as np
import pytest
import torch

from hdcid_cli.core.errors import InputError
from hdcid_cli.models.hdcid import HDCID
from hdcid_cli.models.quantizers.pq import ProductQuantizer
from hdcid_cli.models.quantizers.vq import VectorQuantizer
from hdcid_cli.models.settings import ModelSettings
from hdcid_cli.training.objective import Objective
from hdcid_cli.training.settings import ObjectiveSettings, TrainSettings
from hdcid_cli.training.telling import summary
from hdcid_cli.training.trainer import Meter, Trainer

INPUTS = {"audio": (12,), "video": (5, 5, 8)}


@pytest.fixture(autouse=True)
def _exactly(double):
    pass


def test_each_block_takes_its_nearest_code():
    quantizer, z = ProductQuantizer(7, 6, 3), torch.randn(4, 5, 6)
    codes, indices = quantizer(z)
    assert codes.shape == z.shape and indices.shape == (4, 5, 3)
    for n, block in enumerate(quantizer.blocks):
        part, table = z[..., 2 * n : 2 * n + 2].numpy(), block.table.numpy()
        distance = ((part[:, :, None] - table) ** 2).sum(-1)
        np.testing.assert_array_equal(indices[..., n], distance.argmin(-1))
        np.testing.assert_allclose(codes[..., 2 * n : 2 * n + 2], table[indices[..., n]])
        np.testing.assert_allclose(quantizer.distances(z)[:, :, n], np.sqrt(distance), rtol=1e-6)
        np.testing.assert_array_equal(quantizer.table[:, 2 * n : 2 * n + 2], table)
    torch.testing.assert_close(quantizer.decode(indices), codes)


def train(quantizer, steps=6, idle=2, **settings):
    torch.manual_seed(0)
    sizes = {"dim": 16, "codebook": 7, "feedforward": 16, "dropout": 0.0}
    model = HDCID(ModelSettings(inputs=INPUTS, quantizer=quantizer, **sizes, **settings))
    objective = Objective(ObjectiveSettings(), model)
    chosen = TrainSettings(epochs=9, batch_size=6, warmup=0, lr=3e-3, idle=idle, precision="float64")
    trainer = Trainer(model, objective, chosen, 1, "cpu")
    torch.manual_seed(1)
    batch = {name: torch.randn(6, 5, *shape) for name, shape in INPUTS.items()}
    return trainer, [trainer.step(batch, 0) for _ in range(steps)]


def test_one_block_is_vq_to_the_last_digit():
    (one, losses), (other, expected) = train("pq:1"), train("vq")
    for found, wanted in zip(losses, expected, strict=True):
        assert found["loss"].item() == wanted["loss"].item()
    state = {name.replace(".blocks.0", ""): value for name, value in one.model.state_dict().items()}
    assert state.keys() == other.model.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in other.model.state_dict().items())


def test_a_block_moves_as_a_quantizer_of_its_channels_would():
    torch.manual_seed(0)
    quantizer, alone = ProductQuantizer(7, 6, 2), VectorQuantizer(7, 3)
    alone.load_state_dict(quantizer.blocks[1].state_dict())
    general = {"audio": torch.randn(4, 5, 6), "video": torch.randn(4, 5, 6)}
    quantizer.update(general, quantizer.quantize(general).indices)
    part = {name: z[..., 3:] for name, z in general.items()}
    alone.update(part, alone.quantize(part).indices)
    assert all(torch.equal(x, alone.state_dict()[name]) for name, x in quantizer.blocks[1].state_dict().items())


@pytest.mark.parametrize("padding", ["repeat", "mask"])
def test_it_learns_and_tasks_read_its_codes(padding):
    trainer, metrics = train("pq:4", steps=20, idle=300, padding=padding)
    for term in ("reconstruction", "commitment", "cpc", "cmcm"):
        assert 0 < metrics[-1][f"loss/1/{term}"] < metrics[0][f"loss/1/{term}"], term
    meter = Meter(7)
    meter.add(metrics[-1])
    record = meter.take()
    for block in ("", "/2", "/3", "/4"):
        chosen = metrics[-1][f"codes/2/video{block}"]
        assert record[f"used/2/video{block}"] == len(chosen.unique())
    same = [(metrics[-1][f"codes/1/audio{block}"] == metrics[-1][f"codes/1/video{block}"]).double().mean()
            for block in ("", "/2", "/3", "/4")]  # fmt: skip
    assert record["agreement/1/audio-video"] == pytest.approx(float(sum(same)) / 4)
    assert "codes/1/audio/5" not in metrics[-1] and summary(record).count("/") == 1
    codes, indices = trainer.model.eval().encode("video", torch.randn(3, 4, 5, 5, 8))
    assert codes.shape == (3, 4, 2, 16) and indices.shape == (3, 4, 2, 4)
    torch.testing.assert_close(trainer.model.layers[1].quantizer.decode(indices[:, :, 1], "video"), codes[:, :, 1])


@pytest.mark.parametrize("name", ["pq:3", "pq:0", "pq", "pq:many"])
def test_blocks_that_do_not_divide_the_channels_are_refused(name):
    with pytest.raises(InputError, match=f"quantizer '{name}' cannot be understood"):
        train(name, 0)
