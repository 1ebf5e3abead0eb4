"""The command line as a process: help, errors, exit statuses, configuration, pipes."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
from made_records import lines, record

from hdcid_cli.main import COMMANDS, cli, run

REPOSITORY = Path(__file__).parents[1]


def commands():
    """Every command and subcommand, as ("convert features", click command)."""
    context = click.Context(cli)
    found = []
    for name in COMMANDS:
        command = cli.get_command(context, name)
        found.append((name, command))
        if isinstance(command, click.Group):
            found += [(f"{name} {sub}", command.get_command(context, sub)) for sub in command.list_commands(context)]
    return found


def test_help_lists_every_command_and_imports_nothing_heavy():
    code = (
        "import sys; from hdcid_cli.main import run; status = run(['--help'], {});"
        "print(status, sorted({'torch', 'h5py', 'av', 'numpy', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith("0 []\n"), done.stdout + done.stderr
    for name in COMMANDS:
        assert f"  {name} " in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_a_commands_help_needs_no_torch_and_says_what_the_group_says(name):
    code = (
        f"import sys; from hdcid_cli.main import run; run([{name!r}, '--help'], {{}});"
        "print(sorted({'torch', 'transformers', 'av', 'h5py'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith("[]\n"), done.stdout + done.stderr
    assert COMMANDS[name] in " ".join(done.stdout.split())


def test_every_option_of_every_command_has_help_or_speaking_choices():
    silent = [
        f"{name} {parameter.opts[0]}"
        for name, command in commands()
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.help and not isinstance(parameter.type, click.Choice)
    ]
    assert not silent


@pytest.mark.parametrize(
    ("line", "near"),
    [(["retreive"], "retrieve"), (["cmg", "clasify", "--train", "v", "--test", "a"], "classify"), (["xyzzy"], "")],
)
def test_of_a_wrong_name_it_is_said_which_one_is_near(line, near, capsys):
    assert run(line, {}) == 2
    said = capsys.readouterr().err
    assert said.rstrip().endswith(f"Did you mean {near}?" if near else "'xyzzy'.")


def test_the_readme_names_every_command():
    readme = (REPOSITORY / "README.md").read_text()
    assert not [name for name in COMMANDS if f"`{name}" not in readme]


def test_config_file_sets_options_and_the_line_overrides_them(tmp_path, capsys):
    config = tmp_path / "recipe.yaml"
    config.write_text("keep: 7\nmix: '2:3'\nno-such-option: 1\n")
    assert run(["toc", "--config", str(config)], {"debug": False}) == 2
    assert "no-such-option" in capsys.readouterr().err
    config.write_text("keep: 7\nmix: nonsense\n")
    assert run(["toc", "--config", str(config), "--checkpoints", str(tmp_path)], {"debug": False}) == 2
    assert "no checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["[1, 2", "- a\n- b\n", "\x00"])
def test_a_config_file_that_is_none_is_one_sentence(tmp_path, capsys, content):
    config = tmp_path / "recipe.yaml"
    config.write_text(content)
    assert run(["toc", "--config", str(config)], {"debug": False}) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "recipe.yaml" in error


def test_wrong_usage_is_status_two_without_traceback(capsys):
    assert run(["nonsense"], {"debug": False}) == 2
    assert run(["info", "x" * 5000], {"debug": False}) == 2
    assert capsys.readouterr().err.endswith("File name too long.\n")
    assert run(["cmg", "ave"], {"debug": False}) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error


def test_debug_shows_the_traceback(tmp_path):
    from hdcid_cli.core.errors import InputError

    with pytest.raises(InputError):
        run(["toc", "--debug", "--checkpoints", str(tmp_path)], {"debug": False})


def test_the_three_lines_of_the_manual_fail_politely_in_an_empty_folder(hdcid):
    for line in (
        ["extract", "--modality", "audio", "videos/"],
        ["pretrain", "--layers", "2"],
        ["cmg", "ave", "--train", "v", "--test", "a"],
    ):
        done = hdcid(*line)
        assert done.returncode == 2, (line, done.stderr)
        assert done.stdout == "" and done.stderr.count("\n") == 1 and done.stderr.startswith("error: "), done.stderr


def test_without_a_command_the_whole_help_is_shown(capsys):
    for words in ([], ["recipe"], ["convert"]):
        run([*words, "--help"], {})
        whole = capsys.readouterr().out
        run(words, {})
        assert "".join(capsys.readouterr()).strip() == whole.strip()


def test_what_a_missing_argument_can_be_is_on_one_line(capsys):
    assert run(["cmg", "--train", "v", "--test", "a"], {}) == 2
    assert "'TASK'. Choose from: ave, avvp, " in capsys.readouterr().err


def test_a_reader_that_goes_away_ends_the_command_quietly(tmp_path):
    many = lines(*(record(seed=seed, task=f"task{seed}") for seed in range(3000)))
    (tmp_path / "many.jsonl").write_text(many)
    done = subprocess.run(
        f"set -o pipefail; {sys.executable} -m hdcid_cli report --format csv many.jsonl | head -n 1",
        shell=True,
        executable="/bin/bash",
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr


def test_modules_do_not_grow_beyond_one_idea():
    long = {
        str(path): lines
        for path in (REPOSITORY / "hdcid_cli").rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 430
    }
    assert not long
