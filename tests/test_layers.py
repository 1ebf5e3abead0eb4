"""The house keeps its plan: nothing imports upward, and imports stand at the top of a module."""

import ast
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

# Imports inside functions, outside of what `hdcid --help` has to import: how many a file may have. Only to shrink.
INSIDE = {
    "__init__.py": 1,
    "codes/toc_plot.py": 2,
    "core/device.py": 1,
    "core/records.py": 1,
    "core/torchaudio.py": 1,
    "media/audio.py": 1,
    "media/picture.py": 1,
    "media/stream.py": 3,
    "media/video.py": 2,
    "media/wave.py": 2,
    "report/compose.py": 1,
    "report/layouts.py": 1,
    "report/pictures.py": 3,
    "synth/media.py": 1,
    "tasks/analysis/location.py": 2,
    "tasks/segmentation/backbones.py": 3,
    "tasks/segmentation/overlay.py": 2,
    "tasks/segmentation/training.py": 5,
    "training/telling.py": 1,
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
    more = {name: count for name, count in inside.items() if count > INSIDE.get(name, 0)}
    assert not more, "import at the top of the module, or say here why not"


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
