"""pycolmap's synthetic scene as features and matches in our store: import and mapping must find its cameras."""

from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image

from sfm_match import import_, reconstruct
from sfm_match.errors import UsageError
from sfm_match.images.collection import refresh_collection
from sfm_match.job.workspace import Workspace
from sfm_match.stages.state import scan_features
from sfm_match.store.features import Features, UnitResult, write_unit
from sfm_match.store.matches import Matches, PairBlock, write_block
from sfm_match.store.shard import fingerprint, write_text

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


def test_keypoints_and_matches_arrive_unchanged(synthetic: tuple[Path, pycolmap.Reconstruction, str]) -> None:
    work, _, _ = synthetic
    import_(work, verify=False, camera_mode="per-image", overwrite=True)
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


def test_wrong_cameras_are_refused(synthetic: tuple[Path, pycolmap.Reconstruction, str]) -> None:
    work, _, _ = synthetic
    with pytest.raises(UsageError, match=r"--camera-model PINHOL: accepted are .*PINHOLE"):
        import_(work, camera_model="PINHOL", overwrite=True)
    with pytest.raises(UsageError, match=r"PINHOLE takes 4 numbers .*, found 2"):
        import_(work, camera_model="PINHOLE", camera_params="1,2", overwrite=True)
