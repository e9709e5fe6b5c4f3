"""The house keeps its rules: who may import whom, how long files and functions may be, and what CONTRIBUTING draws."""

from __future__ import annotations

import ast
import graphlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import music_streaming
from docs import PROJECT

PACKAGE = Path(music_streaming.__file__).parent
WINGS = ("backup", "board", "dashboards", "demo", "imports", "scrobble")
# Library -> the only modules that import it.
ONLY = {"kafka": {"broker"}, "pyspark": {"spark", "query"}}
# The test kit runs a server of its own.
CONNECTS = {"settings", "testing.postgres"}
FILE_LINES, FUNCTION_LINES = 400, 50
# Longer, and to be split.
LONG = (
    "app/music_streaming/board/trace.py: trace",
    "app/tests/test_table.py: ",
)


class Import(NamedTuple):
    """An import of `name` by a module, both below music_streaming where they are ours ("demo.world")."""

    module: str
    name: str
    line: int
    for_types: bool


def modules(package: Path) -> dict[str, Path]:
    """Name below the package, such as demo.world -> file; a folder's __init__.py goes by the folder's name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(module: str, path: Path, known: set[str]) -> Iterator[Import]:
    """What a module imports, inside its functions too; of ours always the module itself."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guarded = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            package, _, rest = name.partition(".")
            ours = rest if rest in known else rest.rpartition(".")[0]
            yield Import(module, ours if package == PACKAGE.name else name, node.lineno, node in guarded)


def wing_of(module: str) -> str | None:
    return next((wing for wing in WINGS if module == wing or module.startswith(f"{wing}.")), None)


def faults(package: Path) -> list[str]:
    """Every breach of the rules about imports, a sentence each."""
    there = modules(package)
    found, graph = [], {module: set() for module in there}
    for module, path in there.items():
        wing = wing_of(module)
        for item in imports(module, path, set(there)):
            place = f"{path.relative_to(package)}:{item.line}"
            if item.name in there:
                graph[module].add(item.name)
                other = wing_of(item.name)
                if other and wing is None:
                    found.append(f"{place}: the flow imports the wing {other}")
                elif other and other != wing and not module.startswith(f"{wing}.commands"):
                    found.append(f"{place}: {wing} meets {other} outside its commands")
                if item.name.startswith("testing") and not module.startswith("testing"):
                    found.append(f"{place}: the product imports the test kit")
            library = item.name.partition(".")[0]
            if module not in ONLY.get(library, {module}) and not item.for_types:
                found.append(f"{place}: imports {library}, as only {', '.join(sorted(ONLY[library]))} may")
        if module not in CONNECTS and re.search(r"psycopg2(\.extensions)?\.connect\(", path.read_text()):
            found.append(f"{path.relative_to(package)}: opens a database connection, as only settings may")
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        found.append(f"circle: {' -> '.join(error.args[1])}")
    return found


def test_the_imports_keep_the_rules():
    assert faults(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "line", "says"),
    [
        ("event.py", "from music_streaming.demo.world import World", "the flow imports the wing demo"),
        ("table.py", "def late():\n    from music_streaming import board", "the flow imports the wing board"),
        ("demo/removal.py", "from music_streaming.board import status", "demo meets board outside"),
        ("board/status.py", "import kafka.errors", "imports kafka, as only broker may"),
        ("table.py", "from pyspark.sql import SparkSession", "imports pyspark, as only query, spark"),
        ("table.py", "psycopg2.connect('')", "table.py: opens a database connection"),
        ("error.py", "from music_streaming import settings", "circle: "),
        ("dashboards/bundle.py", "from music_streaming.dashboards.lint import lint", "circle: "),
        ("event.py", "from music_streaming.testing import free_port", "the product imports the test kit"),
    ],
)
def test_a_breach_is_found(tmp_path, file, line, says):
    copied = Path(shutil.copytree(PACKAGE, tmp_path / PACKAGE.name))
    with (copied / file).open("a", encoding="utf-8") as target:
        target.write(f"\n{line}\n")
    planted = set(faults(copied)) - set(faults(PACKAGE))
    assert any(says in fault for fault in planted), planted


def long_ones(folder: Path, file_lines: int, function_lines: int) -> Iterator[str]:
    """Files and functions of `folder` that are longer than the limits."""
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if (lines := text.count("\n")) > file_lines:
            yield f"{path.relative_to(PROJECT)}: {lines} lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= function_lines:
                yield f"{path.relative_to(PROJECT)}: {node.name}, {node.end_lineno - node.lineno + 1} lines"


@pytest.mark.parametrize("folder", ["app/music_streaming", "app/tests"])
def test_no_file_and_no_function_is_too_long(folder):
    found = long_ones(PROJECT / folder, FILE_LINES, FUNCTION_LINES)
    assert [long for long in found if not long.startswith(LONG)] == []


def test_what_is_too_long_is_found():
    assert len(list(long_ones(PROJECT / "app/tests", 100, 10))) > 20


def drawn(text: str) -> set[str]:
    """The files in the tree of CONTRIBUTING: a line a folder or a part of one, names of files behind it."""
    (tree,) = re.findall(r"```\napp/music_streaming/\n(.*?)```", text, flags=re.DOTALL)
    found = set()
    for line in tree.splitlines():
        folder, *names = line.partition("#")[0].split()
        assert folder.endswith("/"), line
        found |= {f"{folder.removeprefix('./')}{name}" for name in names}
    return found


def test_the_tree_that_is_drawn_is_the_real_one():
    real = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    text = (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert drawn(text) == {name for name in real if not name.endswith("__init__.py")}
