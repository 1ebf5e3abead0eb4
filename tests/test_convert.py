"""`hdcid convert features`: published features become ours, and hostile pickles do not run."""

import os
import pickle
import zipfile

import h5py
import numpy as np
import pytest

from hdcid_cli.commands.convert import command
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import FeatureFile
from hdcid_cli.published.features import ZippedPickles


def run(*arguments) -> int:
    return command.main(["features", *map(str, arguments)], standalone_mode=False, obj={})


def zipped(path, content: bytes, name="array.pkl"):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)


def arrays(shapes, dtype=np.float32) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {name: generator.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zipped_pickles_of_every_protocol(tmp_path, protocol, dtype):
    clips = arrays({"a_0_10": (10, 4), "b_5_15": (7, 4), "c": (12, 4)}, dtype)
    (tmp_path / "zips").mkdir()
    for name, array in clips.items():
        zipped(tmp_path / "zips" / f"{name}.zip", pickle.dumps(array, protocol=protocol))
    assert run("--modality", "audio", "-o", tmp_path / "audio.h5", tmp_path / "zips") == 0
    with FeatureFile([tmp_path / "audio.h5"]) as file:
        assert (file.ids, file.length.tolist()) == (list(clips), [10, 7, 10])
        assert (file.backbone, file.weights) == ("vggish", "published")
        found = file.read(range(3))
        assert np.array_equal(found[0], clips["a_0_10"].astype(np.float32))
        assert np.array_equal(
            found[1], np.concatenate([clips["b_5_15"], clips["b_5_15"][-1:].repeat(3, 0)]).astype(np.float32)
        )
        assert np.array_equal(found[2], clips["c"][:10].astype(np.float32))


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_pickles_of_numpy_1_and_2_by_python_2_and_3(tmp_path, module):
    """Python 2 wrote bytes as strings of 8-bit characters, which only latin-1 gives back."""
    array = np.arange(250, 262, dtype="<f8").reshape(3, 4)
    data = b"".join(b"\\x%02x" % byte for byte in array.tobytes())
    content = (
        b"c"
        + module
        + b"\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I3\nI4\ntcnumpy\ndtype\n(S'f8'\nI0\nI1\ntR"
        b"(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS'" + data + b"'\ntb."
    )
    zipped(tmp_path / "a.zip", content)
    assert np.array_equal(ZippedPickles(tmp_path).read("a"), array)


def test_a_hostile_pickle_is_refused_and_named(tmp_path, capsys):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (tmp_path / "zips").mkdir()
    zipped(tmp_path / "zips" / "good.zip", pickle.dumps(np.ones((10, 4))))
    zipped(tmp_path / "zips" / "hostile.zip", pickle.dumps(Hostile()))
    inner = np.empty(2, object)
    inner[:] = [Hostile(), 1]
    zipped(tmp_path / "zips" / "inside.zip", pickle.dumps(inner))
    assert run("--modality", "audio", "-o", tmp_path / "audio.h5", tmp_path / "zips") == 3
    said = capsys.readouterr().err
    assert "skipped 'hostile': " in said and "asks for io.open, and only arrays of numbers are admitted" in said
    assert "skipped 'inside'" in said
    assert not (tmp_path / "ran").exists()
    with FeatureFile([tmp_path / "audio.h5"]) as file:
        assert (file.ids, file.failed) == (["good"], ["hostile", "inside"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pickle.dumps(np.array([["a", "b"]])), "it holds something else than numbers"),
        (pickle.dumps([1, 2]), "it has the operation EMPTY_LIST, which no array needs"),
        (pickle.dumps(np.zeros((0, 4))), "holds float64 (0, 4), not an array"),
        (pickle.dumps(np.zeros(4)), "holds float64 (4,), not an array"),
        (b"not a pickle", "is not one pickled array of numbers"),
        (pickle.dumps(np.zeros((9, 9)))[:200], "is not one pickled array of numbers"),
        (b"", "is not one pickled array of numbers"),
    ],
)
def test_what_is_no_array_is_named(tmp_path, content, said):
    zipped(tmp_path / "a.zip", content)
    with pytest.raises(InputError) as caught:
        ZippedPickles(tmp_path).read("a")
    assert said in str(caught.value) and "a.zip" in str(caught.value)


def test_broken_zips_are_named(tmp_path):
    (tmp_path / "text.zip").write_text("no zip")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a", b"1")
        archive.writestr("b", b"2")
    source = ZippedPickles(tmp_path)
    for name, said in (("text", "is not a sound zip file"), ("two", "holds 2 files")):
        with pytest.raises(InputError, match=said):
            source.read(name)


def test_a_zip_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("hdcid_cli.published.features.MAX_PICKLE_BYTES", 1000)
    zipped(tmp_path / "a.zip", b"0" * 10_000)
    with pytest.raises(InputError, match="unpacks to 10000 bytes, over the limit"):
        ZippedPickles(tmp_path).read("a")


def test_a_name_that_is_not_utf8_costs_that_clip_alone(tmp_path, capsys):
    for name, array in arrays({"a": (10, 4), "b": (10, 4)}).items():
        zipped(tmp_path / f"{name}.zip", pickle.dumps(array))
    os.rename(tmp_path / "b.zip", os.fsencode(tmp_path) + b"/\xff\xfe.zip")
    assert run("--modality", "audio", "-o", tmp_path / "audio.h5", tmp_path) == 3
    assert "is not UTF-8: rename the file." in capsys.readouterr().err
    with FeatureFile([tmp_path / "audio.h5"]) as file:
        assert file.ids == ["a"]


