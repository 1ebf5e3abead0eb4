"""`hdcid extract`: which clips become rows, and what becomes of them when something goes wrong."""

import os
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
from media_files import grey, tone, write_media

import hdcid_cli
from hdcid_cli.backbones import Options, load_backbone
from hdcid_cli.backbones.backbone import Backbone
from hdcid_cli.backbones.extraction import extract_clips
from hdcid_cli.backbones.hash import word_vector
from hdcid_cli.backbones.hog import hog
from hdcid_cli.commands.extract import command
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import FeatureFile, FeatureWriter, open_features
from hdcid_cli.media.clips import MediaClip, find_clips
from hdcid_cli.media.video import video_seconds
from hdcid_cli.media.wave import Wave

SECONDS = {"a": 2.0, "b": 1.6, "c": 3.0}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A folder of three clips, one of them in a folder below, and a file that is no video."""
    folder = tmp_path_factory.mktemp("work") / "videos"
    (folder / "more").mkdir(parents=True)
    for number, (name, seconds) in enumerate(SECONDS.items()):
        path = folder / ("more" if name == "b" else ".") / f"{name}.mp4"
        pictures = np.random.default_rng(number).integers(0, 255, (round(10 * seconds), 48, 48, 3), np.uint8)
        write_media(path, pictures, fps=10, sound=tone(300 * (number + 1), seconds))
    (folder / "readme.txt").write_text("not a video")
    return folder


def run(*arguments) -> int:
    """Run the command in this process, as `hdcid extract ARGUMENTS`; returns the exit status."""
    return command.main([str(argument) for argument in arguments], standalone_mode=False, obj={})


def read(path) -> dict[str, np.ndarray]:
    with FeatureFile([path]) as file:
        return dict(zip(file.ids, file.read(range(len(file))), strict=True))


# --- what is extracted ---------------------------------------------------------------------------


def test_a_folder_becomes_rows_named_by_its_files(videos, tmp_path):
    path = tmp_path / "video.h5"
    assert (
        run("--modality", "v", "--backbone", "hog", "--seconds", 3, "--fps", 4, "-o", path, "--workers", 0, videos) == 0
    )
    with FeatureFile([path]) as file:
        assert file.ids == ["a", "c", "b"]  # by path: more/b.mp4 comes last
        assert file.length.tolist() == [2, 3, 2]
        assert (file.modality, file.backbone, file.weights, file.shape) == ("video", "hog@4fps", "none", (3, 7, 7, 68))
        for name, features in zip(file.ids, file.read(range(3)), strict=True):
            place = videos / ("more" if name == "b" else ".") / f"{name}.mp4"
            expected = np.stack([hog(frames) for frames in video_seconds(place, 3, 4, 56)])
            assert np.allclose(features[: len(expected)], expected, atol=2e-3)
            assert (
                features[len(expected) :] == features[len(expected) - 1]
            ).all()  # a short clip repeats its last second


def test_worker_processes_change_nothing(videos, tmp_path):
    for workers in (0, 2):
        run("--modality", "a", "--backbone", "logmel", "--workers", workers, "-o", tmp_path / f"{workers}.h5", videos)
    assert (tmp_path / "0.h5").read_bytes() == (tmp_path / "2.h5").read_bytes()


def test_windows_of_a_file_by_a_table(videos, tmp_path):
    (tmp_path / "list.csv").write_text(f"id,path,start\nlate,{videos}/c.mp4,1.0\nwhole,{videos}/c.mp4,\n")
    run("--modality", "video", "--backbone", "hog", "--workers", 0, "-o", tmp_path / "v.h5", tmp_path / "list.csv")
    features = read(tmp_path / "v.h5")
    assert np.array_equal(features["late"][:2], features["whole"][1:3])


def test_sounds_in_memory_are_clips_as_files_are(tmp_path):
    """Arrays, and data sets of an HDF5 file, give the features of the files that hold the same samples."""
    sounds = {name: tone(300 * n, n + 0.6) for n, name in enumerate("abc", 1)}
    for name, sound in sounds.items():
        write_media(tmp_path / f"{name}.wav", sound=sound, codecs=("", "pcm_s16le"))
    with h5py.File(tmp_path / "sounds.h5", "w") as file:
        waves = {name: Wave(file.create_dataset(name, data=sound), 16_000) for name, sound in sounds.items()}
        done = hdcid_cli.extract(waves, "a", tmp_path / "waves.h5", "logmel", seconds=4)
    assert done.clips == ["a", "b", "c"] and done.computed == 3
    run(
        "--modality", "a", "--backbone", "logmel", "--seconds", 4, "--workers", 0, "-o", tmp_path / "files.h5", tmp_path
    )
    for name, features in read(tmp_path / "files.h5").items():
        assert np.allclose(read(tmp_path / "waves.h5")[name], features, atol=1e-3)


def test_text_of_captions_prompts_and_files(tmp_path):
    (tmp_path / "captions.csv").write_text('video_id,caption\nx1,"A dog, barking"\nx2,rain\n')
    (tmp_path / "prompts.csv").write_text("\ufefflabel,prompt\nBark,a dog\n", encoding="utf-8")
    (tmp_path / "note.txt").write_text("one two three four five six seven")
    sources = [tmp_path / name for name in ("captions.csv", "prompts.csv", "note.txt")]
    run("--modality", "text", "--backbone", "hash", "--seconds", 5, "-o", tmp_path / "t.h5", *sources)
    with FeatureFile([tmp_path / "t.h5"]) as file:
        assert file.ids == ["x1", "x2", "Bark", "note"]
        assert file.length.tolist() == [3, 1, 2, 5]
        first = file.read([0])[0]
        assert np.allclose(first, [*map(word_vector, ["a", "dog", "barking"]), np.zeros(768), np.zeros(768)])


def test_parts_of_many_clips_go_through_the_network_together(tmp_path):
    """Each clip gets back the outputs of its own parts, however they fell into batches."""
    batches = []

    def prepare(clip):
        for second in range(int(clip.source)):
            if clip.id == "broken" and second == 2:
                raise InputError("it broke")
            yield np.full((1, 2), 10 * ord(clip.id[0]) + second, np.float32)

    def network(parts):
        batches.append(len(parts))
        return [part + 0.5 for part in parts]

    backbone = Backbone("test", "audio", (2,), prepare, network, batch_size=4)
    clips = [
        MediaClip("a", "3"),
        MediaClip("broken", "5"),
        MediaClip("c", "1"),
        MediaClip("d", "6"),
        MediaClip("e", "2"),
    ]
    attributes = {"modality": "audio", "backbone": "test", "weights": "none", "segment_seconds": 1.0}
    with FeatureWriter(tmp_path / "a.h5", [clip.id for clip in clips], (5, 2), attributes, "float32") as writer:
        assert [(clip.id, error) for clip, error in extract_clips(clips, backbone, writer, 5)] == [
            ("a", None), ("broken", "it broke"), ("c", None), ("d", None), ("e", None),
        ]  # fmt: skip
        writer.finish()
    assert batches == [4, 4, 4, 2]
    with FeatureFile([tmp_path / "a.h5"]) as file:
        assert file.failed == ["broken"]
        assert file.length.tolist() == [3, 1, 5, 2]  # of six seconds, five are kept
        for name, features, length in zip(file.ids, file.read(range(4)), file.length, strict=True):
            assert features[:length, 0].tolist() == [10 * ord(name) + second + 0.5 for second in range(length)]


# --- names of clips ------------------------------------------------------------------------------


def test_lists_and_globs_and_files_name_clips(videos, tmp_path):
    (tmp_path / "list.txt").write_text(f"{videos}/c.mp4\n\n{videos}/a.mp4\n")
    (tmp_path / "near.mp4").write_bytes(b"")
    (tmp_path / "near.txt").write_text("near.mp4")  # beside the list, not in the working directory
    assert [clip.id for clip in find_clips([str(tmp_path / "list.txt")], "video")] == ["c", "a"]
    assert [clip.id for clip in find_clips([f"{videos}/*.mp4"], "video")] == ["a", "c"]
    assert [clip.id for clip in find_clips([f"{videos}/c.mp4", str(videos)], "video")] == ["c", "a", "b"]
    assert find_clips([str(tmp_path / "near.txt")], "video")[0].source == str(tmp_path / "near.mp4")


@pytest.mark.parametrize(
    ("files", "arguments", "said"),
    [
        ({}, ["nowhere"], "no file or folder nowhere"),
        ({"empty/.hidden.mp4": ""}, ["empty"], "empty holds no video files"),
        ({"x/a.mp4": "", "y/a.mkv": ""}, ["."], "x/a.mp4 and y/a.mkv would both be clip 'a'"),
        ({"l.csv": "id,start\nx,3\n"}, ["l.csv"], "l.csv, line 2 has no path"),
        ({"l.csv": "path,start\nx.mp4,soon\n"}, ["l.csv"], "l.csv, line 2: the start 'soon' is not a number"),
        ({"l.csv": "path,start\nx.mp4,-1\n"}, ["l.csv"], "line 2: the start '-1' is not"),
        (
            {"l.csv": "id,path,start\nx,v.mp4,0\nx,v.mp4,10\n"},
            ["l.csv"],
            "v.mp4 and v.mp4 at 10 s would both be clip 'x'",
        ),
        ({"l.csv": ""}, ["l.csv"], "names no clip"),
    ],
)
def test_wrong_lists_are_refused(tmp_path, monkeypatch, files, arguments, said):
    monkeypatch.chdir(tmp_path)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as caught:
        find_clips(arguments, "video")
    assert said in str(caught.value).replace("./", "")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("video_id,caption\nx,\n", "line 2 has no text"),
        ("name,caption\nx,dog\n", "line 2 has no name"),
        ("video_id,caption\nx,dog\nx,cat\n", "captions.csv: 'dog' and 'cat' would both be clip 'x'"),
    ],
)
def test_wrong_captions_are_refused(tmp_path, content, said):
    (tmp_path / "captions.csv").write_text(content)
    with pytest.raises(InputError) as caught:
        find_clips([str(tmp_path / "captions.csv")], "text")
    assert said in str(caught.value)


# --- clips that cannot be read -------------------------------------------------------------------


def test_skipped_clips_are_named_with_status_3_and_tried_again_next_time(videos, tmp_path, hdcid):
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "good.mp4").symlink_to(videos / "a.mp4")
    (folder / "words.mp4").write_text("these are words")
    write_media(folder / "silent.mp4", [grey(5)] * 10)
    done = hdcid("extract", "--modality", "audio", "--backbone", "logmel")
    assert done.returncode == 3 and done.stdout == ""
    assert "skipped 'silent': videos/silent.mp4 has no audio." in done.stderr
    assert "skipped 'words': videos/words.mp4 cannot be opened" in done.stderr
    assert "features/audio.h5: 1 clip of 10 x 128, 2 skipped" in done.stderr
    assert list(read(tmp_path / "features/audio.h5")) == ["good"]
    (folder / "words.mp4").unlink()
    (folder / "words.mp4").symlink_to(videos / "c.mp4")
    (folder / "silent.mp4").unlink()
    again = hdcid("extract", "--modality", "audio", "--backbone", "logmel")
    assert again.returncode == 0, again.stderr
    assert list(read(tmp_path / "features/audio.h5")) == ["good", "words"]


TO_THE_FIRST_ERROR = ("--modality", "v", "--backbone", "hog", "--on-error", "fail", "--workers", 0)


def test_on_error_fail_stops_at_the_first(videos, tmp_path, hdcid):
    (tmp_path / "b.mp4").write_text("these are words")
    done = hdcid("extract", *TO_THE_FIRST_ERROR, videos / "a.mp4", "b.mp4")
    assert done.returncode == 2
    assert done.stderr.startswith("error: Clip 'b': b.mp4 cannot be opened")
    assert [path.name for path in (tmp_path / "features").iterdir()] == ["video.h5.part"]  # with clip a


def test_on_error_fail_at_the_first_clip_leaves_nothing(tmp_path):
    (tmp_path / "b.mp4").write_text("these are words")
    output = tmp_path / "made" / "video.h5"
    with pytest.raises(InputError, match="Clip 'b'"):
        run(*TO_THE_FIRST_ERROR, tmp_path / "b.mp4", "-o", output)
    with pytest.raises(InputError, match="File name too long"):
        FeatureWriter(tmp_path / "made" / f"{'long' * 99}.h5", ["b"], (1, 1), {})
    assert [path.name for path in tmp_path.iterdir()] == ["b.mp4"]


def test_a_file_whose_name_is_not_utf_8_is_skipped_and_the_others_go_on(videos, tmp_path, hdcid):
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "good.mp4").symlink_to(videos / "a.mp4")
    os.symlink(videos / "a.mp4", os.fsencode(folder) + b"/caf\xe9.mp4")
    done = hdcid("extract", "--modality", "audio", "--backbone", "logmel", "--workers", 0)
    assert done.returncode == 3
    assert "the name of videos/caf\\udce9.mp4 is not UTF-8: rename the file." in done.stderr
    assert list(read(tmp_path / "features/audio.h5")) == ["good"]
    (folder / "good.mp4").unlink()
    done = hdcid("extract", "--modality", "audio", "--backbone", "logmel", "--workers", 0)
    assert done.returncode == 2 and "Of 1 clip none has a name in UTF-8" in done.stderr


def test_if_nothing_can_be_read_nothing_is_written(tmp_path, hdcid):
    (tmp_path / "a.mp4").write_text("these are words")
    done = hdcid("extract", "--modality", "v", "--backbone", "hog", "a.mp4")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: Of 1 clip none could be read, so features/video.h5 is not written."
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def _fragile(clip: MediaClip):
    """A decoder that dies of one file (in a worker process)."""
    if clip.id == "deadly":
        os.kill(os.getpid(), signal.SIGSEGV)
    yield np.full((1, 1), float(clip.source), np.float32)


def test_a_file_that_kills_the_decoder_costs_that_clip_alone(tmp_path):
    clips = [MediaClip("deadly" if number == 3 else str(number), str(number)) for number in range(8)]
    backbone = Backbone("test", "audio", (1,), _fragile)
    attributes = {"modality": "audio", "backbone": "test", "weights": "none", "segment_seconds": 1.0}
    with FeatureWriter(tmp_path / "a.h5", [clip.id for clip in clips], (2, 1), attributes) as writer:
        results = dict(extract_clips(clips, backbone, writer, 2, workers=2))
        assert {clip.id: error for clip, error in results.items() if error} == {
            "deadly": "3 brought the decoder down (exit status -11)."
        }
        assert writer.written == 7


# --- shards --------------------------------------------------------------------------------------


def test_shards_and_ranks_together_are_the_whole(videos, tmp_path, monkeypatch):
    common = ["--modality", "audio", "--backbone", "logmel", "--workers", 0, videos]
    run(*common, "--features", tmp_path / "whole")
    for number in (1, 2):
        run(*common, "--features", tmp_path / "shards", "--shard", f"{number}/2")
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        run(*common, "--features", tmp_path / "ranks")
    whole = read(tmp_path / "whole/audio.h5")
    for folder in ("shards", "ranks"):
        with open_features(tmp_path / folder, "audio") as file:
            assert len(file.paths) == 2 and set(file.ids) == set(whole)
            assert np.array_equal(file.read(file.rows(whole)), np.stack(list(whole.values())))


@pytest.mark.parametrize("shard", ["3/2", "0/2", "2", "a/b", "-1/2"])
def test_a_wrong_shard_is_refused(videos, tmp_path, shard):
    with pytest.raises(InputError, match="should be I/N"):
        run("--modality", "audio", "--backbone", "logmel", "--shard", shard, "-o", tmp_path / "a.h5", videos)


def test_shards_beside_a_whole_file_are_refused(videos, tmp_path):
    common = ["--modality", "audio", "--backbone", "logmel", "--workers", 0, "--features", tmp_path, videos]
    run(*common)
    with pytest.raises(InputError, match="is there already, and readers would take it"):
        run(*common, "--shard", "1/2")


# --- interruption --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(videos, tmp_path_factory):
    """A list of 200 windows of one file, and the bytes that extracting it undisturbed gives."""
    folder = tmp_path_factory.mktemp("many")
    lines = [f"w{number},{videos}/c.mp4,{number % 60 / 30}" for number in range(200)]
    (folder / "list.csv").write_text("id,path,start\n" + "\n".join(lines))
    run("--modality", "video", "--backbone", "hog", "--workers", 0, "-o", folder / "whole.h5", folder / "list.csv")
    return folder / "list.csv", (folder / "whole.h5").read_bytes()


def start(list_file, path):
    command = [
        sys.executable,
        "-m",
        "hdcid_cli",
        "extract",
        "--modality",
        "video",
        "--backbone",
        "hog",
        "--workers",
        "2",
        "-o",
        path,
        list_file,
    ]
    return subprocess.Popen(
        [*map(str, command)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for_rows(path, rows: int, process) -> None:
    """Until the unfinished file holds so many rows, or the process has ended."""
    while process.poll() is None:
        try:
            with FeatureFile([f"{path}.part"]) as file:
                if len(file) >= rows:
                    return
        except (InputError, OSError):
            pass  # not there yet
        time.sleep(0.01)


def test_ctrl_c_keeps_what_is_done_and_the_next_run_goes_on(many, tmp_path):
    list_file, whole = many
    path = tmp_path / "video.h5"
    process = start(list_file, path)
    wait_for_rows(path, 5, process)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from there" in said and "Traceback" not in said
    with FeatureFile([f"{path}.part"]) as file:
        assert 5 <= len(file) < 200
    process = start(list_file, path)
    process.communicate(timeout=300)
    assert process.returncode == 0
    assert path.read_bytes() == whole


@pytest.mark.slow
def test_kill_9_at_ten_random_moments_leaves_the_bytes_of_an_undisturbed_run(many, tmp_path):
    list_file, whole = many
    path = tmp_path / "video.h5"
    generator = np.random.default_rng(0)
    killed = 0
    for rows in sorted(generator.choice(190, 10, replace=False)):
        process = start(list_file, path)
        wait_for_rows(path, rows, process)
        time.sleep(generator.uniform(0, 0.05))
        if process.poll() is None:
            process.kill()
            killed += 1
        process.communicate()
    assert killed >= 8
    process = start(list_file, path)
    process.communicate(timeout=300)
    assert path.read_bytes() == whole
    assert sorted(file.name for file in tmp_path.iterdir()) == ["video.h5"]


def test_video_features_at_another_rate_are_not_mixed_in(videos, tmp_path):
    path = tmp_path / "video.h5"
    common = ["--modality", "video", "--backbone", "hog", "--workers", 0, "-o", path, videos]
    run(*common)
    with pytest.raises(InputError, match="made with backbone 'hog', not 'hog@8fps'"):
        run(*common, "--fps", 8)
    assert load_backbone("video", "hog", Options(fps=8)).name == "hog@8fps"


@pytest.mark.parametrize(
    "name",
    ["hdcid_cli.media.video", "hdcid_cli.backbones.vggish_input", "hdcid_cli.backbones.hog", "hdcid_cli.media.workers"],
)
def test_decoding_processes_import_no_torch(name):
    code = f"import sys, {name}; sys.exit('torch' in sys.modules or 'h5py' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
