"""Helpers of the tests that run jobs: the command line as a process, and the content of a workspace."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sfm_match.colmap.queries import MOST_IMAGES

# Units this small make several files of a few images.
SMALL_UNITS = "import sfm_match.images.collection as c; c.UNIT_SIZE = 2\n"
SMALL_UNITS += "import sfm_match.stages.match_blocks as m; m.BLOCK = 1\n"
SMALL_UNITS += "import sfm_match.refine.keypoints as a; a.UNIT = 4\n"
# Of the images of `accepted_database`.
NAMES = [f"{letter}.jpg" for letter in "abcdefghij"]
CALL = "from sfm_match.cli.main import main; main()\n"


def sfm_match(*arguments: Any, before: str = "") -> subprocess.CompletedProcess[str]:
    """Runs the command line in a process of its own, after some lines of Python."""
    command = [sys.executable, "-c", before + CALL, *map(str, arguments)]
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def stored(workspace: Path) -> dict[str, Any]:
    """Content of the feature and match files and of the database: equal content, equal dictionaries."""
    content: dict[str, Any] = {}
    for path in sorted([*workspace.glob("features/*"), *workspace.glob("matches/*")]):
        with h5py.File(path) as file:
            content[f"{path.parent.name}/{path.name}"] = {
                **{key: np.asarray(file[key][()]).tolist() for key in file},
                **{f"@{key}": value for key, value in file.attrs.items()},
            }
    content["pairs"] = (workspace / "pairs.txt").read_text()
    content["failed"] = (workspace / "failed.csv").read_text()
    connection = sqlite3.connect(workspace / "database.db")
    tables = ("cameras", "rigs", "frames", "images", "keypoints", "matches", "two_view_geometries")
    for table in tables:
        content[table] = connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
    connection.close()
    return content


def accepted_database(path: Path, accepted: list[tuple[int, int]]) -> Path:
    """As much of a database as the mapper's choice needs: image i + 1 has name i; pairs of places in NAMES."""
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TABLE images (image_id INTEGER PRIMARY KEY, name TEXT)")
        connection.execute("CREATE TABLE two_view_geometries (pair_id INTEGER PRIMARY KEY, rows INTEGER)")
        connection.executemany("INSERT INTO images VALUES (?, ?)", enumerate(NAMES, 1))
        pairs = [((i + 1) * MOST_IMAGES + j + 1, 100) for i, j in accepted]
        connection.executemany("INSERT INTO two_view_geometries VALUES (?, ?)", pairs)
    connection.close()
    return path
