"""Which clips the tables of a folder keep from learning, and what the name of a clip tells."""

from pathlib import Path

import pytest

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.names import SYNTHETIC_SCENE, SYNTHETIC_VIDEO, is_synthetic, recording
from hdcid_cli.core.splits import held_out, left_out, read_splits, training_clips, validation_clips
from hdcid_cli.tasks.held_out import held_out_by_tasks


def write(folder, **tables):
    for name, text in tables.items():
        path = folder / f"{name.replace('__', '/')}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_a_clip_in_two_splits_is_tested_on(tmp_path):
    path = write(tmp_path, split="id,split\na,train\nb,validation\na,testing\nb,train\n") / "split.csv"
    assert read_splits(path) == {"a": "test", "b": "val"}


def test_a_table_without_names_or_splits_is_refused(tmp_path):
    path = write(tmp_path, split="clip,split\na,train\n") / "split.csv"
    with pytest.raises(InputError, match="not a table of splits"):
        read_splits(path)
    with pytest.raises(InputError, match="line 2: there is no split 'sometimes'"):
        read_splits(write(tmp_path, split="id,split\na,sometimes\n") / "split.csv")


def test_the_tables_that_are_there_say_what_is_held_out(tmp_path):
    folder = write(
        tmp_path,
        classify="id,split,label\na,train,x\nb,val,x\nc,test,y\n",
        localise="id,split,label,onset,offset\nc,val,x,0,1\nd,test,y,1,2\nd,test,y,3,4\n",
        captions="video_id,caption\na,hello\n",
        avvp__split="category,video_id,split\nx,e,test\n",
        broken="id\n",
    )
    (folder / "empty.csv").touch()
    found = held_out(folder)
    assert found.splits == {"b": "val", "c": "test", "d": "test", "e": "test"}
    assert [path.name for path in found.tables] == ["split.csv", "classify.csv", "localise.csv"]
    assert found.of(["a", "b", "c", "unlabelled"]) == {"b": "val", "c": "test"}
    assert found.describe(["a", "b", "c", "d"]).startswith("1 val and 2 test clips of ")
    assert held_out(folder / "classify.csv").splits == {"b": "val", "c": "test"}
    assert held_out(tmp_path / "nowhere").splits == {}


def test_windows_and_groups_of_what_is_tested_are_held_out_too(tmp_path):
    folder = write(tmp_path, mine="id,split\n4YdbENYcIyE_23_33,test\nv_Bowling_g08_c01,val\ncam_1_2,test\n")
    names = ["4YdbENYcIyE", "4YdbENYcIyE_40_50", "v_Bowling_g08_c07", "v_Bowling_g09_c01", "cam_1_3", "cam_1_2"]
    assert held_out(folder).of(names) == {
        "4YdbENYcIyE": "test",
        "4YdbENYcIyE_40_50": "test",
        "v_Bowling_g08_c07": "val",
        "cam_1_2": "test",
    }


def test_names_tell_recordings_and_worlds():
    assert recording("4YdbENYcIyE_23_33") == recording("4YdbENYcIyE_23_33 ") == "4YdbENYcIyE"
    assert recording("v_YoYo_g25_c03") == "v_YoYo_g25"
    assert recording("holiday_1_2") == "holiday_1_2"  # no id of eleven characters
    made = [SYNTHETIC_VIDEO.format(7), SYNTHETIC_SCENE.format(123), f"{SYNTHETIC_VIDEO.format(7)}_0_10"]
    assert all(map(is_synthetic, made))
    assert not any(map(is_synthetic, ["syn7", "synthesizer", "4YdbENYcIyE_23_33", "xsyn00000007"]))


