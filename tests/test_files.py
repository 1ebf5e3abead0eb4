"""core/files.py: what is written where, what is read from where, and names that come from files."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_records import lines, record

from hdcid_cli.codes.toc import select
from hdcid_cli.codes.toc_plot import plot_similarities
from hdcid_cli.core.errors import HdcidError, InputError
from hdcid_cli.core.features import FeatureWriter
from hdcid_cli.core.files import (
    NAME_LIMIT,
    Lock,
    atomic_path,
    make_folder,
    read_text,
    refuse_to_replace,
    remove_empty,
    remove_leftovers,
    safe_name,
    write_text,
)
from hdcid_cli.main import run
from hdcid_cli.media.picture import write_picture
from hdcid_cli.report.drawing import Drawing, Figure
from hdcid_cli.report.figures import write_figures
from hdcid_cli.synth.media import write_wav
from hdcid_cli.tasks.analysis.location import draw_map


def test_a_new_file_is_made_with_its_folders_and_nothing_else(tmp_path):
    write_text(tmp_path / "a" / "b" / "c.txt", "é\n")
    assert (tmp_path / "a" / "b" / "c.txt").read_bytes() == "é\n".encode()
    assert os.listdir(tmp_path / "a" / "b") == ["c.txt"]


def test_a_symbolic_link_stays_one_and_its_target_is_written(tmp_path):
    (tmp_path / "there").mkdir()
    for name in ("known", "dangling"):
        (tmp_path / name).symlink_to(tmp_path / "there" / name)
    (tmp_path / "there" / "known").write_text("old")
    for name in ("known", "dangling"):
        write_text(tmp_path / name, "new")
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / "there" / name).read_text() == "new"


def test_links_in_a_circle_are_one_sentence(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(InputError, match="a cannot be written: Too many levels"):
        write_text(tmp_path / "a", "x")


def test_a_pipe_in_the_place_of_a_file_of_ours_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InputError, match="fifo is a pipe or a device, not a file: remove it"):
        write_text(tmp_path / "fifo", "x")
    with pytest.raises(HdcidError, match="fifo cannot be written"):
        Lock(tmp_path / "fifo", "taken")
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)


def test_permissions_are_kept_and_a_new_file_gets_the_usual_ones(tmp_path):
    file = tmp_path / "file"
    umask = os.umask(0o027)
    try:
        write_text(file, "one")
        assert stat.S_IMODE(file.stat().st_mode) == 0o640
        file.chmod(0o604)
        write_text(file, "two")
    finally:
        os.umask(umask)
    assert stat.S_IMODE(file.stat().st_mode) == 0o604 and file.read_text() == "two"


def test_a_fifo_is_written_to_and_stays(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    got = []
    reader = threading.Thread(target=lambda: got.append(fifo.read_text()))
    reader.start()
    write_text(fifo, "through\n", named=True)
    reader.join(10)
    assert got == ["through\n"] and stat.S_ISFIFO(fifo.stat().st_mode)


def test_a_device_is_written_to_and_stays(tmp_path):
    write_text("/dev/null", "gone", named=True)
    with pytest.raises(HdcidError, match=r"^/dev/full cannot be written: No space left on device\.$"):
        write_text("/dev/full", "x", named=True)
    for name in ("null", "full"):
        assert stat.S_ISCHR(os.stat(f"/dev/{name}").st_mode)


def test_standard_output_by_name_is_a_pipe_or_the_end_of_a_file(tmp_path):
    code = "from hdcid_cli.core.files import write_text; write_text('/dev/stdout', 'x\\n', named=True)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout == b"x\n"
    (tmp_path / "log").write_text("before\n")
    with open(tmp_path / "log", "a") as log:
        subprocess.run([sys.executable, "-c", code], stdout=log, check=True)
    assert (tmp_path / "log").read_text() == "before\nx\n"


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        write_text(tmp_path, "x")


def test_a_file_in_place_of_a_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/x cannot be written: (Not a directory|File exists)\.$"):
        write_text(tmp_path / "file" / "x", "x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission_is_one_sentence(tmp_path):
    (tmp_path / "kept").write_text("old")
    (tmp_path / "kept").chmod(0o444)
    with pytest.raises(HdcidError, match=r"kept cannot be written: Permission denied\.$"):
        write_text(tmp_path / "kept", "new")
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(HdcidError, match=r"new cannot be written: Permission denied\.$"):
            write_text(tmp_path / "new", "x")
    finally:
        tmp_path.chmod(0o755)


def test_a_full_disk_is_one_sentence_and_the_old_file_stays(tmp_path):
    """A limit on the size of files stands for the disk's end."""
    code = """
import resource, signal, sys
from hdcid_cli.core.errors import HdcidError
from hdcid_cli.core.files import write_text
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_text(sys.argv[1], "x" * 5000)
except HdcidError as error:
    print(type(error).__name__, error)
"""
    (tmp_path / "file").write_text("old")
    ran = subprocess.run([sys.executable, "-c", code, tmp_path / "file"], capture_output=True, text=True, check=True)
    assert ran.stdout == f"HdcidError {tmp_path / 'file'} cannot be written: File too large.\n"
    assert os.listdir(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "old"


def test_what_is_not_written_leaves_no_folder(tmp_path):
    (tmp_path / "kept").mkdir()
    for name in ("kept/x", "made/with/x", "with/" + "long" * 99, "no/" + "long" * 99 + "/x"):
        with pytest.raises((ValueError, HdcidError)), atomic_path(tmp_path / name):
            raise ValueError
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["kept"]


def test_an_error_in_the_block_leaves_the_old_file_and_passes_on(tmp_path):
    (tmp_path / "file").write_text("old")
    for error in (ValueError("mine"), FileNotFoundError(2, "No such file", "another")):
        with pytest.raises(type(error)) as raised, atomic_path(tmp_path / "file") as temporary:
            temporary.write_text("half")
            raise error
        assert raised.value is error
    assert os.listdir(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "old"


def test_leftovers_of_killed_writers_are_removed_once_they_are_old(tmp_path):
    for name in (".model.abc.tmp", ".fresh.abc.tmp", "mine.tmp", ".hidden"):
        (tmp_path / name).touch()
        if name != ".fresh.abc.tmp":
            os.utime(tmp_path / name, (0, 0))
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".fresh.abc.tmp", ".hidden", "mine.tmp"]


def test_text_is_read_without_its_mark_and_with_one_line_ending(tmp_path):
    (tmp_path / "text").write_bytes("\ufeffé\r\nb\rc\n".encode())
    assert read_text(tmp_path / "text") == "é\nb\nc\n"


def test_what_is_not_text_is_one_sentence(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "latin1").write_bytes(b"fine\n\xe9\n")
    (tmp_path / "long").write_bytes(b"12345")
    for name, limit, message in (
        ("fifo", 9, "fifo is a pipe or a device, not a file"),
        ("/dev/zero", 9, "/dev/zero is a pipe or a device, not a file"),
        (".", 9, "is a folder, not a file"),
        ("none", 9, "There is no file .*none"),
        ("nul\0", 9, "cannot be read"),
        ("latin1", 9, r"latin1 is not UTF-8 text \(line 2\)"),
        ("long", 4, "long is larger than 4 bytes"),
    ):
        with pytest.raises(InputError, match=message):
            read_text(tmp_path / name, limit)
    assert read_text(tmp_path / "long", 5) == "12345"


NAMES = st.text(st.characters(), max_size=300) | st.text("./\\%~-a\0\n\u202e\ud800", max_size=12)


@given(NAMES, NAMES)
def test_a_safe_name_is_one_component_and_distinct_names_stay_distinct(one, two):
    name = safe_name(one)
    assert name and "/" not in name and "\\" not in name and name.isprintable() and not name.startswith(".")
    assert len(name.encode()) <= NAME_LIMIT
    assert (safe_name(two) == name) == (one == two)


def test_ordinary_names_stay_as_they_are():
    for name in ("---1_cCGK4M", "dog bark", "Überfall 2.png", "v_Archery_g01_c01", "東京"):
        assert safe_name(name) == name
    assert safe_name("../x") == "%2E.%2Fx"


def test_what_somebody_names_to_write_to_may_be_a_device(tmp_path):
    records = tmp_path / "records.jsonl"
    records.write_text(lines(record()))
    for arguments in (
        ["recipe", "cp", "table1_dcid", "/dev/null"],
        ["report", records, "-o", "/dev/null"],
        ["report", records, "--explain", "-o", "/dev/null"],
    ):
        assert run([str(word) for word in arguments], {}) == 0
    null, codebook = Path("/dev/null"), np.eye(4)
    draw_map(codebook, "clip", ("audio", "video"), (1.0, 1.0), null)
    plot_similarities([codebook], select([codebook], 2), null)
    assert stat.S_ISCHR(os.stat(null).st_mode)


def test_what_can_be_lost_is_replaced_only_if_that_is_said(tmp_path):
    there = tmp_path / "there.yaml"
    there.write_text("mine")
    with pytest.raises(InputError, match=r"there\.yaml is there already: choose another name, or --overwrite\."):
        refuse_to_replace(there, "choose another name, or --overwrite")
    os.mkfifo(tmp_path / "fifo")
    for harmless in (tmp_path / "nothing", tmp_path / "fifo", "/dev/null"):
        refuse_to_replace(harmless, "")
    with open(there, "a") as log:  # open already: what is written there goes behind
        code = "from hdcid_cli.main import run; run(['recipe', 'cp', 'table1_dcid', '/dev/stdout'], {})"
        subprocess.run([sys.executable, "-c", code], stdout=log, check=True)
    assert there.read_text().startswith("mine#")


def test_a_feature_file_is_no_pipe_and_takes_the_place_of_none(tmp_path):
    os.mkfifo(tmp_path / "audio.h5")
    (tmp_path / "link.h5").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "text.h5.part")
    for name in ("audio.h5", "link.h5", "text.h5"):
        with pytest.raises(InputError, match="is a pipe or a device, and this has to be a file: name another"):
            FeatureWriter(tmp_path / name, ["a"], (1, 2), {}, overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["audio.h5", "link.h5", "text.h5.part"]


def test_no_file_in_a_folder_of_ours_is_a_pipe(tmp_path):
    """Nothing waits for who would read it."""
    figure = Figure("clip", Drawing(10, []), short="chart")
    for name, write in (
        ("chart.svg", lambda folder: write_figures([figure], folder)),
        ("x.png", lambda folder: write_picture(folder / "x.png", np.zeros((2, 2, 3), np.uint8))),
        ("x.wav", lambda folder: write_wav(folder / "x.wav", np.zeros(8, np.float32))),
    ):
        folder = tmp_path / name
        folder.mkdir()
        os.mkfifo(folder / name)
        with pytest.raises(InputError, match="is a pipe or a device, not a file: remove it"):
            write(folder)


def test_a_folder_that_another_process_made_meanwhile_is_not_taken_back(tmp_path, monkeypatch):
    own = Path.mkdir

    def mkdir(path, *given, **more):
        if path.name == "theirs" and not path.exists():
            own(path)
        own(path, *given, **more)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    made = make_folder(tmp_path / "ours" / "theirs" / "also")
    assert made == [tmp_path / "ours" / "theirs" / "also", tmp_path / "ours"]
    remove_empty(made)
    assert (tmp_path / "ours" / "theirs").is_dir() and not (tmp_path / "ours" / "theirs" / "also").exists()


def test_a_folder_below_one_that_is_not_there_and_up_again_is_made_and_taken_back(tmp_path):
    made = make_folder(tmp_path / "a" / ".." / "b")
    assert (tmp_path / "b").is_dir()
    remove_empty(made)
    assert tmp_path.is_dir() and not list(tmp_path.iterdir())
