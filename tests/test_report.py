"""`report`: records of any order and number become one table, and nothing is left out silently."""

import csv
import io
import json
import random
import re
import statistics

import click.testing
import pytest
from made_records import lines, record

from hdcid_cli.commands.report import command
from hdcid_cli.core.records import TOC_SCHEMA
from hdcid_cli.report.formats import escape_latex, escape_markdown


def report(*arguments, stdin=""):
    return click.testing.CliRunner().invoke(
        command, [str(argument) for argument in arguments], input=stdin, standalone_mode=False
    )


def rows(*arguments, stdin=""):
    """The report as CSV, read back by Python's own reader."""
    outcome = report(*arguments, "--format", "csv", stdin=stdin)
    assert outcome.exception is None, outcome.exception
    return list(csv.DictReader(io.StringIO(outcome.stdout)))


def test_selections_that_differ_by_task_alone_are_one_row():
    by_task = [
        record(toc="224", train="v", test="a"),
        record(toc="196", train="a", test="v"),
        record(task="avvp", metric="accuracy", toc="128"),
    ]
    stdin = lines(*by_task, record(toc="none"))
    assert [row["toc"] for row in rows(stdin=stdin)][:2] == ["none", "128, 196, 224"]
    assert "a selection of its own" in report(stdin=stdin).stdout
    assert "a selection of its own" not in report(stdin=lines(record(toc="128"), record())).stdout
    apart = lines(record(toc="128", seed=0), record(toc="64", train="a", test="v", seed=1))  # no run measured both
    assert [row["toc"] for row in rows(stdin=apart)][:2] == ["64", "128"]
    several = lines(
        *by_task, record(toc="64", train="v", test="a")
    )  # one quantity with two selections: these are compared
    assert [row["toc"] for row in rows(stdin=several)][:4] == ["64", "128", "196", "224"]


def test_a_number_for_toc_is_read_as_well(tmp_path):
    assert [row["toc"] for row in rows(stdin=lines(record(toc=128), record(toc=64)))][:2] == ["64", "128"]


def test_seeds_become_mean_and_sample_deviation():
    values = [44.0, 46.5, 40.25]
    (row, *_) = rows(stdin=lines(*(record(seed=seed, value=value) for seed, value in enumerate(values))))
    assert float(row["ave precision v→a"]) == pytest.approx(statistics.mean(values))
    assert float(row["ave precision v→a deviation"]) == pytest.approx(statistics.stdev(values))
    assert row["ave precision v→a runs"] == "3"


def test_order_and_files_do_not_matter(tmp_path):
    records = [
        record(layers=layers, toc=toc, seed=seed, train=train, test=test, value=layers + seed / 7)
        for layers in (0, 1, 2)
        for toc in ("none", "64", "128")
        for seed in range(2)
        for train, test in ("va", "av")
    ]
    expected = report(stdin=lines(*records)).stdout
    random.Random(0).shuffle(records)
    (tmp_path / "a.jsonl").write_text(lines(*records[:10]))
    (tmp_path / "b.jsonl").write_text(lines(*records[10:]))
    assert report(tmp_path / "a.jsonl", tmp_path / "b.jsonl").stdout == expected
    assert [row["toc"] for row in rows(tmp_path / "a.jsonl", tmp_path / "b.jsonl")][:3] == ["none", "64", "128"]


def test_settings_are_rows_and_directions_columns():
    table = rows(
        stdin=lines(
            record(layers_used=2),
            record(train="a", test="v", value=51.0, layers_used=2),
            record(layers=1, layers_used=1, value=40.0),
        )
    )
    assert "layers_used" not in table[0]
    assert [
        (row["layers"], row["ave precision v→a"], row["ave precision a→v"])
        for row in table
        if row["kind"] == "measured"
    ] == [
        ("1", "40.0", ""),
        ("2", "44.0", "51.0"),
    ]


def test_equivalent_spellings_are_one_setting():
    pair = lines(record(toc="128", toc_criterion="both", seed=0), record(toc="128", seed=1))
    (row,) = [row for row in rows(stdin=pair) if row["kind"] == "measured"]
    assert row["ave precision v→a runs"] == "2"


