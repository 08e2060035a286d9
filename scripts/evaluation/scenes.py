"""Scenes of photographs to models: registered images, and poses against the truth where there is one."""

import tempfile
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
from evaluate_poses import evaluate, read_model

import sfm_match
from evaluation.methods import Method, Nano, Sift
from sfm_match.colmap.robust_bundle_adjustment import refine_robustly
from sfm_match.errors import NothingDone


def known_intrinsics(scene: Path, scale: float = 1.0) -> str | None:
    """PINHOLE parameters for COLMAP from a scene's `K.txt`, of images shrunk by `scale`; None where there is none."""
    path = scene / "K.txt"
    if not path.exists():
        return None
    k = np.loadtxt(path) * scale
    return ",".join(str(value) for value in (k[0, 0], k[1, 1], k[0, 2], k[1, 2]))


def score_scene(scene: Path, method: Method) -> dict[str, float]:
    """Runs the whole job in a temporary folder.

    Args:
        scene: a folder with `images`, and perhaps `K.txt` (3 x 3, shared by all images) and `gt_cameras`.
        method: whose features.
    """
    params = known_intrinsics(scene)
    with tempfile.TemporaryDirectory() as place:
        start = time.perf_counter()
        if isinstance(method, Nano):
            model = _sfm_match(scene / "images", Path(place), method, params)
        else:
            model = _colmap(scene / "images", Path(place), method, params)
        seconds = round(time.perf_counter() - start, 1)
        images = sum(path.suffix.lower() in (".jpg", ".jpeg", ".png") for path in (scene / "images").iterdir())
        if model is None:
            return {"images": images, "registered": 0, "seconds": seconds}
        if (scene / "gt_cameras").is_dir():
            return {**evaluate(model, scene / "gt_cameras"), "seconds": seconds}
        poses, reconstruction = read_model(model)
        return {
            "images": images,
            "registered": len(poses),
            "points": reconstruction.num_points3D(),
            "reprojection_error_px": round(reconstruction.compute_mean_reprojection_error(), 3),
            "seconds": seconds,
        }


def _sfm_match(images: Path, place: Path, method: Nano, params: str | None) -> Path | None:
    known = {"camera_mode": "single", "camera_model": "PINHOLE", "camera_params": params} if params else {}
    options: dict[str, Any] = {"size": method.size, "max_keypoints": method.keypoints, "pairs": "exhaustive", **known}
    options["adjust_keypoints"] = method.adjust
    try:
        sfm_match.run(images, place, **options, **method.options)
    except NothingDone:
        return None
    return place / "sparse" / "0"


def _colmap(images: Path, place: Path, method: Method, params: str | None) -> Path | None:
    """COLMAP's own extraction and matching for SIFT; others' features are written to its database."""
    database = place / "database.db"
    reader = pycolmap.ImageReaderOptions()
    mode = pycolmap.CameraMode.AUTO
    if params:
        reader.camera_model, reader.camera_params, mode = "PINHOLE", params, pycolmap.CameraMode.SINGLE
    if isinstance(method, Sift):
        pycolmap.extract_features(
            database,
            images,
            camera_mode=mode,
            reader_options=reader,
            extraction_options=method.options(),
            device=pycolmap.Device.cpu,
        )
        pycolmap.match_exhaustive(database, device=pycolmap.Device.cpu)
    else:
        pycolmap.Database.open(str(database)).close()
        pycolmap.import_images(database, images, camera_mode=mode, options=reader)
        features = method.extract(images)
        opened = pycolmap.Database.open(str(database))
        ids = {image.name: image.image_id for image in opened.read_all_images()}
        for name, described in features.items():
            opened.write_keypoints(ids[name], described.keypoints)
        for a, b in combinations(sorted(features), 2):
            opened.write_matches(ids[a], ids[b], method.match(features[a], features[b]).astype(np.uint32))
        opened.close()
        pycolmap.geometric_verification(database)
    pipeline = pycolmap.IncrementalPipelineOptions()
    pipeline.ba_refine_focal_length = pipeline.ba_refine_extra_params = params is None
    pipeline.mapper.abs_pose_refine_focal_length = pipeline.mapper.abs_pose_refine_extra_params = params is None
    found = pycolmap.incremental_mapping(database, images, place / "models", options=pipeline)
    if not found:
        return None
    best = max(found.values(), key=lambda model: model.num_reg_images())
    # the same end for all, so that features are compared
    refine_robustly(best, refine_cameras=params is None).write(place)
    return place
