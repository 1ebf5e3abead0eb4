"""`report --layout`: the papers' tables, and measured results beside them but never among them."""

import csv
import io
import json
import math

import pytest
from made_records import lines, record
from test_report import report

from hdcid_cli.report.layouts import layouts

# Numbers looked up in the paper by eye: (layout, row, column, value).
SAMPLES = [
    ("table1", ("DCID", "1", "✓"), "AVVP A→V", 74.7),
    ("table1", ("H-DCID", "first of 2", "–"), "UCF(v)↔VGG(a) V→A", 70.6),
    ("table1", ("H-DCID", "2", "✓"), "AVVP A→V", 91.0),
    ("table2", ("DCID", "FSQ", "labelled modality"), "UCF(v)↔VGG(a) V→A", 98.5),
    ("table2", ("H-DCID", "RVQ 3", "other modality"), "AVE V→A", 41.8),
    ("table3", ("S-MiT",), "VGGsounds-AVEL 24K AVE V→A", 12.7),
    ("table3", ("H-DCID + CMCM",), "VGGsounds-AVEL 40K AVVP A→V", 70.8),
    ("table3", ("H-DCID full model",), "VGGsounds-AVEL 81K AVVP A→V", 71.5),
    ("table4", ("H-DCID", "other modality"), "T→A mIoU", 77.8),
    ("table4", ("AVS", "labelled modality"), "A→T F-score", 87.9),
    ("table5", ("–", "✓"), "AVE→AVVP A→V", 55.3),
]


def table(layout, *records, status=0):
    """The layout as {(label, ...): {column: text}}, read back from CSV."""
    outcome = report("--layout", layout, "--format", "csv", stdin=lines(*records))
    assert outcome.return_value == status, outcome.output
    labels = [*layouts()[layout]["labels"], "source"]
    return {tuple(row[name] for name in labels): row for row in csv.DictReader(io.StringIO(outcome.stdout))}


@pytest.mark.parametrize("layout, row, column, value", SAMPLES)
def test_without_records_a_layout_is_the_papers_table(layout, row, column, value):
    rows = table(layout)
    assert float(rows[(*row, "paper")][column]) == value
    assert {key[-1] for key in rows} == {"paper"}


@pytest.mark.parametrize(
    "layout, rows, numbers",
    [("table1", 5, 40), ("table2", 11, 80), ("table3", 17, 204), ("table4", 4, 12), ("table5", 4, 32)],
)
def test_the_papers_tables_are_complete_and_their_averages_agree(layout, rows, numbers):
    specs = [spec for spec in layouts()[layout]["rows"] if "values" in spec]
    values = [[value for value in spec["values"] if value is not None] for spec in specs]
    assert (len(specs), sum(map(len, values))) == (rows, numbers)
    for spec, row in zip(specs, values):
        if "average" in spec:  # 63.22 in the paper is 63.2125
            assert math.isclose(sum(row) / len(row), spec["average"], abs_tol=0.0076), spec["labels"]


def test_a_layout_on_a_closed_or_empty_stdin_does_not_wait(hdcid):
    outcome = hdcid("report", "--layout", "table4", stdin="")
    assert outcome.returncode == 0 and "78.7" in outcome.stdout and outcome.stderr == ""


def test_measured_rows_stand_below_the_papers_and_leave_them_as_they_are():
    paper = {key: row for key, row in table("table1").items()}
    mixed = table(
        "table1",
        record(value=33.0),
        record(layers=1, toc="128", value=22.0),
        record(layers=2, layers_used=1, value=11.0),
    )
    assert {key: row for key, row in mixed.items() if key[-1] == "paper"} == paper
    assert list(mixed)[list(mixed).index(("H-DCID", "2", "–", "paper")) + 1] == (
        "H-DCID",
        "2",
        "–",
        "measured, heldout",
    )
    measured = {key[:3]: row for key, row in mixed.items() if key[-1] == "measured, heldout"}
    assert {key: row["AVE V→A"] for key, row in measured.items()} == {
        ("H-DCID", "2", "–"): "33.0",
        ("DCID", "1", "✓"): "22.0",
        ("H-DCID", "first of 2", "–"): "11.0",
        ("chance", "", ""): "10.0",
    }
    assert measured["H-DCID", "2", "–"]["AVE A→V"] == ""


