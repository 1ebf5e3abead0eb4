"""Arrays and tensors in pickles from anywhere: what they hold, or one sentence; nothing is run, nothing crashes."""

import pickle
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from hdcid_cli.backbones.weights import read_state
from hdcid_cli.codes.state import take_up, write_state
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.pickled import NoArray, unpickle_array
from hdcid_cli.core.saved import read_saved

ARRAY = np.arange(12, dtype=np.float32).reshape(3, 4)


class Runs:
    """A pickle of it makes a file when it is loaded freely."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["f2", "f4", ">f8", "<i4", "u1"])
@pytest.mark.parametrize("order", "CF")
def test_an_array_is_what_numpy_unpickles(protocol, dtype, order):
    for shape in ((3, 4), (2, 3, 5), (7,), (0, 4), ()):
        array = np.asarray(np.random.default_rng(0).integers(0, 99, shape).astype(dtype), order=order)
        content = pickle.dumps(array, protocol)
        found, expected = unpickle_array(content), pickle.loads(content)
        assert (
            found.dtype == expected.dtype.newbyteorder("=")
            and found.shape == expected.shape
            and np.array_equal(found, expected)
        )


def test_damaged_pickles_are_arrays_or_refused_and_never_crash():
    draw = random.Random(0)
    whole = [pickle.dumps(ARRAY, protocol) for protocol in range(6)]
    for _ in range(4000):
        content = bytearray(draw.choice(whole))
        for _ in range(draw.randint(1, 3)):
            place = draw.randrange(len(content) or 1)
            content[place : place + draw.randint(0, 2)] = draw.randbytes(draw.randint(0, 2))
        try:
            found = unpickle_array(bytes(content))
        except NoArray as error:
            assert len(str(error)) < 250
        else:
            assert found.nbytes <= len(content)


def test_an_odd_byte_in_the_state_of_the_numbers_type_is_refused():
    """NumPy ends the process where it is given such a state."""

    def pickled(kind: bytes, state: bytes) -> bytes:
        return (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\ntcnumpy\ndtype\n(S'"
            + kind
            + b"'\nI0\nI1\ntR("
            + state
            + b"tbI00\nS'01234567'\ntb."
        )

    assert unpickle_array(pickled(b"f4", b"I3\nS'<'\nNNNI-1\nI-1\nI0\n")).shape == (2,)
    for state in (
        b"I3\nS'<'\n(I1\ntNNI-1\nI-1\nI0\n",
        b"I3\nS'<'\nN(S'x'\ntNI-1\nI-1\nI0\n",
        b"I3\nS'<'\nNNI7\nI-1\nI-1\nI0\n",
        b"I3\nS'q'\nNNNI-1\nI-1\nI0\n",
        b"I3\nI9\nNNNI-1\nI-1\nI0\n",
        b"I3\n",
    ):
        with pytest.raises(NoArray):
            unpickle_array(pickled(b"f4", state))
    for kind in (b"O8", b"M8", b"V8", b"f4,f4", b"", b"f16", b"S8"):
        with pytest.raises(NoArray):
            unpickle_array(pickled(kind, b"I3\nS'<'\nNNNI-1\nI-1\nI0\n"))


@pytest.mark.parametrize("what", [Runs("ran"), [1], {"a": 1}, "text", np.array([Runs("ran")]), np.array(["a"])])
def test_anything_else_than_an_array_of_numbers_is_refused_and_not_run(what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for protocol in range(6):
        with pytest.raises(NoArray):
            unpickle_array(pickle.dumps(what, protocol))
    assert not list(tmp_path.iterdir())


def test_a_million_claimed_places_take_no_memory():
    for content in (
        b"\x80\x04Nr\xff\xff\xff\x7f.",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00x.",
        b"\x80\x02]2\x86.",
    ):
        with pytest.raises(NoArray):
            unpickle_array(content)


# --- what torch saved ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_and_plain_values_are_read_and_nothing_else(tmp_path, zipped):
    good = {"a": torch.arange(3.0), "b": {"c": [1, "x", None, 2.5]}, "d": torch.zeros(2, dtype=torch.uint8)}
    torch.save(good, tmp_path / "good.pt", _use_new_zipfile_serialization=zipped)
    found = read_saved(tmp_path / "good.pt", "a state")
    assert found["b"] == good["b"] and torch.equal(found["a"], good["a"])
    for name, bad in (
        ("runs", {"x": Runs(tmp_path / "ran")}),
        ("bytes", {"x": bytearray(3)}),
        ("list", [torch.zeros(1)]),
        ("repeated", {"x": torch.zeros(1).expand(1 << 20, 1 << 20)}),
    ):
        file = tmp_path / f"{name}.pt"
        torch.save(bad, file, _use_new_zipfile_serialization=zipped)
        with pytest.raises(InputError, match=rf"{name}\.pt is not a state"):
            read_saved(file, "a state")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"PK\3\4" + bytes(100), b"\x80\x02.", b"text", bytes(1000)])
def test_what_torch_did_not_save_is_refused(tmp_path, content):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.pt is not a state"):
        read_saved(tmp_path / "x.pt", "a state")


def test_a_packed_file_that_unpacks_to_more_than_it_has_is_not_unpacked(tmp_path):
    torch.save({"x": torch.zeros(1 << 20)}, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as archive, zipfile.ZipFile(tmp_path / "bomb.pt", "w", 8) as packed:
        for entry in archive.infolist():
            packed.writestr(entry.filename, archive.read(entry))
    with pytest.raises(InputError, match="claims to hold"):
        read_saved(tmp_path / "bomb.pt", "a state")


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_may_be_numpys_arrays(tmp_path, zipped):
    file = tmp_path / "w.pt"
    torch.save(
        {"a": ARRAY, "b": ARRAY.T.astype(">f8"), "c": torch.ones(2)}, file, _use_new_zipfile_serialization=zipped
    )
    found = read_state(file)
    assert torch.equal(found["a"], torch.from_numpy(ARRAY)) and found["b"].tolist() == ARRAY.T.tolist()
    torch.save({"a": np.array(["x"])}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"w\.pt: a is not an array of numbers"):
        read_state(file)


# --- the state of a run -------------------------------------------------------------------------------------------


class Trains:
    """A trainer of one layer."""

    def __init__(self, width=3):
        self.model = torch.nn.Linear(width, 2)
        self.optimizer = torch.optim.Adam(self.model.parameters())
        self.step = 0

    def train(self):
        self.optimizer.zero_grad()
        self.model(torch.ones(1, self.model.in_features)).sum().backward()
        self.optimizer.step()
        self.step += 1
        return self

    def state_dict(self):
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


def put(value, *keys):
    def change(state):
        for key in keys[:-1]:
            state = state[key]
        state[keys[-1]] = value

    return change


def test_a_state_is_taken_up_whole(tmp_path):
    before, after = Trains().train(), Trains()
    write_state(tmp_path / "state.pt", before.state_dict())
    take_up(tmp_path, after)
    before.train(), after.train()
    assert after.step == 2 and torch.equal(before.model.weight, after.model.weight)


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.clear(),
        lambda state: state.pop("optimizer"),
        put(-1, "step"),
        put("three", "step"),
        put(10.5, "step"),
        put([], "model"),
        put(None, "model"),
        put(torch.zeros(7), "model", "weight"),
        put("x", "model", "weight"),
        put(torch.zeros(9, 9), "optimizer", "state", 0, "exp_avg"),
        put(None, "optimizer", "state", 0, "exp_avg"),
        put(float("nan"), "optimizer", "param_groups", 0, "lr"),
        put("x", "optimizer", "param_groups", 0, "betas"),
        put([0.1], "optimizer", "param_groups", 0, "betas"),
        put([], "optimizer", "param_groups"),
        put(["a"], "optimizer", "param_groups", 0, "params"),
        put(True, "optimizer", "param_groups", 0, "surprise"),
    ],
)
def test_a_state_that_does_not_fit_is_one_sentence(tmp_path, damage):
    state = Trains().train().state_dict()
    damage(state)
    write_state(Path(tmp_path, "state.pt"), state)
    with pytest.raises(
        InputError, match=r"state\.pt is not the state of this run .*: remove it to start again\."
    ) as caught:
        take_up(tmp_path, Trains())
    assert "NoneType" not in str(caught.value)
