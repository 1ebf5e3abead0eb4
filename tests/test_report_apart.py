"""`report`: which results are one quantity measured again, and which stand apart, under what words."""

import csv
import io
import json
import re

from made_records import lines, record
from test_report import report, rows


def test_ceilings_of_two_backbones_are_not_averaged():
    supervised = [
        record(method="supervised", train="a", test="a", value=value, backbone=backbone, checkpoint=None)
        for value, backbone in ((78.0, "logmel"), (88.0, "vggish"))
    ]
    table = rows(stdin=lines(record(backbone="logmel"), *supervised))
    assert {row["method"]: row["ave precision v→a"] for row in table if row["kind"] == "supervised"} == {
        "supervised, logmel": "78.0",
        "supervised, vggish": "88.0",
    }


def ceiling(**changes):
    model = dict.fromkeys(("layers", "quantizer", "codebook", "toc", "checkpoint"))
    return record(**({"method": "supervised", "train": "a", "test": "a"} | model | changes))


def test_ceilings_by_two_probes_are_not_averaged():
    stdin = lines(record(), ceiling(value=78.0), ceiling(value=88.0, classifier="mean"))
    assert [(row["method"], row["ave precision v→a"]) for row in rows(stdin=stdin) if row["kind"] == "supervised"] == [
        ("supervised", "78.0"),
        ("supervised, classifier mean", "88.0"),
    ]
    assert "other seeds" not in report(stdin=stdin).stdout
    (only,) = [row for row in rows(stdin=lines(record(), ceiling(classifier="mean"))) if row["kind"] == "supervised"]
    assert only["method"] == "supervised, classifier mean"


def test_what_departs_from_the_papers_way_is_told_whether_or_not_it_keeps_results_apart():
    events = dict(task="avvp", metric="accuracy", value=60.0)
    both = lines(record(), record(value=50.0, classifier="mean"), record(**events))
    found = [(row["classifier"], row["ave precision v→a"], row["avvp accuracy v→a"]) for row in rows(stdin=both)]
    assert found[:2] == [("", "44.0", "60.0"), ("mean", "50.0", "")], "events belong to the row of the published probe"
    mean = record(classifier="mean")
    assert "classifier mean" in report(stdin=lines(mean)).stdout.split("method")[0]
    assert "classifier mean of ave" in report(stdin=lines(mean, record(**events))).stdout
    back = record(train="a", test="v")
    assert "classifier mean of ave v→a" in report(stdin=lines(mean, back)).stdout
    assert "dim 32" in report(stdin=lines(record(dim=32), record(**events, dim=32))).stdout
    assert "classifier" not in report(stdin=lines(record(), record(**events))).stdout


def test_probes_that_learn_otherwise_do_not_contradict_each_other():
    dropped = [record(value=40.0, probe_dropout=0.5, dropout=0.5), record(value=42.0, probe_lr=0.01)]
    outcome = report(stdin=lines(record(), *dropped))
    assert outcome.return_value == 0 and all(value in outcome.stdout for value in ("40.0", "42.0", "44.0"))
    chosen = [
        ceiling(seed=seed, value=value, probe_dropout=share) for seed, value, share in ((0, 70.0, 0.0), (1, 80.0, 0.5))
    ]
    assert rows(stdin=lines(*chosen))[0]["ave precision a→a runs"] == "2", "a dropout that was found is no setting"


def test_codes_that_are_shared_by_other_models_are_averaged():
    shared = [
        record(
            task="codes", metric="layer 1 shared", value=value, seed=seed, pretrain_seed=seed, shared={"dog": [seed]}
        )
        for seed, value in enumerate((3.0, 5.0))
    ]
    assert rows("--metrics", "all", stdin=lines(*shared))[0]["codes layer 1 shared v→a"] == "4.0"


