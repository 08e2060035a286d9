"""Results are never mixed, never taken for others, and never lost to a command that is refused."""

import shutil
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import pycolmap
import pytest
from conftest import SMALL
from jobs import sfm_match as command
from jobs import sfm_match_process as process
from PIL import Image

import sfm_match
from sfm_match.commands.demo import demo
from sfm_match.commands.scene import Rectangle
from sfm_match.errors import NothingDone, UsageError
from sfm_match.images import decoders
from sfm_match.images.files import ImageError, decode
from sfm_match.store.features import read_features

TINY: dict[str, Any] = {"size": 320, "max_keypoints": 300}


@pytest.fixture
def photos(rendered: Path, tmp_path: Path) -> Path:
    """Four views, copied, so that a test can change them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for view in sorted(rendered.iterdir())[:4]:
        shutil.copy2(view, folder)
    return folder


@pytest.fixture(scope="module")
def verified(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job of four views up to its verified database, beside its photographs."""
    folder = tmp_path_factory.mktemp("verified")
    (folder / "photos").mkdir()
    for view in sorted(rendered.iterdir())[:4]:
        shutil.copy2(view, folder / "photos")
    sfm_match.run(folder / "photos", folder / "work", mapper="none", **TINY)
    return folder


def copied(job: Path, photos: Path, folder: Path) -> Path:
    """The workspace of a job, as if it had been made over `photos`."""
    work = Path(shutil.copytree(job / "work", folder / "work"))
    images = work / "images.json"
    images.write_text(images.read_text().replace(str(job / "photos"), str(photos)))
    return work


@pytest.fixture
def work(verified: Path, photos: Path, tmp_path: Path) -> Path:
    """A copy of the job up to its verified database."""
    return copied(verified, photos, tmp_path)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_import_takes_no_matches_of_other_features(work: Path, photos: Path) -> None:
    sfm_match.extract(photos, work, size=320, max_keypoints=100, overwrite=True)
    with pytest.raises(NothingDone, match="6 pairs are not matched; run `sfm-match match`"):
        sfm_match.import_(work)
    assert sfm_match.match(work).done == 6
    assert sfm_match.import_(work).done > 0
    database = pycolmap.Database.open(str(work / "database.db"))
    assert database.num_keypoints() <= 400
    database.close()


def test_import_takes_no_half_of_the_matches(work: Path) -> None:
    next((work / "matches").iterdir()).unlink()
    with pytest.raises(NothingDone, match="pairs are not matched"):
        sfm_match.import_(work)


def test_a_refused_command_changes_nothing(work: Path, photos: Path, tmp_path: Path) -> None:
    before = snapshot(work)
    (tmp_path / "masks").mkdir()
    view = sorted(photos.iterdir())[0]
    Image.new("L", (960, 720), 255).save(tmp_path / "masks" / f"{view.name}.png")
    for wrong in ({"masks": tmp_path / "masks", **TINY}, {**TINY, "size": 640}):
        with pytest.raises(UsageError, match="--overwrite"):
            sfm_match.extract(photos, work, **wrong)
    with pytest.raises(UsageError, match="camera-model"):
        sfm_match.import_(work, camera_model="FISH", overwrite=True)
    with pytest.raises(UsageError, match=r"--strategy was auto, now exhaustive"):
        sfm_match.pairs(work, strategy="exhaustive")
    assert snapshot(work) == before
    assert sfm_match.import_(work).done == 0


def test_looking_for_pairs_keeps_the_masks(photos: Path, tmp_path: Path) -> None:
    masks, work = tmp_path / "masks", tmp_path / "work"
    masks.mkdir()
    for view in photos.iterdir():
        Image.new("L", (960, 720), 255).save(masks / f"{view.name}.png")
    sfm_match.extract(photos, work, masks=str(masks), **TINY)
    sfm_match.pairs(work, photos)
    assert sfm_match.extract(photos, work, masks=masks, **TINY).done == 0


