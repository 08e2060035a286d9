"""Poses of photographs in a finished workspace, against the cameras that they were rendered with."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest
from evaluate_localization import errors, pose_of
from evaluate_poses import Pose, read_model
from jobs import sfm_match as command
from PIL import Image

import sfm_match
from sfm_match.commands import localizer
from sfm_match.commands.scene import HEIGHT, WIDTH, Rectangle, View, cameras, intrinsics, render
from sfm_match.errors import NothingDone, UsageError
from sfm_match.options.keywords import LocalizeKeywords
from sfm_match.store.records import sealed

NEW = {"between.jpg": cameras(31)[13], "further.jpg": cameras(16)[10]}  # between two views; beside the last one
ROOT = Path(__file__).parents[3]
TRUTH = {view.name: (view.rotation, view.centre) for view in cameras(16)[4:10]}


@pytest.fixture(scope="module")
def queries(planes: list[Rectangle], shared: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """A folder of views from cameras that are not in the model."""

    def make(folder: Path) -> None:
        for name, view in NEW.items():
            cv2.imwrite(str(folder / name), render(view, planes)[..., ::-1])

    return shared("queries", make)


def truth_of(view: View) -> Pose:
    return view.rotation, view.centre


def check(pose: Pose, real: Pose, work: Path) -> None:
    """At 320 px, with 400 keypoints, of which processors find others: 2 to 5.5 mm were seen."""
    degrees, millimetres = errors(pose, real, read_model(work / "sparse" / "0")[0], TRUTH)
    assert degrees < 0.05
    assert millimetres < 8


def test_views_of_new_cameras(finished: Path, queries: Path, tmp_path: Path) -> None:
    out = tmp_path / "poses.json"
    results = sfm_match.localize([queries, queries / "further.jpg"], finished, out)
    assert [one.name for one in results] == sorted(NEW)
    for one in results:
        assert one.localized
        check(pose_of(one), truth_of(NEW[one.name]), finished)
        assert one.camera is not None
        assert (one.camera.source, one.camera.width, one.camera.height) == ("model", WIDTH, HEIGHT)
        assert one.error_px is not None
        assert 0 < one.error_px < 3  # a pixel of the network
        assert 100 < one.inliers <= one.correspondences <= one.keypoints == 400
        assert set(one.images) <= set(TRUTH)
    stored = json.loads(out.read_text(encoding="utf-8"))
    assert stored["model"] == str(finished / "sparse" / "0")
    assert stored["queries"] == json.loads(json.dumps([one.as_json() for one in results]))


def test_hloc_lines(finished: Path, queries: Path, tmp_path: Path) -> None:
    """As hloc's readers split them: a name, the quaternion w x y z, the translation."""
    out = tmp_path / "poses.txt"
    done = command("localize", queries, "--workspace", finished, "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == sorted(NEW)
    for line, name in zip(out.read_text(encoding="utf-8").splitlines(), sorted(NEW), strict=True):
        stored, *values = line.split()
        assert stored == name
        w, x, y, z, *t = map(float, values)
        rotation = np.asarray(pycolmap.Rotation3d(np.array([x, y, z, w])).matrix())
        check((rotation, -rotation.T @ np.array(t)), truth_of(NEW[name]), finished)
    again = command("localize", queries, "--workspace", finished, "--out", out)
    assert (again.returncode, "add --overwrite" in again.stderr) == (2, True)


def test_json_of_the_command(finished: Path, queries: Path, tmp_path: Path) -> None:
    """One is localized, the other is no picture: status 1, and an object each."""
    text = tmp_path / "notes.jpg"
    text.write_text("no picture")
    done = command("localize", queries / "between.jpg", text, "--workspace", finished, "--json")
    assert (done.returncode, done.stderr) == (1, "")
    found = {Path(one["name"]).name: one for one in map(json.loads, done.stdout.splitlines())}
    assert found["notes.jpg"]["reason"] == "not an image: no known format"
    assert [found[name]["localized"] for name in ("between.jpg", "notes.jpg")] == [True, False]
    assert (found["notes.jpg"]["qvec"], len(found["between.jpg"]["qvec"])) == (None, 4)


def test_poses_are_of_raw_pixels(finished: Path, queries: Path, tmp_path: Path) -> None:
    """A photograph that EXIF turns upright: its camera lies on its side, and has another size than the model's."""
    lying = tmp_path / "lying.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    upright = Image.open(queries / "between.jpg")
    upright.transpose(Image.Transpose.ROTATE_90).save(lying, quality=95, exif=exif)
    view = NEW["between.jpg"]
    counterclockwise = np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1.0]])  # x to the right, y down
    focal, *_ = intrinsics()[0]
    params = [focal, HEIGHT / 2, WIDTH / 2]
    (given,) = sfm_match.localize(lying, finished, camera_model="SIMPLE_PINHOLE", camera_params=params)
    check(pose_of(given), (counterclockwise @ view.rotation, view.centre), finished)
    assert given.camera is not None
    assert (given.camera.source, list(given.camera.params)) == ("given", params)
    (estimated,) = sfm_match.localize(lying, finished)
    assert estimated.camera is not None
    assert (estimated.camera.source, estimated.camera.model) == ("estimated", "SIMPLE_RADIAL")
    assert estimated.camera.params[0] == pytest.approx(focal, rel=0.005)


