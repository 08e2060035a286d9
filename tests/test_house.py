"""The layout that docs/architecture.md describes: no import circle, no room over 400 lines, few on the first floor."""

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WINGS = ("sfm_match", "pairs", "exports")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for wing in WINGS
    for path in (ROOT / wing).rglob("*.py")
}
FLOOR, LINES = 8, 400


def imports(path: Path, *, inside: bool) -> set[str]:
    """Modules of ours that a file imports; those inside functions, too, or only those that loading it loads."""
    found: set[str] = set()

    def walk(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and getattr(child.test, "id", "") == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not inside:
                continue
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                names = [f"{child.module}.{alias.name}" for alias in child.names]
                found.update(name if name in MODULES else child.module for name in names)
            walk(child)

    walk(ast.parse(path.read_text(encoding="utf-8")))
    return found & set(MODULES)


def package(module: str) -> str:
    """`sfm_match.store.shard` -> `sfm_match.store`; a module of the first floor is its own."""
    parts = module.split(".")
    return ".".join(parts[: 2 if parts[0] == "sfm_match" else 1])


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {name: imports(path, inside=True) - {name} for name, path in MODULES.items()}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way[way.index(name) :], name))
        if name not in done:
            for other in graph[name]:
                visit(other, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_no_two_packages_import_each_other() -> None:
    """Not even inside functions."""
    used: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, path in MODULES.items():
        for other in imports(path, inside=True):
            if package(name) != package(other) and "sfm_match" not in (package(name), package(other)):
                used[package(name), package(other)].append(f"{name} -> {other}")
    both = {(a, b): used[a, b] + used[b, a] for a, b in used if a < b and (b, a) in used}
    assert not both


@pytest.mark.parametrize("wing", ["pairs", "exports"])
def test_pairs_and_exports_know_nothing_of_the_pipeline(wing: str) -> None:
    for name, path in MODULES.items():
        if name.split(".")[0] == wing:
            assert not {other for other in imports(path, inside=True) if other.startswith("sfm_match")}, name


def test_large_libraries_are_loaded_where_they_are_needed() -> None:
    """They take tenths of a second and some 50 MB each, of commands that have nothing for them to do."""
    load = "import sys, sfm_match.cli.main as main; from sfm_match.stages.base import STAGES"
    told = f"{load}; [one.load() for one in STAGES]; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout.split()
    assert "sfm_match.stages.reconstruct" in loaded
    assert not {"pycolmap", "onnxruntime", "torch", "onnx", "tensorrt", "matplotlib", "ray"} & set(loaded)


def test_the_first_floor_has_few_modules() -> None:
    assert len(list((ROOT / "sfm_match").glob("*.py"))) <= FLOOR


def test_no_room_is_too_large() -> None:
    every = [*MODULES.values(), *(ROOT / "scripts").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    sizes = {path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in every}
    assert not {name: size for name, size in sizes.items() if size > LINES}
