"""Figures: what they show, in colours that everybody tells apart, as SVG and PDF."""

import itertools
import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from made_records import lines, record
from test_report import report

from hdcid_cli.core.records import open_set_curves
from hdcid_cli.report import figures
from hdcid_cli.report.charts import Axis, Histogram, Series, curves, histogram_chart, ticks
from hdcid_cli.report.drawing import COLOURS, DASHES, MARKS, SERIES, WIDTH, Dot, Drawing, Figure, Label, Path
from hdcid_cli.report.over import over
from hdcid_cli.report.pdf import pdf
from hdcid_cli.report.pictures import open_sets, training_curves
from hdcid_cli.report.results import read_curves, results_of
from hdcid_cli.report.svg import standalone

# What the colour-blind see: Machado et al. 2009, severity 1, on linear RGB.
SIGHT = {
    "everybody": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]])


def linear(colour):
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIE 1976 L*a*b* of linear RGB."""
    xyz = XYZ @ np.clip(rgb, 0, 1) / [0.95047, 1, 1.08883]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("paper", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("sight", SIGHT)
def test_colours_of_curves_are_told_apart_by_everybody_on_light_and_dark_paper(sight, paper):
    seen = {name: lab(np.asarray(SIGHT[sight]) @ linear(COLOURS[name][paper])) for name in (*SERIES, "paper")}
    for one, other in itertools.combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 13, (one, other)


@pytest.mark.parametrize("paper", [0, 1], ids=["light", "dark"])
def test_text_and_most_curves_stand_out_from_the_paper(paper):
    def contrast(name):
        one, other = sorted((float(XYZ[1] @ linear(COLOURS[each][paper])) for each in (name, "paper")), reverse=True)
        return (one + 0.05) / (other + 0.05)

    assert contrast("ink") > 12 and contrast("quiet") > 4.5
    assert all(contrast(name) > (2.2 if name in ("orange", "sky") else 3) for name in SERIES)


def test_curves_beyond_the_colours_differ_in_mark_and_dash():
    looks = [(one.colour, one.mark, one.strokes) for one in (Series("", [], number) for number in range(21))]
    assert len(set(looks)) == 21 and len({mark for _, mark, _ in looks[: len(MARKS)]}) == len(MARKS) and len(DASHES) > 3


def points_of(drawing, colour):
    """Points of the longest line of a colour, in the drawing's units."""
    return max(
        (shape.points for shape in drawing.shapes if isinstance(shape, Path) and shape.colour == colour), key=len
    )


def series_of(values, **changes):
    """Results at several values of a field, two seeds each."""
    return [
        record(**{"value": float(value + seed), "seed": seed, "pretrain_seed": seed, "checkpoint": f"sha256:{x}{seed}"}
               | changes | {"pretrain_clips": x})
        for x, value in values.items() for seed in (0, 1)
    ]  # fmt: skip


def test_results_over_a_field_are_means_at_its_values_with_deviations_and_a_frame():
    records = series_of({50: 20, 100: 40, 200: 60, 400: 80})
    records.append(record(method="supervised", train="a", test="a", value=95.0, checkpoint=None))
    (figure,) = over(results_of(records, pytest.fail), "pretrain_clips")
    assert figure.caption == "ave v→a, precision over clips pretrained on, on AVE"
    points = np.array(points_of(figure.drawing, "blue"))
    # Equal ratios take equal room, and equal differences of results equal heights.
    assert np.allclose(np.diff(points, axis=0), np.diff(points, axis=0)[0], atol=0.11)
    texts = [shape.text for shape in figure.drawing.shapes if isinstance(shape, Label)]
    assert texts.count("supervised") == texts.count("chance") == 1
    assert {"50", "100", "200", "400", "clips pretrained on"} <= set(texts)


def test_ceilings_by_two_probes_are_two_lines():
    records = series_of({50: 20, 100: 40}, classifier="mean")
    ceilings = [dict(value=95.0), dict(value=85.0, classifier="mean")]
    records += [record(method="supervised", train="a", test="a", checkpoint=None, **each) for each in ceilings]
    (figure,) = over(results_of(records, pytest.fail), "pretrain_clips")
    assert figure.caption.endswith("on AVE, classifier mean")
    texts = [shape.text for shape in figure.drawing.shapes if isinstance(shape, Label)]
    assert {"supervised", "supervised, classifier mean"} <= set(texts)