@pytest.mark.parametrize("options", [{"num_images": 2}, {}])
def test_only_images_that_look_alike(
    options: LocalizeKeywords, finished: Path, queries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new camera is between those of view06 and view07."""
    monkeypatch.setattr(localizer, "ALL_UP_TO", 5)  # images of a small model
    monkeypatch.setattr(localizer, "NUM_IMAGES", 2)
    (found,) = sfm_match.localize(queries / "between.jpg", finished, **options)
    assert set(found.images) == {"view06.jpg", "view07.jpg"}
    check(pose_of(found), truth_of(NEW["between.jpg"]), finished)


def test_patches_make_it_more_exact(finished: Path, queries: Path) -> None:
    def reprojection(adjust: bool) -> float:
        return float(np.mean([o.error_px for o in sfm_match.localize(queries, finished, adjust_keypoints=adjust)]))

    assert reprojection(True) < 0.6 * reprojection(False)


def test_matches_that_no_camera_sees(finished: Path, queries: Path, tmp_path: Path) -> None:
    """Of a view cut to small pieces that lie anywhere, many keypoints match, but in no common geometry."""
    picture = cv2.imread(str(queries / "between.jpg"))
    assert picture is not None
    pieces = [piece for row in np.split(picture, 12) for piece in np.split(row, 16, axis=1)]
    order = np.random.default_rng(0).permutation(len(pieces))
    rows = [np.hstack([pieces[place] for place in part]) for part in np.split(order, 12)]
    cv2.imwrite(str(tmp_path / "pieces.png"), np.vstack(rows))
    cv2.imwrite(str(tmp_path / "flat.png"), np.full_like(picture, 128))
    flat, mixed = sfm_match.localize(tmp_path, finished)
    assert (flat.localized, mixed.localized) == (False, False)
    assert mixed.correspondences > 100
    assert mixed.reason.endswith("keypoints that match points of the model agree on a pose, it needs 30")
    done = command("localize", tmp_path / "pieces.png", "--workspace", finished, "--out", tmp_path / "poses.txt")
    assert done.returncode == 3
    assert done.stderr == f"sfm-match: {finished}: no query is localized, of 1\n"
    assert (tmp_path / "poses.txt").read_text() == ""


@pytest.mark.scenes
def test_strangers(finished: Path, scenes: Path) -> None:
    files = sorted((scenes.parent / "train" / "bsds500").iterdir())[::50]
    assert len(files) == 10
    assert not any(one.localized for one in sfm_match.localize(files, finished))


def test_a_model_of_other_features(workspace: Path, rendered: Path, queries: Path) -> None:
    sfm_match.extract(rendered, workspace, size=300, max_keypoints=400, overwrite=True)
    with pytest.raises(NothingDone, match=r"view04\.jpg: the model was made of other features .*; run `sfm-match run`"):
        sfm_match.localize(queries / "between.jpg", workspace)


def test_features_that_this_program_does_not_make(workspace: Path, queries: Path) -> None:
    record = json.loads((workspace / "sfm-match.json").read_text())
    record["extract"]["descriptor"] = "of an earlier version"
    (workspace / "sfm-match.json").write_text(json.dumps(sealed(record)))
    with pytest.raises(UsageError, match="queries cannot be described as the workspace's images were: descriptor was"):
        sfm_match.localize(queries / "between.jpg", workspace)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["absent.jpg"], 2, "absent.jpg: no such file or folder"),
        (["."], 3, ".: no image in it"),
        (["x.jpg", "--workspace", "nowhere"], 3, "nowhere: no such workspace; run `sfm-match run --images DIR` first"),
        (["x.jpg", "--out", "poses.csv"], 2, "--out poses.csv: accepted are names that end in .json, or in .txt"),
        (["x.jpg", "--out", "no/poses.json"], 2, "--out no/poses.json: no such folder as no"),
        (["a b.jpg", "--out", "poses.txt"], 2, "hloc's lines hold no names with spaces, as 'a b.jpg'"),
        (["x.jpg", "--num-images", "0"], 2, "--num-images 0: must be at least 1"),
        (["x.jpg", "--camera-model", "PINHOL"], 2, "--camera-model PINHOL: accepted are"),
        (["x.jpg", "--camera-params", "1,2"], 2, "--camera-params: SIMPLE_RADIAL takes 4 numbers"),
        (["x.jpg", "--camera-params", "1,2,c,d"], 2, "--camera-params 1,2,c,d: must be numbers"),
        (["x.jpg", "--device", "abacus"], 2, "--device abacus: "),
    ],
)
def test_errors(
    arguments: list[str], status: int, message: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in arguments[:1] if arguments[0].endswith(" b.jpg") or arguments[0] == "x.jpg" else ():
        Path(name).touch()
    given = arguments if "--workspace" in arguments else [*arguments, "--workspace", str(finished)]
    done = command("localize", *given)
    assert done.returncode == status
    assert done.stderr.startswith("sfm-match: ")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_no_model_yet(rendered: Path, tmp_path: Path) -> None:
    sfm_match.extract(rendered, tmp_path, size=320, max_keypoints=64)
    with pytest.raises(NothingDone, match="no model yet; run `sfm-match reconstruct` first"):
        sfm_match.localize(rendered / "view05.jpg", tmp_path)


def test_recipe(finished: Path, queries: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command lines of docs/recipes.md, in a folder with such a workspace and new photographs."""
    section = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8").split("## Where a photograph was taken")[1]
    lines = re.findall(r"^    (sfm-match .+)$", section.split("\n## ")[0], flags=re.MULTILINE)
    assert len(lines) == 3
    (tmp_path / "workspace").symlink_to(finished)
    (tmp_path / "new").symlink_to(queries)
    monkeypatch.chdir(tmp_path)
    for line in lines:
        done = command(*shlex.split(line, comments=True)[1:])
        assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", len(NEW))
    assert len((tmp_path / "poses.txt").read_text().splitlines()) == len(NEW)
    assert "camera as given" in done.stdout


def test_two_queries_of_one_name(finished: Path, queries: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "between.jpg").write_bytes((queries / "between.jpg").read_bytes())
    with pytest.raises(UsageError, match=r"two queries of the name between\.jpg"):
        sfm_match.localize([queries, other], finished)
