"""The truth about a world in the formats of the data sets that people have on disk.

split.csv, captions.csv, prompts.csv
             category,video_id,split; video_id,caption; label,prompt
ave/         AVE: Category&VideoID&Quality&StartTime&EndTime, and a list a split
avvp/        LLP: tab-separated, ids with `_start_end`, one event a row
ave2avvp/    LLP's events of the classes that AVE shares with it (here the first
             half of the classes), all events of a clip in one row
ucf2vgg/     the clips shared out to two data sets that name the classes differently:
             category,video_id,split, and two lists that pair the names line by line
vggsound/    VGGSound-AVEL: category,video_id,split, with onset and offset beside them
avs_s4/      AVSBench-S4's table and prompts; the pictures are `make.write_scene`'s
"""

import csv
import io
from collections.abc import Callable, Iterable, Sequence

from hdcid_cli.synth.classes import KINDS
from hdcid_cli.synth.world import SECONDS, PlannedClip, SynthWorld

SPLITS = ("train", "val", "test")


def files(world: SynthWorld) -> dict[str, str]:
    """Every annotation file: its path below `data/` and its text."""
    clips = world.videos
    makers = (_common, _ave, _avvp, _ave2avvp, _ucf2vgg, _ucf51, _vggsound)
    return {name: text for make in makers for name, text in make(world, clips).items()} | _avs_s4(world)


def _common(world: SynthWorld, clips: list[PlannedClip]) -> dict[str, str]:
    return {
        "split.csv": _table(
            ("category", "video_id", "split"), ((_label(clip), clip.name, clip.split) for clip in clips)
        ),
        "captions.csv": _table(("video_id", "caption"), ((clip.name, clip.caption) for clip in clips)),
        "prompts.csv": _prompts(world, str),
    }


def _prompts(world: SynthWorld, rename: Callable[[str], str]) -> str:
    return _table(("label", "prompt"), ((rename(kind.name), kind.prompt) for kind in KINDS[: world.classes]))


def _ave(world: SynthWorld, clips: list[PlannedClip]) -> dict[str, str]:
    """AVE knows only the event that is seen and heard at once."""

    def lines(chosen: Iterable[PlannedClip]) -> str:
        return "".join(
            f"{_label(clip)}&{clip.name}&good&{clip.events[0].onset}&{clip.events[0].offset}\n" for clip in chosen
        )

    lists = {f"ave/{split}Set.txt": lines(clip for clip in clips if clip.split == split) for split in SPLITS}
    return {
        "ave/Annotations.txt": "Category&VideoID&Quality&StartTime&EndTime\n" + lines(clips),
        "ave/Categories.txt": _lines(world.labels),
        **lists,
    }


def _avvp(world: SynthWorld, clips: list[PlannedClip]) -> dict[str, str]:
    """LLP: labels of the clip for all, and for each modality the events with their times."""

    def labels(chosen: Iterable[PlannedClip]) -> str:
        rows = (
            (_llp_name(clip), ",".join(dict.fromkeys(KINDS[event.kind].name for event in clip.events)))
            for clip in chosen
        )
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


def _ave2avvp(world: SynthWorld, clips: list[PlannedClip]) -> dict[str, str]:
    """What LLP has of the classes that both data sets know."""
    shared = world.labels[: (world.classes + 1) // 2]

    def events(sense: str) -> str:
        rows = []
        for clip in clips:
            chosen = [event for event in clip.events if getattr(event, sense) and event.kind < len(shared)]
            if chosen:
                columns = zip(*((event.onset, event.offset, world.labels[event.kind]) for event in chosen), strict=True)
                rows.append((_llp_name(clip), *(",".join(map(str, column)) for column in columns)))
        return _table(("filename", "onset", "offset", "event_labels"), rows, separator="\t")

    return {
        "ave2avvp/AVE_AVVP_Categories.txt": _lines(shared),
        "ave2avvp/AVE_AVVP_eval_audio_checked_combined.csv": events("heard"),
        "ave2avvp/AVE_AVVP_eval_visual_checked_combined.csv": events("seen"),
    }


def _ucf2vgg(world: SynthWorld, clips: list[PlannedClip]) -> dict[str, str]:
    """Of each class every other clip goes to either data set."""

    def part(turn: int, rename: Callable[[str], str]) -> str:
        chosen = (clip for clip in clips if clip.index // world.classes % 2 == turn)
        return _table(
            ("category", "video_id", "split"), ((rename(_label(clip)), clip.name, clip.split) for clip in chosen)
        )

    return {
        "ucf2vgg/UCF101sameVGGSound.txt": _lines(map(_ucf_label, world.labels)),
        "ucf2vgg/VGGSoundsameUCF101.txt": _lines(map(_vggsound_label, world.labels)),
        "ucf2vgg/ucf2vggsound.csv": part(0, _ucf_label),
        "ucf2vgg/vggsound2ucf.csv": part(1, _vggsound_label),
    }


def _ucf51(world: SynthWorld, clips: list[PlannedClip]) -> dict[str, str]:
    """UCF-101's own lists know two splits alone."""

    def part(*splits: str) -> str:
        return _lines(f"{_label(clip)}/{clip.name}.avi {clip.kind + 1}" for clip in clips if clip.split in splits)

    return {
        "ucf51/Categories.txt": _lines(world.labels),
        "ucf51/trainlist01.txt": part("train", "val"),
        "ucf51/testlist01.txt": part("test"),
    }


def _vggsound(world: SynthWorld, clips: list[PlannedClip]) -> dict[str, str]:
    rows = (
        (_vggsound_label(_label(clip)), clip.name, clip.split, clip.events[0].onset, clip.events[0].offset)
        for clip in clips
    )
    return {
        "vggsound/VggsoundAVEL40kCategories.txt": _lines(map(_vggsound_label, world.labels)),
        "vggsound/vggsound-avel40k.csv": _table(("category", "video_id", "split", "onset", "offset"), rows),
        "vggsound/vggsoundCategories2Prompts.csv": _prompts(world, _vggsound_label),
    }


def _avs_s4(world: SynthWorld) -> dict[str, str]:
    rows = ((scene.name, 0, _label(scene), scene.split) for scene in world.scenes)
    return {
        "avs_s4/s4_meta_data.csv": _table(("name", "start", "category", "split"), rows),
        "avs_s4/AVSBenchCategories2Prompts.csv": _prompts(world, str),
    }


def _ucf_label(name: str) -> str:
    return f"Moving{name.capitalize()}"


def _vggsound_label(name: str) -> str:
    return f"sounding {name}"


def _label(clip: PlannedClip) -> str:
    return KINDS[clip.kind].name


def _llp_name(clip: PlannedClip) -> str:
    return f"{clip.name}_0_{SECONDS}"


def _lines(names: Iterable[str]) -> str:
    return "".join(f"{name}\n" for name in names)


def _table(header: Sequence[str], rows: Iterable[Sequence], separator: str = ",") -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator="\n", quotechar='"')
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
