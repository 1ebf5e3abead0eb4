"""What the published annotations in a folder are to test or to choose by, in whichever files they say so."""

from pathlib import Path

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.splits import NOTHING, HeldOut
from hdcid_cli.tasks.annotations import own
from hdcid_cli.tasks.cmg.tasks import TASKS


def held_out_by_tasks(data: Path) -> HeldOut:
    """The clips that any task in a folder of data holds out: AVE's by `testSet.txt` or `test_order.h5`, LLP's by
    `AVVP_test_pd.csv`, UCF-101's by their groups, and so on.

    Tables of splits (`core.splits.held_out`) are read elsewhere. A task whose files are missing or broken says nothing.
    """
    held = NOTHING
    for name, (task, *_) in TASKS.items() if data.is_dir() else ():
        for train, test in (("video", "audio"), ("audio", "video")):
            if name in own.COLUMNS:
                continue
            try:
                both = task.read(data, train, test)
            except InputError:
                continue
            for annotations in both:
                splits = {clip.id: clip.split for clip in annotations.clips if clip.split in ("val", "test")}
                if splits:
                    held |= HeldOut(splits, (annotations.source,))
    return held
