"""nerfstudio's `transforms.json`, as `ns-process-data` writes it of a COLMAP model, with its photographs and points.

The layout is that of nerfstudio's page "Data conventions" and of its `colmap_to_json`: camera-to-world matrices with
OpenGL's axes (x right, y up, z back), intrinsics in pixels with the centre of the top-left one at (0.5, 0.5), points in
`sparse_pc.ply`. The world is turned: COLMAP's (x, y, z) is (x, z, -y) there, which `applied_transform` tells. The
photographs stay distorted: nerfstudio undistorts what its cameras can express. Of several models, the largest.
"""

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sfm_match.errors import UsageError
from sfm_match.formats.photographs import (
    copy_photograph,
    for_each_image,
    mask_name,
    raw_mask,
    write_pixels,
    written_name,
)
from sfm_match.results import Results
from sfm_match.store.shard import write_text

if TYPE_CHECKING:
    import pycolmap

_WORLD = np.array(((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0)))  # from COLMAP's
_OPENGL = np.array((1.0, -1.0, -1.0, 1.0))  # signs of the columns of a camera-to-world matrix
_POINTS, _TRANSFORMS = "sparse_pc.ply", "transforms.json"
# nerfstudio's camera_model -> COLMAP's models that it expresses, and its distortion parameters; those that a model
# lacks are 0, `k` is k1
_CAMERAS = {
    "OPENCV": (("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV"), ("k1", "k2", "p1", "p2")),
    "OPENCV_FISHEYE": (
        ("SIMPLE_FISHEYE", "FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "OPENCV_FISHEYE"),
        ("k1", "k2", "k3", "k4"),
    ),
}


def write(results: Results, out: Path) -> list[Path]:
    """As `Format.write`."""
    import pycolmap

    model = copy.deepcopy(results.model)
    model.transform(pycolmap.Sim3d(1.0, pycolmap.Rotation3d(_WORLD), np.zeros(3)))
    transforms = _transforms(model, masked=results.mask_folder is not None)

    def write_image(image: "pycolmap.Image") -> None:
        camera = model.cameras[image.camera_id]
        name = written_name(image.name)
        copy_photograph(results.image_folder / image.name, out / "images" / name, camera)
        if results.mask_folder is not None:
            write_pixels(out / "masks" / mask_name(name), raw_mask(results, image.name, camera))

    for_each_image(write_image, [model.images[number] for number in model.reg_image_ids()])
    model.export_PLY(str(out / _POINTS))
    write_text(out / _TRANSFORMS, json.dumps(transforms, indent=1, ensure_ascii=False))
    images = sorted(path for name in ("images", "masks") for path in (out / name).rglob("*") if path.is_file())
    return [*images, out / _POINTS, out / _TRANSFORMS]


def _transforms(model: "pycolmap.Reconstruction", *, masked: bool) -> dict[str, Any]:
    """What the file holds; intrinsics at its top if there is one camera, else in each frame.

    Raises:
        UsageError: nerfstudio has no camera that is the same as one of the model, or wants all of one kind.
    """
    images = sorted((model.images[number] for number in model.reg_image_ids()), key=lambda image: image.name)
    used = sorted({image.camera_id for image in images})
    intrinsics = {number: _intrinsics(model.cameras[number]) for number in used}
    kinds = {one.pop("camera_model") for one in intrinsics.values()}
    if len(kinds) > 1:
        raise UsageError("--to nerfstudio: cameras with and without fisheye lenses; use --to undistorted for them")
    frames = []
    for image in images:
        name = written_name(image.name)
        frame: dict[str, Any] = {"file_path": f"images/{name}"}
        if masked:
            frame["mask_path"] = f"masks/{mask_name(name)}"
        pose = image.cam_from_world().inverse().matrix() * _OPENGL  # (3, 4)
        frame |= {"transform_matrix": [*pose.tolist(), [0.0, 0.0, 0.0, 1.0]], "colmap_im_id": image.image_id}
        frames.append(frame | (intrinsics[image.camera_id] if len(used) > 1 else {}))
    return {
        "camera_model": kinds.pop(),
        **(intrinsics[used[0]] if len(used) == 1 else {}),
        "frames": frames,
        "applied_transform": np.column_stack((_WORLD, np.zeros(3))).tolist(),
        "ply_file_path": _POINTS,
    }


def _intrinsics(camera: "pycolmap.Camera") -> dict[str, Any]:
    """Size, focal lengths, principal point and distortion, by nerfstudio's names."""
    for kind, (models, names) in _CAMERAS.items():
        if camera.model_name in models:
            params = dict(zip(camera.params_info.split(", "), camera.params.tolist(), strict=True))
            params["k1"] = params.get("k1", params.get("k", 0.0))
            return {
                "camera_model": kind,
                "w": camera.width,
                "h": camera.height,
                "fl_x": camera.focal_length_x,
                "fl_y": camera.focal_length_y,
                "cx": camera.principal_point_x,
                "cy": camera.principal_point_y,
                **{name: params.get(name, 0.0) for name in names},
            }
    raise UsageError(
        f"--to nerfstudio: its transforms.json cannot express camera {camera.camera_id}, {camera.model_name}; "
        "use --to undistorted, which nerfstudio reads, too"
    )
