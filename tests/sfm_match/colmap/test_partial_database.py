"""The databases of components: what a mapper makes of one is what it makes of the whole database."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pycolmap

from sfm_match.colmap.components import Component, components
from sfm_match.colmap.partial_database import own_database

IMAGES, SCENES = 6, 11
Tables = dict[str, list[tuple[object, ...]]]


def places(path: Path, **settings: object) -> Path:
    """Places in one database."""
    pycolmap.set_random_seed(0)
    with pycolmap.Database.open(str(path)) as opened:
        for _ in range(SCENES):
            options = pycolmap.SyntheticDatasetOptions()
            options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 1, IMAGES
            options.num_points3D, options.prior_position = 120, True
            for name, value in settings.items():
                setattr(options, name, value)
            pycolmap.synthesize_dataset(options, opened)
    return path


def found(path: Path) -> tuple[list[Component], int]:
    """Components, and accepted pairs in all."""
    with closing(sqlite3.connect(path)) as connection:
        names = sorted(name for (name,) in connection.execute("SELECT name FROM images"))
    every = components(path, names, 3)
    return every, sum(len(one.inliers) for one in every)


def tables(path: Path) -> Tables:
    with closing(sqlite3.connect(path)) as connection:
        made = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return {name: connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall() for (name,) in made}


def test_a_component_has_all_that_is_its_own(tmp_path: Path) -> None:
    path = places(tmp_path / "all.db")
    every, pairs = found(path)
    assert len(every) == SCENES
    whole = tables(path)
    del whole["sqlite_sequence"], whole["descriptors"], whole["matches"]
    seen: Tables = {name: [] for name in whole}
    for number, component in enumerate(every):
        copy = own_database(path, tmp_path / f"{number}.db", component, pairs)
        assert copy == tmp_path / f"{number}.db"
        its = tables(copy)
        assert len(its["images"]) == len(its["keypoints"]) == len(its["frames"]) == IMAGES
        assert not its["descriptors"] and not its["matches"]
        for name, rows in seen.items():
            rows += its[name]
    assert {name: sorted(rows, key=repr) for name, rows in seen.items()} == {
        name: sorted(rows, key=repr) for name, rows in whole.items()
    }
    assert all(len(rows) >= SCENES for rows in seen.values() if rows) and seen["pose_priors"]


def test_rigs_stay_whole(tmp_path: Path) -> None:
    path = places(tmp_path / "all.db", num_cameras_per_rig=2, num_frames_per_rig=3)
    every, pairs = found(path)
    its = tables(own_database(path, tmp_path / "one.db", every[0], pairs))
    assert [len(its[name]) for name in ("rigs", "rig_sensors", "cameras", "frames", "frame_data")] == [1, 1, 2, 3, 6]


def test_a_component_with_many_of_the_pairs_has_none_of_its_own(tmp_path: Path) -> None:
    path = places(tmp_path / "all.db")
    every, _ = found(path)
    assert own_database(path, tmp_path / "one.db", every[0], 9 * len(every[0].inliers)) == path
    assert not (tmp_path / "one.db").exists()


def test_pairs_that_are_not_accepted_stay_behind(tmp_path: Path) -> None:
    path = places(tmp_path / "all.db")
    every, pairs = found(path)
    component = every[0]
    few = dict(list(component.inliers.items())[:4])
    copy = own_database(path, tmp_path / "one.db", Component(component.names, component.held, few), pairs)
    its = tables(copy)
    assert len(its["two_view_geometries"]) == 4 and len(its["images"]) == IMAGES


def test_the_mapper_makes_the_same_of_both(tmp_path: Path) -> None:
    path = places(tmp_path / "all.db")
    every, pairs = found(path)
    poses: list[dict[int, np.ndarray]] = []
    for database in (path, own_database(path, tmp_path / "one.db", every[2], pairs)):
        options = pycolmap.IncrementalPipelineOptions()
        options.image_names = every[2].names
        options.num_threads = options.mapper.num_threads = 1
        for part in (options, options.mapper, options.triangulation):
            part.random_seed = 0
        pycolmap.set_random_seed(0)
        output = tmp_path / f"models-{len(poses)}"
        output.mkdir()
        (model,) = pycolmap.incremental_mapping(str(database), str(tmp_path), str(output), options=options).values()
        assert model.num_reg_images() == IMAGES
        poses.append({number: image.cam_from_world().matrix() for number, image in model.images.items()})
    assert poses[0].keys() == poses[1].keys()
    assert all(np.array_equal(poses[0][number], poses[1][number]) for number in poses[0])
