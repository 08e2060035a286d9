"""Which numbers a database gave its images and cameras: a collection that grows keeps them.

Models, rigs and the user's own notes refer to them; and frames of a video that shared a camera go on sharing it when a
picture of another size comes into their folder.
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from sfm_match.colmap.queries import open_for_reading, read_record, read_value

CameraKey = tuple[str, ...]  # what images that share a camera have in common: `cameras.plan_cameras`
RECORD = "cameras"  # in the database: camera_id -> its key


@dataclass(frozen=True)
class Assigned:
    """Of an earlier database."""

    cameras: Mapping[CameraKey, int] = field(default_factory=dict)  # key -> camera_id
    images: Mapping[str, int] = field(default_factory=dict)  # name -> image_id


NOTHING_ASSIGNED = Assigned()


def read_assigned(database: Path, options: str) -> Assigned:
    """What a database says, if it was made with the same options (as they are on record in it)."""
    cameras = read_value(database, RECORD, dict[int, CameraKey])
    if cameras is None or read_record(database, "options") != options:
        return NOTHING_ASSIGNED
    with closing(open_for_reading(database)) as connection:
        images = dict(connection.execute("SELECT name, image_id FROM images").fetchall())
    return Assigned({key: number for number, key in cameras.items()}, images)
