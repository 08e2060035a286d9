"""Points for cameras whose poses are known: triangulated from the accepted pairs, while poses and intrinsics stay."""

from pathlib import Path
from typing import TYPE_CHECKING

from sfm_match.colmap import hush_colmap
from sfm_match.colmap.mapper import Mapped
from sfm_match.colmap.mapper_options import incremental_options
from sfm_match.colmap.model_io import read_model
from sfm_match.colmap.triangulation import loaded
from sfm_match.errors import UsageError
from sfm_match.job.log import LOGGER
from sfm_match.job.progress import Clock
from sfm_match.options.stages import ReconstructOptions

if TYPE_CHECKING:
    import pycolmap

UNKNOWN = "no known pose"  # kind of reason of an image that is not in the model


def triangulate(database: Path, images: Path, options: ReconstructOptions, output: Path, clock: Clock) -> Mapped:
    """A model with the poses and cameras of `--known-poses`, by the images' names, and new points.

    Args:
        database: as `import` leaves it.
        images: folder of the photographs, for the points' colours.
        options: of the reconstruction; `known_poses` is a folder with a COLMAP model.
        output: an empty folder for COLMAP's own files.
        clock: told about the triangulation.

    Raises:
        UsageError: no model is there, none of its images is in the database, or its cameras do not fit the images.
    """
    import pycolmap

    hush_colmap()
    posed = _posed(database, read_model(_folder(options), "--known-poses"), _folder(options))
    pipeline = incremental_options(options, refine=False)
    LOGGER.info("triangulation over %d images; COLMAP does not tell how far it is", posed.num_reg_images())
    with clock.on("triangulate"):
        model = pycolmap.triangulate_points(posed, str(database), str(images), str(output), True, pipeline, False)
    return Mapped([model], {})


def _folder(options: ReconstructOptions) -> Path:
    if options.known_poses is None:
        raise ValueError("there are no known poses")
    return options.known_poses


def _posed(database: Path, known: "pycolmap.Reconstruction", folder: Path) -> "pycolmap.Reconstruction":
    """The database's images, cameras, rigs and frames, with the poses and intrinsics of a model, and no points."""
    import pycolmap

    model = pycolmap.Reconstruction()
    model.load(loaded(database, pycolmap.DatabaseCacheOptions(load_all_images=True)))
    with_pose = {image.name: image for image in known.images.values() if image.has_pose}
    taken: dict[int, tuple[str, pycolmap.Camera]] = {}  # camera of the database -> the image it was taken from
    for image in sorted(model.images.values(), key=lambda one: one.name):
        source = with_pose.get(image.name)
        if source is None:
            continue
        camera = known.cameras[source.camera_id]
        name, before = taken.setdefault(image.camera_id, (image.name, camera))
        if before.params_to_string() != camera.params_to_string() or before.model != camera.model:
            raise UsageError(
                f"--known-poses {folder}: {name} and {image.name} share a camera in the database and have two there; "
                "run `sfm-match import --camera-mode per-image --overwrite`"
            )
        model.frames[image.frame_id].set_cam_from_world(image.camera_id, source.cam_from_world())
        model.register_frame(image.frame_id)
    if not taken:
        raise UsageError(
            f"--known-poses {folder}: not one of its {len(with_pose):,} images has the name of one in the database, "
            f"e.g. {next(iter(with_pose), 'none has a pose')}"
        )
    for number, (name, camera) in taken.items():
        _set_intrinsics(model.cameras[number], camera, name, folder)
    return model


def _set_intrinsics(own: "pycolmap.Camera", known: "pycolmap.Camera", name: str, folder: Path) -> None:
    """Of a model of the same photographs, perhaps at another size."""
    import pycolmap

    width, height = own.width, own.height
    if abs(known.width * height - known.height * width) > max(width, height):
        raise UsageError(
            f"--known-poses {folder}: {name} has {width} x {height} pixels, its camera there "
            f"{known.width} x {known.height}: must be the same shape"
        )
    scaled = pycolmap.Camera(**known.todict())
    if (known.width, known.height) != (width, height):
        scaled.rescale(width, height)
    own.model, own.width, own.height, own.params = scaled.model, width, height, list(scaled.params)
    own.has_prior_focal_length = True
