"""The house keeps its plan: nothing imports upward, and imports stand at the top of a module."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "hdcid_cli"

# A package may import from its own level and those before it; packages of one level do not know each other.
LAYERS = (
    {"core"},
    {"media"},
    {"backbones"},
    {"models"},
    {"codes"},
    {"training"},
    {"published"},
    {"tasks", "report", "synth"},
    {"api"},
    {"commands"},
    {"main"},
    {"__main__"},
)
LEVEL = {name: number for number, names in enumerate(LAYERS) for name in names}

# Imports inside functions, outside of what `hdcid --help` has to import, and why.
INSIDE = {
    "__init__.py": 1,  # `import hdcid_cli` costs nothing
    "core/device.py": 1,  # features without a network need no torch
    "media/wave.py": 2,  # nor do sounds of the rate that is asked for
    "core/torchaudio.py": 1,  # what cannot be had everywhere is asked for where it is needed
    "training/board.py": 2,
    "media/figure.py": 2,
    "tasks/segmentation/overlay.py": 2,
}


def test_nothing_imports_upward():
    upward = []
    for path in PACKAGE.rglob("*.py"):
        part = part_of(path)
        for names, _ in imports(path):
            others = {name.split(".")[1] for name in names if name.startswith("hdcid_cli.")} - {part}
            upward += [f"{path.relative_to(PACKAGE)} imports {other}" for other in others if not below(other, part)]
    assert not upward


def test_every_package_has_its_level():
    assert {part_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__"} == set(LEVEL)


def test_imports_stand_at_the_top():
    light = lightly_imported()
    inside = Counter(
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if path not in light
        for _, nested in imports(path)
        if nested
    )
    assert inside == INSIDE, "import at the top of the module, or say here why not"


def test_no_function_but_a_command_takes_more_than_eight_things():
    many = {
        f"{path.relative_to(PACKAGE)}: {node.name} takes {parameters(node)}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if parameters(node) > 8 and not is_command(node)
    }
    assert not many, "what belongs together is a ...Settings"


def test_parameters_are_counted_and_commands_are_known():
    text = "@click.command(cls=Group)\ndef f(a, /, b, *c, d=1, **e): ...\n\n\n@cached\ndef g(self, a): ...\n"
    command, method = ast.parse(text).body
    assert (parameters(command), is_command(command)) == (5, True)
    assert (parameters(method), is_command(method)) == (1, False)


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many things a function takes, but for `self`."""
    found = function.args
    named = [
        each.arg for each in (*found.posonlyargs, *found.args, *found.kwonlyargs, found.vararg, found.kwarg) if each
    ]
    return len(named) - (named[:1] in (["self"], ["cls"]))


def is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether click calls it: its parameters are a command's options."""
    return any(re.match(r"\w+\.(command|group)\(", ast.unparse(each)) for each in function.decorator_list)


def test_an_import_inside_a_function_is_seen(tmp_path):
    (tmp_path / "some.py").write_text(
        "import os\nclass A:\n    def f(self):\n        from hdcid_cli.core import paths\n"
    )
    found = list(imports(tmp_path / "some.py"))
    assert found == [(["os"], False), (["hdcid_cli.core", "hdcid_cli.core.paths"], True)]


def part_of(path: Path) -> str:
    """`hdcid_cli/core/files.py` -> core, `hdcid_cli/main.py` -> main."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def below(other: str, part: str) -> bool:
    """Whether the package `part` may import from `other`; what belongs to no level (`__version__`) is for all."""
    return LEVEL.get(other, -1) < LEVEL.get(part, len(LAYERS))


def imports(path: Path) -> Iterator[tuple[list[str], bool]]:
    """(modules, inside a function) of every import; of `from a import b` both a and, as it may be a module, a.b."""

    def visit(node: ast.AST, nested: bool) -> Iterator[tuple[list[str], bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield [alias.name for alias in child.names], nested
            elif isinstance(child, ast.ImportFrom):
                yield [str(child.module), *(f"{child.module}.{alias.name}" for alias in child.names)], nested
            else:
                yield from visit(child, nested or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), False)


def lightly_imported() -> set[Path]:
    """main.py, the commands, and whatever of the package they import at their top, near or far."""
    found: set[Path] = set()
    waiting = [PACKAGE / "main.py", PACKAGE / "__main__.py", *(PACKAGE / "commands").glob("*.py")]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [
                place for names, nested in imports(path) if not nested for name in names for place in files_of(name)
            ]
    return found


def files_of(module: str) -> list[Path]:
    """The file of a module of this package."""
    if not module.startswith("hdcid_cli."):
        return []
    stem = PACKAGE.joinpath(*module.split(".")[1:])
    return [path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.exists()]


def test_one_name_is_one_thing():
    """Two classes of one name: only what is the same idea in two networks, or a base and its own."""
    places: dict[str, list[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(str(path.relative_to(PACKAGE)))
    assert {name for name, found in places.items() if len(found) > 1} <= {"Standardize"}
