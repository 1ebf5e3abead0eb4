"""`hdcid convert`: what others published, to our files."""

from pathlib import Path

import click

from hdcid_cli.commands import options
from hdcid_cli.commands.options import (
    HELP,
    MODALITY,
    Command,
    checkpoints_option,
    data_option,
    features_option,
    seed_option,
)
from hdcid_cli.core.errors import DONE, SOME_SKIPPED


@click.group(context_settings=HELP)
def command():
    """Published features and checkpoints, and folders of clips, to our files."""


class Shares(click.ParamType):
    """`70/10/20` -> (70.0, 10.0, 20.0)."""

    name = "train/val/test"

    def convert(self, value, param, ctx):
        if isinstance(value, tuple):
            return value
        try:
            found = tuple(float(part) for part in str(value).split("/"))
        except ValueError:
            found = ()
        if len(found) != 3 or not all(0 <= part < float("inf") for part in found) or not sum(found):
            self.fail(f"{value!r} is not three numbers such as 70/10/20.", param, ctx)
        return found


@command.command(cls=Command)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@data_option
@click.option(
    "--shares",
    type=Shares(),
    default="70/10/20",
    show_default=True,
    help="Of train, val and test, in every class; only where no folders are called so.",
)
@click.option(
    "--group",
    metavar="PATTERN",
    help="Clips of one group stay together: a regular expression whose first group, or whole, names it in the path of "
    "a clip, such as 'speaker[0-9]+'. By default the folder below the class's.",
)
@seed_option
@click.option("--overwrite", is_flag=True, help="Replace tables that are there.")
def annotations(folder, data, shares, group, seed, overwrite):
    """A folder of folders of clips to tables of classes and captions.

    \b
    FOLDER/CLASS/*.mp4            a class a folder: divided into train, val and test
    FOLDER/CLASS/RECORDING/*.mp4  clips of one recording stay together
    FOLDER/train/CLASS/*.mp4      (and val, test) divided already

    Writes DATA/classify.csv (id,split,label); DATA/captions.csv, where subtitles
    or texts lie beside the clips (NAME.srt, NAME.vtt, NAME.txt); DATA/clips.csv
    (id,path) to extract from, where several clips have one name.
    """
    from hdcid_cli.core.progress import say, warn
    from hdcid_cli.tasks.annotations.folders import convert_folder

    made = convert_folder(folder, data, shares, group, seed, overwrite)
    say(f"{folder}: {made.describe()}")
    for why in made.skipped.values():
        warn(f"skipped {why}")
    if untested := made.untested():
        warn(f"too few clips to test by: {', '.join(untested[:5])}{', ...' * (len(untested) > 5)}.")
    for path in made.written:
        click.echo(path)
    return SOME_SKIPPED if made.skipped else DONE


@command.command(cls=Command)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--modality", type=MODALITY, required=True, help="What the features are of: video, audio or text.")
@click.option(
    "--annotations",
    type=click.Path(path_type=Path),
    help="For HDF5: AVE's Annotations.txt, or a file with a clip's name a line, in the order of the rows.",
)
@click.option("--backbone", help="What they were extracted with; by default the papers' backbone of that modality.")
@click.option("--seconds", type=options.whole(1, 86400), default=10, show_default=True, help="Segments a clip.")
@features_option
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Feature file to write, instead of MODALITY.h5 in --features.",
)
@click.option("--overwrite", is_flag=True, help="Convert everything anew, whatever the file holds.")
def features(path, modality, annotations, backbone, seconds, features, output, overwrite):
    """Published features to a feature file.

    PATH is one of AVE's HDF5 files (visual_feature.h5, audio_feature.h5) or a
    folder of ID.zip with one pickled array in each, as VGGSound's, LLP's and
    UCF's features come. Pickles that hold anything but an array are refused.
    """
    from hdcid_cli.core.progress import counted, say
    from hdcid_cli.published.features import convert_features

    if output:
        options.tell_idle("-o names the file", "features")
    done = convert_features(
        path, modality, output or features / f"{modality}.h5", annotations, backbone, seconds, overwrite
    )
    say(
        f"{done.path}: {counted(done.clips, 'clip')} of {' x '.join(map(str, done.shape))}"
        + (f", {len(done.skipped)} skipped" if done.skipped else "")
    )
    return SOME_SKIPPED if done.skipped else DONE


@command.command(cls=Command)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@checkpoints_option
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Checkpoint directory; named after FILE in the folder of checkpoints if not given.",
)
@click.option("--overwrite", is_flag=True, help="Replace the checkpoint that is there.")
def checkpoint(file, checkpoints, output, overwrite):
    """A published checkpoint to a checkpoint directory.

    FILE is what the authors of DCID, MICU and CoDAAR (AV, AT, AVT), H-DCID and
    FCID (AVT) published. The result serves toc, cmg, retrieve and encode; nothing in the file is executed.
    """
    from hdcid_cli.core.errors import InputError
    from hdcid_cli.core.modalities import letter
    from hdcid_cli.core.progress import counted, say
    from hdcid_cli.published.checkpoint import convert_checkpoint

    if output:
        options.tell_idle("-o names the directory", "checkpoints")
    output = output or checkpoints / file.stem
    if output.is_dir() and any(output.iterdir()) and not overwrite:
        raise InputError(f"{output} exists already: choose another --output or use --overwrite.")
    config = convert_checkpoint(file, output).config
    say(
        f"{output}: {counted(config.layers, 'layer')}, {counted(config.codebook, 'code')} of "
        f"{counted(config.dim, 'channel')}, {''.join(letter(name) for name in config.inputs)}."
    )
    click.echo(output)
