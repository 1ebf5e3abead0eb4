"""What is said in a clip, from the file of subtitles or text beside it."""

import re
from collections.abc import Iterable
from pathlib import Path

from hdcid_cli.core.files import read_text

SUFFIXES = (".srt", ".vtt", ".txt")  # the first that is there is read
LARGEST = 8 << 20  # bytes; subtitles of a whole film take a fiftieth

_TIMES = re.compile(r"\s*(?:\d+:)?\d+:\d+[.,]\d+\s+-->\s")
_LANGUAGE = re.compile(r"(.+)\.[A-Za-z]{2,3}(?:[-_]\w+)?")
_MARKUP = re.compile(r"<[^<>\n]*>|\{[^{}\n]*\}")  # <i>, <00:00:01.000>, {\an8}


def words_of(path: Path) -> str:
    """The text of a file on one line: the cues of `.srt` and `.vtt` without their times and markup, all of a `.txt`.

    Subtitles that roll repeat a line as the next cue's first: it counts once.

    Raises:
        InputError: it is not text in UTF-8, or too large.
    """
    text = read_text(path, LARGEST)
    if path.suffix.lower() == ".txt":
        return " ".join(text.split())
    said: list[str] = []
    for block in re.split(r"\n\s*\n", text):
        lines = block.split("\n")
        start = next((number for number, line in enumerate(lines) if _TIMES.match(line)), None)
        if start is None:  # WEBVTT, NOTE, STYLE, an empty file
            continue
        for line in lines[start + 1 :]:
            words = " ".join(_MARKUP.sub("", line).split())
            if words and words != (said or [""])[-1]:
                said.append(words)
    return " ".join(said)


def texts_beside(files: Iterable[Path]) -> dict[Path, Path]:
    """{a media file's path without its suffix: the text that belongs to it}.

    `NAME.srt` is that of NAME, and so is `NAME.en.srt` of any language where there is no other.
    """
    found: dict[Path, tuple[tuple, Path]] = {}
    for file in files:
        if file.suffix.lower() in SUFFIXES:
            place = (SUFFIXES.index(file.suffix.lower()), file.name)
            name = file.with_suffix("")
            candidates = [(name, (0, *place))]
            if language := _LANGUAGE.fullmatch(name.name):
                candidates.append((name.with_name(language[1]), (1, *place)))
            for of, rank in candidates:
                found[of] = min(found.get(of, (rank, file)), (rank, file))
    return {name: file for name, (_, file) in found.items()}
