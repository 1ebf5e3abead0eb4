"""What hdcid-files(5) says of the lines that commands print, for tests that print some."""

import json
import re
from pathlib import Path

from hdcid_cli.commands.info import SCHEMA as INFO_SCHEMA
from hdcid_cli.core.records import SCHEMA, TOC_SCHEMA

PAGE = Path(__file__).parents[1] / "man" / "hdcid-files.5.md"


def section(title: str) -> str:
    """A section of the page."""
    return re.split("^## ", PAGE.read_text(encoding="utf-8").partition(f"\n## {title}\n")[2], flags=re.MULTILINE)[0]


def fields() -> dict[str, set[str]]:
    """Names of the fields of every kind of line: `result`, `info`, `info, features`, `toc`, `codes --clip`, ..."""
    rows = re.findall(r"^\| (.*?) \|", section("RECORDS"), re.MULTILINE)
    found = {"result": {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}}
    for lines, names in re.findall(r"^\| (`.*?) \| (.*?) ?\|", section("OTHER LINES"), re.MULTILINE):
        found.setdefault(lines.replace("`", ""), set()).update(re.findall("`(.+?)`", names))
    return found


def always() -> set[str]:
    """Fields that every result has."""
    return set(re.findall(r"`([a-z_]+)`\*", section("RECORDS")))


def undocumented(output: str) -> set[str]:
    """Fields of lines among what a command printed that the page does not name. Those that it says are always there
    should be; a line without a schema should be one that it describes.
    """
    known, found = fields(), set()
    for record in (json.loads(line) for line in output.splitlines() if line.startswith("{")):
        names = {re.sub("audio|video|text", "MODALITY", name) for name in record}
        match record.get("schema"):
            case schema if schema == SCHEMA:
                assert names >= always()
                named = known["result"]
            case schema if schema == INFO_SCHEMA:
                named = known["info"] | known[f"info, {record['kind']}"]
                named |= known["result"] if record["kind"] == "checkpoint" else set()
            case schema if schema == TOC_SCHEMA:
                named = known["toc"]
            case _:
                [named] = [each for each in known.values() if each >= names] or [set()]
        found |= names - named
    return found
