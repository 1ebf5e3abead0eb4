"""`hdcid recipe`: the named settings of `hdcid pretrain`."""

from pathlib import Path

import click

from hdcid_cli.commands import options


@click.group(cls=options.Group)
def command():
    """Named settings of `hdcid pretrain`: the papers' rows, and ours.

    \b
    hdcid recipe ls
    hdcid recipe show table1_hdcid
    hdcid recipe cp table1_hdcid mine.yaml
    hdcid pretrain --recipe mine.yaml
    """


@command.command("ls", cls=options.Command)
@options.json_option
def ls(as_json):
    """Names of all recipes, and what each is."""
    from hdcid_cli.core.records import emit
    from hdcid_cli.training.recipes import recipe_names, summary

    emit([{"recipe": name, "summary": summary(name)} for name in recipe_names()], as_json, ("recipe", "summary"))


@command.command("show", cls=options.Command)
@click.argument("name")
def show(name):
    """Print a recipe."""
    from hdcid_cli.core.files import read_text
    from hdcid_cli.training.recipes import find_recipe

    click.echo(read_text(find_recipe(name)), nl=False)


@command.command("cp", cls=options.Command)
@click.argument("name")
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it is there.")
def cp(name, output, overwrite):
    """Write a recipe to OUTPUT, to change it there."""
    from hdcid_cli.core.files import read_text, refuse_to_replace, write_text
    from hdcid_cli.training.recipes import find_recipe

    if output.is_dir():
        output = output / f"{Path(name).stem}.yaml"
    if not overwrite:
        refuse_to_replace(output, "choose another name, or --overwrite")
    write_text(output, read_text(find_recipe(name)), named=True)
