"""Tables of reasons: why images have no features, or are in no model."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from sfm_match.job.workspace import Workspace
from sfm_match.store.records import DamagedRecord
from sfm_match.store.regular import of_the_process, open_regular
from sfm_match.store.shard import write_text


def write_failed(workspace: Workspace, failed: Mapping[str, str]) -> None:
    """`failed.csv`. Written even when empty, so that its absence means nothing ran."""
    write_reasons(workspace, workspace.failed, failed)


def read_failed(workspace: Workspace) -> dict[str, str]:
    """Image -> reason, of `failed.csv`; nothing where it is not there."""
    return read_reasons(workspace, workspace.failed)


def read_reasons(workspace: Workspace, path: Path) -> dict[str, str]:
    """Image -> reason, of a table that `write_reasons` wrote; nothing where it is not there. Raises DamagedRecord."""
    workspace.tell_if_changed(path)
    return read_table(path)


def read_table(path: Path) -> dict[str, str]:
    """As `read_reasons`, whether it was changed or not."""
    if not path.exists():
        return {}
    try:
        with io.TextIOWrapper(io.BufferedReader(open_regular(path)), encoding="utf-8", newline="") as file:
            return dict(row for row in list(csv.reader(file))[1:] if len(row) == 2)
    except (OSError, UnicodeError, csv.Error) as error:
        if of_the_process(error):
            raise
        what = error.strerror if isinstance(error, OSError) else f"damaged ({error})"
        cure = "`sfm-match doctor --repair` moves it aside, the next `run` writes it again"
        raise DamagedRecord(f"{path}: {what}", cure) from error


def write_reasons(workspace: Workspace, path: Path, reasons: Mapping[str, str]) -> None:
    """A table of two columns: image, reason."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("image", "reason"))
    rows.writerows(sorted(reasons.items()))
    write_text(path, text.getvalue())
    workspace.note_written(path)
