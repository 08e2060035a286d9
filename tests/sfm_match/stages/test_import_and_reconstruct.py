"""pycolmap's synthetic scene as features and matches in our store: import and mapping must find its cameras."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image

from sfm_match import import_, reconstruct
from sfm_match import open as open_results
from sfm_match.colmap.mapper import map_components
from sfm_match.colmap.queries import DamagedDatabase
from sfm_match.errors import SfmMatchError, UsageError
from sfm_match.images.collection import refresh_collection
from sfm_match.images.files import Header
from sfm_match.job.progress import Clock
from sfm_match.job.workspace import Workspace
from sfm_match.options.stages import ReconstructOptions
from sfm_match.stages.state import scan_features
from sfm_match.store.features import Features, UnitResult, write_unit
from sfm_match.store.matches import Matches, PairBlock, write_block
from sfm_match.store.shard import fingerprint, sha256_of, write_text

EXTRACT, MATCH = {"model": "synthetic", "size": 1024}, {"threshold": 0.1}


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pycolmap.Reconstruction, str]:
    """A workspace whose features and matches come from a synthetic reconstruction, and its camera parameters."""
    folder = tmp_path_factory.mktemp("synthetic")
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 1, 12
    options.num_points3D = 300
    truth_database = pycolmap.Database.open(str(folder / "truth.db"))
    truth = pycolmap.synthesize_dataset(options, truth_database)
    noise = pycolmap.SyntheticNoiseOptions()
    noise.point2D_stddev = 0.5
    pycolmap.synthesize_noise(noise, truth, truth_database)
    images = {image.name: image for image in truth.images.values()}
    camera = next(iter(truth.cameras.values()))
    for name in images:
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (camera.width, camera.height)).save(path)

    work = folder / "work"
    with Workspace(work) as place:
        collection = refresh_collection(place, folder / "images", None)
        collection.save(place)
        place.write_record("extract", EXTRACT)
        place.write_record("match", MATCH)
        signatures = {name: record.signature for name, record in collection.records.items()}
        features = {}
        for name in sorted(images):
            keypoints = truth_database.read_keypoints(images[name].image_id)[:, :2].astype(np.float32)
            count = len(keypoints)
            features[name] = Features(keypoints, np.ones(count, np.float32), np.zeros((count, 4), np.float16))
        write_unit(place.features / "00000.h5", UnitResult(features, {}, signatures), fingerprint(EXTRACT), 4)
        names = sorted(images)
        pairs = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]
        matches = []
        for i, j in pairs:
            indices = truth_database.read_matches(images[names[i]].image_id, images[names[j]].image_id)
            matches.append(Matches(indices.astype(np.uint32).reshape(-1, 2), np.ones(len(indices), np.float16)))
        matched = fingerprint([MATCH, fingerprint(EXTRACT)])
        tile = PairBlock(matched, signatures, np.array(pairs, np.int32), matches)
        write_block(place.matches / "00000-00000-abc.h5", tile)
        write_text(place.pairs, "".join(f"{names[i]}\t{names[j]}\n" for i, j in pairs))
        assert not scan_features(place, collection, EXTRACT).open_units
    truth_database.close()
    return work, truth, ",".join(map(str, camera.params))


@pytest.mark.parametrize("mapper", ["incremental", "global"])
def test_finds_the_cameras(synthetic: tuple[Path, pycolmap.Reconstruction, str], mapper: str) -> None:
    work, truth, params = synthetic
    model = next(iter(truth.cameras.values())).model.name
    report = import_(work, camera_mode="single", camera_model=model, camera_params=params, overwrite=True)
    assert report.facts["verified"] == 66
    report = reconstruct(work, mapper=mapper, overwrite=True)
    assert report.facts["registered"] == 12
    found = pycolmap.Reconstruction(str(work / "sparse" / "0"))
    aligned = pycolmap.compare_reconstructions(found, truth, alignment_error="proj_center")
    assert aligned is not None
    assert max(error.rotation_error_deg for error in aligned["errors"]) < 0.2
    assert max(error.proj_center_error for error in aligned["errors"]) < 0.02
    # one camera, one trivial rig, a frame an image: what COLMAP 4 expects of a database
    database = pycolmap.Database.open(str(work / "database.db"))
    counts = database.num_cameras(), database.num_rigs(), database.num_frames(), database.num_images()
    database.close()
    assert counts == (1, 1, 12, 12)


def test_keypoints_and_matches_arrive_unchanged(
    synthetic: tuple[Path, pycolmap.Reconstruction, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, _, _ = synthetic
    told: list[Path] = []
    monkeypatch.setattr("sfm_match.stages.import_.verification_work", lambda path, *_: told.append(path))
    import_(work, verify=False, camera_mode="per-image", overwrite=True)
    assert not told  # all pairs cost alike: no match is read beforehand
    ours = pycolmap.Database.open(str(work / "database.db"))
    truth = pycolmap.Database.open(str(work.parent / "truth.db"))
    by_name = {image.name: image.image_id for image in truth.read_all_images()}
    ids = {image.name: image.image_id for image in ours.read_all_images()}
    assert ids.keys() == by_name.keys()
    for name, image_id in ids.items():
        np.testing.assert_array_equal(ours.read_keypoints(image_id), truth.read_keypoints(by_name[name])[:, :2])
    first, second = sorted(ids)[:2]
    np.testing.assert_array_equal(
        ours.read_matches(ids[first], ids[second]), truth.read_matches(by_name[first], by_name[second])
    )
    assert ours.num_verified_image_pairs() == 0
    ours.close()
    truth.close()


def truth_at_half_size(truth: pycolmap.Reconstruction, folder: Path) -> Path:
    """The true model as somebody else might have it: other ids, no points, cameras of images half as large."""
    model, (camera,) = pycolmap.Reconstruction(), truth.cameras.values()
    small = pycolmap.Camera(**camera.todict())
    small.camera_id = 7
    small.rescale(0.5)
    model.add_camera_with_trivial_rig(small)
    for number, image in enumerate(sorted(truth.images.values(), key=lambda one: one.name, reverse=True)):
        if number:  # one image has no pose
            posed = pycolmap.Image(name=image.name, camera_id=7, image_id=100 + number)
            model.add_image_with_trivial_frame(posed, image.cam_from_world())
    folder.mkdir()
    model.write(str(folder))
    return folder


def test_known_poses_stay_and_points_are_triangulated(
    synthetic: tuple[Path, pycolmap.Reconstruction, str], tmp_path: Path
) -> None:
    work, truth, _ = synthetic
    known = truth_at_half_size(truth, tmp_path / "known")
    import_(work, camera_mode="single", overwrite=True)
    report = reconstruct(work, known_poses=known, overwrite=True)
    assert (report.facts["registered"], report.facts["unregistered"]) == (11, {"no known pose": 1})
    assert reconstruct(work, known_poses=known).cached == 11
    found, ((_, camera),) = pycolmap.Reconstruction(str(work / "sparse" / "0")), truth.cameras.items()
    assert found.num_points3D() > 250
    assert found.compute_mean_reprojection_error() < 1
    np.testing.assert_allclose(next(iter(found.cameras.values())).params, camera.params)
    true = {image.name: image.cam_from_world().matrix() for image in truth.images.values()}
    for image in found.images.values():
        if image.has_pose:
            np.testing.assert_allclose(image.cam_from_world().matrix(), true[image.name], atol=1e-12)


def test_known_poses_of_other_images_are_refused(
    synthetic: tuple[Path, pycolmap.Reconstruction, str], tmp_path: Path
) -> None:
    work, truth, _ = synthetic
    import_(work, camera_mode="single", overwrite=True)
    with pytest.raises(UsageError, match=r"--known-poses .*: no COLMAP model to be read there"):
        reconstruct(work, known_poses=tmp_path, overwrite=True)
    other = pycolmap.Reconstruction(truth)
    for image in other.images.values():
        image.name = f"other-{image.name}"
    (tmp_path / "other").mkdir()
    other.write(str(tmp_path / "other"))
    with pytest.raises(UsageError, match="not one of its 12 images has the name of one in the database"):
        reconstruct(work, known_poses=tmp_path / "other", overwrite=True)
    wide = pycolmap.Reconstruction(truth)
    next(iter(wide.cameras.values())).width *= 2
    (tmp_path / "wide").mkdir()
    wide.write(str(tmp_path / "wide"))
    with pytest.raises(UsageError, match="has 1024 x 768 pixels, its camera there 2048 x 768: must be the same shape"):
        reconstruct(work, known_poses=tmp_path / "wide", overwrite=True)


def test_an_edited_database_is_noticed(synthetic: tuple[Path, pycolmap.Reconstruction, str]) -> None:
    work, truth, params = synthetic
    model = next(iter(truth.cameras.values())).model.name
    cameras = {"camera_mode": "single", "camera_model": model, "camera_params": params}
    import_(work, **cameras, overwrite=True)
    first = reconstruct(work, overwrite=True)
    assert not first.facts["database_changed"]
    assert reconstruct(work).cached == 12  # the mapper itself changes nothing
    database = pycolmap.Database.open(str(work / "database.db"))
    (camera,) = database.read_all_cameras()
    camera.params = [value * 1.1 for value in camera.params]
    database.update_camera(camera)
    database.close()
    again = reconstruct(work)
    assert again.done == 12
    assert "database.db was changed since import" in again.detail
    assert again.facts["database_changed"]
    assert reconstruct(work).cached == 12
    kept = import_(work, **cameras)
    assert kept.cached
    assert "stays so until --overwrite" in kept.detail
    assert import_(work, **cameras, overwrite=True).done == 66
    assert not reconstruct(work).facts["database_changed"]


def test_a_damaged_database_is_moved_aside_and_built_again(
    synthetic: tuple[Path, pycolmap.Reconstruction, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    work = Path(shutil.copytree(synthetic[0], tmp_path / "work"))
    import_(work, camera_mode="single", overwrite=True)
    whole = (work / "database.db").read_bytes()
    with closing(sqlite3.connect(work / "database.db")) as connection, connection:
        connection.execute("UPDATE keypoints SET data = zeroblob(8)")
    with pytest.raises(DamagedDatabase, match=r"database\.db: damaged \(.*\); run `sfm-match import`"):
        reconstruct(work, overwrite=True)
    assert import_(work, camera_mode="single").done == 66
    assert (work / "database.db.damaged").exists()
    assert "moved to database.db.damaged and built again" in caplog.text
    (work / "database.db").write_bytes(whole[: len(whole) // 2])
    assert import_(work, camera_mode="single").done == 66
    assert (work / "database.db.damaged-2").stat().st_size == len(whole) // 2


def test_photographs_that_changed_since_extract_are_named(
    synthetic: tuple[Path, pycolmap.Reconstruction, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    work = Path(shutil.copytree(synthetic[0], tmp_path / "work"))
    images = Path(shutil.copytree(synthetic[0].parent / "images", tmp_path / "images"))
    record = json.loads((work / "images.json").read_text())
    record |= {"folder": str(images), "source": str(images)}
    (work / "images.json").write_text(json.dumps(record))
    import_(work, camera_mode="single", overwrite=True)
    assert "changed since" not in caplog.text
    first, second, *_ = sorted(images.iterdir())
    first.write_bytes(second.read_bytes() + b"\0")
    second.unlink()
    import_(work, camera_mode="single", overwrite=True)
    assert f"{first.name} and 1 more changed since their features were made (1 deleted)" in caplog.text


def test_the_mapper_leaves_one_file(synthetic: tuple[Path, pycolmap.Reconstruction, str], tmp_path: Path) -> None:
    work = Path(shutil.copytree(synthetic[0], tmp_path / "work"))
    import_(work, camera_mode="single", overwrite=True)
    reconstruct(work, overwrite=True)
    assert [path.name for path in work.glob("database*")] == ["database.db"]
    assert (work / "database.db").read_bytes()[18:20] == b"\1\1"  # no write-ahead log: read-only media can be read


def test_damaged_models_are_mapped_again_and_edited_ones_stay(
    synthetic: tuple[Path, pycolmap.Reconstruction, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    work = Path(shutil.copytree(synthetic[0], tmp_path / "work"))
    import_(work, camera_mode="single", overwrite=True)
    reconstruct(work, overwrite=True)
    points, record = work / "sparse" / "0" / "points3D.bin", work / "sparse" / "sfm-match.json"
    whole, written = points.read_bytes(), record.read_text()
    assert json.loads(written)["files"]["0/points3D.bin"] == sha256_of(points)
    for damaged, content in ((points, whole[:-1]), (points, b"edited"), (record, written.replace("12", "13", 1))):
        damaged.write_bytes(content if isinstance(content, bytes) else content.encode())
        assert reconstruct(work).done == 12
        assert points.read_bytes() == whole
    assert len(list(work.glob("sparse.damaged*"))) == 3
    assert caplog.text.count("mapped again") == 3
    points.write_bytes(whole[:20] + bytes([whole[20] ^ 1]) + whole[21:])  # a coordinate
    caplog.clear()
    with pytest.raises(UsageError, match=r"points3D.bin: not written by sfm-match"):
        reconstruct(work)
    assert open_results(work).model.num_points3D() > 250
    assert "points3D.bin: not as `sfm-match reconstruct` wrote it; taken as it is" in caplog.text
    points.write_bytes(whole[:-1])
    with pytest.raises(SfmMatchError, match=r"no COLMAP model to be read there \(points3D.bin is damaged\)"):
        _ = open_results(work).model


@pytest.mark.parametrize("wrong", [0.2, 2.0, 4.0])
def test_one_wrong_focal_length_in_exif_is_left_out(
    wrong: float, synthetic: tuple[Path, pycolmap.Reconstruction, str], tmp_path: Path
) -> None:
    work = Path(shutil.copytree(synthetic[0], tmp_path / "work"))
    import_(work, camera_mode="per-image", overwrite=True)
    database = pycolmap.Database.open(str(work / "database.db"))
    true = next(iter(synthetic[1].cameras.values())).mean_focal_length()
    names = {image.camera_id: image.name for image in database.read_all_images()}
    headers = {}
    for camera in database.read_all_cameras():
        focal = true * (wrong if camera.camera_id == 3 else 1.0)
        camera.params, camera.has_prior_focal_length = [focal, *camera.params[1:]], True
        database.update_camera(camera)
        headers[names[camera.camera_id]] = Header(camera.width, camera.height, focal=focal)
    database.close()
    (tmp_path / "out").mkdir()
    options = ReconstructOptions(mapper_threads=1)
    mapped = map_components(
        work / "database.db", synthetic[0].parent / "images", headers, options, tmp_path / "out", Clock()
    )
    (model,) = mapped.models
    assert model.num_reg_images() == 12
    assert list(mapped.contradicted) == [names[3]]
    focals = [camera.mean_focal_length() / true for camera in model.cameras.values()]
    np.testing.assert_allclose(focals, 1.0, atol=0.05)


def test_overwrite_always_computes(synthetic: tuple[Path, pycolmap.Reconstruction, str]) -> None:
    work, _, _ = synthetic
    for _ in range(2):
        assert import_(work, camera_mode="single", overwrite=True).done == 66
        assert reconstruct(work, overwrite=True).done == 12


def test_wrong_cameras_are_refused(synthetic: tuple[Path, pycolmap.Reconstruction, str]) -> None:
    work, _, _ = synthetic
    with pytest.raises(UsageError, match=r"--camera-model PINHOL: accepted are .*PINHOLE"):
        import_(work, camera_model="PINHOL", overwrite=True)
    with pytest.raises(UsageError, match=r"PINHOLE takes 4 numbers .*, found 2"):
        import_(work, camera_model="PINHOLE", camera_params="1,2", overwrite=True)
