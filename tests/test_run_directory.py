"""A run's folder: taken up, replaced, locked and mended, without touching what is not its own."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdcid_cli.core.errors import HdcidError, InputError
from hdcid_cli.core.run_directory import MetricsLog, RunDirectory, RunKind, differences, read_config

KIND = RunKind(
    "test folder",
    "test-run",
    version=3,
    saved=("model.bin", "steps/*.bin", "state.bin"),
    noted=("clips.txt", "metrics.jsonl", "tensorboard/events.*"),
    derived=("toc.json", "cache/*.npy"),
    latest=True,
)


def config(**train):
    return {"model": {"layers": 2}, "train": {"lr": 0.1, "epochs": 5, **train}, "version_of_hdcid": "1"}


def open_run(path, overwrite=False, **train):
    return RunDirectory(path, KIND, config(**train), {("train", "epochs")}, overwrite, ["version_of_hdcid"])


def content(text):
    return lambda file: file.write_text(text)


def train(path, word, overwrite=False, **options):
    """A run from beginning to end, all of whose files hold the word."""
    with open_run(path, overwrite, **options) as directory:
        directory.start({"clips.txt": word})
        with directory.metrics("step", 0) as metrics:
            metrics.write({"step": 1, "word": word})
        (directory.place / "tensorboard").mkdir(parents=True, exist_ok=True)
        (directory.place / "tensorboard" / f"events.{word}").write_text(word)
        directory.save({name: content(word) for name in ("model.bin", f"steps/{word}.bin", "state.bin")})


def files(path):
    return {
        str(file.relative_to(path)): file.read_text()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name not in (".lock", "config.yaml")
    }


def whole(word):
    return {
        "clips.txt": word,
        "metrics.jsonl": json.dumps({"step": 1, "word": word}) + "\n",
        "model.bin": word,
        "state.bin": word,
        f"steps/{word}.bin": word,
        f"tensorboard/events.{word}": word,
    }


def test_a_run_is_taken_up_by_one_with_the_same_settings(tmp_path):
    train(tmp_path / "run", "old")
    assert (tmp_path / "latest").resolve() == (tmp_path / "run").resolve()
    with open_run(tmp_path / "run", epochs=9) as directory:  # more epochs are no other run
        assert directory.resumed
        directory.start({"clips.txt": "not written again"})
    assert read_config(tmp_path / "run", KIND)["train"]["epochs"] == 9
    assert files(tmp_path / "run") == whole("old")
    with pytest.raises(InputError, match=r"other settings \(lr was 0\.1, now 0\.2\)"):
        open_run(tmp_path / "run", lr=0.2)


def test_a_run_from_before_a_setting_did_what_the_setting_does_by_default(tmp_path, monkeypatch):
    train(tmp_path / "run", "old")
    monkeypatch.setattr(f"{__name__}.KIND", replace(KIND, absent={"train": {"clip": 0.5, "lr": 9.0}}))
    with open_run(tmp_path / "run", clip=0.5) as directory:
        assert directory.resumed
    with pytest.raises(InputError, match=r"other settings \(clip was 0\.5, now 0\.7\)"):
        open_run(tmp_path / "run", clip=0.7)


def test_an_older_run_stays_until_the_first_save_of_the_new_one_is_whole(tmp_path):
    path = tmp_path / "run"
    train(path, "old")
    (path / "toc.json").write_text("made from old")
    (path / "notes.txt").write_text("mine")
    before = files(path)
    with open_run(path, overwrite=True, lr=0.7) as directory:
        directory.start({"clips.txt": "new"})
        with directory.metrics("step", 0) as metrics:
            metrics.write({"step": 1, "word": "new"})
            assert {name: text for name, text in files(path).items() if not name.startswith(".new-run")} == before
            assert read_config(path, KIND)["train"]["lr"] == 0.1
            directory.save({"model.bin": content("new"), "state.bin": content("new")})
            metrics.write({"step": 2})  # into the file that has moved
    expected = {"clips.txt": "new", "model.bin": "new", "state.bin": "new", "notes.txt": "mine"}
    assert files(path) == expected | {"metrics.jsonl": '{"step": 1, "word": "new"}\n{"step": 2}\n'}
    assert read_config(path, KIND)["train"]["lr"] == 0.7
    assert not [entry.name for entry in path.iterdir() if entry.name.startswith(".")]


def test_a_new_run_that_is_not_saved_leaves_the_old_one(tmp_path):
    train(tmp_path / "run", "old")
    with pytest.raises(RuntimeError), open_run(tmp_path / "run", overwrite=True) as directory:
        directory.start({"clips.txt": "new"})
        raise RuntimeError
    assert files(tmp_path / "run") == whole("old")


def test_of_a_run_that_ends_before_it_records_anything_nothing_is_left(tmp_path):
    (tmp_path / "kept").mkdir()
    for place in ("kept", "made/with/folders"):
        with pytest.raises(RuntimeError), open_run(tmp_path / place) as directory:
            raise RuntimeError  # before it starts
        with pytest.raises(RuntimeError), open_run(tmp_path / place) as directory:
            directory.start({"clips.txt": "new"})
            with directory.metrics("step", 0):
                (directory.place / "tensorboard").mkdir()
                (directory.place / "tensorboard" / "events.new").write_text("new")
            raise RuntimeError
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["kept"]
    with pytest.raises(RuntimeError), open_run(tmp_path / "kept") as directory:
        directory.start({"clips.txt": "new"})
        (directory.place / "notes.txt").write_text("mine")
        raise RuntimeError
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["notes.txt"]


def test_what_a_run_recorded_before_its_first_save_stays(tmp_path):
    with pytest.raises(RuntimeError), open_run(tmp_path / "run") as directory:
        directory.start({"clips.txt": "new"})
        with directory.metrics("step", 0) as metrics:
            metrics.write({"step": 1})
        raise RuntimeError
    assert files(tmp_path / "run") == {"clips.txt": "new", "metrics.jsonl": '{"step": 1}\n'}
    assert not open_run(tmp_path / "run").resumed


class Killed(BaseException):
    """What `kill -9` is to a test."""


def test_killed_at_any_moment_of_the_replacement_one_run_is_whole(tmp_path, monkeypatch):
    calls = [(os, "replace"), (os, "rename"), (Path, "unlink"), (shutil, "rmtree"), (Path, "rmdir")]
    moment, ended = 0, False
    while not ended:
        path = tmp_path / str(moment)
        train(path, "old")
        left = [moment]
        with monkeypatch.context() as patch:
            for module, name in calls:
                patch.setattr(module, name, _deadly(getattr(module, name), left))
            patch.setattr(RunDirectory, "close", lambda self: self._lock._file.close())  # as the system does
            try:
                train(path, "new", overwrite=True, lr=0.3)
                ended = True
            except Killed:
                pass
        if (path / "model.bin").exists():  # what is read now is one or the other
            assert ((path / "model.bin").read_text() == "old") == (read_config(path, KIND)["train"]["lr"] == 0.1)
        with open_run(path, overwrite=True):
            pass  # mends
        found = files(path)
        assert found in (whole("old"), whole("new")), moment
        assert read_config(path, KIND)["train"]["lr"] == (0.1 if found == whole("old") else 0.3)
        assert not [entry for entry in path.rglob(".*")]
        moment += 1
    assert moment > 20 and found == whole("new")


def _deadly(original, left):
    def call(*arguments, **options):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return original(*arguments, **options)

    return call


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_strangers_folder_is_refused_and_untouched(tmp_path, overwrite):
    path = tmp_path / "mine"
    (path / "tensorboard").mkdir(parents=True)
    (path / "tensorboard" / "events.mine").write_text("mine")
    with pytest.raises(InputError, match="is not a test folder"):
        open_run(path, overwrite)
    (path / "config.yaml").write_text("format: something-else\nmodel: mine\n")
    with pytest.raises(InputError, match="does not say format test-run"):
        open_run(path, overwrite)
    assert files(path) == {"tensorboard/events.mine": "mine"}
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        open_run(tmp_path / "file", overwrite)


def test_what_lies_beside_a_runs_own_files_is_kept(tmp_path):
    path = tmp_path / "run"
    train(path, "old")
    for name in ("tensorboard/notes.txt", "cache/mine.txt", "steps/mine.txt"):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text("mine")
    train(path, "new", overwrite=True)
    assert files(path) == whole("new") | {
        name: "mine" for name in ("tensorboard/notes.txt", "cache/mine.txt", "steps/mine.txt")
    }


def test_a_run_of_an_older_version_is_replaced_but_not_taken_up(tmp_path):
    path = tmp_path / "run"
    train(path, "old")
    text = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(text.replace("version: 3", "version: 2"))
    with pytest.raises(InputError, match="version 2"):
        open_run(path)
    train(path, "new", overwrite=True)
    assert files(path) == whole("new")


def test_two_runs_in_one_folder_are_refused(tmp_path):
    code = (
        "import sys; sys.path.insert(0, 'tests'); from test_run_directory import *\n"
        "with open_run(Path(sys.argv[1])) as directory:\n    directory.start(); print('in', flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=os.path.dirname(os.path.dirname(__file__)),
    )
    assert other.stdout.readline() == "in\n"
    for overwrite in (False, True):
        with pytest.raises(InputError, match="Another process is training in"):
            open_run(tmp_path / "run", overwrite)
    other.kill()
    other.wait()
    other.stdin.close()
    other.stdout.close()
    train(tmp_path / "run", "next")  # a lock goes with its process
    assert files(tmp_path / "run") == whole("next")


def test_temporary_files_of_a_killed_save_are_removed_by_the_next_run(tmp_path):
    path = tmp_path / "run"
    train(path, "old")
    left = [".model.bin.x1y2.tmp", "steps/.000.bin.abc.tmp", ".config.yaml.q.tmp", ".state.bin.zz.tmp"]
    for name in (*left, ".mine.tmp", ".toc.json.now.tmp"):  # the last one may just be being written
        (path / name).write_text("half")
    (tmp_path / ".latest.77.tmp").symlink_to("nowhere")
    os.utime(tmp_path / ".latest.77.tmp", (0, 0), follow_symlinks=False)
    with open_run(path) as directory:
        directory.start()
        directory.save({name: content("old") for name in ("model.bin", "state.bin")})
    assert files(path) == whole("old") | {".mine.tmp": "half", ".toc.json.now.tmp": "half"}
    assert not os.path.lexists(tmp_path / ".latest.77.tmp")


def test_a_save_that_fails_names_the_file_and_keeps_the_one_before(tmp_path):
    train(tmp_path / "run", "old")

    def full(file):
        file.write_text("ha")
        raise OSError(28, "No space left on device")

    with open_run(tmp_path / "run") as directory:
        directory.start()
        with pytest.raises(HdcidError, match=r"model\.bin cannot be written .*No space left.* same command"):
            directory.save({"model.bin": full, "state.bin": content("new")})
    assert files(tmp_path / "run") == whole("old")


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"file/run cannot be written: Not a directory\."):
        open_run(tmp_path / "file" / "run")


def test_what_is_no_link_in_the_place_of_latest_is_told_before_the_work(tmp_path):
    (tmp_path / "latest").mkdir()
    with pytest.raises(InputError, match="latest is no link: move it away"):
        open_run(tmp_path / "run")
    assert os.listdir(tmp_path) == ["latest"]


def test_records_after_the_last_save_come_again(tmp_path):
    file = tmp_path / "metrics.jsonl"
    with MetricsLog(file, "step", 0) as metrics:
        for step in (1, 2, 3):
            metrics.write({"step": step, "loss": 1 / 3})
    with open(file, "a") as opened:
        opened.write('{"step": 4, "lo')
    with MetricsLog(file, "step", 2) as metrics:
        metrics.write({"step": 3, "loss": 0.5})
    assert [json.loads(line) for line in file.read_text().splitlines()] == [
        {"step": 1, "loss": 0.333333333},
        {"step": 2, "loss": 0.333333333},
        {"step": 3, "loss": 0.5},
    ]


@given(st.lists(st.one_of(st.binary(max_size=30), st.just(b'{"step": 1}'), st.just(b'{"step": 9}'))))
@settings(max_examples=50)
def test_a_damaged_log_keeps_its_good_lines(tmp_path_factory, lines):
    file = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    file.write_bytes(b"\n".join([*lines, b""]))
    with MetricsLog(file, "step", 5) as metrics:
        metrics.write({"step": 6})
    assert file.read_bytes().count(b'{"step": 1}\n') == sum(line.endswith(b'{"step": 1}') for line in lines) - sum(
        line.endswith(b'{"step": 1}') and line != b'{"step": 1}' for line in lines
    )
    assert file.read_bytes().endswith(b'{"step": 6}\n') and b'{"step": 9}\n' not in file.read_bytes()


def test_settings_that_differ_are_named():
    before = {"model": {"layers": 2, "widths": [1]}, "clips": 40}
    now = {"model": {"layers": 1, "widths": [2], "new": 3}, "clips": 41}
    assert differences(before, now) == [
        "layers was 2, now 1",
        "other widths in model",
        "new was None, now 3",
        "clips was 40, now 41",
    ]
    assert not differences(before, before)


def test_a_strangers_endless_setting_is_shown_in_a_few_characters():
    bomb = ["x"]
    for _ in range(40):
        bomb = [bomb, bomb]
    started = time.monotonic()
    (found,) = differences({"model": 5, "clips": bomb}, {"model": 5, "clips": 1})
    assert len(found) < 500 and time.monotonic() - started < 1
