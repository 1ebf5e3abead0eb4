"""Which texts belong to which clip, where a clip has several: a table `id,clip[,caption]`, a text a line.

`id` is the text's own name, as its features have it: the same table with a column `caption` is what `hdcid extract
--modality text` reads.
"""

from pathlib import Path

from hdcid_cli.core import tables
from hdcid_cli.core.errors import InputError
from hdcid_cli.media.clips import ID_COLUMNS


def read_captions(path: Path) -> dict[str, str]:
    """{text: clip}, in the order of the table.

    Raises:
        InputError: it is no such table, or a text is listed twice or belongs to no clip.
    """
    names = [name for name in ID_COLUMNS if name in tables.columns_of(path)]
    if not names:
        raise InputError(f"{path} does not name the texts: its first line should be id,clip,caption.")
    found: dict[str, str] = {}
    for row in tables.table(path, names[0], "clip"):
        text, clip = next((row[name] for name in names if row[name]), ""), row["clip"]
        if not text or not clip:
            raise InputError(f"{path}, line {row.line}: the line has no {'clip' if text else 'id'}.")
        if text in found:
            raise InputError(
                f"{path}, line {row.line}: the text {text} was listed before; each needs an id of its own."
            )
        found[text] = clip
    return found
