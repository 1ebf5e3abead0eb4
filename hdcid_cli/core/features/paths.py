"""Where the features of a modality lie: one file, or its shards."""

import re
from pathlib import Path

from hdcid_cli.core.errors import InputError

_SHARD = re.compile(r"\.shard-(\d+)-of-(\d+)\.h5$")


def shard_path(path: Path, shard: int, shards: int) -> Path:
    """`features/video.h5`, 2, 4 -> `features/video.shard-2-of-4.h5` (counted from 1)."""
    return path.with_name(f"{path.stem}.shard-{shard}-of-{shards}{path.suffix}")


def feature_paths(where: Path | str, modality: str) -> list[Path]:
    """The file, or the complete list of shards, of a modality in a folder (or the file itself)."""
    where = Path(where)
    if where.exists() and not where.is_dir():
        return [where]
    whole = where / f"{modality}.h5"
    shards = sorted(
        (int(match[2]), int(match[1]), path)
        for path in where.glob(f"{modality}.shard-*.h5")
        if (match := _SHARD.search(path.name))
    )
    if whole.exists() or not shards:
        if not whole.exists() and whole.with_name(whole.name + ".part").exists():
            raise InputError(f"{whole} is not finished: run the same `hdcid extract` again to complete it.")
        return [whole]
    total = shards[-1][0]
    found = {number: path for of, number, path in shards if of == total}
    missing = next((number for number in range(1, total + 1) if number not in found), None)
    if missing:
        raise InputError(
            f"{where}: shard {missing} of {total} of {modality} is missing; extract it with --shard {missing}/{total}."
        )
    return [found[number] for number in range(1, total + 1)]
