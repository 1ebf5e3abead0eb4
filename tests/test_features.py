"""Feature files: what is written is read, whatever happens in between; what is wrong with a file is said."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import FeatureFile, FeatureWriter, feature_paths, open_features, shard_path

ATTRIBUTES = {"modality": "audio", "backbone": "test", "weights": "none", "segment_seconds": 1.0}
SHAPE = (3, 4)


def rows(names, seed=0) -> dict[str, tuple[np.ndarray, int]]:
    """Random features and lengths by clip name."""
    generator = np.random.default_rng(seed)
    return {
        name: (generator.standard_normal(SHAPE).astype(np.float32), int(generator.integers(1, 4))) for name in names
    }


def write(path, clips, order=None, finish=True, **options):
    with FeatureWriter(path, list(clips), SHAPE, ATTRIBUTES, "float32", **options) as writer:
        for name in writer.pending if order is None else order:
            writer.write(name, *clips[name])
        if finish:
            writer.finish()


def check(path, clips):
    with FeatureFile([path]) as file:
        assert set(file.ids) == set(clips)
        found = file.read(file.rows(clips))
        assert np.array_equal(found, np.stack([features for features, _ in clips.values()]))
        assert [int(file.length[file.index[name]]) for name in clips] == [length for _, length in clips.values()]
        assert file.damaged() == []


@settings(max_examples=25)
@given(
    names=st.lists(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1), min_size=1, unique=True
    ),
    seed=st.integers(0, 99),
)
def test_what_is_written_in_any_order_and_in_several_runs_is_read(tmp_path_factory, names, seed):
    path = tmp_path_factory.mktemp("features") / "audio.h5"
    clips = rows(names, seed)
    order = list(np.random.default_rng(seed).permutation(names))
    half = len(order) // 2
    write(path, clips, order[:half], finish=False)
    with FeatureWriter(path, names, SHAPE, ATTRIBUTES, "float32") as writer:
        assert set(writer.pending) == set(order[half:])
        assert writer.written == half
    write(path, clips)
    check(path, clips)
    with FeatureFile([path]) as file:
        assert file.ids == names  # the order that the writer was told, not that of writing


def test_the_bytes_do_not_depend_on_the_order_of_writing(tmp_path):
    clips = rows("abcdef")
    write(tmp_path / "one.h5", clips, "abcdef")
    write(tmp_path / "two.h5", clips, "fca", finish=False)
    write(tmp_path / "two.h5", clips, "ebd")
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


def test_an_unfinished_file_is_not_taken_for_a_finished_one(tmp_path):
    clips = rows("abc")
    write(tmp_path / "audio.h5", clips, "ab", finish=False)
    with pytest.raises(InputError, match="not finished: run the same"):
        open_features(tmp_path, "audio")


def test_a_clip_without_features_is_named_and_left_out(tmp_path):
    clips = rows("abc")
    write(tmp_path / "audio.h5", clips, "ac")
    with open_features(tmp_path, "audio") as file:
        assert (file.ids, file.failed) == (["a", "c"], ["b"])
    write(tmp_path / "audio.h5", clips)  # the next run completes the file in place
    check(tmp_path / "audio.h5", clips)
    assert [file.name for file in tmp_path.iterdir()] == ["audio.h5"]


def test_new_clips_are_added_to_a_finished_file(tmp_path):
    path = tmp_path / "audio.h5"
    write(path, rows("ab"))
    both = {**rows("ab"), **rows("cd", seed=1)}
    with FeatureWriter(path, "bcd", SHAPE, ATTRIBUTES, "float32") as writer:
        assert writer.pending == ["c", "d"]
        check(path, rows("ab"))  # until all is done, the old file stands
        for name in "cd":
            writer.write(name, *both[name])
        writer.finish()
    check(path, both)


def test_overwrite_starts_anew(tmp_path):
    path = tmp_path / "audio.h5"
    write(path, rows("abc"))
    write(path, rows("bd", seed=5), overwrite=True)
    check(path, rows("bd", seed=5))


def test_a_file_of_another_backbone_or_shape_is_not_mixed_in(tmp_path):
    path = tmp_path / "audio.h5"
    write(path, rows("ab"))
    with pytest.raises(InputError, match="made with backbone 'test', not 'other'"):
        FeatureWriter(path, "abc", SHAPE, {**ATTRIBUTES, "backbone": "other"})
    with pytest.raises(InputError, match=r"holds \(3, 4\) a clip, not \(5, 4\)"):
        FeatureWriter(path, "abc", (5, 4), ATTRIBUTES)
    check(path, rows("ab"))


def test_two_writers_of_one_file_are_refused(tmp_path):
    path = tmp_path / "audio.h5"
    with FeatureWriter(path, "ab", SHAPE, ATTRIBUTES) as writer:
        for options in ({}, {"overwrite": True}):
            with pytest.raises(InputError, match="Another process is writing"):
                FeatureWriter(path, "abc", SHAPE, ATTRIBUTES, **options)
        writer.write("a", np.ones(SHAPE), 1)


def test_features_that_are_not_finite_are_refused(tmp_path):
    with FeatureWriter(tmp_path / "audio.h5", "ab", SHAPE, ATTRIBUTES, "float16") as writer:
        for bad in (np.nan, np.inf, 1e6):  # the last does not fit float16
            with pytest.raises(InputError, match="'a' gave features that are not finite"), np.errstate(over="ignore"):
                writer.write("a", np.full(SHAPE, bad), 1)
        assert writer.written == 0


def test_nan_in_a_file_is_named_when_it_is_read(tmp_path):
    path = tmp_path / "audio.h5"
    write(path, rows("ab"))
    with h5py.File(path, "r+") as file:
        file["features"][1, 2, 3] = np.nan
    with FeatureFile([path]) as file:
        file.read([0])
        with pytest.raises(InputError, match="clip 'b' hold NaN"):
            file.read([1])


def test_damage_is_found(tmp_path):
    path = tmp_path / "audio.h5"
    clips = rows("abc")
    write(path, clips)
    data = bytearray(path.read_bytes())
    place = bytes(data).index(clips["b"][0].tobytes())
    data[place + 5] ^= 1
    path.write_bytes(data)
    with FeatureFile([path]) as file:
        assert file.damaged() == ["b"]


def test_a_damaged_index_of_chunks_is_told_when_a_row_is_read(tmp_path):
    path = tmp_path / "audio.h5"
    write(path, rows("abc"))
    data = bytearray(path.read_bytes())
    keys = data.index(b"TREE\x01") + 24  # each: 4 bytes of size, 4 of filters, 8 for each of 4 offsets, 8 of its place
    data[keys + 2 * 48 + 8 + 3 * 8] ^= 1  # the last offset counts bytes within a number, and is 0
    path.write_bytes(data)
    with FeatureFile([path]) as file, pytest.raises(InputError, match=r"audio\.h5: clip '.' cannot be read \("):
        file.read([0, 1, 2])


@pytest.mark.parametrize("kept", [0, 10, 100, 700])
def test_a_file_that_was_cut_off_is_not_believed(tmp_path, kept):
    path = tmp_path / "audio.h5"
    write(path, rows("abc"))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"audio\.h5 is not a"):
        FeatureFile([path])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file.attrs.__delitem__("format"), "`format` is None"),
        (lambda file: file.attrs.__setitem__("version", 9), "version is 9"),
        (lambda file: file.attrs.__delitem__("weights"), "no attribute `weights`"),
        (lambda file: file.__delitem__("length"), "no dataset `length`"),
        (lambda file: file["length"].__setitem__(0, 99), "between 0 and 3"),
        (lambda file: (file.__delitem__("ids"), file.__setitem__("ids", ["a"])), "different numbers of rows"),
        (lambda file: (file.__delitem__("ids"), file.__setitem__("ids", [1, 2])), "not text"),
        (
            lambda file: (file.__delitem__("features"), file.__setitem__("features", np.zeros((2, 3, 4), int))),
            "not floats",
        ),
        (
            lambda file: (
                file.__delitem__("features"),
                file.create_dataset("features", (2, 1 << 30, 4), "f4", chunks=True),
            ),
            "over the limit",
        ),
    ],
)
def test_a_file_that_is_not_sound_is_refused_with_the_reason(tmp_path, change, said):
    path = tmp_path / "audio.h5"
    write(path, rows("ab"))
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(InputError) as caught:
        FeatureFile([path])
    assert said in str(caught.value)


def test_a_foreign_file_that_cannot_be_read_to_its_end_has_no_digest(tmp_path):
    clips, path = rows("abcd"), tmp_path / "audio.h5"
    write(path, clips)
    with h5py.File(path, "r+") as file:
        values = file["features"][:]
        del file["features"], file["crc32"]
        packed = file.create_dataset("features", data=values, chunks=(1, *SHAPE), compression="gzip")
        place = packed.id.get_chunk_info(2).byte_offset
    with open(path, "r+b") as file:
        file.seek(place)
        file.write(b"\xff" * 8)
    with FeatureFile([path]) as file, pytest.raises(InputError, match=r"audio\.h5: clip 'c' cannot be read"):
        assert file.digest


def test_a_link_in_the_place_of_a_file_that_is_made_is_not_followed(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "audio.h5.part.new").symlink_to(tmp_path / "mine")
    clips = rows("ab")
    write(tmp_path / "audio.h5", clips)
    check(tmp_path / "audio.h5", clips)
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_clip_twice_is_refused(tmp_path):
    path = tmp_path / "audio.h5"
    write(path, rows("ab"))
    with h5py.File(path, "r+") as file:
        file["ids"][:] = [b"a", b"a"]
    with pytest.raises(InputError, match="holds clip 'a' twice"):
        FeatureFile([path])


def test_unknown_clips_and_other_modalities_are_named(tmp_path):
    write(tmp_path / "video.h5", rows("ab"))
    with pytest.raises(InputError, match="holds audio features, not video"):
        open_features(tmp_path, "video")
    with FeatureFile([tmp_path / "video.h5"]) as file, pytest.raises(InputError, match="no clip 'z'"):
        file.rows(["a", "z"])
    with pytest.raises(InputError, match="make it with `hdcid extract`"):
        open_features(tmp_path, "text")


# --- shards --------------------------------------------------------------------------------------


def test_shards_are_read_as_one(tmp_path):
    clips = rows("abcdefg")
    for number in (1, 2, 3):
        part = {name: clips[name] for name in "abcdefg"[number - 1 :: 3]}
        write(shard_path(tmp_path / "audio.h5", number, 3), part)
    with open_features(tmp_path, "audio") as file:
        assert sorted(file.ids) == list("abcdefg")
        assert np.array_equal(file.read(file.rows("cab")), np.stack([clips[name][0] for name in "cab"]))
        whole = file.digest
    with open_features(tmp_path, "audio") as file:
        assert file.digest == whole


def test_a_missing_shard_is_named(tmp_path):
    for number in (1, 3):
        write(shard_path(tmp_path / "audio.h5", number, 3), rows(str(number)))
    with pytest.raises(InputError, match="shard 2 of 3 of audio is missing; extract it with --shard 2/3"):
        feature_paths(tmp_path, "audio")


def test_shards_of_different_extractions_are_not_mixed(tmp_path):
    write(shard_path(tmp_path / "audio.h5", 1, 2), rows("a"))
    other = shard_path(tmp_path / "audio.h5", 2, 2)
    with FeatureWriter(other, "b", SHAPE, {**ATTRIBUTES, "weights": "other"}) as writer:
        writer.write("b", np.ones(SHAPE), 1)
        writer.finish()
    with pytest.raises(InputError, match="not shards of one extraction"):
        open_features(tmp_path, "audio")


# --- interruption --------------------------------------------------------------------------------

FOREVER = """
    import sys, numpy as np
    from hdcid_cli.core.features import FeatureWriter
    names = [str(number) for number in range(2000)]
    attributes = {"modality": "audio", "backbone": "test", "weights": "none", "segment_seconds": 1.0}
    with FeatureWriter(sys.argv[1], names, (10, 700), attributes, "float32") as writer:
        print(len(writer.pending), flush=True)
        for name in writer.pending:
            writer.write(name, np.full((10, 700), float(name)), 1 + int(name) % 10)
        writer.finish()
