"""README, CONTRIBUTING, CHANGELOG and docs/ say what is there: links, options, names, paths, code."""

import ast
import importlib
import importlib.util
import re
import shlex
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from sfm_match.cli.main import app
from sfm_match.options.job_file import read_job

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path
    for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")))
}
# programs that are not ours
OTHERS = {"colmap", "ffmpeg", "mkdir", "ns-train", "pip", "python", "make", "sbatch", "./run.sh"}
# Words that the glossary replaced, as whole words; and `turns` but for the option.
OLD_WORDS = (
    r"goes on where",
    r"foretold",
    r"can be had",
    r"by itself \d",
    r"lanes?",
    r"sketch(?:es)?",
    r"lay over",
    r"lays the",
    r"laid over",
    r"promises? matches",
    r"weighs? (?:wrong|little)",
    r"confirmed",
    r"everything stands",
    r"what is done stands",
    r"quarter turns",
    r"flat ground",
    r"accepted are \d",
    r"tiles? of pairs",
    r"nobody means",
)

page = pytest.mark.parametrize("name", PAGES)


def text_of(name: str) -> str:
    return PAGES[name].read_text(encoding="utf-8")


def without_code(text: str) -> str:
    """Prose and tables."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"^ {4,}\S.*$", "", text, flags=re.MULTILINE)


def anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", without_code(text), flags=re.MULTILINE):
        plain = re.sub(r"[`*]", "", heading).lower()
        kept = (c for c in plain if c in " -_" or unicodedata.category(c)[0] in "LN")
        found.add("".join(kept).replace(" ", "-"))
    return found


def code_blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(name), flags=re.DOTALL | re.MULTILINE)


def commands() -> dict[str, set[str]]:
    """`sfm-match` -> its options, `sfm-match run` -> its options, ... without those that help does not list."""
    found: dict[str, set[str]] = {}

    def walk(command: Any, name: str) -> None:
        shown = [param for param in command.params if not getattr(param, "hidden", False)]
        found[name] = {flag for param in shown for flag in (*param.opts, *param.secondary_opts)} | {"--help"}
        for other, inner in getattr(command, "commands", {}).items():
            walk(inner, f"{name} {other}")

    walk(typer.main.get_command(app), "sfm-match")
    return found


COMMANDS = commands()


def command_lines(name: str) -> Iterator[str]:
    """Command lines of `sfm-match` in blocks of code and in backticks."""
    text = re.sub(r" *\\\n +", " ", text_of(name))
    for line in re.findall(r"^ {4,}(sfm-match .+)$", text, flags=re.MULTILINE):
        yield line.split("  #")[0]
    yield from re.findall(r"`(sfm-match [^`]+)`", without_code(text))


def test_pages_are_there() -> None:
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/architecture.md", "docs/glossary.md"} <= set(PAGES)


@page
def test_links_lead_somewhere(name: str) -> None:
    """Relative links and images, and their anchors."""
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(name)):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        found = (PAGES[name].parent / path).resolve() if path else PAGES[name]
        if not found.is_relative_to(ROOT) or not found.exists():
            lost.append(target)
        elif anchor and anchor not in anchors(found.read_text(encoding="utf-8")):
            lost.append(f"{target} (no such heading)")
    assert not lost


def test_every_page_is_reached_from_the_readme() -> None:
    linked = set(re.findall(r"\]\((docs/[^)#\s]+)", text_of("README.md")))
    assert {name for name in PAGES if name.startswith("docs/")} <= linked


def test_pictures_are_small() -> None:
    assert all(path.stat().st_size < 200_000 for path in (ROOT / "docs" / "images").iterdir())


@page
def test_command_lines_are_accepted(name: str) -> None:
    """Each option of a command line is one of that command's, under its present name."""
    wrong = []
    for line in command_lines(name):
        words = shlex.split(line)
        known = [n for n in range(1, len(words) + 1) if " ".join(words[:n]) in COMMANDS]
        called = " ".join(words[: known[-1]])
        if called == "sfm-match" and len(words) > 1 and not words[1].startswith("-") and words[1] != "COMMAND":
            wrong.append(f"{line}: no such command")
        every = set().union(*COMMANDS.values()) if words[1:2] == ["COMMAND"] else COMMANDS[called]
        wrong += [f"{line}: {word}" for word in words if word.startswith("-") and word not in every]
    assert not wrong


@page
def test_options_exist(name: str) -> None:
    """Every `--option` is one of a command, of a script, or of a program that is called by its name."""
    known = set().union(*COMMANDS.values())
    for script in (ROOT / "scripts").rglob("*.py"):
        known |= set(re.findall(r'add_argument\(\s*"(--[a-z0-9-]+)"', script.read_text(encoding="utf-8")))
    text = re.sub(r" *\\\n +", " ", text_of(name))
    ours = [line for line in text.splitlines() if not (line.startswith("    ") and line.split()[0] in OTHERS)]
    used = re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*(?![\w-])", "\n".join(ours))
    assert not sorted(set(used) - known)


@page
def test_names_exist(name: str) -> None:
    """Every dotted name of ours can be imported."""
    lost = []
    for dotted in sorted(set(re.findall(r"\bsfm_match(?:\.[A-Za-z_]\w*)+(?![\w/])", text_of(name)))):
        module, attributes = dotted, list[str]()
        while not _is_module(module):
            module, _, attribute = module.rpartition(".")
            attributes.insert(0, attribute)
        found: Any = importlib.import_module(module)
        for attribute in attributes:
            found = getattr(found, attribute, None)
        if found is None:
            lost.append(dotted)
    assert not lost


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@page
def test_paths_exist(name: str) -> None:
    """Every path of ours in backticks."""
    wings = r"(?:sfm_match|pairs|exports|scripts|tests|docs)/[\w./-]*"
    paths = set(re.findall(rf"`(?:python )?({wings})", text_of(name)))
    assert not {path for path in paths if not (ROOT / path).exists()}


@page
def test_python_compiles_and_imports(name: str) -> None:
    """Blocks of Python are right in grammar, and what they import of ours is there."""
    for block in code_blocks(name, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sfm_match"):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


@page
def test_yaml_is_accepted(name: str, tmp_path: Path) -> None:
    for block in code_blocks(name, "yaml"):
        job = tmp_path / "job.yaml"
        job.write_text(block, encoding="utf-8")
        assert len(read_job(job)) == len(block.splitlines())


@page
def test_old_words_are_gone(name: str) -> None:
    text = re.sub(r"\s+", " ", text_of(name))
    found = [match[0] for word in OLD_WORDS for match in re.finditer(rf"\b{word}\b", text, flags=re.IGNORECASE)]
    found += re.findall(r"(?<!--)\bturns\b", without_code(text_of(name)))
    assert not found
