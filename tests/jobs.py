"""Helpers of the tests that run jobs: the command line, and the content of a workspace."""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import cv2
import h5py
import numpy as np

from sfm_match import colmap
from sfm_match.cli.main import main
from sfm_match.colmap.queries import MOST_IMAGES

# Of the images of `accepted_database`.
NAMES = [f"{letter}.jpg" for letter in "abcdefghij"]
CALL = "from sfm_match.cli.main import main; main()\n"


def sfm_match(*arguments: Any) -> subprocess.CompletedProcess[str]:
    """Runs the command line in this process, which is far quicker than a process of its own.

    The streams are caught where native libraries write to them, too, and what the command line changes in its process
    is as before when it has ended.
    """
    command, status = ["sfm-match", *map(str, arguments)], 0
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with _process_state(), _redirected(1, out), _redirected(2, err):
            sys.argv = command
            try:
                main()
            except SystemExit as end:
                status = int(end.code or 0)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(command, status, out.read(), err.read())


def sfm_match_process(*arguments: Any, before: str = "") -> subprocess.CompletedProcess[str]:
    """Runs the command line in a process of its own, after some lines of Python: where it is to be killed."""
    command = [sys.executable, "-c", "import one_thread\n" + before + CALL, *map(str, arguments)]
    tests = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tests.parent), str(tests)))}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


@contextmanager
def _process_state() -> Iterator[None]:
    """Arguments, environment, working directory, OpenCV's threads and COLMAP's log."""
    import pycolmap

    arguments, environment, folder, threads = sys.argv, dict(os.environ), Path.cwd(), cv2.getNumThreads()
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = pycolmap.logging.Level.INFO.value  # as in a new process
    try:
        yield
    finally:
        sys.argv = arguments
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        cv2.setNumThreads(threads)
        pycolmap.logging.minloglevel = level
        colmap._shown = colmap._kept = False


@contextmanager
def _redirected(descriptor: int, file: IO[str]) -> Iterator[None]:
    """Sends standard output (1) or standard error (2) to a file."""
    name = {1: "stdout", 2: "stderr"}[descriptor]
    stream, kept = getattr(sys, name), os.dup(descriptor)
    stream.flush()
    os.dup2(file.fileno(), descriptor)
    setattr(sys, name, file)
    try:
        yield
    finally:
        file.flush()
        setattr(sys, name, stream)
        os.dup2(kept, descriptor)
        os.close(kept)


def stored(workspace: Path) -> dict[str, Any]:
    """Content of the feature and match files and of the database: equal content, equal dictionaries."""
    content: dict[str, Any] = {}
    for path in sorted([*workspace.glob("features/*.h5"), *workspace.glob("matches/*.h5")]):
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


def copied_job(source: Path, target: Path) -> Path:
    """A copy of a folder with `images` and the workspace `work` of them, to change. Returns the workspace."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    record = target / "work" / "images.json"
    record.write_text(record.read_text().replace(str(source), str(target)))
    return target / "work"


def accepted_database(path: Path, accepted: list[tuple[int, int]]) -> Path:
    """As much of a database as the mapper's choice needs: image i + 1 has name i; pairs of places in NAMES."""
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TABLE images (image_id INTEGER PRIMARY KEY, name TEXT)")
        connection.execute("CREATE TABLE cameras (camera_id INTEGER)")
        connection.execute("CREATE TABLE frame_data (frame_id INTEGER, data_id INTEGER)")
        connection.execute("CREATE TABLE two_view_geometries (pair_id INTEGER PRIMARY KEY, rows INTEGER)")
        connection.executemany("INSERT INTO images VALUES (?, ?)", enumerate(NAMES, 1))
        pairs = [((i + 1) * MOST_IMAGES + j + 1, 100) for i, j in accepted]
        connection.executemany("INSERT INTO two_view_geometries VALUES (?, ?)", pairs)
    connection.close()
    return path
