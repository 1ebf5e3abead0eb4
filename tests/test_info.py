"""`hdcid info`: what a feature file is, and whether it is sound."""

import json
import os
import zlib

import h5py
import numpy as np
import pytest
from described import undocumented

from hdcid_cli.codes.layout import DATASETS
from hdcid_cli.commands.info import describe, show
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import FeatureWriter, shard_path
from hdcid_cli.main import cli

ATTRIBUTES = {"modality": "audio", "backbone": "logmel", "weights": "none", "segment_seconds": 1.0}


def run(capsys, *arguments) -> tuple[int, list[dict], str]:
    status = cli.main(["info", *(str(argument) for argument in arguments)], standalone_mode=False, obj={})
    out, err = capsys.readouterr()
    assert not undocumented(out)
    return status, [json.loads(line) for line in out.splitlines()], err


@pytest.fixture
def values():
    return np.maximum(0, np.random.default_rng(0).standard_normal((3, 5, 4))).astype(np.float32)


def write(path, values, names="abc", lengths=(5, 3, 5)):
    with FeatureWriter(path, [*names, f"bad{names}"], values.shape[1:], ATTRIBUTES, "float32") as writer:
        for name, features, length in zip(names, values, lengths, strict=False):
            writer.write(name, features, length)
        writer.finish()


def change_a_byte(path, row):
    """Of one clip's numbers, as they stand in the file."""
    data = bytearray(path.read_bytes())
    data[bytes(data).index(row.tobytes())] ^= 1
    path.write_bytes(data)


def test_a_sound_file_is_described(tmp_path, capsys, values):
    write(tmp_path / "audio.h5", values)
    status, [record], _ = run(capsys, tmp_path / "audio.h5")
    assert status == 0
    assert (
        record["schema"] == "hdcid.info/1" and record["kind"] == "features" and record["sound"] and record["finished"]
    )
    assert (record["clips"], record["failed"], record["shape"], record["length"]) == (3, 1, [5, 4], [3, 5])
    valid = np.concatenate([values[0], values[1, :3], values[2]])
    for name, expected in (
        ("mean", valid.mean()),
        ("std", valid.std()),
        ("min", 0),
        ("max", valid.max()),
        ("zeros", (valid == 0).mean()),
    ):
        assert record[name] == pytest.approx(expected, rel=1e-5)


def test_a_folder_is_described_file_by_file_and_shards_as_one(tmp_path, capsys, values):
    write(tmp_path / "video.h5", values)
    for number, name in enumerate("ab", 1):
        write(shard_path(tmp_path / "audio.h5", number, 2), values[:1], name)
    _, records, _ = run(capsys, "--features", tmp_path)
    assert [record["clips"] for record in records] == [2, 3]


def test_changed_bytes_are_named_with_status_2(tmp_path, capsys, values):
    path = tmp_path / "audio.h5"
    write(path, values)
    change_a_byte(path, values[2])
    status, [record], said = run(capsys, path)
    assert (status, record["sound"], record["damaged"]) == (2, False, ["c"])
    assert "clip 'c' has changed since it was written" in said


def test_nan_is_named_in_a_file_without_checksums(tmp_path, capsys, values):
    path = tmp_path / "audio.h5"
    write(path, values)
    with h5py.File(path, "r+") as file:
        file["features"][1, 0, 0] = np.nan
        del file["crc32"]
    status, [record], said = run(capsys, path)
    assert (status, record["sound"], record["not_finite"]) == (2, False, ["b"])
    assert "clip 'b' holds NaN" in said


def test_quick_says_what_a_file_claims_and_reads_none_of_it(tmp_path, capsys, values):
    path = tmp_path / "audio.h5"
    write(path, values)
    change_a_byte(path, values[2])
    _, [whole], _ = run(capsys, path)
    status, [record], said = run(capsys, path, "--quick")
    assert status == 0 and said == "" and record["sound"] and "mean" not in record
    assert record == {name: whole[name] for name in record} | {"sound": True}
    assert (record["clips"], record["failed"], record["shape"], record["length"]) == (3, 1, [5, 4], [3, 5])


def test_damage_is_found_among_many_rows_read_at_once(tmp_path, capsys, values, monkeypatch):
    """Slabs with and without damage, rows that cannot be read, and short clips: as a plain loop over rows finds."""
    random = np.random.default_rng(3)
    values = random.standard_normal((40, 5, 4)).astype(np.float32)
    lengths = random.integers(1, 6, 40)
    names = [f"{number:02d}" for number in range(40)]
    path = tmp_path / "audio.h5"
    with FeatureWriter(path, names, (5, 4), ATTRIBUTES, "float32") as writer:
        for name, features, length in zip(names, values, lengths, strict=True):
            writer.write(name, features, length)
        writer.finish()
    with h5py.File(path, "r+") as file:
        file["features"][7, 0, 0] = 5  # of other bytes than were written
        file["features"][21, 4, 3] = np.nan
        checksums = file["crc32"][:]
        checksums[21] = zlib.crc32(file["features"][21].tobytes())
        file["crc32"][:] = checksums
    monkeypatch.setattr("hdcid_cli.core.features.file.SLAB_BYTES", 7 * 80)
    monkeypatch.setattr("hdcid_cli.core.survey.AT_ONCE", 33)
    status, [record], _ = run(capsys, path)
    assert (status, record["damaged"], record["not_finite"]) == (2, ["07"], ["21"])
    good = [row for row in range(40) if row not in (7, 21)]
    valid = np.concatenate([values[row, : lengths[row]].ravel() for row in good]).astype(np.float64)
    expected = {"mean": valid.mean(), "std": valid.std(), "min": valid.min(), "max": valid.max(), "zeros": 0}
    assert {name: record[name] for name in expected} == pytest.approx(expected, rel=1e-9)