"""


def test_kill_9_loses_at_most_the_row_in_progress(tmp_path):
    """Killed at random moments and taken up again, the file never holds a row that is not whole."""
    path = tmp_path / "audio.h5"
    generator = np.random.default_rng(0)
    pending = []
    for attempt in range(30):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(FOREVER), path], stdout=subprocess.PIPE, text=True
        )
        pending.append(int(process.stdout.readline()))
        if attempt < 4:
            try:
                process.wait(generator.uniform(0, 0.03))
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
        process.stdout.close()
        process.wait()
        if path.exists():
            break
        with FeatureFile([f"{path}.part"]) as file:
            assert file.damaged() == []
            for name, length in zip(file.ids, file.length, strict=True):
                assert (file.read(file.rows([name])) == float(name)).all()
                assert length == 1 + int(name) % 10
    assert len(pending) > 1 and pending == sorted(pending, reverse=True)
    with FeatureFile([path]) as file:
        assert len(file) == 2000 and file.damaged() == []


# --- what must stay ------------------------------------------------------------------------------


def test_digests_stay_as_they_were(tmp_path):
    """Checkpoints and records keep them: these are of files that the first versions wrote."""
    for names, digest in (
        (["a", "b"], "5cd6d135638780d0231f272af74513b3459936c1bac6d4bf9972f50f9632d180"),
        (["it's", 'q"', "back\\slash", "ü"], "1b33820f8113a455ffd4ee94d25171088e016795d89bebd787ed3a7fd081022b"),
    ):
        path = tmp_path / "audio.h5"
        with FeatureWriter(path, names, SHAPE, ATTRIBUTES, "float32", overwrite=True) as writer:
            for number, name in enumerate(names):
                writer.write(name, np.full(SHAPE, number, np.float32), 1 + number % 3)
            writer.finish()
        with FeatureFile([path]) as file:
            assert file.digest == f"sha256:{digest}"


def test_a_foreign_file_is_read_for_its_digest_once(tmp_path, monkeypatch):
    """Its digest is remembered by size, place and time; any change of these makes it be read again."""
    monkeypatch.setenv("HDCID_HOME", str(tmp_path / "home"))
    path = tmp_path / "audio.h5"
    write(path, rows("ab"))
    with h5py.File(path, "r+") as file:
        del file["crc32"]
    read = []
    whole = FeatureFile._digest
    monkeypatch.setattr(FeatureFile, "_digest", lambda file: read.append(1) or whole(file))

    def digest(changed):
        os.utime(path, ns=(changed, changed))
        with FeatureFile([path]) as file:
            return file.digest

    first = digest(time.time_ns())
    assert not (tmp_path / "home").exists()  # it may be written to right now: nobody could tell from its time
    assert digest(10**18) == digest(10**18) == first and len(read) == 2
    with h5py.File(path, "r+") as file:
        file["features"][0, 0, 0] += 1
    second = digest(10**18 + 1)
    assert second != first and len(read) == 3
    for text in ("sha256:0", "", "x" * 500):  # what is no digest is not believed
        for each in (tmp_path / "home" / "digests").iterdir():
            each.write_text(text)
        assert digest(10**18 + 1) == second
    assert len(read) == 6
