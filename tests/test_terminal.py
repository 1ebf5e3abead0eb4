"""Tables and talk on terminals: no wider than the screen, nothing lost."""

import re

import pytest

from hdcid_cli.core.bar import ProgressBar
from hdcid_cli.core.progress import BAR, counted, wrapped
from hdcid_cli.core.terminal import grid, paragraph, records_table, width_of, wrap

METRICS = ["precision", "map", "macro_f1"]


def record(metric, value, **changes):
    fields = {
        "data": "synth",
        "task": "ave",
        "direction": "v->a",
        "metric": metric,
        "value": value,
        "interval": [value - 3, value + 2],
        "chance": 10.0,
        "n": 40,
        "protocol": "heldout",
        "method": "cpc,cmcm",
        "layers": 2,
        "toc": "none",
        "seed": 0,
    }
    return fields | changes


def test_what_all_records_share_is_said_once_above():
    text = records_table([record(name, 50.0 + i) for i, name in enumerate(METRICS)], width=80)
    above, below = text.split("\n\n")
    assert re.sub(r"\s+", " ", above) == (
        "data synth task ave direction v->a n 40 protocol heldout method cpc,cmcm layers 2 toc none"
    )
    assert below.splitlines()[0].split() == ["metric", "value", "interval", "chance"]
    assert below.splitlines()[2].split() == ["precision", "50.0", "[47.0,", "52.0]", "10.0"]
    assert all(len(line) <= 80 for line in text.splitlines())


def test_a_single_record_is_said_above_but_for_its_metric():
    assert records_table([record("map", 50.0)], width=80).splitlines()[-1].split()[:2] == ["map", "50.0"]


def test_small_numbers_keep_their_digits_and_pairs_that_are_no_intervals_are_none():
    columns = ("layer", "similarity before", "similarity after", "shape", "codes used")
    rows = [
        {
            "layer": layer,
            "similarity before": 0.105,
            "similarity after": 0.052,
            "shape": [10, 256],
            "codes used": [3, 4],
        }
        for layer in (1, 2)
    ]
    text = records_table(rows, columns, width=80)
    assert "shape 10 x 256" in text and "codes used 3, 4" in text
    assert text.splitlines()[-1].split() == ["2", "0.105", "0.052"]


def test_names_that_move_the_cursor_are_shown_as_escapes():
    assert "\x1b" not in records_table([record("map\x1b[2J", 1.0), record("map", 2.0)], width=80)


@pytest.mark.parametrize("width", [40, 60, 80, 120, None])
def test_tables_fit_the_screen_and_show_every_number(width):
    labels = ("model", "source")
    levels = [[("a task with a long name", 2), ("short", 1), ("unbreakable_heading_of_words", 3)],
              [(name, 1) for name in ("v→a", "a→v", "v→a", "v→a", "a→v", "a→t")]]  # fmt: skip
    rows = [[f"model {i}", "measured, heldout, pretrained on 280 clips", *(f"{i}{j}.5±1.5" for j in range(6))]
            for i in range(1, 4)]  # fmt: skip
    text = grid(labels, levels, rows, width, rules=[2])
    assert width is None or max(map(width_of, text.splitlines())) <= width
    found = re.findall(r"\d\d\.5±1\.5", text)
    assert sorted(found) == sorted(cell for row in rows for cell in row[2:])
    assert (text.count("\n\n") == 0) == (width is None or width == 120)


def test_columns_are_aligned_and_groups_centred():
    text = grid(["name"], [[("group", 2)], [("a", 1), ("b", 1)]], [["x", "1.0", "22.0"], ["y", "", "3"]], 80)
    assert text.splitlines() == [
        "        group",
        "name    a     b",
        "----  ---  ----",
        "x     1.0  22.0",
        "y             3",
    ]


def test_a_block_has_the_rows_that_have_a_number_in_it_and_the_rule_stays_above_the_frame():
    rows = [["one", "1", ""], ["two", "", "2"], ["chance", "", "3"]]
    text = grid(["method"], [[("x" * 20, 1), ("y" * 20, 1)], [("a", 1), ("b", 1)]], rows, width=32, rules=[2])
    first, second = text.split("\n\n")
    assert [line.split()[0] for line in first.splitlines()[2:]] == ["------", "one"]
    assert [line.split()[0] for line in second.splitlines()[2:]] == ["------", "two", "------", "chance"]


def test_wide_characters_take_two_columns():
    assert width_of("音声") == 4 and width_of("é") == 1
    assert len({width_of(line) for line in grid(["名"], [[("n", 1)]], [["音声", "1"], ["ab", "2"]]).splitlines()}) == 1


def test_text_breaks_at_words_and_commas_and_never_within_them():
    assert wrap("cpc,cmcm,codis heldout", 10) == ["cpc,cmcm,", "codis", "heldout"]
    assert wrap("awordwithoutanend", 5) == ["awordwithoutanend"]
    assert paragraph(["2 layers", "vq", "heldout"], 12) == "2 layers  vq\nheldout"


def test_messages_wrap_at_words_and_keep_commands_whole():
    text = "error: There is no checkpoint in checkpoints/: make one with `hdcid pretrain --layers 2`, or name one."
    lines = wrapped(text, 40).splitlines()
    assert all(len(line) <= 40 for line in lines) and " ".join(lines) == text
    assert any("`hdcid pretrain --layers 2`," in line for line in lines)
    assert wrapped("read `a.npy`; then `hdcid info` it", 26) == "read `a.npy`; then\n`hdcid info` it"


@pytest.mark.parametrize("width", [48, 80, 160])
def test_of_a_progress_bar_what_matters_is_never_cut(width):
    said = ["loss 12.34", "391/377 codes", "22 % agree", "120 GFLOP/s (76 % of peak)"]
    line = ProgressBar.format_meter(
        370, 1000, 83, ncols=width, prefix="pretrain", unit="step", bar_format=BAR, postfix=", ".join(said)
    )
    assert len(line) <= width and "37%" in line and "370/1000" in line and "01:23<02:21" in line
    shown = [phrase for phrase in said if phrase in line]
    assert shown == said[: {48: 0, 80: 2, 160: 4}[width]]
    if width > 48:  # nothing but the bar behind the last phrase
        assert set(line.partition(shown[-1])[2]) <= set(" ▏▎▍▌▋▊▉█")


def test_counts_are_said_in_the_singular_and_in_the_plural():
    assert [counted(number, "clip") for number in (0, 1, 2000)] == ["0 clips", "1 clip", "2,000 clips"]
    assert [counted(number, "class") for number in (1, 2)] == ["1 class", "2 classes"]


def test_seeds_are_one_row_of_a_table():
    records = [record("precision", 50.0), record("precision", 60.0, toc="128"), record("precision", 52.0, seed=1)]
    rows = records_table(records).splitlines()[-2:]
    assert [("51.0 ± 1.4" in row, "60.0" in row) for row in rows] == [(True, False), (False, True)]