def test_measured_rows_say_in_what_they_differ_from_the_paper():
    records = [
        record(value=1.0),
        record(value=2.0, protocol="published"),
        record(value=3.0, codebook=100),
        record(value=4.0, method="cpc"),
        record(value=5.0, modalities="av", pretrain_clips=280),
    ]
    found = {
        key[-1]: row["AVE V→A"] for key, row in table("table1", *records).items() if key[:3] == ("H-DCID", "2", "–")
    }
    assert found == {
        "paper": "49.0",
        "measured, heldout": "1.0",
        "measured, published": "2.0",
        "measured, heldout, 100 codes": "3.0",
        "measured, heldout, aligned by cpc": "4.0",
        "measured, heldout, pretrained on av, pretrained on 280 clips": "5.0",
    }


def test_what_all_measured_rows_share_is_said_once_below():
    common = dict(codebook=100, modalities="avt", pretrain_clips=280)
    outcome = report(
        "--layout",
        "table1",
        "--format",
        "json",
        stdin=lines(record(**common), record(layers=1, protocol="published", **common)),
    )
    (found,) = json.loads(outcome.stdout)["tables"]
    assert found["notes"][0] == "All measured rows: 100 codes, pretrained on 280 clips."
    assert {row["labels"]["source"] for row in found["rows"] if row["kind"] == "measured"} == {
        "measured, heldout",
        "measured, published",
    }


def test_toc_of_each_task_makes_one_row_but_rival_choices_make_two():
    by_task = [record(toc="224"), record(task="avvp", metric="accuracy", toc="128", value=70.0)]
    (row,) = [
        row for key, row in table("table1", *by_task).items() if key[:3] == ("H-DCID", "2", "✓") and key[-1] != "paper"
    ]
    assert (row["AVE V→A"], row["AVVP V→A"]) == ("44.0", "70.0")
    rivals = table("table1", *by_task, record(toc="64", value=43.0))
    assert rivals["H-DCID", "2", "✓", "measured, heldout, TOC 64"]["AVE V→A"] == "43.0"
    assert rivals["H-DCID", "2", "✓", "measured, heldout, TOC 224"]["AVE V→A"] == "44.0"


def test_an_average_needs_all_columns():
    eight = [
        record(task=task, metric=metric, train=train, test=test, value=value)
        for value, (task, metric, train, test) in enumerate(
            (task, metric, train, test)
            for task, metric in (
                ("ave", "precision"),
                ("avvp", "accuracy"),
                ("ave2avvp", "f1"),
                ("ucf2vgg", "precision"),
            )
            for train, test in ("va", "av")
        )
    ]
    key = ("H-DCID", "2", "–", "measured, heldout")
    assert table("table1", *eight)[key]["Avg."] == "3.5"
    assert table("table1", *eight[1:])[key]["Avg."] == ""


def test_table2_reads_quantizers_and_the_labelled_modality():
    records = [
        record(layers=1, quantizer="rvq:1", value=1.0),
        record(layers=1, quantizer="fsq:8,5,5,2", value=2.0),
        record(layers=1, quantizer="rvq:4", value=3.0),
        record(layers=1, quantizer="rvq:4", train="v", test="v", value=4.0),
        record(layers=1, quantizer="rvq:4", train="a", test="a", value=5.0),
        record(layers=1, quantizer="rvq:4", toc="128", value=6.0),
    ]
    rows = {
        key[:3]: row
        for key, row in table("table2", *records).items()
        if key[-1].startswith("measured") and key[0] == "DCID"
    }
    assert {key: (row["AVE V→A"], row["AVE A→V"]) for key, row in rows.items()} == {
        ("DCID", "VQ", "other modality"): ("1.0", ""),
        ("DCID", "FSQ", "other modality"): ("2.0", ""),
        ("DCID", "RVQ 4", "other modality"): ("3.0", ""),
        ("DCID", "RVQ 4", "labelled modality"): ("4.0", "5.0"),
    }