def test_a_field_of_ones_own_keeps_models_and_data_apart():
    values = {0.0: 80, 0.2: 70, 0.4: 55}
    records = [
        record(value=value - 10 * layers, layers=layers, noise=noise, data=data, checkpoint=f"sha256:{noise}{layers}")
        for noise, value in values.items() for layers in (0, 1) for data in ("AVE", "synth")
    ]  # fmt: skip
    first, second = over(results_of(records, pytest.fail), "noise")
    assert [figure.caption for figure in (first, second)] == [
        "ave v→a, precision over noise, on AVE",
        "ave v→a, precision over noise, on synthetic clips",
    ]
    for figure in (first, second):
        marks = [shape for shape in figure.drawing.shapes if isinstance(shape, Dot)]
        assert len({mark.shape for mark in marks}) == 2 and len(marks) == 6 + 2, "two curves, and the legend's"


def test_a_field_without_several_numbers_is_a_sentence_that_names_those_with():
    stdin = lines(*series_of({50: 20, 100: 40}))
    error = str(report("--over", "noise", "-o", "x.html", stdin=stdin).exception)
    assert "'noise'" in error and "pretrain_clips" in error
    assert "make pictures" in str(report("--over", "noise", stdin=stdin).exception)


CURVES = open_set_curves(
    {"edges": [0.0, 0.5, 1.0], "known": [1, 9], "unknown": [6, 2]},
    {"fpr": [0.0, 0.25, 1.0], "ccr": [0.5, 0.75, 0.9]},
    task="ave", train="v", test="a", data="synth", open_set=5, method="cpc", seed=0, threshold=0.4, score="softmax",
)  # fmt: skip


def test_open_sets_show_shares_by_score_and_the_oscr_curve(tmp_path):
    (tmp_path / "curves.jsonl").write_text(lines(CURVES, CURVES | {"method": "smit"}, CURVES | {"oscr": None}))
    outcome = report("--curves", tmp_path / "curves.jsonl", "--figures", tmp_path / "figures")
    assert outcome.return_value == 3 and "curves.jsonl, line 3 has the oscr" in outcome.stderr
    names = sorted(path.name for path in (tmp_path / "figures").glob("*.svg"))
    assert names == [
        "oscr-curve-ave-v-to-a-5-known-classes-on-synthetic-clips.svg",
        "scores-ave-v-to-a-5-known-classes-on-synthetic-clips-cpc.svg",
        "scores-ave-v-to-a-5-known-classes-on-synthetic-clips-smit.svg",
    ]
    drawn = list(open_sets(read_curves([tmp_path / "curves.jsonl"], lambda _: None), 8))
    (tmp_path / "probes.jsonl").write_text(lines(CURVES, CURVES | {"classifier": "mean"}))
    probes = list(open_sets(read_curves([tmp_path / "probes.jsonl"], lambda _: None), 8))
    assert [each.caption.rsplit(", ", 1)[1] for each in probes[1:]] == ["the probe", "classifier mean"]
    (tmp_path / "protocols.jsonl").write_text(
        lines(CURVES | {"protocol": "heldout", "keep": 0.95}, CURVES | {"protocol": "published", "keep": None})
    )
    protocols = list(open_sets(read_curves([tmp_path / "protocols.jsonl"], lambda _: None), 8))
    assert [each.caption.rsplit(", ", 1)[1] for each in protocols[1:]] == ["heldout", "published"]
    x = np.array(points_of(drawn[0].drawing, "blue"))
    assert np.allclose((x[:, 0] - x[0, 0]) / (x[-1, 0] - x[0, 0]), CURVES["oscr"]["fpr"], atol=0.01)
    heights = [points_of(drawn[1].drawing, colour) for colour in ("blue", "vermilion")]
    base = heights[0][0][1]
    known, unknown = ([base - points[i][1] for i in (1, 3)] for points in heights)
    assert np.allclose(np.array(known + unknown) / known[1], [1 / 9, 1, 75 / 90, 25 / 90], atol=0.01), "shares of each"