def test_training_clips_are_the_split_files_or_those_that_no_table_holds_out(tmp_path, capsys):
    names = [f"c{number}" for number in range(6)]
    folder = write(tmp_path, classify="id,split,label\nc0,train,x\nc1,val,x\nc2,test,y\nc3,test,y\n")
    assert training_clips(None, folder, names) == {"c0", "c4", "c5"}  # what has no label is learned from
    said = capsys.readouterr().err
    assert "Learning from 3 of 6 clips, without 1 val and 2 test clips of" in said and "classify.csv" in said
    assert training_clips(Path("none"), folder, names) is None
    assert training_clips(folder / "classify.csv", folder, names) == {"c0"}
    write(tmp_path, split="id,split\nc5,train\nc2,train\nc4,test\n")
    assert training_clips(None, folder, names) == {"c5"}  # c2 is tested by another table
    said = capsys.readouterr().err
    assert "Learning from 1 train clip of" in said and "without 1 test clip of" in said and "classify.csv" in said
    assert training_clips(folder / "split.csv", folder, names) == {"c5", "c2"}  # who names a table means it
    write(tmp_path, split="id,split\nc2,train\nc3,train\n")
    with pytest.raises(InputError, match=r"2 test clips of .*classify.csv are all train clips of .*split.csv"):
        training_clips(None, folder, names)
    assert training_clips(None, tmp_path / "empty", names) is None
    (tmp_path / "split.csv").unlink()
    with pytest.raises(InputError, match=r"1 val and 2 test clips of .* are all there is to learn from"):
        training_clips(None, folder, ["c1", "c2", "c3"])
    with pytest.raises(InputError, match=r"line 2: there is no split 'fold1'.* --split FILE.csv or --split none"):
        training_clips(None, write(tmp_path / "folds", mine="id,split\na,fold1\n"), names)


def test_groups_are_left_out_by_a_column_of_any_table(tmp_path, capsys):
    folder = write(
        tmp_path,
        split="id,split\na,train\nb,train\nc,test\n4YdbENYcIyE_0_5,train\n",
        people="video_id,Speaker\na,anna\nb,bob\nc,anna\n4YdbENYcIyE_5_10,anna\n",
        mine__more="name,speaker,place\ne,Carla D,indoors\n",
    )
    found = left_out(folder, "speaker=anna, Carla D")
    assert found.splits == dict.fromkeys(["a", "c", "4YdbENYcIyE_5_10", "e"], "test")
    assert [path.name for path in found.tables] == ["more.csv", "people.csv"]
    assert left_out(folder / "people.csv", "speaker=bob").splits == {"b": "test"}

    names = ["a", "b", "c", "4YdbENYcIyE_0_5"]
    assert training_clips(None, folder, names, "speaker=anna") == {"b"}  # and no other window of a recording left out
    assert "without 2 clips more, of speaker=anna" in capsys.readouterr().err
    assert training_clips(Path("none"), folder, names, "speaker=bob") == {"a", "c", "4YdbENYcIyE_0_5"}
    for rule, message in (
        ("speaker", "COLUMN=VALUE, such as speaker=anna"),
        ("speaker=, ", "COLUMN=VALUE"),
        ("camera=2", "has a column 'camera'"),
        ("speaker=anna,dora", r"No clip has the speaker 'dora' in .*; there are Carla D, anna, bob\."),
        ("speaker=anna,bob", "leaves no clip to learn from"),
    ):
        with pytest.raises(InputError, match=message):
            training_clips(None, folder, names, rule)


def test_published_lists_hold_out_too(tmp_path):
    write(tmp_path, captions="video_id,caption\na,hello\n")
    (tmp_path / "ave").mkdir()
    lines = {name: f"Dog&{name}&good&0&10\n" for name in "abc"}
    (tmp_path / "ave" / "Annotations.txt").write_text("".join(lines.values()))
    for split, name in (("train", "a"), ("val", "b"), ("test", "c")):
        (tmp_path / "ave" / f"{split}Set.txt").write_text(lines[name])
    events = "filename\tonset\toffset\tevent_labels\n4YdbENYcIyE_0_10\t0\t3\tDog\n"
    for name in ("AVVP_eval_audio", "AVVP_eval_visual"):
        write(tmp_path, **{f"avvp__{name}": events})
    write(tmp_path, avvp__AVVP_test_pd="filename\tevent_labels\n4YdbENYcIyE_0_10\tDog\n")
    held = held_out_by_tasks(tmp_path)
    assert held.splits == {"b": "val", "c": "test", "4YdbENYcIyE_0_10": "test"}
    names = ["a", "b", "c", "d", "4YdbENYcIyE_40_50"]
    assert training_clips(None, tmp_path, names, more=held) == {"a", "d"}
    assert validation_clips(None, tmp_path, names, more=held) == ["b"]
    assert held_out_by_tasks(tmp_path / "nowhere").splits == {}
