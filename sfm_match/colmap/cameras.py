"""Which images share a camera, and what is known of it before the reconstruction."""

import itertools
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from sfm_match.colmap.assigned import NOTHING_ASSIGNED, Assigned, CameraKey
from sfm_match.colmap.queries import open_for_reading, read_value
from sfm_match.errors import UsageError, nearest, quoted
from sfm_match.images.files import Header
from sfm_match.options.stages import ImportOptions

if TYPE_CHECKING:
    import pycolmap

# Without EXIF, COLMAP assumes this many times the long side.
DEFAULT_FOCAL_FACTOR = 1.2
GIVEN = "cameras given"  # record in the database
_EVERY = "*"
_NO_RIGS: "Mapping[str, GivenCamera | None]" = {}


@dataclass(frozen=True)
class GivenCamera:
    """What the user says of the camera of some images."""

    pattern: str  # of their names, as in a shell; * also takes /
    model: str  # COLMAP's name
    params: tuple[float, ...] | None  # in COLMAP's order, pixels; None: to be found

    def fits(self, name: str) -> bool:
        return fnmatchcase(name, self.pattern)


@dataclass(frozen=True)
class CameraPlan:
    """One camera and its images."""

    number: int  # camera_id
    key: CameraKey  # what its images have in common
    width: int  # raw pixels
    height: int  # raw pixels
    model: str  # COLMAP's name
    focal: float  # pixels
    known_focal: bool  # from EXIF or from the user, not a guess
    params: tuple[float, ...] | None  # the user's intrinsics
    images: dict[str, int]  # name -> image_id


def plan_cameras(
    headers: Mapping[str, Header],
    options: ImportOptions,
    assigned: Assigned = NOTHING_ASSIGNED,
    of_rigs: Mapping[str, GivenCamera | None] = _NO_RIGS,
    given: Sequence[GivenCamera] = (),
) -> list[CameraPlan]:
    """Groups the images and numbers them, in the order of their names; what has a number keeps it.

    `auto` joins images with the same make, model, focal length and size; without EXIF it joins a folder whose images
    all have one size (frames of a video), and gives every other image its own camera (pictures from the web). Whatever
    the mode, images of one of the `given` cameras and of one size share it, the first that fits a name, and those with
    one of the prefixes of `of_rigs` share one of a rig.

    Raises:
        UsageError: images that are to share a camera differ in size.
    """
    names, keys = list(headers), _keys(headers, options.camera_mode, assigned)
    others = GivenCamera(_EVERY, options.camera_model, options.intrinsics)
    entries = [next((one for one in given if one.fits(name)), others) for name in names]
    for place, (name, header) in enumerate(headers.items()):
        entry = entries[place]
        if entry.pattern != _EVERY:
            keys[place] = ("given", entry.pattern, str(header.width), str(header.height))
        prefix = max((prefix for prefix in of_rigs if name.startswith(prefix)), key=len, default=None)
        if prefix is not None:
            keys[place], entries[place] = ("rig", prefix), of_rigs[prefix] or entry
    new_camera = itertools.count(max(assigned.cameras.values(), default=0) + 1)
    new_image = itertools.count(max(assigned.images.values(), default=0) + 1)
    plans = []
    order = sorted(range(len(names)), key=lambda place: (keys[place], names[place]))
    for key, group in itertools.groupby(order, key=keys.__getitem__):
        places = list(group)
        mine = [names[place] for place in places]
        first, focal = headers[mine[0]], None
        for name in mine:
            other = headers[name]
            if (other.width, other.height) != (first.width, first.height):
                raise UsageError(
                    f"--camera-mode {options.camera_mode}: {mine[0]} has {first.width} x {first.height} pixels, "
                    f"{name} has {other.width} x {other.height}; accepted for such folders are auto, per-image"
                )
            focal = other.focal if focal is None else focal
        guess = DEFAULT_FOCAL_FACTOR * max(first.width, first.height)
        entry = entries[places[0]]
        known = focal is not None or entry.params is not None
        images = {name: assigned.images.get(name) or next(new_image) for name in mine}
        number = assigned.cameras.get(key) or next(new_camera)
        size = first.width, first.height
        plans.append(CameraPlan(number, key, *size, entry.model, focal or guess, known, entry.params, images))
    return plans


