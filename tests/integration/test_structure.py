"""How the package is built: imports point one way, every module has its tests, and what no file should hold.

`python -m tests.integration.test_structure [FOLDER]` prints the figures of this package, or of the one in a folder.
"""

import ast
import pathlib
import sys
from collections.abc import Iterator
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "jaxrl_srpo"

# Rooms from top to bottom: a room imports from those below it only. A room is a folder or a module beside them.
FLOORS = (
    "__main__",
    "cli",
    "__init__",
    "api",
    "monitor",
    "selection",
    "export",
    "runs",
    "report",
    "exploration",
    "methods",
    "population",
    "envs",
    "data",
    "nn",
    "io",
    "types",
    "errors",
)
# Nothing in them runs by itself.
WITHOUT_TESTS = ("__main__", "types", "errors")


class Import(NamedTuple):
    """A file that imports another; both are paths inside the package, without the suffix."""

    source: str
    target: str

    @property
    def rooms(self) -> tuple[str, str]:
        return room_of(self.source), room_of(self.target)

    def __str__(self) -> str:
        return f"{self.source}.py -> {self.target}.py"


def room_of(file: str) -> str:
    return file.split("/")[0]


def files_of(package: pathlib.Path) -> list[str]:
    """The modules of a package as paths without the suffix."""
    paths = (path.relative_to(package).with_suffix("") for path in package.rglob("*.py"))
    return sorted(path.as_posix() for path in paths)


def imports_of(package: pathlib.Path) -> list[Import]:
    """Every import of a module of the package by another, lazy ones and those of type checkers included."""
    files = set(files_of(package))
    found = {
        Import(source, target)
        for source in files
        for name in _imported_names(ast.parse((package / f"{source}.py").read_text()), package.name)
        if (target := _file_of(name, files)) != source
    }
    return sorted(found)


