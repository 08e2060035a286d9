"""Whether `database.db` is as its stages left it, by its file's size and time.

Then it is not read to know that it is up to date: one of 100,000 images takes a minute. Who uses its content checks it.
"""

from sfm_match.colmap.queries import file_state
from sfm_match.job.workspace import Workspace

_LEFT = "database left"  # entry of the workspace's record
_STATE = "size and time"


def as_left(workspace: Workspace) -> bool:
    """Whether it is as it was noted. Of a copy that keeps the time, it is."""
    known = workspace.read_record().get(_LEFT)
    return known is not None and workspace.database.is_file() and known == _now(workspace)


def note_left(workspace: Workspace) -> None:
    """Notes that it is as it should be."""
    workspace.write_record(_LEFT, _now(workspace))


def _now(workspace: Workspace) -> dict[str, list[int]]:
    state = file_state(workspace.database)
    return {_STATE: [value for place, value in enumerate(state) if place % 3]}  # without the numbers of the files