def test_the_validation_curve_of_a_run_comes_first(tmp_path):
    steps = [{"step": step, "loss": 1.0, "validation/r@1/audio-video": 10.0 * step,
              "validation/agreement/1/audio-video": 0.1, "used/1/audio": 3} for step in (1, 2, 3)]  # fmt: skip
    odd = [b"\xff\n", b'{"step": "x", "loss": 1}\n', b'{"step": 4, "loss": ' + b"1" * 5000 + b"}\n", b'{"step": 5, "lo']
    (tmp_path / "metrics.jsonl").write_bytes(lines(*steps).encode() + b"".join(odd))
    captions = [figure.caption for figure in training_curves(tmp_path / "metrics.jsonl", "run")]
    assert captions[0] == "Validation clips: own partner found first, %, run"
    assert captions[1].startswith("Validation clips: share of segments") and captions[2:] == [
        "Loss, run", "Codes in use, run"]  # fmt: skip


def test_validation_curves_tell_layers_and_modalities(tmp_path):
    names = ("validation/r@1/audio-video", "validation/agreement/1/audio-video", "validation/agreement/2/audio-video")
    (tmp_path / "metrics.jsonl").write_text(
        lines(*({"step": step, **dict.fromkeys(names, 0.1 * step)} for step in (1, 2)))
    )
    found, agreement = training_curves(tmp_path / "metrics.jsonl", "run")
    texts = [{shape.text for shape in each.drawing.shapes if isinstance(shape, Label)} for each in (found, agreement)]
    assert not any("layer" in text for text in texts[0]) and "layer 2, audio-video" in texts[1]


def test_blocks_of_a_codebook_are_curves_of_their_own(tmp_path):
    names = ("used/1/audio", "used/1/audio/2", "used/1/video")
    (tmp_path / "metrics.jsonl").write_text(
        lines(*({"step": step, **{name: step + place for place, name in enumerate(names)}} for step in (1, 2)))
    )
    [found] = training_curves(tmp_path / "metrics.jsonl", "run")
    texts = {shape.text for shape in found.drawing.shapes if isinstance(shape, Label)}
    assert {"layer 1, audio", "layer 1, audio block 2", "layer 1, video"} <= texts


