"""`cmg` from files to records."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from worlds import write_features

from hdcid_cli.codes.checkpoint import open_checkpoint
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import open_features
from hdcid_cli.tasks.cmg.protocol import ProbeSettings
from hdcid_cli.tasks.cmg.reading import read_codes, read_features
from hdcid_cli.tasks.cmg.run import Drawings, read_task, run_task


@pytest.fixture
def workplace(tmp_path):
    """Features, annotations of several kinds and a small checkpoint in an empty folder."""
    events, ids = write_features(tmp_path / "features", clips=48)
    (tmp_path / "data" / "ave").mkdir(parents=True)
    (tmp_path / "data" / "avvp").mkdir()
    lines, rows, table = [], ["filename\tonset\toffset\tevent_labels"], ["id,split,label"]
    for number, (name, row) in enumerate(zip(ids, events)):
        split = ("train", "train", "val", "test")[number % 4]
        lines.append(f"class{row[0]}&{name}&good&0&1\n")
        rows += [f"{name}_0_6\t{second}\t{second + 1}\tclass{label}" for second, label in enumerate(row)]
        table.append(f"{name},{split},class{row[0]}")
        with open(tmp_path / "data" / "ave" / f"{split}Set.txt", "a") as file:
            file.write(lines[-1])
    (tmp_path / "data" / "ave" / "Annotations.txt").write_text("".join(lines))
    for name in ("AVVP_eval_audio.csv", "AVVP_eval_visual.csv"):
        (tmp_path / "data" / "avvp" / name).write_text("\n".join(rows) + "\n")
    (tmp_path / "data" / "avvp" / "split.csv").write_text(
        "\n".join(["category,video_id,split"] + [",".join((r.split(",")[2], *r.split(",")[:2])) for r in table[1:]])
    )
    (tmp_path / "mine.csv").write_text("\n".join(table) + "\n")
    return tmp_path


def test_command_from_features_to_report(hdcid, workplace):
    assert hdcid("pretrain", "--epochs", "1", "--dim", "16", "--codebook", "12").returncode == 0
    done = hdcid(
        "cmg",
        "avvp",
        "--train",
        "v",
        "--test",
        "a",
        "--toc",
        "8/5",
        "--seeds",
        "2",
        "--epochs",
        "3",
        "--timelines",
        "t.jsonl",
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [found[0][name] for name in ("task", "direction", "metric", "protocol", "toc", "layers", "n", "method")] == [
        "avvp", "v->a", "accuracy", "heldout", "8", 2, 12, "cpc,cmcm",
    ]  # fmt: skip
    assert {record["seed"] for record in found} == {0, 1}
    assert {"segment_type", "event_event", "segment_map", "foreground_f1"} <= {record["metric"] for record in found}
    drawn = [json.loads(line) for line in (workplace / "t.jsonl").read_text().splitlines()]
    assert len(drawn) == 12 and drawn[0]["seconds"] == 6 and drawn[0]["true"][0].keys() == {"label", "start", "end"}
    table = hdcid("report", stdin=done.stdout)
    assert table.returncode == 0 and "accuracy" in table.stdout

    def read(layers):
        sides = [open_features(workplace / "features", name) for name in ("audio", "video")]
        return read_codes(open_checkpoint(None, workplace / "checkpoints"), *sides, "ave", layers=layers)

    tasks = read_task("ave", workplace / "data", "audio", "video")
    first = next(run_task(tasks, read(1), ProbeSettings(epochs=1), per_class=True))
    assert set(first["per_class"]) <= {f"class{number}" for number in range(4)} | {"background"}
    assert (first["layers_used"], first["toc"], first["data"]) == (1, "none", "own")
    with pytest.raises(InputError, match="--layers-used 3 cannot be read"):
        read(3)

    codes = read(None).train
    rows, model = [3, 1, 40], open_checkpoint(None, workplace / "checkpoints").model.train()
    torch.manual_seed(9)
    x = torch.from_numpy(open_features(workplace / "features", "audio").read(rows))
    np.testing.assert_allclose(codes.read_noisy(rows, 9), model.encode("audio", x)[0].flatten(2).numpy())
    assert not np.array_equal(codes.read_noisy(rows, 8), codes.read_noisy(rows, 9))
    done = hdcid("cmg", "ave", "--train", "v", "--test", "a", "--protocol", "published", "--epochs", "2")
    first = json.loads(done.stdout.splitlines()[0])
    assert (first["encoder_dropout"], first["probe_epochs"], first["n_pretrained"]) == (0.3, 2, first["n"])
    assert first["probe_lr"] == 4e-4


def test_own_table_and_supervised_ceiling(workplace):
    reading = read_features(open_features(workplace / "features", "audio"))
    found = next(run_task(read_task("classify", workplace / "mine.csv", "audio", "audio"), reading))
    assert found["method"] == "supervised" and found["checkpoint"] is None
    assert found["value"] > found["chance"] + 15
    assert "classifier" not in found
    tasks = read_task("classify", workplace / "mine.csv", "audio", "audio")
    by_mean = next(run_task(tasks, reading, ProbeSettings(classifier="mean")))
    assert by_mean["classifier"] == "mean" and "localizer" not in by_mean
    assert by_mean["value"] > by_mean["chance"] + 15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ave", "--train", "v", "--test", "a"), "There is no checkpoint in checkpoints"),
        (("ave", "--train", "v", "--test", "a", "--supervised"), "A supervised probe reads raw features"),
        (("avvp", "--train", "t", "--test", "a", "--supervised"), "A supervised probe"),
        (("avvp", "--train", "t", "--test", "t", "--supervised"), "words have no seconds"),
        (("ave", "--train", "t", "--test", "t", "--supervised"), "There is no feature file features/text.h5"),
        (("classify", "--train", "v", "--test", "v", "--supervised"), "There is no table of labels data/classify.csv"),
        (("ucf2vgg", "--train", "v", "--test", "a"), "has no UCF101sameVGGSound.txt"),
        (
            ("ave", "--train", "v", "--test", "a", "--lr", "nan"),
            "--lr should be a number above 0 and up to 100, not 'nan'",
        ),
        (
            ("ave", "--train", "v", "--test", "a", "--epochs", "9" * 20),
            "--epochs should be a whole number from 1 to 1,000,000",
        ),
        (("classify", "--train", "v", "--test", "v", "--data", "pipe"), "pipe is a pipe or a device"),
        (("classify", "--train", "v", "--test", "v", "--data", "my.csv"), "There is no file my.csv"),
        (
            ("ave", "--train", "a", "--test", "a", "--supervised", "--timelines", "t.jsonl"),
            "Clips are classified here, and no events localised",
        ),
    ],
)
def test_what_is_missing_is_said_in_a_sentence(hdcid, workplace, arguments, message):
    os.mkfifo(workplace / "pipe")
    done = hdcid("cmg", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr and done.stderr.count("\n") == 1


def test_records_say_how_the_probe_learned_where_nobody_would_expect_it(workplace):
    reading = read_features(open_features(workplace / "features", "audio"))
    tasks = read_task("classify", workplace / "mine.csv", "audio", "audio")

    def found(**settings):
        record = next(run_task(tasks, reading, ProbeSettings(epochs=1, **settings)))
        return {name: record[name] for name in ("dropout", "probe_batch_size") if name in record}

    assert found() == found(batch_size=80) == {}
    assert found(dropout=0.0, batch_size=8) == {"dropout": 0.0, "probe_batch_size": 8}


def test_settings_that_make_no_difference_are_said(workplace, capsys):
    reading = read_features(open_features(workplace / "features", "audio"))

    def said(task, data, **settings):
        next(
            run_task(read_task(task, workplace / data, "audio", "audio"), reading, ProbeSettings(epochs=1, **settings))
        )
        return [line.split()[0] for line in capsys.readouterr().err.splitlines() if "makes no difference" in line]

    assert said("avvp", "data", classifier="mean", localizer="tcn") == ["--classifier"]
    assert said("classify", "mine.csv", localizer="tcn", threshold="chosen", keep=0.9) == [
        *("--localizer", "--threshold", "--keep"),
    ]
    assert said("classify", "mine.csv", open_set="2", score="energy", classifier="mean") == []
    assert said("classify", "mine.csv", encoder_dropout=True) == ["--encoder-dropout"]  # of raw features


def test_timelines_of_another_question_are_not_lost(workplace):
    def probe(test="audio", seed=0, **settings):
        reading = read_features(open_features(workplace / "features", test))
        tasks = read_task("avvp", workplace / "data", test, test)
        asked, drawings = ProbeSettings(epochs=1, **settings), Drawings(workplace / "t.jsonl")
        return list(run_task(tasks, reading, asked, (seed,), drawings=drawings))

    probe()
    before = (workplace / "t.jsonl").read_text()
    assert probe() and (workplace / "t.jsonl").read_text() == before  # the same question is answered again
    for other in ({"test": "video"}, {"seed": 1}, {"localizer": "tcn"}, {"protocol": "published"}):
        with pytest.raises(InputError, match=r"holds the timelines of avvp a->a, .* already: name another file"):
            probe(**other)
    (workplace / "t.jsonl").write_text("notes of mine\n")
    with pytest.raises(InputError, match="holds no timelines"):
        probe()
    (workplace / "t.jsonl").write_text("")
    assert probe()


def test_records_say_which_groups_were_left_out_and_what_pretraining_saw(workplace, capsys):
    lines = (workplace / "mine.csv").read_text().splitlines()
    table = workplace / "people.csv"
    speakers = ["speaker", *(("anna", "bob", "carla")[number % 3] for number in range(len(lines) - 1))]
    table.write_text("".join(f"{line},{speaker}\n" for line, speaker in zip(lines, speakers, strict=True)))
    audio = open_features(workplace / "features", "audio")
    anna = {line.split(",")[0] for line in lines[1::3]}

    def probe(leave_out=None, pretrained=(), **settings):
        reading = replace(read_features(audio), pretrained=frozenset(pretrained))
        tasks = read_task("classify", table, "audio", "audio", leave_out)
        return next(run_task(tasks, reading, ProbeSettings(epochs=1, **settings)))

    found = probe("speaker=anna")
    assert (found["n"], found["n_fit"], found["n_choose"]) == (16, 16, 8)  # of 48 clips, half train, a quarter val
    assert (found["protocol"], found["left_out"]) == ("heldout, speaker=anna left out", "speaker=anna")
    tasks = read_task("classify", table, "audio", "audio", "speaker=anna")
    assert {clip.id for clip in tasks[0].target.clips if clip.split == "test"} == anna
    assert found["data_digest"] == probe()["data_digest"]  # the same table, asked in another way

    seen = sorted(anna)[:3]
    found = probe("speaker=anna", seen)
    assert (found["protocol"], found["n_pretrained"]) == ("heldout, speaker=anna left out, seen in pretraining", 3)
    said = capsys.readouterr().err
    assert (
        "The model was pretrained on 3 of 16 tested clips" in said
        and "`hdcid pretrain --leave-out 'speaker=anna'` leaves" in said
    )
    assert probe(None, [])["protocol"] == "heldout"
    assert probe(None, [line.split(",")[0] for line in lines[1:]])["protocol"] == "heldout, seen in pretraining"
    assert probe(None, [lines[1].split(",")[0]], protocol="published")["protocol"] == "published"
    with pytest.raises(InputError, match="--leave-out goes with --protocol heldout"):
        probe("speaker=anna", protocol="published")


def test_strict_makes_an_oddity_an_error(workplace, capsys):
    path = workplace / "data" / "ave" / "Annotations.txt"
    path.write_text(path.read_text() + "class0&gone&good&5&5\n")
    (workplace / "data" / "ave" / "trainSet.txt").open("a").write("class0&gone&good&5&5\n")

    def probe(**more):
        reading = read_features(open_features(workplace / "features", "audio"))
        return next(
            run_task(read_task("ave", workplace / "data", "audio", "audio"), reading, ProbeSettings(epochs=1), **more)
        )

    assert probe()["n_fit"] == 24
    told = capsys.readouterr().err
    assert (
        "line 49: the interval of class0 is empty (at 5 s)" in told
        and "has no features of 1 annotated clip, left" in told
    )
    with pytest.raises(InputError, match="line 49"):
        probe(strict=True)
