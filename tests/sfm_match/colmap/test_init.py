"""Where COLMAP's own log goes."""

import subprocess
import sys
from pathlib import Path

import pytest

LOGS = """
import sys
from pathlib import Path
from sfm_match.colmap import hush_colmap, keep_colmap_log, log_colmap_to

keep_colmap_log(shown={shown})
log_colmap_to(Path(sys.argv[1]))
hush_colmap()
import pycolmap
pycolmap.logging.error("of COLMAP")
"""


def said(path: Path, *, shown: bool = False) -> str:
    """What a process that lets COLMAP log shows on stderr."""
    command = [sys.executable, "-c", LOGS.format(shown=shown), str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


def test_the_log_goes_to_a_file_that_grows_and_where_asked_for_to_stderr(tmp_path: Path) -> None:
    log = tmp_path / "colmap.log"
    assert said(log) == ""
    assert "of COLMAP" in said(log, shown=True)
    assert log.read_text().count("of COLMAP") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["colmap.log"]


@pytest.mark.parametrize("there", [True, False])
def test_a_log_that_cannot_be_is_not_missed(tmp_path: Path, there: bool) -> None:
    log = tmp_path / "colmap.log" if there else tmp_path / "none" / "colmap.log"
    if there:
        log.mkdir()
    assert said(log) == ""
