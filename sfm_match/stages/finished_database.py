"""Whether the database is as a stage left it, by its file: then it is not read to know that it is up to date."""

from pathlib import Path
from typing import Any

from sfm_match.colmap.queries import file_state
from sfm_match.job.workspace import Workspace

_LEFT = "database left"  # entry of the workspace's record


def is_as_left(workspace: Workspace) -> bool:
    """Whether the database has the size and the time that `note_left` noted.

    One of 100,000 images takes a minute to read. Who uses it, checks it.
    """
    database, known = workspace.database, workspace.read_record().get(_LEFT)
    return known is not None and database.is_file() and known == _left(database)


def note_left(workspace: Workspace) -> None:
    """Notes the file of the database as it is now: all is in it."""
    workspace.write_record(_LEFT, _left(workspace.database))


def _left(database: Path) -> dict[str, Any]:
    """What tells a database from one that was written to; a copy that keeps the time is the same."""
    return {"size and time": [value for place, value in enumerate(file_state(database)) if place % 3]}