def test_table3_has_all_seventeen_methods_and_places_results_by_the_size_of_the_data():
    methods = [(layers, name) for layers in (0, 1, 2) for name in ("smit", "mst", "codis", "turn", "cmcm")] + [
        (1, "cpc,cmcm"),
        (2, "cmcm,cpc"),
    ]
    common = dict(modalities="av", train="a", test="v", chance=None)
    records = [
        record(layers=layers, layers_used=max(1, layers), method=name, value=float(i), pretrain_clips=23800, **common)
        for i, (layers, name) in enumerate(methods)
    ]
    records += [record(layers=1, method="cmcm", value=99.0, pretrain_clips=280, **common)]
    rows = table("table3", *records)
    found = {key[0]: row["VGGsounds-AVEL 24K AVE A→V"] for key, row in rows.items() if key[-1] == "measured, heldout"}
    assert sorted(map(float, found.values())) == [float(i) for i in range(17)]
    assert found["H-DCID full model"] == "16.0" and found["TURN"] == "3.0" and found["DCID + CMCM"] == "9.0"
    other = rows["DCID + CMCM", "measured, heldout, pretrained on 280 clips"]
    assert (other["other data AVE A→V"], other["VGGsounds-AVEL 24K AVE A→V"]) == ("99.0", "")
    assert "other data AVE A→V" not in table("table3", *records[:-1])["TURN", "paper"]


def test_table4_and_table5_read_their_own_fields():
    segment = record(task="segment", train="a", test="t", metric="miou", value=50.0)
    reference = record(task="segment", train="a", test="a", metric="fscore", value=60.0)
    rows = table("table4", segment, reference)
    assert rows["H-DCID", "other modality", "measured, heldout"]["A→T mIoU"] == "50.0"
    assert rows["H-DCID", "labelled modality", "measured, heldout"]["A→T F-score"] == "60.0"
    criteria = [
        record(layers=1, toc="128", toc_criterion=name, value=value)
        for name, value in (("similarity", 1.0), ("variance", 2.0), (None, 3.0))
    ]
    rows = table("table5", *criteria, record(layers=1, value=4.0))
    found = {
        key[:2]: row["AVE V→A"] for key, row in rows.items() if key[-1] == "measured, heldout" and key[0] != "chance"
    }
    assert found == {("✓", "–"): "1.0", ("–", "✓"): "2.0", ("✓", "✓"): "3.0", ("–", "–"): "4.0"}
    assert table("table1", *criteria)["DCID", "1", "✓", "measured, heldout"]["AVE V→A"] == "3.0", (
        "Table 1's TOC uses both criteria"
    )


EIGHT = [
    (task, metric, *direction)
    for task, metric in (("ave", "precision"), ("avvp", "accuracy"), ("ave2avvp", "f1"), ("ucf2vgg", "precision"))
    for direction in ("va", "av")
]


DEPARTURES = [
    *({"classifier": "mean"}, {"localizer": "tcn"}, {"dim": 32}, {"dropout": 0.5}),
    *({"spatial_attention": "softmax"}, {"cell_hidden": 256}, {"mix": 0.5}, {"align_on": "both"}),
]


@pytest.mark.parametrize("departure", DEPARTURES)
def test_a_row_that_departs_from_the_papers_way_says_so_in_every_format(departure):
    (words,) = [f"{name} {value}" for name, value in departure.items()]
    alone = record(**departure)
    assert ("H-DCID", "2", "–", f"measured, heldout, {words}") in table("table1", alone)
    for form in ("terminal", "markdown", "latex", "json", "html"):
        said = report("--layout", "table1", "--format", form, stdin=lines(alone)).stdout.replace(r"\_", "_")
        assert words in " ".join(said.split())
    rows = table("table1", record(), alone | {"value": 60.0})
    assert rows["H-DCID", "2", "–", "measured, heldout"]["AVE V→A"] == "44.0"
    assert rows["H-DCID", "2", "–", f"measured, heldout, {words}"]["AVE V→A"] == "60.0"


def test_a_result_by_another_probe_leaves_the_papers_row_its_average():
    eight = [record(task=task, metric=metric, train=one, test=other, value=10.0) for task, metric, one, other in EIGHT]
    rows = table("table1", *eight, record(value=60.0, classifier="mean"))
    assert rows["H-DCID", "2", "–", "measured, heldout"]["Avg."] == "10.0"
    assert rows["H-DCID", "2", "–", "measured, heldout, classifier mean"]["Avg."] == ""