def test_without_matplotlib_figures_are_svg_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figures, "pdf", None)
    figures.write_figures([Figure("a", Drawing(20, []))] * 2, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-2.svg", "a.svg"]
    assert "hdcid[plot]" in capsys.readouterr().err


def test_figures_are_files_for_a_paper_and_the_same_each_time(tmp_path):
    (tmp_path / "r.jsonl").write_text(lines(*series_of({50: 20, 100: 40})))
    made = []
    for _ in range(2):
        outcome = report(tmp_path / "r.jsonl", "--over", "pretrain_clips", "--figures", tmp_path / "figures")
        assert outcome.return_value == 0 and "Results" in outcome.stdout and "1 figure in" in outcome.stderr
        made.append({path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()})
    assert made[0] == made[1]
    stem = "ave-v-to-a-precision-over-clips-pretrained-on-on-ave"
    assert made[0].keys() == {f"{stem}.svg", f"{stem}.pdf"}
    assert made[0][f"{stem}.pdf"].startswith(b"%PDF-") and made[0][f"{stem}.pdf"].count(b"/Type /Page ") == 1
    root = ElementTree.fromstring(made[0][f"{stem}.svg"])
    assert root.get("width") == str(WIDTH) and "class" not in made[0][f"{stem}.svg"].decode()
    assert re.search(rb"stroke=\"#0072b2\"", made[0][f"{stem}.svg"])


def test_texts_in_drawings_are_text():
    drawing = Drawing(20, [Label(1, 1, 'a <b> & "c" $x_1$ \x1b')])
    root = ElementTree.fromstring(standalone(drawing, "<t>"))
    texts = [element.text for element in root.iter() if element.text and element.text.strip()]
    assert texts == ["<t>", r'a <b> & "c" $x_1$ \x1b']
    assert pdf(drawing, "t").startswith(b"%PDF")
    assert "/" not in Figure("a/../../b\x1b", drawing).name and "\x1b" not in Figure("a\x1b", drawing).name


@pytest.mark.parametrize(
    "values", [[1.0], [0, 0], [1e-12, 1e12], [-5, 5], [1e12, 1e12], [0.1, 0.1 + 1e-15], [5e-324, 1]]
)
def test_any_numbers_can_be_drawn(values):
    drawing = curves("x", [Series("s", [(value, value, None) for value in values])], settings=True)
    assert all(
        np.isfinite(point).all() for shape in drawing.shapes if isinstance(shape, Path) for point in shape.points
    )
    ElementTree.fromstring(standalone(drawing, "t"))


def test_ticks_of_chosen_values_stand_at_them_where_there_is_room():
    assert Axis.of_settings("x", [200, 300, 400, 600, 800]).ticks == [200, 300, 400, 600, 800]
    assert Axis.of_settings("x", [50, 100, 200, 400]).logarithmic
    assert not Axis.of_settings("x", [0, 0.2, 0.4, 0.6]).logarithmic
    many = Axis.of_settings("x", list(range(100, 200)))
    assert len(many.ticks) < 12 and ticks(0, 10) == [0, 5, 10]


OPEN = {
    "hos": 60.0,
    "os_star": 70.0,
    "unk": 52.5,
    "kept": 90.0,
    "closed": 80.0,
    "auroc": 77.0,
    "oscr": 66.0,
    "fpr95": 40.0,
}


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5, 0.99])
def test_what_a_threshold_is_called_stands_beside_the_axis_label(threshold):
    known = Histogram("known", [0.0, 0.5, 1.0], [3, 9], 0)
    labels = {
        shape.text: shape for shape in histogram_chart("score", [known], threshold).shapes if isinstance(shape, Label)
    }
    word, axis = labels["rejected below"], labels["% of each"]
    left = word.x - 7 * len(word.text) if word.anchor == "end" else word.x
    assert axis.x + 6.6 * len(axis.text) < left < WIDTH - 6.6 * len(word.text)


def test_a_ceiling_of_an_open_set_has_no_row_of_chance_without_numbers():
    supervised = record(
        method="supervised", train="a", test="a", metric="hos", open_set=5, chance=50.0, checkpoint=None
    )
    stdin = lines(record(metric="hos", open_set=5, chance=50.0), supervised)
    (table,) = json.loads(report("--layout", "openset", "--format", "json", stdin=stdin).stdout)["tables"]
    assert [(row["kind"], bool(row["values"])) for row in table["rows"]] == [
        *(("measured", True), ("supervised", True), ("chance", True)),
    ]


def test_layout_openset_has_a_row_a_question_and_model_and_a_column_a_measure():
    def opened(known, layers, shift):
        common = dict(layers=layers, open_set=known, known=[f"c{i}" for i in range(known)], n_unknown=9, threshold=0.3)
        return [
            record(metric=name, value=value + shift, data="own", chance=50.0, **common) for name, value in OPEN.items()
        ]

    records = [*opened(5, 1, 0), *opened(5, 2, 5), *opened(7, 1, -5), record(data="own")]
    outcome = report("--layout", "openset", "--best", "--format", "json", stdin=lines(*records))
    assert "1 result without a place in openset" in outcome.stderr
    (table,) = json.loads(outcome.stdout)["tables"]
    assert table["title"] == "Results on own clips: open sets"
    rows = [(row["labels"]["known"], row["labels"].get("layers"), row["kind"], [cell["mean"] for cell in row["values"]])
            for row in table["rows"]]  # fmt: skip
    assert rows[0] == ("5", "1", "measured", list(OPEN.values()))
    assert rows[1] == ("5", "2", "measured", [value + 5 for value in OPEN.values()])
    assert rows[2][:3] == ("7", "1", "measured") and [row[2] for row in rows[3:]] == ["chance", "chance"]
    text = report("--layout", "openset", "--best", stdin=lines(*records)).stdout
    assert "65.0*" in text and "35.0*" in text and "45.0*" not in text, "of FPR95 the lowest is the best"
