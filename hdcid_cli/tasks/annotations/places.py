"""Where in a folder of data the files of a data set lie."""

from collections.abc import Sequence
from pathlib import Path

from hdcid_cli.core.errors import InputError


class MissingAnnotations(InputError):
    """A file of annotations is not there."""


def folders(data: Path, *names: str) -> list[Path]:
    """Where to look: the folders of those names in `data`, then `data` itself."""
    return [folder for folder in [*(data / name for name in names), data] if folder.is_dir()]


def find(places: Sequence[Path], *names: str) -> Path | None:
    """The first of the named files that exists, earlier names and earlier folders first."""
    return next((place / name for name in names for place in places if (place / name).exists()), None)


def require(data: Path, places: Sequence[Path], *names: str, what: str) -> Path:
    """As `find`, but an InputError says where which file is missing."""
    found = find(places, *names)
    if found is None:
        if not data.exists():
            raise MissingAnnotations(
                f"There is no folder {data}: say with --data where {what} lies ({' or '.join(names)})."
            )
        place = places[0] if places else data
        raise MissingAnnotations(
            f"{place} has no {' or '.join(names)}: put {what} there or say with --data where it lies."
        )
    return found