def test_a_colmap_project_that_stands_here_is_not_ours_to_replace(photos: Path, tmp_path: Path) -> None:
    work = tmp_path / "project"
    (work / "sparse" / "0").mkdir(parents=True)
    (work / "sparse" / "0" / "cameras.bin").write_bytes(b"theirs")
    (work / "matches").mkdir()
    (work / "matches" / "theirs.h5").write_bytes(b"theirs")
    (work / "trip.tmp-1").mkdir()
    pycolmap.Database.open(str(work / "database.db")).close()
    before = snapshot(work)
    with pytest.raises(UsageError, match=r"database.db: not made by sfm-match"):
        sfm_match.run(photos, work, **TINY)
    assert before.items() <= snapshot(work).items()
    (work / "database.db").unlink()
    with pytest.raises(UsageError, match=r"cameras.bin: not written by sfm-match"):
        sfm_match.run(photos, work, **TINY)
    assert (work / "sparse" / "0" / "cameras.bin").read_bytes() == b"theirs"
    assert (work / "matches" / "theirs.h5").exists()
    assert (work / "trip.tmp-1").is_dir()
    sfm_match.run(photos, work, overwrite=True, **TINY)
    assert pycolmap.Reconstruction(str(work / "sparse" / "0")).num_reg_images() == 4


def test_a_lost_collection_does_not_give_old_features_to_new_pictures(work: Path, photos: Path) -> None:
    changed = sorted(photos.iterdir())[1]
    before = read_features(work / "features" / "00000.h5")
    picture = cv2.imread(str(changed))
    assert picture is not None
    cv2.imwrite(str(changed), cv2.flip(picture, 1))
    (work / "images.json").unlink()
    reports = sfm_match.run(photos, work, mapper="none", **TINY)
    assert reports[0].done == 4
    assert reports[2].done == 3  # the pairs of the picture that changed
    after = read_features(work / "features" / "00000.h5")
    assert before[changed.name].keypoints.tolist() != after[changed.name].keypoints.tolist()


def test_pairs_changed_by_hand_are_noticed(work: Path, photos: Path) -> None:
    lines = (work / "pairs.txt").read_text().splitlines(keepends=True)
    (work / "pairs.txt").write_text("".join(lines[:2]))
    report = sfm_match.import_(work)
    assert (report.done, report.cached) == (0, 2)  # taken over
    assert sfm_match.run(photos, work, mapper="none", **TINY)[1].done == 6
    assert sfm_match.import_(work).cached == 6


def test_what_another_try_may_cure_is_tried_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = sorted(photos.iterdir())[0]

    def failing(path: Path, least: tuple[int, int] | None = None):
        if path == view:
            raise ImageError("cannot be decoded: the disk is away", lasting=False)
        return decode(path, least)

    monkeypatch.setattr(decoders, "decode", failing)
    assert sfm_match.extract(photos, tmp_path / "work", **TINY).failed == 1
    sfm_match.pairs(tmp_path / "work")
    report = sfm_match.match(tmp_path / "work")
    assert (report.done, report.facts["passed_over"]) == (3, 3)
    monkeypatch.undo()
    assert sfm_match.extract(photos, tmp_path / "work", **TINY).failed == 0
    assert (sfm_match.match(tmp_path / "work").done, view.name) == (3, view.name)


AFTER_RENAME = """
import os, signal
replace = os.replace
def killing(source, target):
    replace(source, target)
    if str(target).endswith({name!r}):
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = killing
"""


def test_given_intrinsics_survive_a_kill_right_after_the_rename(photos: Path, tmp_path: Path) -> None:
    params = "800,800,480,360"
    camera = ["--camera-mode", "single", "--camera-model", "PINHOLE", "--camera-params", params]
    options = ["run", "--images", photos, "--workspace", tmp_path / "work", *SMALL, *camera]
    assert process(*options, before=AFTER_RENAME.format(name="database.db")).returncode == -9
    sfm_match.reconstruct(tmp_path / "work")
    (model,) = pycolmap.Reconstruction(str(tmp_path / "work" / "sparse" / "0")).cameras.values()
    assert model.params.tolist() == [800, 800, 480, 360]
    with pytest.raises(UsageError, match="--camera-params was"):
        sfm_match.import_(tmp_path / "work", camera_mode="single", camera_model="PINHOLE", camera_params="700,700,1,1")


