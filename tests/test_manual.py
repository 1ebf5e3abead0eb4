"""The manual cannot lie: it is made from the program, and a formatter finds nothing wrong with it."""

import importlib
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MAN = Path(__file__).parents[1] / "man"


@pytest.fixture(scope="module")
def pages():
    """{file name: text} as man/generate.py makes them."""
    sys.path.insert(0, str(MAN))
    return runpy.run_path(str(MAN / "generate.py"))["pages"]()


def test_the_manual_is_what_the_program_says(pages):
    assert sorted(pages) == sorted(path.name for path in MAN.glob("*.[157]"))
    old = [name for name, text in pages.items() if (MAN / name).read_text(encoding="utf-8") != text]
    assert not old, "run `python man/generate.py`"


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
@pytest.mark.parametrize("page", sorted(path.name for path in MAN.glob("*.[157]")))
def test_a_formatter_understands_the_page(page):
    done = subprocess.run(
        ["groff", "-t", "-man", "-ww", "-Tutf8", "-Kutf8", MAN / page], capture_output=True, text=True, check=True
    )
    assert not done.stderr and "hdcid manual" in done.stdout


def test_markdown_becomes_macros(pages):
    roff = importlib.import_module("roff").roff
    made = roff("## Title\n\nSome `code-x` and *words*.\n\n- `a/`: what\n- plain\n\n```sh\n.x 'y'\n```\n")
    assert made == [
        ".SH TITLE",
        ".PP",
        "Some \\fBcode\\-x\\fR and \\fIwords\\fR.",
        ".TP",
        "\\fBa/\\fR",
        "what",
        ".IP \\(bu 2",
        "plain",
        *(".PP", ".RS 4", ".nf", "\\&.x \\(aqy\\(aq", ".fi", ".RE"),
    ]
    with pytest.raises(ValueError, match="ordered_list"):
        roff("1. not used\n")


def test_tables_fit_a_terminal(pages):
    roff = importlib.import_module("roff").roff
    made = roff(f"| a | b |\n|---|---|\n| {'word ' * 30} | {'more ' * 40} |\n")
    widths = [int(column.removeprefix("lw(").removesuffix("n)")) for column in made[5].rstrip(".").split()]
    assert sum(widths) <= 68 and min(widths) > 20