def test_ceiling_stands_in_the_column_of_the_tested_modality_and_chance_below():
    supervised = [
        record(
            method="supervised", train=m, test=m, value=value, layers=None, quantizer=None, toc=None, checkpoint=None
        )
        for m, value in (("a", 78.0), ("v", 94.0))
    ]
    measured, ceiling, chance = rows(stdin=lines(*supervised, record(), record(train="a", test="v")))
    assert (ceiling["kind"], ceiling["ave precision v→a"], ceiling["ave precision a→v"]) == (
        "supervised",
        "78.0",
        "94.0",
    )
    assert (chance["kind"], chance["ave precision v→a"]) == ("chance", "10.0")
    assert measured["kind"] == "measured"


def test_other_metrics_are_announced_and_shown_on_demand():
    stdin = lines(record(), record(metric="map", value=0.5), record(task="retrieve", metric="r@1", value=7.0))
    outcome = report(stdin=stdin)
    assert "map" in outcome.stderr and "map" not in outcome.stdout and "r@1" in outcome.stdout
    assert rows("--metrics", "map", stdin=stdin)[0]["ave map v→a"] == "0.5"
    assert "r@1" in report("--metrics", "all", stdin=stdin).stdout
    assert "No record is of recall" in str(report("--metrics", "recall", stdin=stdin).exception)
    some = report("--metrics", "map,recall", stdin=stdin)
    assert some.return_value == 0 and "no record is of recall; there are map" in some.stderr and "0.5" in some.stdout


def test_explanations_go_where_the_output_is_to_go(tmp_path):
    outcome = report("--explain", "-o", tmp_path / "words.txt", stdin=lines(record()))
    assert outcome.stdout == "" and "top-1 accuracy" in (tmp_path / "words.txt").read_text()


@pytest.mark.parametrize(
    "line, complaint",
    [
        ('{"schema": ', "is not JSON"),
        ('{"schema": "hdcid.result/9"}', "hdcid.result/9"),
        ("[1, 2]", "list"),
        (json.dumps(record() | {"value": "high"}), "'high', which is not a number"),
        (json.dumps(record() | {"task": ["ave"]}), "which is not a text"),
        (json.dumps({name: value for name, value in record().items() if name != "metric"}), "without metric"),
        (json.dumps(record(seed=3, value=None)), "has no value"),
    ],
)
def test_lines_that_cannot_be_used_are_named_and_the_rest_reported(tmp_path, line, complaint):
    file = tmp_path / "runs.jsonl"
    file.write_text(lines(record()) + line + "\n")
    outcome = report(file)
    assert outcome.return_value == 3
    assert f"{file}, line 2" in outcome.stderr and complaint in outcome.stderr
    assert "44.0" in outcome.stdout


def test_lines_of_toc_among_results_are_passed_over(tmp_path):
    file = tmp_path / "all.jsonl"
    chosen = {"schema": TOC_SCHEMA, "layer": 1, "kept": 128, "of": 256, "checkpoint": "hdcid"}
    file.write_text(lines(chosen, record()))
    outcome = report(file)
    assert (outcome.return_value, outcome.stderr) == (0, "") and "44.0" in outcome.stdout
    file.write_text(lines(chosen))
    assert f"There is not one record in {file}:" in str(report(file).exception)


def test_contradictory_values_are_named_with_both_places_and_left_out(tmp_path):
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_text(lines(record(), record(train="a", test="v", value=51.0)))
    second.write_text(lines(record(value=45.0)))
    outcome = report(second, first)
    assert outcome.return_value == 3
    assert f"44.0 ({first}, line 1)" in outcome.stderr and f"45.0 ({second}, line 1)" in outcome.stderr
    assert "51.0" in outcome.stdout and "44.0" not in outcome.stdout and "45.0" not in outcome.stdout


