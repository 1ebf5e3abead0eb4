"""The manual cannot lie: it is made from the program."""

import runpy
from pathlib import Path

MAN = Path(__file__).parents[1] / "man"


def test_the_manual_is_what_the_program_says():
    pages = runpy.run_path(str(MAN / "generate.py"))["pages"]()
    assert sorted(pages) == sorted(path.name for path in MAN.glob("*.1"))
    old = [name for name, text in pages.items() if (MAN / name).read_text(encoding="utf-8") != text]
    assert not old, "run `python man/generate.py`"