def test_annotations_beside_named_clips_are_told(tmp_path, capsys):
    zipped(tmp_path / "a.zip", pickle.dumps(arrays({"a": (10, 4)})["a"]))
    assert run("--modality", "audio", "-o", tmp_path / "x.h5", "--annotations", tmp_path / "none", tmp_path) == 0
    assert "--annotations makes no difference: the files in" in capsys.readouterr().err


def test_clips_of_another_shape_are_skipped(tmp_path, capsys):
    for name, array in arrays({"a": (10, 4), "b": (10, 5), "c": (10, 4)}).items():
        zipped(tmp_path / f"{name}.zip", pickle.dumps(array))
    assert run("--modality", "audio", "-o", tmp_path / "audio.h5", tmp_path) == 3
    assert "skipped 'b': It has (5,) numbers a segment, the first clip (4,)." in capsys.readouterr().err


# --- AVE's HDF5 ----------------------------------------------------------------------------------


@pytest.fixture
def ave(tmp_path):
    """Four rows; the first and the last are the same video, listed with two categories."""
    features = np.random.default_rng(0).standard_normal((4, 10, 6))
    features[3] = features[0]
    with h5py.File(tmp_path / "audio_feature.h5", "w") as file:
        file["avadataset"] = features
    lines = ["Bark&x1&good&0&10", "Rain&x2&good&1&9", "Rain&x3&good&0&4", "Rain&x1&good&2&3"]
    (tmp_path / "Annotations.txt").write_text("\n".join(["Category&VideoID&Quality&StartTime&EndTime", *lines]) + "\n")
    (tmp_path / "bare.txt").write_text("\n".join(lines))
    (tmp_path / "ids.txt").write_text("x1\nx2\nx3\nx1\n")
    return tmp_path, features


@pytest.mark.parametrize("names", ["Annotations.txt", "bare.txt", "ids.txt"])
def test_aves_file_takes_its_names_from_the_annotation(ave, names):
    folder, features = ave
    assert (
        run("--modality", "a", "--annotations", folder / names, "-o", folder / "a.h5", folder / "audio_feature.h5") == 0
    )
    with FeatureFile([folder / "a.h5"]) as file:
        assert file.ids == ["x1", "x2", "x3"]
        assert np.array_equal(file.read(range(3)), features[:3].astype(np.float32))


def test_a_video_with_two_different_rows_is_named(ave, capsys):
    folder, _ = ave
    with h5py.File(folder / "audio_feature.h5", "r+") as file:
        file["avadataset"][3] = 1
    assert (
        run("--modality", "a", "--annotations", folder / "ids.txt", "-o", folder / "a.h5", folder / "audio_feature.h5")
        == 3
    )
    assert "different features for x1 in rows 0, 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["audio_feature.h5"], "does not name its clips"),
        (["audio_feature.h5", "--annotations", "short.txt"], "holds 4 clips, but short.txt names 1"),
        (["short.txt", "--annotations", "ids.txt"], "is not a sound HDF5 file"),
        (["other.h5", "--annotations", "ids.txt"], "holds 0 datasets of clips"),
        (["nowhere"], "no file or folder nowhere"),
        (["empty"], "empty holds no ID.zip"),
    ],
)
def test_wrong_input_is_refused_with_the_reason(ave, monkeypatch, arguments, said):
    folder, _ = ave
    monkeypatch.chdir(folder)
    (folder / "short.txt").write_text("x1\n")
    (folder / "empty").mkdir()
    with h5py.File(folder / "other.h5", "w") as file:
        file["labels"] = np.zeros((4, 10), int)
    with pytest.raises(InputError) as caught:
        run("--modality", "audio", *arguments)
    assert said in str(caught.value)


def test_the_released_ave_features(shared, tmp_path):
    """178 clips of AVE: non-negative, about 65 % zeros."""
    (tmp_path / "ids.txt").write_text("\n".join(f"clip{row}" for row in range(178)))
    path = shared / "ave_features" / "audio_feature_noisy.h5"
    run("--modality", "audio", "--annotations", tmp_path / "ids.txt", "-o", tmp_path / "a.h5", path)
    with FeatureFile([tmp_path / "a.h5"]) as file, h5py.File(path) as released:
        found = file.read(range(178))
        assert np.array_equal(found, released["avadataset"][:].astype(np.float32))
        assert found.min() == 0 and 0.6 < (found == 0).mean() < 0.7


def test_an_interrupted_conversion_goes_on(tmp_path):
    clips = arrays({name: (10, 4) for name in "abcd"})
    for name, array in clips.items():
        zipped(tmp_path / f"{name}.zip", pickle.dumps(array))
    (tmp_path / "d.zip").rename(tmp_path / "d.later")
    run("--modality", "audio", "-o", tmp_path / "audio.h5", tmp_path)
    (tmp_path / "d.later").rename(tmp_path / "d.zip")
    zipped(tmp_path / "a.zip", b"broken since")  # what is done is not read again
    zipped(tmp_path / "0.zip", pickle.dumps(clips["a"]))
    assert run("--modality", "audio", "-o", tmp_path / "audio.h5", tmp_path) == 0
    with FeatureFile([tmp_path / "audio.h5"]) as file:
        assert sorted(file.ids) == ["0", "a", "b", "c", "d"]
        assert np.array_equal(file.read(file.rows("abcd")), np.stack(list(clips.values())))