def test_equal_repetitions_count_once(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text(lines(record(), record(seed=1, value=46.0)))
    assert rows(file, file)[0]["ave precision v→a runs"] == "2"
    assert report(file, file).return_value == 0


@pytest.mark.parametrize("stdin", ["", "\n", "nothing\n"])
def test_nothing_usable_is_bad_input(hdcid, stdin):
    outcome = hdcid("report", stdin=stdin)
    assert outcome.returncode == 2
    assert outcome.stdout == "" and outcome.stderr.splitlines()[-1].startswith(
        "error: Nothing" if stdin.strip() else "error: There is nothing"
    )


def test_a_folder_or_missing_file_is_one_sentence(hdcid, tmp_path):
    for argument in (tmp_path, tmp_path / "none.jsonl"):
        outcome = hdcid("report", argument)
        assert outcome.returncode == 2 and str(argument) in outcome.stderr and len(outcome.stderr.splitlines()) == 1


def test_files_without_a_record_are_named(tmp_path):
    files = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    for file in files:
        file.touch()
    assert f"not one record in {files[0]}, {files[1]}:" in str(report(*files).exception)


def test_an_undecodable_file_is_named_and_complaints_are_bounded(tmp_path):
    file = tmp_path / "noise.jsonl"
    file.write_bytes(random.Random(0).randbytes(20000))
    good = tmp_path / "good.jsonl"
    good.write_text(lines(record()))
    outcome = report(file, good)
    assert outcome.return_value == 3 and "44.0" in outcome.stdout
    assert len(outcome.stderr.splitlines()) <= 11 and "were left out" in outcome.stderr


def test_text_is_escaped_where_the_format_needs_it():
    stdin = lines(record(method="a_b|<i>&%"))
    assert r"a\_b$|$$<$i$>$\&\%" in report("--format", "latex", stdin=stdin).stdout
    assert r"a\_b\|\<i\>&%" in report("--format", "markdown", stdin=stdin).stdout
    assert (
        json.loads(report("--format", "json", stdin=stdin).stdout)["tables"][0]["rows"][0]["labels"]["method"]
        == "a_b|<i>&%"
    )
    assert (
        escape_latex("50 % & {x}^2 \\ ~ #1_$")
        == r"50 \% \& \{x\}\textasciicircum{}2 \textbackslash{} \textasciitilde{} \#1\_\$"
    )
    assert escape_markdown("a|b\n*c*") == r"a\|b \*c\*"


def test_latex_is_a_booktabs_table_with_as_many_cells_in_every_row():
    stdin = lines(
        *(
            record(task=task, metric=metric, train=m, test=n)
            for task, metric in (("ave", "precision"), ("avvp", "accuracy"))
            for m, n in ("va", "av")
        )
    )
    text = report("--format", "latex", stdin=stdin).stdout
    assert all(text.count(f"\\{rule}rule\n") == count for rule, count in (("top", 1), ("bottom", 1), ("mid", 2)))
    body = [line for line in text.splitlines() if line.endswith("\\\\")]
    assert {line.count("&") for line in body} == {1 + 4 - 1}
    assert r"\caption{Results. 2 layers, vq, toc none, heldout, 400 codes}" in text
    assert r"\multicolumn{2}{c}{ave precision} & \multicolumn{2}{c}{avvp accuracy}" in text
    assert r"\cmidrule(lr){2-3}\cmidrule(lr){4-5}" in text


def test_output_file_says_the_format(tmp_path):
    for suffix, start in (
        (".tex", "% needs \\usepackage{booktabs}\n"),
        (".md", "**Results**"),
        (".csv", "method,"),
        (".json", "{"),
        (".txt", "Results"),
    ):
        target = tmp_path / f"table{suffix}"
        outcome = report("-o", target, stdin=lines(record()))
        assert outcome.stdout == "" and target.read_text().startswith(start)


def test_each_task_has_one_headline_under_the_name_that_people_use():
    records = [record(task="classify", metric=name) for name in ("precision", "macro_f1", "map")]
    records += [record(task="localise", metric=name) for name in ("accuracy", "f1", "event_f1")]
    records += [record(task="retrieve", metric=f"{kind} r@1") for kind in ("summary", "codes", "both")]
    records += [record(task="elsewhere", metric=name) for name in ("zeal", "alpha")]
    (row, *_) = rows(stdin=lines(*records))
    shown = [name for name in row if "→" in name]
    assert shown == ["classify top-1 accuracy v→a", "localise F1 v→a", "retrieve both r@1 v→a", "elsewhere zeal v→a"]
    (row, *_) = rows("--metrics", "top-1 accuracy", stdin=lines(*records))
    assert [name for name in row if "→" in name] == ["classify top-1 accuracy v→a"]


def test_counts_of_codes_have_no_decimals():
    used = lines(record(task="codes", metric="layer 1 used", value=391.0, train="v", test="v", chance=None))
    assert " 391\n" in report("--metrics", "all", stdin=used).stdout


def test_small_percentages_are_written_like_large_ones():
    pair = [
        record(task="codes", metric="layer 1 ami", train=m, test=m, value=value)
        for m, value in (("a", 31.4), ("v", 0.386))
    ]
    text = report(stdin=lines(*pair)).stdout
    assert "31.4" in text and "0.4" in text and "0.386" not in text
    assert "0.386" in report("--metrics", "all", stdin=lines(record(metric="zeal", value=0.386, chance=0.1))).stdout, (
        "maybe a share"
    )


def test_best_numbers_are_bold_in_every_format_and_the_lowest_where_lower_is_better():
    stdin = lines(record(value=44.04), record(layers=1, value=44.01), record(layers=3, value=30.0))
    assert report("--best", "--format", "markdown", stdin=stdin).stdout.count("**44.0**") == 2, "equal as printed"
    assert report("--best", "--format", "latex", stdin=stdin).stdout.count(r"\textbf{44.0}") == 2
    text = report("--best", stdin=stdin).stdout
    assert text.count("44.0*") == 2 and "30.0*" not in text and "Starred: the best of its column." in text
    assert "*" not in report(stdin=stdin).stdout
    assert "*" not in report("--best", stdin=lines(record())).stdout, "nothing to be better than"
    ranks = [record(task="retrieve", metric="both median_rank", value=value, layers=layers)
             for layers, value in ((1, 7.0), (2, 3.0))]  # fmt: skip
    assert "3.0*" in report("--best", "--metrics", "all", stdin=lines(*ranks)).stdout


def test_intervals_stand_beside_the_means_on_request():
    pair = lines(record(interval=[40.0, 48.0]), record(seed=1, value=46.0, interval=[41.0, 52.0]))
    text = " ".join(report("--spread", "interval", stdin=pair).stdout.split())  # wrapped as wide as the terminal is
    assert "45.0 [40.5, 50.0]" in text and "the mean of their bounds" in text
    assert "45.0±1.4" in report(stdin=pair).stdout
    plain = report("--spread", "none", stdin=pair).stdout
    assert "45.0" in plain and "±" not in plain and "[" not in plain
    (row, *_) = rows("--spread", "interval", stdin=pair)
    assert (row["ave precision v→a low"], row["ave precision v→a high"]) == ("40.5", "50.0")


HOSTILE = [
    *("=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "a\n\nb", "\x1b[31mred\x1b]0;title\x07", "\u202egnp"),
    *("x\u2028y", "\\input{/etc/passwd}", "$$", "[x](javascript:1)", "<b>", "a|b", "`x`", "\x00"),
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("form", ["terminal", "markdown", "latex", "csv", "json", "html"])
def test_texts_from_records_run_nothing_and_break_no_table(text, form):
    odd = {"method": f"other {text}", "task": text, "metric": text, "protocol": text, "toc": text, "data": "AVE"}
    records = [record(method=text), record(**odd)]
    outcome = report("--format", form, stdin=lines(*records))
    assert outcome.exception is None and outcome.return_value == 0, outcome.output
    shown = outcome.stdout
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e\u2028]", shown.replace("\\u202e", ""))
    if form == "csv":
        cells = [cell for row in csv.reader(io.StringIO(shown)) for cell in row]
        assert not [cell for cell in cells if cell[:1] in tuple("=+@\t\r") or re.match(r"-\D|-\d.*\D", cell)]
        assert len({len(row) for row in csv.reader(io.StringIO(shown))}) == 1
    if form == "latex":
        assert "\n\n" not in shown and r"\input" not in shown
        body = [line for line in shown.splitlines() if line.endswith(r"\\")]
        assert len({len(re.findall(r"(?<!\\)&", line)) for line in body if "multicolumn" not in line}) == 1
    if form == "markdown":
        table = [line for line in shown.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    if form == "html":
        assert "<b>" not in shown and "<i>" not in shown
