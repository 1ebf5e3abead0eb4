"""`hdcid synth`: a small audio-visual world with its ground truth."""

import os
from pathlib import Path

import click

from hdcid_cli.commands import options


@click.command(cls=options.Command)
@click.argument("out", type=click.Path(path_type=Path), default=".")
@click.option(
    "--clips",
    type=options.whole(),
    default=400,
    show_default=True,
    help="Number of videos: 70 % train, 10 % val, 20 % test.",
)
@click.option("--classes", type=options.whole(2, 12), default=10, show_default=True, help="Kinds of event, 2 to 12.")
@click.option("--overwrite", is_flag=True, help="Replace files of the same names that are already in OUT.")
@options.seed_option
@options.workers_option
def command(out, clips, classes, overwrite, seed, workers):
    """Make a small audio-visual world to try everything on.

    OUT (the current directory if not given) gets videos/, mp4 files of ten seconds
    with sound, and data/, the truth about them in the data sets' own formats, so that
    every other command finds its input there. The same seed gives the same files.
    An interrupted run is taken up where it stopped.
    """
    from hdcid_cli.core.progress import say
    from hdcid_cli.synth.make import make
    from hdcid_cli.synth.world import SynthWorld

    world = SynthWorld(seed=seed, clips=clips, classes=classes)
    make(world, out, workers=(os.cpu_count() or 1) if workers is None else workers, overwrite=overwrite)
    say(f"{clips} clips of {classes} classes in {out / 'videos'}, the truth about them in {out / 'data'}.")