def test_models_of_one_seed_are_not_averaged():
    table = rows(
        stdin=lines(
            record(checkpoint="sha256:aaaaaaaaaaaa", value=40.0), record(checkpoint="sha256:bbbbbbbbbbbb", value=50.0)
        )
    )
    assert [(row["checkpoint"], row["ave precision v→a"]) for row in table[:2]] == [
        ("aaaaaaaa", "40.0"),
        ("bbbbbbbb", "50.0"),
    ]


def tables_of(*arguments, stdin):
    return json.loads(report(*arguments, "--format", "json", stdin=stdin).stdout)["tables"]


def test_synthetic_and_own_clips_are_tables_of_their_own_whatever_the_format():
    stdin = lines(record(), record(data="synth", value=90.0), record(data="own", value=70.0))
    found = tables_of(stdin=stdin)
    assert [table["title"] for table in found] == [
        "Results",
        "Results on own clips",
        "Results on synthetic clips",
    ]
    assert [[row["labels"].get("data") for row in table["rows"]] for table in found] == [
        [None, None],
        ["own", "own"],
        ["synth", "synth"],
    ]
    for form in ("terminal", "markdown", "latex"):
        text = report("--format", form, stdin=stdin).stdout
        first, last = text.index("44.0"), text.index("90.0")
        assert first < text.index("on synthetic clips") < last, form
        assert "not to be compared with results on real data" in " ".join(text[last:].split())
        assert re.search(r"synth\b.*90\.0", text), "the row says it, too"
    assert "synth" in next(row for row in csv.reader(io.StringIO(report("--format", "csv", stdin=stdin).stdout))
                           if "90.0" in row)  # fmt: skip


def test_no_mean_is_taken_over_two_data_sets():
    first, second = (record(data="own", data_digest=digest * 16, value=value, seed=seed)
                     for digest, value, seed in (("a", 40.0, 0), ("b", 60.0, 1)))  # fmt: skip
    table = rows(stdin=lines(first, second))
    measured = [(row["data_digest"], row["ave precision v→a"]) for row in table if row["kind"] == "measured"]
    assert measured == [("aaaaaaaa", "40.0"), ("bbbbbbbb", "60.0")]
    chance = [(row["method"], row["data_digest"]) for row in table if row["kind"] == "chance"]
    assert chance == [("chance", "aaaaaaaa"), ("chance", "bbbbbbbb")]
    same = [record(data="own", data_digest="a" * 16, value=value, seed=seed) for seed, value in enumerate((40.0, 60.0))]
    assert rows(stdin=lines(*same))[0]["ave precision v→a"] == "50.0"


def test_results_that_differ_in_a_field_of_another_version_are_not_averaged():
    table = rows(stdin=lines(record(read="own", value=40.0, seed=0), record(read="row", value=60.0, seed=1)))
    assert [(row["read"], row["ave precision v→a"]) for row in table[:2]] == [("own", "40.0"), ("row", "60.0")]
    several = [record(read="own", value=value, seed=seed) for seed, value in enumerate((40.0, 60.0))]
    assert rows(stdin=lines(*several))[0]["ave precision v→a"] == "50.0"


def test_open_sets_of_other_classes_are_not_averaged():
    def hos(seed, known, value):
        return record(metric="hos", value=value, seed=seed, open_set=len(known), known=known, threshold=seed / 7)

    table = rows(stdin=lines(hos(0, ["a", "b"], 10.0), hos(1, ["a", "b"], 30.0), hos(0, ["a", "b", "c"], 50.0)))
    assert [(row["open_set"], row["ave hos v→a"]) for row in table[:2]] == [("2", "20.0"), ("3", "50.0")]
    assert "known" not in table[0]
    others = rows(stdin=lines(hos(0, ["a", "b"], 10.0), hos(0, ["a", "c"], 50.0)))
    assert [(row["known"], row["ave hos v→a"]) for row in others[:2]] == [("a, b", "10.0"), ("a, c", "50.0")]


def test_an_open_sets_number_of_known_classes_is_said():
    stdin = lines(record(metric="hos", value=41.0, open_set=5), record(task="avvp", metric="accuracy"))
    assert "open_set 5 of ave" in report(stdin=stdin).stdout