def _imported_names(tree: ast.AST, package: str) -> Iterator[str]:
    """Dotted names below the package that a module imports; the last part may be no module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            if first == package:
                yield rest


def _file_of(name: str, files: set[str]) -> str:
    """The file that an import of a dotted name reads: a module, or the package that has the name."""
    parts = name.split(".") if name else []
    for length in range(len(parts), 0, -1):
        path = "/".join(parts[:length])
        if path in files:
            return path
        if f"{path}/__init__" in files:
            return f"{path}/__init__"
    return "__init__"


def circles(imports: list[Import]) -> list[list[str]]:
    """Files that import each other in a ring, one ring for each set of them."""
    targets: dict[str, list[str]] = {}
    for one in imports:
        targets.setdefault(one.source, []).append(one.target)
    found: dict[frozenset[str], list[str]] = {}
    finished: set[str] = set()

    def visit(file: str, path: list[str]) -> None:
        if file in path:
            ring = path[path.index(file) :]
            found.setdefault(frozenset(ring), ring)
        elif file not in finished:
            for target in targets.get(file, []):
                visit(target, [*path, file])
            finished.add(file)

    for file in targets:
        visit(file, [])
    return list(found.values())


class Figures(NamedTuple):
    """The house in numbers.

    Attributes:
      rooms: their number.
      floors: rooms in the longest chain of imports.
      arrows: pairs of rooms of which one imports from the other.
      imports: pairs of files in different rooms of which one imports the other.
      circles: sets of files that import each other in a ring.
    """

    rooms: int
    floors: int
    arrows: int
    imports: int
    circles: int


def figures(package: pathlib.Path) -> Figures:
    imports = imports_of(package)
    across = [one for one in imports if one.rooms[0] != one.rooms[1]]
    below: dict[str, set[str]] = {room_of(file): set() for file in files_of(package)}
    for one in across:
        below[one.rooms[0]].add(one.rooms[1])

    def height(room: str, above: tuple[str, ...] = ()) -> int:
        return 1 + max((height(other, (*above, room)) for other in below[room] if other not in above), default=0)

    arrows = {one.rooms for one in across}
    return Figures(len(below), max(map(height, below)), len(arrows), len(across), len(circles(imports)))


def describe(package: pathlib.Path) -> str:
    numbers = figures(package)
    return (
        f"{package.name}: {numbers.rooms} rooms, {numbers.floors} floors, {numbers.arrows} arrows between rooms "
        f"({numbers.imports} imports of files), {numbers.circles} circles of files"
    )


def test_imports_point_one_way() -> None:
    print(describe(PACKAGE))
    imports = imports_of(PACKAGE)
    assert {room_of(file) for file in files_of(PACKAGE)} <= set(FLOORS)
    upwards = [one for one in imports if FLOORS.index(one.rooms[0]) > FLOORS.index(one.rooms[1])]
    assert not upwards, "imports that point upwards:\n" + "\n".join(map(str, upwards))


def test_no_files_import_each_other() -> None:
    rings = [" -> ".join(f"{file}.py" for file in [*ring, ring[0]]) for ring in circles(imports_of(PACKAGE))]
    assert not rings, "circles:\n" + "\n".join(rings)


def test_the_figures_of_a_house_that_is_known(tmp_path: pathlib.Path) -> None:
    package = tmp_path / "house"
    contents = {
        "__init__": "",
        "top": "import house.left.door\nimport os\n",
        "left/__init__": "",
        "left/door": "from house.left import window\nfrom house.right import thing, wall\n",
        "left/window": "def f():\n    from house.left.door import g\n",
        "right/__init__": "thing = 1\n",
        "right/wall": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house import base\n",
        "base": "import house\n",
    }
    for name, text in contents.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / f"{name}.py").write_text(text)
    assert [str(one) for one in imports_of(package)] == [
        "base.py -> __init__.py",
        "left/door.py -> left/window.py",
        "left/door.py -> right/__init__.py",
        "left/door.py -> right/wall.py",
        "left/window.py -> left/door.py",
        "right/wall.py -> base.py",
        "top.py -> left/door.py",
    ]
    # From the top by left, right and base to the package itself.
    assert figures(package) == Figures(rooms=5, floors=5, arrows=4, imports=5, circles=1)


def test_every_module_has_a_test_file_of_its_name() -> None:
    missing = []
    for file in files_of(PACKAGE):
        path = pathlib.PurePosixPath(file)
        name = path.name if path.name != "__init__" else path.parent.name or PACKAGE.name
        empty = not any(isinstance(node, ast.FunctionDef) for node in ast.walk(_tree(PACKAGE / f"{file}.py")))
        test = ROOT / "tests" / path.parent / f"test_{name}.py"
        if file not in WITHOUT_TESTS and not (path.name == "__init__" and empty) and not test.exists():
            missing.append(f"{file}.py: tests/{path.parent}/test_{name}.py")
    assert not missing, "modules without tests:\n" + "\n".join(missing)


def _tree(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text())


SOURCES = sorted(
    path
    for folder in ("jaxrl_srpo", "experiments", "launch", "examples", "tests")
    for path in (ROOT / folder).rglob("*.py")
)


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    return {path.relative_to(ROOT).as_posix(): _tree(path) for path in SOURCES}


def test_no_function_deletes_its_arguments(trees: dict[str, ast.Module]) -> None:
    found = []
    for name, tree in trees.items():
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            given = function.args
            arguments = {one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)}
            deleted = [node for node in ast.walk(function) if isinstance(node, ast.Delete)]
            names = {target.id for node in deleted for target in node.targets if isinstance(target, ast.Name)}
            found += [f"{name}:{function.lineno} {function.name}: {argument}" for argument in sorted(names & arguments)]
    assert not found, "arguments that are deleted instead of not declared:\n" + "\n".join(found)


def test_cores_are_counted_by_what_the_process_may_use(trees: dict[str, ast.Module]) -> None:
    found = [
        f"{name}:{node.lineno}"
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "cpu_count" and not name.endswith("processors.py")
    ]
    assert not found, "use io.processors.usable_cores:\n" + "\n".join(found)


if __name__ == "__main__":
    print(describe(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE))
