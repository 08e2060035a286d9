"""A picture of a COLMAP model: its points in their colours, its cameras as pyramids.

    python scripts/draw_model.py demo/sparse/0 docs/images/model.jpg --elevation 33 --azimuth -65

The world of a reconstruction has no up: that of the picture is the mean of the cameras' own.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Line3DCollection  # type: ignore[import-untyped]
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CAMERA = 0.08  # depth of a pyramid, of the cameras' distance to the points in the median
INSIDE = 96.0  # per cent of the points that the picture is fitted to


def pyramid(image: pycolmap.Image, camera: pycolmap.Camera, depth: float) -> Floats:
    """(8, 2, 3) edges in the world: four from the centre of projection, four of the image at this depth."""
    width, height = camera.width, camera.height
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64)
    rays = np.column_stack((np.asarray(camera.cam_from_img(corners)), np.ones(4))) * depth
    world = np.stack([image.cam_from_world().inverse() * ray for ray in rays])
    centre = np.broadcast_to(image.projection_center(), (4, 3))
    return np.concatenate((np.stack((centre, world), axis=1), np.stack((world, np.roll(world, -1, axis=0)), axis=1)))


def upright(model: pycolmap.Reconstruction) -> Floats:
    """(3, 3) rotation whose third row is the mean up of the cameras, and whose second is away from them."""
    poses = [image.cam_from_world() for image in model.images.values() if image.has_pose]
    up = -np.mean([pose.rotation.matrix()[1] for pose in poses], axis=0)
    forward = np.mean([pose.rotation.matrix()[2] for pose in poses], axis=0)
    right = np.cross(forward, up)
    rows = np.stack((right, np.cross(up, right), up))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float64)


def draw(model: pycolmap.Reconstruction, out: Path, elevation: float, azimuth: float) -> None:
    """Writes the picture."""
    turn = upright(model)
    points = np.stack([point.xyz for point in model.points3D.values()]) @ turn.T
    colours = np.stack([point.color for point in model.points3D.values()]) / 255
    images = [image for image in model.images.values() if image.has_pose]
    centres = np.stack([image.projection_center() for image in images]) @ turn.T
    depth = CAMERA * float(np.median(np.linalg.norm(centres[:, None] - np.median(points, axis=0), axis=-1)))
    edges = np.concatenate([pyramid(image, model.cameras[image.camera_id], depth) for image in images]) @ turn.T

    tail = (100 - INSIDE) / 2
    low, high = np.percentile(points, (tail, 100 - tail), axis=0)
    kept = ((points >= low - depth) & (points <= high + depth)).all(axis=1)
    shown = np.concatenate((points[kept], centres))
    figure = Figure(figsize=(8, 4.8))
    axes: Any = figure.add_axes((-0.25, -0.24, 1.5, 1.5), projection="3d", proj_type="persp")  # its margins are wide
    axes.scatter(*points[kept].T, c=colours[kept], s=3.5, depthshade=False, linewidths=0)
    axes.add_collection3d(Line3DCollection(edges, colors="crimson", linewidths=0.8))
    axes.set(**{f"{name}lim": (shown[:, i].min(), shown[:, i].max()) for i, name in enumerate("xyz")})
    axes.set_box_aspect(np.ptp(shown, axis=0), zoom=1.1)
    axes.view_init(elevation, azimuth)
    axes.set_axis_off()
    figure.savefig(out, dpi=100)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a COLMAP model")
    parser.add_argument("out", type=Path, help="JPEG or PNG to write")
    parser.add_argument("--elevation", type=float, default=30.0, help="of the viewer, degrees")
    parser.add_argument("--azimuth", type=float, default=-60.0, help="of the viewer, degrees")
    arguments = parser.parse_args()
    draw(pycolmap.Reconstruction(arguments.model), arguments.out, arguments.elevation, arguments.azimuth)


if __name__ == "__main__":
    main()
