"""The lines that a command ends with: what a stage did, what to try, where the results are, and the next command."""

import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sfm_match.job.progress import StageReport

_BELOW = "  "  # before lines that belong to the one above
_WORKSPACE = "workspace"  # which need not be named
_CONNECTS = ("no accepted pair", "too few connected")  # reasons that more pairs may cure


def fitted(lines: Sequence[str]) -> str:
    """A headline and the lines below it. On a terminal, long ones are broken between words, and indented."""
    below = [lines[0], *(_BELOW + line for line in lines[1:])]
    if not sys.stdout.isatty():
        return "\n".join(below)
    width = shutil.get_terminal_size().columns
    broken = (
        textwrap.wrap(
            line,
            max(width, 20),
            subsequent_indent=2 * _BELOW,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in below
    )
    return "\n".join(piece for pieces in broken for piece in pieces)


def after_stage(report: "StageReport", workspace: Path) -> str:
    """The next stage's command, or, after the last one, where the model is."""
    from sfm_match.job.workspace import Workspace
    from sfm_match.stages.base import STAGES

    place, names = Workspace(workspace), [one.name for one in STAGES]
    at = names.index(report.stage)
    if report.stage == "reconstruct":
        return f"{_results(workspace)}; next: {_look(report, workspace)}"
    following = next((one for one in STAGES[:at] if not one.result(place).exists()), STAGES[at + 1])
    images = " --images DIR" if following.reads_images else ""
    return f"next: {_command(following.name + images, workspace)}"


def after_run(reports: "Sequence[StageReport]", workspace: Path) -> Iterator[str]:
    """What to try where images are left out, and a last line: the results, and the next command."""
    last, seconds = reports[-1], sum(one.seconds for one in reports)
    head = f"done in {seconds:.1f} s" if any(one.done for one in reports) else "up to date"
    if last.stage != "reconstruct":
        page = workspace / "report.html"
        yield f"{head}: {page if page.exists() else workspace}"
        return
    from sfm_match.reporting.advice import CURES

    outside: dict[str, int] = last.facts["unregistered"]
    for kind, number in sorted(outside.items(), key=lambda one: -one[1]):
        if kind in CURES:
            yield f"{number:,} {kind}: {CURES[kind]}"
    images = last.facts["total"]
    tried = sum(one.done + one.cached for one in reports if one.stage == "import")
    apart = last.facts["models"] > 1 or any(kind in outside for kind in _CONNECTS)
    if apart and tried < images * (images - 1) // 2:
        following = f"{_command('pairs --strategy repair', workspace)}, then the same run again"
    else:
        following = _look(last, workspace)
    yield f"{head}: {_results(workspace)}; next: {following}"


def _results(workspace: Path) -> str:
    page = workspace / "report.html"
    return f"{workspace / 'sparse' / '0'}" + (f", {page}" if page.exists() else "")


def _look(report: "StageReport", workspace: Path) -> str:
    """At the report; of a model that nothing speaks against, what most people do with it."""
    facts = report.facts
    if facts["unregistered"] or facts["models"] > 1 or any(one["odd"] for one in facts["each_model"]):
        return _command("report --open", workspace)
    return _command("convert --to nerfstudio --out DIR", workspace)


def _command(words: str, workspace: Path) -> str:
    place = "" if str(workspace) == _WORKSPACE else f" --workspace {shlex.quote(str(workspace))}"
    return f"sfm-match {words}{place}"
