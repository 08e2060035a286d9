"""How well `sfm-match localize` places photographs: each image of a scene against the model of the others.

    python scripts/evaluate_localization.py DATA/scenes/fountain-P11 --strangers DATA/train/bsds500

A scene is a folder with `images`, and perhaps `K.txt` and `gt_cameras` (Strecha et al., CVPR 2008). With the truth, the
model is brought to it by its own cameras alone: centres by a similarity, rotations by the mean of theirs. Of strangers,
40 pictures are asked for in the scene's last model; none of them should be localized.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from evaluate_poses import Floats, Pose, read_camera, read_model, rotation_angle
from evaluation.scenes import known_intrinsics

import sfm_match
from sfm_match.colmap.similarity import align
from sfm_match.commands.localize import Localization
from sfm_match.images.files import SUFFIXES

STRANGERS = 40


def pose_of(found: Localization) -> Pose:
    """Rotation camera_from_world (3, 3) and centre (3,) of a query that is localized."""
    if found.qvec is None or found.tvec is None:
        raise ValueError(f"{found.name} is not localized")
    w, x, y, z = found.qvec
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation = np.eye(3) + 2 * w * cross + 2 * cross @ cross
    return rotation, -rotation.T @ np.array(found.tvec)


def errors(query: Pose, real: Pose, model: dict[str, Pose], truth: dict[str, Pose]) -> tuple[float, float]:
    """Degrees of the rotation and thousandths of the truth's unit of the centre, in the truth's frame.

    Args:
        query, real: of the query, in the world of the model and of the truth.
        model, truth: of the images of the model, three at least.
    """
    names = sorted(model.keys() & truth.keys())
    moved = align(*(np.array([poses[name][1] for name in names]) for poses in (model, truth)))
    u, _, vt = np.linalg.svd(sum((truth[name][0].T @ model[name][0] for name in names), np.zeros((3, 3))))
    from_model: Floats = u @ np.diag((1, 1, np.linalg.det(u @ vt))) @ vt  # the rotation nearest to the mean
    centre = float(np.linalg.norm(moved.apply(query[1][None])[0] - real[1]))
    return rotation_angle(query[0] @ from_model.T, real[0]), 1000 * centre


def evaluate(scene: Path, strangers: Path | None) -> dict[str, Any]:
    """Figures of a scene; what is found of each image is printed as it comes."""
    photographs = sorted(path for path in (scene / "images").iterdir() if path.suffix.lower() in SUFFIXES)
    cameras = sorted((scene / "gt_cameras").glob("*.camera"))
    truth = {path.name.removesuffix(".camera"): read_camera(path) for path in cameras}
    params = known_intrinsics(scene)
    known: dict[str, Any] = {"camera_mode": "single", "camera_model": "PINHOLE", "camera_params": params}
    localized, placed, among = 0, [], ""
    for left_out in photographs:
        with tempfile.TemporaryDirectory() as place:
            images, work = Path(place, "images"), Path(place, "work")
            images.mkdir()
            for path in photographs:
                if path != left_out:
                    (images / path.name).symlink_to(path.resolve())
            sfm_match.run(images, work, pairs="exhaustive", **(known if params else {}))
            (found,) = sfm_match.localize(left_out, work)
            localized += found.localized
            shown = ""
            if found.localized and truth:
                model, _ = read_model(work / "sparse" / "0")
                placed.append(errors(pose_of(found), truth[left_out.name], model, truth))
                shown = f"; {placed[-1][0]:.4f} degrees, {placed[-1][1]:.2f} mm"
            print(f"{found.line()}{shown}", flush=True)
            if strangers is not None and left_out == photographs[-1]:
                among = f"{_localized_strangers(strangers, work)} of {STRANGERS}"
    degrees, millimetres = np.array(placed or [(np.nan, np.nan)]).T
    return {
        "scene": scene.name,
        "images": len(photographs),
        "localized": localized,
        "rotation_error_deg": {"median": _rounded(np.median(degrees)), "worst": _rounded(degrees.max())},
        "centre_error_mm": {"median": _rounded(np.median(millimetres)), "worst": _rounded(millimetres.max())},
        "strangers_localized": among,
    }


def _localized_strangers(folder: Path, work: Path) -> int:
    every = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    return sum(one.localized for one in sfm_match.localize(every[:: len(every) // STRANGERS][:STRANGERS], work))


def _rounded(value: np.floating[Any]) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path, nargs="+", metavar="SCENE", help="a folder with `images`")
    parser.add_argument("--strangers", type=Path, help="folder of pictures that have nothing to do with the scenes")
    options = parser.parse_args()
    for scene in options.scenes:
        print(json.dumps(evaluate(scene, options.strangers)), flush=True)


if __name__ == "__main__":
    main()