@pytest.fixture(scope="module")
def three(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole job of three views, beside its photographs."""
    folder = tmp_path_factory.mktemp("three")
    (folder / "photos").mkdir()
    for view in sorted(rendered.iterdir())[:3]:
        shutil.copy2(view, folder / "photos")
    options = ["--images", folder / "photos", "--workspace", folder / "work", *SMALL]
    assert command("run", *options).returncode == 0
    return folder


@pytest.mark.parametrize("name", ["pairs.txt", "images.json", "sfm-match.json", "failed.csv", "sparse"])
def test_killed_after_any_rename_while_older_results_stand(
    name: str, three: Path, photos: Path, tmp_path: Path
) -> None:
    work = copied(three, photos, tmp_path)
    options = ["run", "--images", photos, "--workspace", work, *SMALL]
    sorted(photos.iterdir())[3].rename(photos / "view99.jpg")
    assert process(*options, before=AFTER_RENAME.format(name=name)).returncode == -9
    result = command(*options)
    assert result.returncode == 0, result.stderr
    connection = sqlite3.connect(work / "database.db")
    assert connection.execute("SELECT COUNT(*) FROM images").fetchone() == (4,)
    connection.close()
    assert pycolmap.Reconstruction(str(work / "sparse" / "0")).num_reg_images() == 4
    assert len((work / "pairs.txt").read_text().splitlines()) == 6


def test_killed_while_the_model_changes_places(photos: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    options = ["run", "--images", photos, "--workspace", work, *SMALL]
    assert command(*options).returncode == 0
    between = "import os, signal\nfrom pathlib import Path\n"
    between += "Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
    assert process(*options, "--seed", "1", "--overwrite", before=between).returncode == -9
    assert (work / "sparse" / "0" / "points3D.bin").exists()
    assert command(*options, "--seed", "1", "--overwrite").returncode == 0
    assert not list(work.glob("*.tmp-*"))


def test_demo_with_other_views_interrupted(
    planes: list[Rectangle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfm_match.commands.demo.room", lambda: planes)
    monkeypatch.setattr("sfm_match.commands.scene._SUPERSAMPLING", 1)
    monkeypatch.setattr("sfm_match.commands.demo.run", partial(sfm_match.run, size=512, max_keypoints=1024))
    demo(tmp_path, views=5)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sfm_match.commands.demo.render", stop)
        with pytest.raises(KeyboardInterrupt):
            demo(tmp_path, views=4)
    result = demo(tmp_path, views=5)
    assert result.registered == 5
    assert result.position_worst < 50


def test_photographs_that_went_away_are_explained(work: Path, photos: Path) -> None:
    shutil.rmtree(photos)
    with pytest.raises(NothingDone, match="the images are gone"):
        sfm_match.reconstruct(work)


def test_unknown_options_name_the_nearest(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown option 'max_keypoint' \(did you mean 'max_keypoints'\?\)"):
        sfm_match.extract(photos, tmp_path / "w", max_keypoint=3)  # type: ignore[call-arg]  # misspelt on purpose
    with pytest.raises(UsageError, match=r"--strategy exhausting: accepted"):
        sfm_match.run(photos, tmp_path / "w", pairs="exhausting")
    with pytest.raises(UsageError, match=r"PINHOLE takes 4 numbers .*, found 1"):
        sfm_match.run(photos, tmp_path / "w", camera_model="PINHOLE", camera_params="3")
    assert not (tmp_path / "w" / "features").exists()


def test_models_of_the_users_own_beside_ours_are_not_replaced(work: Path) -> None:
    sfm_match.reconstruct(work)
    shutil.copytree(work / "sparse" / "0", work / "sparse" / "aligned")
    given: tuple[dict[str, Any], ...] = ({"seed": 1, "overwrite": False}, {})
    for options in given:
        with pytest.raises(UsageError, match=r"aligned/\w+.bin: not written by sfm-match|reconstruct ran with other"):
            sfm_match.reconstruct(work, **options)
    shutil.rmtree(work / "sparse" / "aligned")
    assert sfm_match.reconstruct(work).done == 0
    path = work / "sparse" / "0" / "points3D.bin"
    edited = bytearray(path.read_bytes())
    edited[20] ^= 1  # a coordinate
    path.write_bytes(edited)
    with pytest.raises(UsageError, match=r"points3D.bin: not written by sfm-match"):
        sfm_match.reconstruct(work)
    assert path.read_bytes() == edited


def test_a_model_that_went_away_is_made_again(work: Path) -> None:
    sfm_match.reconstruct(work)
    shutil.rmtree(work / "sparse" / "0")
    assert sfm_match.reconstruct(work).done == 4
    assert (work / "sparse" / "0" / "cameras.bin").exists()


def test_mapping_of_ones_own_does_not_stop_a_run_without_mapper(work: Path, photos: Path) -> None:
    (work / "sparse" / "0").mkdir(parents=True)
    (work / "sparse" / "0" / "cameras.bin").write_bytes(b"theirs")
    assert sfm_match.run(photos, work, mapper="none", **TINY)[-1].stage == "import"


def test_killed_before_the_write_ahead_log_is_in_the_database(photos: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    options = ["run", "--images", photos, "--workspace", work, *SMALL, "--no-verify", "--mapper", "none"]
    kill = "import os, signal\nimport sfm_match.colmap.queries as d\n"
    kill += "d.switch_log_off = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
    assert process(*options, before=kill).returncode == -9
    assert command(*options).returncode == 0
    assert "nothing to do" in command(*options).stdout.splitlines()[3]
    assert sorted(p.name for p in work.glob("database.db*")) == ["database.db"]


def test_one_damaged_image_of_another_size_does_not_stop_a_single_camera(photos: Path, tmp_path: Path) -> None:
    Image.effect_noise((640, 480), 90).save(photos / "broken.jpg")
    (photos / "broken.jpg").write_bytes((photos / "broken.jpg").read_bytes()[:9000])
    reports = sfm_match.run(photos, tmp_path / "work", camera_mode="single", mapper="none", **TINY)
    assert reports[0].failed == 1
    assert reports[-1].facts["images"] == 4


def test_pairs_said_twice_or_backwards_or_of_one_image(work: Path) -> None:
    lines = (work / "pairs.txt").read_text().splitlines()
    first, second = lines[0].split("\t")
    (work / "pairs.txt").write_text("\n".join([*lines, lines[0], f"{second}\t{first}", f"{first}\t{first}"]) + "\n")
    assert sfm_match.match(work).done == 0
    report = sfm_match.import_(work)
    assert (report.done, report.cached) == (0, 6)
    (work / "pairs.txt").write_text("")
    with pytest.raises(NothingDone, match="no pair in it"):
        sfm_match.import_(work)


def test_a_refused_device_leaves_no_trace(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--device cuda"):
        sfm_match.extract(photos, tmp_path / "work", device="cuda", **TINY)
    assert not (tmp_path / "work" / "sfm-match.json").exists()


def test_run_refuses_before_it_begins(work: Path, photos: Path, tmp_path: Path) -> None:
    shutil.copy(sorted(photos.iterdir())[0], photos / "another.jpg")
    (tmp_path / "list.txt").write_text("nobody.jpg view04.jpg\n")
    wrong: tuple[dict[str, Any], ...] = (
        {"camera_mode": "per-image"},
        {"seed": 3, "mapper": "incremental"},
        {"pairs": "list", "match_list_path": tmp_path / "list.txt", "overwrite": True},
        {"match_threshold": 0.5},
    )
    sfm_match.reconstruct(work)
    for options in wrong:
        with pytest.raises(UsageError):
            sfm_match.run(photos, work, **{"mapper": "none", **TINY, **options})
        assert len(list((work / "features").iterdir())) == 1


def test_the_demo_does_not_enter_another_job(work: Path) -> None:
    with pytest.raises(UsageError, match="holds another job"):
        demo(work, views=4)
    assert not (work / "images").exists()