def test_what_is_neither_is_refused(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=r"notes\.txt is not a feature file"):
        run(capsys, tmp_path / "notes.txt")
    with pytest.raises(InputError, match="neither feature files, nor a checkpoint, nor annotations"):
        run(capsys, tmp_path)
    with pytest.raises(InputError, match="There is no feature file"):
        run(capsys, tmp_path / "nowhere.h5")


def test_a_checkpoint_is_described_and_loaded(tmp_path, capsys):
    from hdcid_cli.codes.checkpoint import write_checkpoint
    from hdcid_cli.models.hdcid import HDCID
    from hdcid_cli.models.settings import ModelSettings

    config = ModelSettings(
        inputs={"audio": (12,), "text": (10,)}, layers=2, dim=16, codebook=20, heads=2, text_hidden=0
    )
    path = tmp_path / "checkpoints" / "mine"
    model = HDCID(config)
    write_checkpoint(path, {"model": config.to_dict(), "objective": {"align": ["cpc"]}, "train": {"seed": 3}}, model)
    for where in (path, path.parent):
        status, [record], _ = run(capsys, where)
        assert status == 0
        assert (record["kind"], record["layers"], record["codebook"], record["method"]) == ("checkpoint", 2, 20, "cpc")
        assert record["parameters"] == sum(parameter.numel() for parameter in model.parameters())
        assert (record["modalities"], record["toc"], record["pretrain_seed"]) == ("at", "none", 3)
        assert "finished" not in record  # it was not trained here

    (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(InputError, match=r"model\.safetensors is not a sound file of weights"):
        run(capsys, path)


@pytest.mark.parametrize(("lines", "epoch", "finished"), [(3, 6, False), (5, 10, True)])
def test_of_a_run_it_is_said_how_far_it_has_come(tmp_path, capsys, lines, epoch, finished):
    from hdcid_cli.codes.checkpoint import METRICS, write_checkpoint
    from hdcid_cli.models.hdcid import HDCID
    from hdcid_cli.models.settings import ModelSettings

    config = ModelSettings(inputs={"audio": (12,)}, layers=1, dim=8, codebook=4, heads=2)
    write_checkpoint(tmp_path / "c", {"model": config.to_dict(), "train": {"epochs": 10}}, HDCID(config))
    log = "".join(json.dumps({"step": 4 * n, "epoch": 2 * n}) + "\n" for n in range(1, lines + 1))
    (tmp_path / "c" / METRICS).write_text(log)
    _, [record], _ = run(capsys, tmp_path / "c")
    assert (record["epoch"], record["epochs"], record["finished"]) == (epoch, 10, finished)


def test_what_is_not_there_and_codes_for_numpy_are_sentences(tmp_path, capsys):
    with pytest.raises(InputError, match=r"There is no file or folder .*latest\.$"):
        run(capsys, tmp_path / "latest")
    with pytest.raises(InputError, match=r"There is no file or folder .*: make feature files with `hdcid extract`"):
        run(capsys, "--features", tmp_path / "features")
    np.savez(tmp_path / "codes.npz", **dict.fromkeys(DATASETS, np.zeros(1)))
    with pytest.raises(InputError, match=r"holds codes as arrays for `numpy\.load`"):
        run(capsys, tmp_path / "codes.npz")


def test_what_would_never_end_is_refused_at_once(tmp_path, capsys):
    os.mkfifo(tmp_path / "audio.h5")
    (tmp_path / "video.h5").symlink_to("/dev/zero")
    for name in ("audio.h5", "video.h5"):
        with pytest.raises(InputError, match=f"{name} is a pipe or a device, not a file"):
            run(capsys, tmp_path / name)


def test_on_a_terminal_shapes_ranges_and_answers_read_as_such(tmp_path, capsys, values, monkeypatch):
    write(tmp_path / "audio.h5", values)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    show(next(describe(tmp_path / "audio.h5")), as_json=False)
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines() if line)
    assert (lines["shape"], lines["length"], lines["sound"], lines["damaged"]) == ("5 x 4", "3 to 5", "yes", "-")
    show({"kind": "checkpoint", "inputs": {"audio": [128], "video": [7, 7, 68]}, "epoch": 13.0}, as_json=False)
    assert "audio 128, video 7 x 7 x 68" in (out := capsys.readouterr().out) and out.split()[-1] == "13"
