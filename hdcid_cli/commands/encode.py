"""`hdcid encode`: codes and quantized features to HDF5 or numpy."""

from pathlib import Path

import click

from hdcid_cli.commands import options

# Of a file, not a folder, to write.
SUFFIXES = (".h5", ".npz")


@click.command(cls=options.Command)
@click.argument("files", nargs=-1, metavar="[FEATURES]...", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("codes"),
    show_default=True,
    help="Folder for MODALITY.h5, or the file itself for one input.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["h5", "npz"]),
    default="h5",
    show_default=True,
    help="Of the files in the folder: HDF5, or an archive that numpy.load reads.",
)
@options.toc_option("128, or 224/196 (video, and all others)")
@options.features_option
@options.checkpoint_option
@options.checkpoints_option
@options.device_option
@options.json_option
def command(files, output, format_, toc, features, checkpoint, checkpoints, device, as_json):
    """Codes and quantized features of any feature file, to HDF5 or numpy.

    FEATURES are feature files; without them all of the model's modalities in
    the folder of features. What is written is a feature file again (a vector a
    segment: the selected channels of all layers, side by side), so that every
    other tool can read it, with three data sets more: `indices` [N, T, layers,
    codes]; `columns`, layer and channel of each column; and the `codebook` in
    the same columns. `hdcid info FILE` says what is where.
    """
    from hdcid_cli.codes.files import encode_files
    from hdcid_cli.core.records import emit

    if files:
        options.tell_idle("the files to encode are named", "features")
    if output.suffix in SUFFIXES and output.suffix != f".{format_}":
        options.tell_idle(f"{output} says it by its ending", "format_")
    emit(
        encode_files(list(files), output, toc, features, checkpoint, checkpoints, device, format_),
        as_json,
        ("modality", "clips", "file", "shape", "codes used", "checkpoint"),
    )
