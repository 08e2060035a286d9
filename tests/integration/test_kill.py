"""kill -9 once in each stage, then run again: the stores equal those of an undisturbed run."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from campaign.job import UNITS
from conftest import SMALL
from evaluate_poses import pair_errors, read_model
from jobs import sfm_match, sfm_match_process, stored

CAMERA = [
    "--camera-mode",
    "single",
    "--camera-model",
    "PINHOLE",
    "--camera-params",
    "800,800,480,360",
    "--mapper-threads",
    "1",
]
REPEATABLE = ["--mapper-threads", "1"]  # in about one of ten runs, a mapper with more threads differs

AT_RENAME = """
import os, signal
replace = os.replace
def killing(source, target):
    if {suffix!r} in str(target):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = killing
"""
# Some pairs are verified, as by a verification that does not come to its end.
WHILE_VERIFYING = """
import os, signal, sfm_match.colmap.verification as v
v._AT_ONCE, write, written = 3, v._write, []
def killing(*arguments):
    write(*arguments)
    written.append(1)
    if len(written) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
v._write = killing
"""
AT_CHECKPOINT = """
import os, signal, sfm_match.colmap.queries as d
d.switch_log_off = lambda _: os.kill(os.getpid(), signal.SIGKILL)
"""
WHILE_MAPPING = """
import os, signal, pycolmap
call = pycolmap.incremental_mapping
def killing(*arguments, **options):
    options["next_image_callback"] = lambda: os.kill(os.getpid(), signal.SIGKILL)
    return call(*arguments, **options)
pycolmap.incremental_mapping = killing
"""

KILLS = {
    "extract, whole file not yet renamed": (AT_RENAME.format(suffix="features/00001.h5"), "features/00000.h5"),
    "match, whole file not yet renamed": (AT_RENAME.format(suffix="matches/00002-"), "pairs.txt"),
    "import, while verifying": (WHILE_VERIFYING, "database.db.partial"),
    "import, while adjusting": (AT_RENAME.format(suffix="aligned/00001.h5"), "database.aligned/00000.h5"),
    "import, keypoints just moved": (AT_CHECKPOINT, "database.aligned/00000.h5"),
    "import, database not yet renamed": (AT_RENAME.format(suffix="database.db"), "database.db.partial"),
    "reconstruct, while mapping": (WHILE_MAPPING, "database.db"),
    "reconstruct, model not yet renamed": (AT_RENAME.format(suffix="/sparse"), "database.db"),
}


SMALL_UNITS = "".join(f"import {name.rpartition('.')[0]}; {name} = {value}\n" for name, value in UNITS.items())


@pytest.fixture(scope="module", autouse=True)
def small_units() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in UNITS.items():
            patch.setattr(name, value)
        yield


def job(images: Path, workspace: Path) -> list[object]:
    return ["run", "--images", images, "--workspace", workspace, *SMALL, *CAMERA, *REPEATABLE]


@pytest.fixture(scope="module")
def undisturbed(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tmp_path_factory.mktemp("undisturbed")
    result = sfm_match(*job(rendered, workspace))
    assert result.returncode == 0, result.stderr
    return workspace


@pytest.mark.parametrize("where", KILLS)
def test_nothing_is_lost(where: str, rendered: Path, undisturbed: Path, tmp_path: Path) -> None:
    before, stands = KILLS[where]
    killed = sfm_match_process(*job(rendered, tmp_path), before=SMALL_UNITS + before)
    assert killed.returncode == -9, killed.stderr
    assert (tmp_path / stands).exists()
    resumed = sfm_match(*job(rendered, tmp_path))
    assert resumed.returncode == 0, resumed.stderr
    assert stored(tmp_path) == stored(undisturbed)
    assert not list(tmp_path.rglob("*.tmp-*"))
    assert not (tmp_path / "database.db.partial").exists()
    assert not (tmp_path / "database.aligned").exists()
    poses = [read_model(folder / "sparse" / "0")[0] for folder in (tmp_path, undisturbed)]
    assert len(poses[0]) == 6
    assert pair_errors(*poses).max() < 1e-4


def test_what_stood_before_the_kill_is_not_computed_again(rendered: Path, tmp_path: Path) -> None:
    kill = KILLS["extract, whole file not yet renamed"][0]
    sfm_match_process(*job(rendered, tmp_path), before=SMALL_UNITS + kill)
    resumed = sfm_match(*job(rendered, tmp_path))
    assert "extract 4 images" in resumed.stdout
    assert "2 images up to date" in resumed.stdout
