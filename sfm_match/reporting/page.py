"""`report.html`: the template, its styles, three.js, the data and the scripts, in one file that asks nobody for more.

Names of images reach the page as JSON alone, and its scripts write them as text. Nothing in the data can end the block
that it is in: `<` is not in it.
"""

import base64
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from sfm_match import __version__
from sfm_match.errors import UsageError
from sfm_match.job.concurrency import give_memory_back
from sfm_match.job.workspace import Workspace
from sfm_match.reporting.collect import content
from sfm_match.reporting.facts import read_facts
from sfm_match.store.columns import Made
from sfm_match.store.regular import open_regular
from sfm_match.store.shard import fingerprint, replacing, sha256_of

FORMAT = 3  # raise it when the same workspace comes to give another page
_GENERATOR = '<meta name="generator" content="sfm-match'
_INPUTS = '<meta name="sfm-match-inputs" content="'
_HEAD = 1024  # bytes of a page in which these are
_AT_ONCE = 256  # entries of a list
_BYTES_AT_ONCE = 3 << 14  # base64 makes four of three
_SCRIPTS = ("base.js", "table.js", "figures.js", "graph.js", "viewer.js", "detail.js", "page.js")  # in this order


@dataclass(frozen=True)
class Written:
    """A report."""

    path: Path
    images: int
    registered: int
    level: str  # of `advice.Verdict`
    title: str
    bytes: int


def write_report(workspace: Workspace, *, replace: bool = False) -> Written:
    """Writes `report.html` of a workspace, whatever its state. No lock is taken: a job may run.

    Args:
        workspace: it need not be open.
        replace: a file of that name which sfm-match did not make.

    Raises:
        NothingDone: there is no workspace.
        UsageError: a file of that name is there, and sfm-match did not make it.
    """
    if not replace:
        refuse_foreign(workspace)
    inputs = inputs_of(workspace)  # first: what changes from now on makes the report out of date
    facts = read_facts(workspace)
    give_memory_back()
    data = content(facts, time.strftime("%Y-%m-%d %H:%M"))
    size = 0
    with replacing(workspace.report) as temporary, temporary.open("wb") as out:
        for piece in _pieces(data, inputs):
            size += out.write(piece.encode())
    told = data["verdict"]
    return Written(workspace.report, len(facts.names), facts.registered, told["level"], told["title"], size)


def refuse_foreign(workspace: Workspace) -> None:
    """Raises UsageError where `report.html` is somebody else's."""
    if workspace.report.exists() and not made_here(workspace.report):
        raise UsageError(f"{workspace.report}: not made by sfm-match; move it, or leave the report out (--no-report)")


def made_here(path: Path) -> bool:
    """Whether that is a page, and sfm-match made it."""
    return path.is_file() and _GENERATOR in _head(path)


def up_to_date(workspace: Workspace) -> bool:
    """Whether the report is that of the workspace as it is."""
    return workspace.report.exists() and f'{_INPUTS}{inputs_of(workspace)}"' in _head(workspace.report)


def inputs_of(workspace: Workspace) -> str:
    """A digest of what a report is made from: sizes and times, and the content of what each run writes again."""
    sparse = sorted(workspace.sparse.rglob("*")) if workspace.sparse.exists() else []
    single = (workspace.collection, workspace.record, workspace.pairs, workspace.database, workspace.stages)
    seen = []
    for path in (*single, workspace.features, workspace.matches, *sparse):
        if path.exists():
            status = path.stat()
            size = 0 if path.is_dir() else status.st_size
            seen.append((path.relative_to(workspace.folder).as_posix(), size, status.st_mtime_ns))
    tables = [sha256_of(path) for path in (workspace.failed, workspace.unregistered) if path.exists()]
    return fingerprint([FORMAT, __version__, seen, tables])


def page(data: dict[str, Any], inputs: str) -> str:
    """The whole file.

    Args:
        data: what `collect.content` makes.
        inputs: digest of what it was made from.
    """
    return "".join(_pieces(data, inputs))


def _pieces(data: dict[str, Any], inputs: str) -> Iterator[str]:
    """The file, a piece after the other: of thousands of images all of it, several times over, is much memory."""
    assets = files("sfm_match.reporting") / "assets"
    # the licence of three.js asks to be in every copy
    three = f"/*\n{_read(assets, 'three.LICENSE')}*/\n{_read(assets, 'three.min.js')}"
    scripts = [three, *(_read(assets, name) for name in _SCRIPTS)]
    parts: dict[str, Iterable[str]] = {
        "inputs": [inputs],
        "version": [__version__],
        "style": [_read(assets, "page.css")],
        "data": as_json(data),
        "scripts": ["\n".join(f"<script>\n{script}\n</script>" for script in scripts)],
    }
    first, *others = _read(assets, "page.html").split("{{")
    yield first
    for piece in others:  # names are not looked for in what is filled in
        name, _, rest = piece.partition("}}")
        yield from parts[name]
        yield rest


def as_json(value: Any) -> Iterator[str]:
    """JSON that may stand in HTML, in pieces: ASCII, without `<`, `>` and `&`. Bytes become base64."""
    if isinstance(value, dict) and value:
        separator = "{"
        for key, one in value.items():
            yield f"{separator}{_escaped(str(key))}:"
            yield from as_json(one)
            separator = ","
        yield "}"
    elif isinstance(value, list | Made) and len(value) > _AT_ONCE:
        for start in range(0, len(value), _AT_ONCE):
            yield "," if start else "["
            yield _escaped(value[start : start + _AT_ONCE])[1:-1]
        yield "]"
    elif _is_bytes(value):
        yield '"'
        for start in range(0, len(value), _BYTES_AT_ONCE):
            yield _base64(value[start : start + _BYTES_AT_ONCE])
        yield '"'
    else:
        yield _escaped(list(value) if isinstance(value, Made) else value)


def _escaped(value: Any) -> str:
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), default=_base64)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _is_bytes(value: object) -> TypeGuard[bytes | NDArray[np.uint8]]:
    return isinstance(value, bytes) or (isinstance(value, np.ndarray) and value.dtype == np.uint8)


def _base64(value: object) -> str:
    """Raises TypeError for what is not bytes."""
    if not _is_bytes(value):  # of a number of numpy it would be those of its memory
        raise TypeError(f"{type(value).__name__} is not JSON")
    return base64.b64encode(value if isinstance(value, bytes) else value.data).decode("ascii")


def _read(assets: Traversable, name: str) -> str:
    return (assets / name).read_text(encoding="utf-8")


def _head(path: Path) -> str:
    with open_regular(path) as file:
        return file.read(_HEAD).decode("utf-8", errors="replace")
