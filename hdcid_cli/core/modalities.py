"""The three modalities, and the two ways in which a user may write them."""

from hdcid_cli.core.errors import InputError

LETTERS = {"a": "audio", "v": "video", "t": "text"}

# The order in which the published code visits the modalities (MM-EMA depends on it).
ORDER = ("audio", "video", "text")


def modality(name: str) -> str:
    """`v` or `video` -> `video`; anything else is an InputError."""
    full = LETTERS.get(name.lower(), name.lower())
    if full not in ORDER:
        raise InputError(f"There is no modality {name!r}: write v, a or t (or video, audio, text).")
    return full


def modalities(names: str) -> tuple[str, ...]:
    """`avt`, `a,v` or `audio,video` -> full names in the canonical order a, v, t."""
    parts = names.replace(",", " ").split()
    if len(parts) == 1 and parts[0].lower() not in ORDER:
        parts = list(parts[0])
    chosen = {modality(part) for part in parts}
    return tuple(name for name in ORDER if name in chosen)


def letter(name: str) -> str:
    """`video` -> `v`."""
    return modality(name)[0]