def given_cameras(database: Path) -> set[int]:
    """camera_ids of the cameras whose intrinsics were given by the user."""
    return read_value(database, GIVEN, set[int]) or set()


def all_given(database: Path) -> bool:
    """Whether the user gave the intrinsics of every camera."""
    with closing(open_for_reading(database)) as connection:
        every = {camera for (camera,) in connection.execute("SELECT camera_id FROM cameras")}
    return bool(every) and given_cameras(database) >= every


def read_cameras(database: Path) -> dict[int, "pycolmap.Camera"]:
    """Cameras of a database by camera_id."""
    import pycolmap

    opened = pycolmap.Database.open(str(database))
    try:
        return {camera.camera_id: camera for camera in opened.read_all_cameras()}
    finally:
        opened.close()


def cameras_of_exif(database: Path) -> set[int]:
    """Numbers of the cameras whose focal length is known beforehand."""
    return {number for number, camera in read_cameras(database).items() if camera.has_prior_focal_length}


def check_camera_model(options: ImportOptions) -> None:
    """Raises UsageError for a model that COLMAP does not know, or a wrong number of parameters."""
    check_camera(options.camera_model, options.intrinsics)


def check_camera(model: str, params: Sequence[float] | None, where: str = "") -> None:
    """As `check_camera_model`, for one camera; `where` goes before the message instead of the options' names."""
    import pycolmap

    try:
        camera = pycolmap.Camera.create_from_model_name(1, model, 1000.0, 1000, 1000)
    except (ValueError, RuntimeError, KeyError):
        known = [name for name in pycolmap.CameraModelId.__members__ if name != "INVALID"]
        said = f"{where}: {quoted(model)}" if where else f"--camera-model {quoted(model)}"
        raise UsageError(f"{said}: accepted are {', '.join(known)}{nearest(model, known)}") from None
    given = len(params) if params is not None else len(camera.params)
    if given != len(camera.params):
        raise UsageError(
            f"{where or '--camera-params'}: {model} takes {len(camera.params)} numbers ({camera.params_info}), "
            f"found {given}"
        )
    if params is not None and not all(params[place] > 0 for place in camera.focal_length_idxs()):
        raise UsageError(f"{where or '--camera-params'}: focal lengths must be above 0 pixels")


def _folder(name: str) -> str:
    """Of an image."""
    return name.rpartition("/")[0]


def _keys(headers: Mapping[str, Header], mode: str, assigned: Assigned) -> list[CameraKey]:
    """What each image shares with those of its camera, the mode first. Equal keys are one object."""
    plain_sizes: dict[str, set[tuple[int, int]]] = {}
    if mode == "auto":
        for name, h in headers.items():
            if not h.camera:
                plain_sizes.setdefault(_folder(name), set()).add((h.width, h.height))

    def key_of(name: str, h: Header) -> CameraKey:
        if mode == "single":
            return (mode,)
        if mode == "per-folder":
            return (mode, _folder(name))
        if mode == "per-image":
            return (mode, name)
        size = (str(h.width), str(h.height))
        folder, alone = ("folder", _folder(name), *size), ("image", name, *size)
        if h.camera:
            return ("exif", h.camera, f"{h.focal or 0:.3f}", *size)
        if name in assigned.images and alone in assigned.cameras:
            return alone
        return folder if folder in assigned.cameras or len(plain_sizes[_folder(name)]) == 1 else alone

    same: dict[CameraKey, CameraKey] = {}
    return [same.setdefault(key, key) for key in (key_of(name, h) for name, h in headers.items())]
