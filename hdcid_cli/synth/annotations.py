"""The truth about a world in the formats of the data sets that people have on disk.

    data/split.csv, captions.csv, prompts.csv   category,video_id,split / video_id,caption / label,prompt
    data/ave/                                   AVE: Category&VideoID&Quality&StartTime&EndTime, and a list a split
    data/avvp/                                  LLP: tab-separated, ids with `_start_end`, one event a row
"""

import csv
import io
from collections.abc import Iterable, Sequence

from hdcid_cli.synth.classes import KINDS
from hdcid_cli.synth.world import SECONDS, Clip, World

SPLITS = ("train", "val", "test")


def files(world: World) -> dict[str, str]:
    """Every annotation file: its path below `data/` and its text."""
    clips = world.videos()
    return {**_common(world, clips), **_ave(world, clips), **_avvp(world, clips)}


def _common(world: World, clips: list[Clip]) -> dict[str, str]:
    return {
        "split.csv": _table(("category", "video_id", "split"), ((_label(clip), clip.name, clip.split) for clip in clips)),
        "captions.csv": _table(("video_id", "caption"), ((clip.name, clip.caption) for clip in clips)),
        "prompts.csv": prompts(world),
    }


def prompts(world: World) -> str:
    """label,prompt of every class."""
    return _table(("label", "prompt"), ((kind.name, kind.prompt) for kind in KINDS[: world.classes]))


def _ave(world: World, clips: list[Clip]) -> dict[str, str]:
    """AVE knows only the event that is seen and heard at once."""

    def lines(chosen: Iterable[Clip]) -> str:
        return "".join(f"{_label(clip)}&{clip.name}&good&{clip.events[0].onset}&{clip.events[0].offset}\n" for clip in chosen)

    lists = {f"ave/{split}Set.txt": lines(clip for clip in clips if clip.split == split) for split in SPLITS}
    return {
        "ave/Annotations.txt": "Category&VideoID&Quality&StartTime&EndTime\n" + lines(clips),
        "ave/Categories.txt": _lines(world.labels),
        **lists,
    }


def _avvp(world: World, clips: list[Clip]) -> dict[str, str]:
    """LLP: labels of the clip for all, and for each modality the events with their times."""

    def labels(chosen: Iterable[Clip]) -> str:
        rows = ((_llp_name(clip), ",".join(dict.fromkeys(KINDS[event.kind].name for event in clip.events))) for clip in chosen)
        return _table(("filename", "event_labels"), rows, separator="\t")

    def events(sense: str) -> str:
        rows = (
            (_llp_name(clip), event.onset, event.offset, KINDS[event.kind].name)
            for clip in clips
            for event in clip.events
            if getattr(event, sense)
        )
        return _table(("filename", "onset", "offset", "event_labels"), rows, separator="\t")

    parts = {"train": "AVVP_train.csv", "val": "AVVP_val_pd.csv", "test": "AVVP_test_pd.csv"}
    return {
        "avvp/AVVP_Categories.txt": _lines(world.labels),
        "avvp/AVVP_dataset_full.csv": labels(clips),
        **{f"avvp/{name}": labels(clip for clip in clips if clip.split == split) for split, name in parts.items()},
        "avvp/AVVP_eval_audio.csv": events("heard"),
        "avvp/AVVP_eval_visual.csv": events("seen"),
    }


def _label(clip: Clip) -> str:
    return KINDS[clip.kind].name


def _llp_name(clip: Clip) -> str:
    return f"{clip.name}_0_{SECONDS}"


def _lines(names: Iterable[str]) -> str:
    return "".join(f"{name}\n" for name in names)


def _table(header: Sequence[str], rows: Iterable[Sequence], separator: str = ",") -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator="\n", quotechar='"')
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
