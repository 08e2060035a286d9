"""Bundler's `bundle.out` (v0.3) and `list.txt`, by the user's manual of Bundler 0.4. Of several models, the largest.

Bundler's cameras look along -z, with x right and y up: the second and third rows of R and t are COLMAP's, negated. A
point p before the camera has the pixel f (1 + k1 r^2 + k2 r^4) (-x / z, -y / z), with the origin at the image's centre
and y up. Points that two cameras see are listed by every camera's place in `list.txt`.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sfm_match.errors import UsageError
from sfm_match.results import Results
from sfm_match.store.shard import write_text

if TYPE_CHECKING:
    import pycolmap

_MODELS = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL")
_OFF_CENTRE = 0.5  # pixels that a principal point may be from the centre


def write(results: Results, out: Path) -> list[Path]:
    """As `Format.write`."""
    model = results.model
    images = sorted((model.images[number] for number in model.reg_image_ids()), key=lambda image: image.name)
    spaced = next((image.name for image in images if any(c.isspace() for c in image.name)), None)
    if spaced is not None:
        raise UsageError(f"--to bundler: {spaced}: Bundler's lists hold no names with spaces; rename the file")
    lines = ["# Bundle file v0.3", f"{len(images)} {model.num_points3D()}"]
    for image in images:
        lines += _camera_lines(image, model.cameras[image.camera_id])
    files = [out / "bundle.out", out / "list.txt"]
    write_text(files[0], "\n".join([*lines, *_point_lines(model, images), ""]))
    write_text(files[1], "".join(f"{image.name}\n" for image in images))
    return files


def _camera_lines(image: "pycolmap.Image", camera: "pycolmap.Camera") -> Iterator[str]:
    """f k1 k2, three rows of R, t.

    Raises:
        UsageError: Bundler has no such camera.
    """
    centre = np.array((camera.width / 2, camera.height / 2))
    off = np.abs((camera.principal_point_x, camera.principal_point_y) - centre).max()
    single = camera.focal_length_x == camera.focal_length_y
    if camera.model_name not in _MODELS or not single or off > _OFF_CENTRE:
        raise UsageError(
            f"--to bundler: camera {camera.camera_id}, {camera.model_name} ({camera.params_info} = "
            f"{camera.params_to_string()}): accepted are {', '.join(_MODELS)} with one focal length and the principal "
            "point at the image's centre; run `sfm-match import --camera-model SIMPLE_RADIAL --overwrite`, then "
            "`sfm-match reconstruct`"
        )
    k1, k2 = (*(camera.params[i] for i in camera.extra_params_idxs()), 0.0, 0.0)[:2]
    yield _numbers((camera.focal_length_x, k1, k2))
    pose = image.cam_from_world().matrix() * ((1.0,), (-1.0,), (-1.0,))  # (3, 4)
    for row in (*pose[:, :3], pose[:, 3]):
        yield _numbers(row)


def _point_lines(model: "pycolmap.Reconstruction", images: list["pycolmap.Image"]) -> Iterator[str]:
    """Position, colour and views of every point; a view is a camera, a keypoint and its place."""
    place = {image.image_id: number for number, image in enumerate(images)}
    for _, point in sorted(model.points3D.items()):
        views = [str(point.track.length())]
        for element in point.track.elements:
            image = model.images[element.image_id]
            camera = model.cameras[image.camera_id]
            x, y = image.points2D[element.point2D_idx].xy
            seen = _numbers((x - camera.principal_point_x, camera.principal_point_y - y))
            views.append(f"{place[element.image_id]} {element.point2D_idx} {seen}")
        yield _numbers(point.xyz)
        yield " ".join(map(str, point.color.tolist()))
        yield " ".join(views)


def _numbers(values: Iterable[float]) -> str:
    """As short as they can be read back the same."""
    return " ".join(repr(float(value)) for value in values)