def test_segmenters_that_are_not_avsbenchs_are_told_apart():
    common = dict(task="segment", train="a", test="t", metric="miou")
    small = record(**common, value=20.0, segmenter="backbone resnet10, random weights, size 64")
    rows = table("table4", record(**common, value=50.0), small)
    assert rows["H-DCID", "other modality", "measured, heldout"]["A→T mIoU"] == "50.0"
    words = "measured, heldout, segmenter backbone resnet10, random weights, size 64"
    assert rows["H-DCID", "other modality", words]["A→T mIoU"] == "20.0"


def test_a_layout_without_rows_of_a_paper_needs_results():
    for stdin in ("", lines(record())):
        assert "No record is of an open set" in str(report("--layout", "openset", stdin=stdin).exception)


def test_tables_beside_the_paper_look_as_asked(tmp_path):
    pair = lines(record(), record(layers=1, value=40.0))
    report("--best", "-o", tmp_path / "page.html", stdin=pair)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "rows and of the measured ones" in page


def test_results_without_a_place_are_counted():
    outcome = report("--layout", "table1", stdin=lines(record(), record(task="vggsound"), record(layers=5)))
    assert "2 results without a place in table1" in outcome.stderr


def test_latex_of_a_layout_keeps_its_groups():
    text = report("--layout", "table3", "--format", "latex").stdout
    assert text.count(r"\multicolumn{4}{c}{VGGsounds-AVEL") == 3 and text.count(r"\multicolumn{2}{c}{AVVP}") == 3
    assert r"V$\rightarrow$A" in text and "→" not in text
    assert (
        json.loads(report("--layout", "table3", "--format", "json").stdout)["tables"][0]["rows"][0]["kind"] == "paper"
    )


@pytest.mark.parametrize("data", ["synth", "own", None])
def test_results_on_other_data_never_stand_among_the_papers(data):
    eight = [
        record(task=task, metric=metric, train=train, test=test, value=10.0, data=data)
        for task, metric in (("ave", "precision"), ("avvp", "accuracy"), ("ave2avvp", "f1"), ("ucf2vgg", "precision"))
        for train, test in ("va", "av")
    ]
    real = record(value=33.0)
    outcome = report("--layout", "table1", "--format", "json", stdin=lines(real, *eight[1:]))
    paper, other = json.loads(outcome.stdout)["tables"]
    measured = [row for row in paper["rows"] if row["kind"] == "measured"]
    assert [[cell["mean"] for cell in row["values"]] for row in measured] == [[33.0]], "no average with other data"
    assert "not the data of the paper" in other["title"] and {row["kind"] for row in other["rows"]} == {
        "measured",
        "chance",
    }
    sources = {row["labels"]["source"] for row in other["rows"]}
    assert sources == {f"measured, heldout, {data or 'not said'} data"}
    assert all(cell["column"][0] in ("ave", "avvp", "ave2avvp", "ucf2vgg") for row in other["rows"]
               for cell in row["values"])  # fmt: skip
    assert any("not to be compared" in note for note in other["notes"])
    (_, alone) = json.loads(report("--layout", "table1", "--format", "json", stdin=lines(*eight)).stdout)["tables"]
    assert alone["rows"][0]["values"][-1] == {"column": ["Avg."], "mean": 10.0, "deviation": None, "runs": 1}


def test_the_papers_table_is_the_same_with_synthetic_results_as_with_none():
    alone = report("--layout", "table3").stdout
    assert report("--layout", "table3", stdin=lines(record(data="synth", modalities="av"))).stdout.startswith(
        alone[:-1]
    )


def test_editions_of_a_data_set_are_rows_of_their_own():
    pair = [record(task="avvp", metric="accuracy", data_digest=digest * 16, value=value)
            for digest, value in (("a", 50.0), ("b", 70.0))]  # fmt: skip
    found = {key: row["AVVP V→A"] for key, row in table("table1", *pair).items() if key[-1].startswith("measured")}
    assert found["H-DCID", "2", "–", "measured, heldout, data_digest aaaaaaaa"] == "50.0"
    assert found["H-DCID", "2", "–", "measured, heldout, data_digest bbbbbbbb"] == "70.0"
    assert found["chance", "", "", "measured, heldout, data_digest bbbbbbbb"] == "10.0"
