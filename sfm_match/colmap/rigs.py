"""Rigs: cameras that move together, one folder (or prefix of the names) each, by COLMAP's rig configuration.

Images whose names are alike behind the prefix are a frame. Where the file says where the cameras are on the rig, the
database has the rig before anything is mapped. Where it does not, the images are mapped without it first, the places
are read off the model, and all are mapped again as a rig.
"""

import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from sfm_match.colmap import hush_colmap
from sfm_match.colmap.cameras import GivenCamera, check_camera
from sfm_match.colmap.queries import read_record
from sfm_match.errors import UsageError, quoted
from sfm_match.options.base import require
from sfm_match.options.stages import check_intrinsics

if TYPE_CHECKING:
    import pycolmap

_LARGEST = 1 << 24  # bytes of a file of rigs
RECORD = "rigs without places"  # in the database: the file's content, which a model completes


@dataclass
class _Camera:
    """A camera of COLMAP's JSON. COLMAP itself writes numbers as text, which is taken, too."""

    image_prefix: str
    ref_sensor: bool = False
    cam_from_rig_rotation: list[float] | None = None  # w, x, y, z
    cam_from_rig_translation: list[float] | None = None
    camera_model_name: str | None = None
    camera_params: list[float] | None = None


@dataclass
class _Rig:
    cameras: list[_Camera]


def _check_file(path: Path, where: str) -> None:
    """COLMAP's reader believes what a file says, and deep JSON ends the process.

    Raises:
        UsageError: it is no JSON of rigs, or has numbers that no rig has.
    """
    import msgspec

    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
        require(len(data) <= _LARGEST, f"{where}: larger than {_LARGEST:,} bytes")
        rigs = msgspec.json.decode(data, type=list[_Rig], strict=False)
    except OSError as error:
        raise UsageError(f"{where}: {error.strerror}") from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise UsageError(f"{where}: {' '.join(str(error).split())}; must be COLMAP's JSON") from error
    for camera in (camera for rig in rigs for camera in rig.cameras):
        at = f"{where}: {quoted(camera.image_prefix)}"
        rotation, translation = camera.cam_from_rig_rotation, camera.cam_from_rig_translation
        for name, values, count in (("rotation", rotation, 4), ("translation", translation, 3)):
            fits = values is None or (len(values) == count and all(map(isfinite, values)))
            require(fits, f"{at}: cam_from_rig_{name} must be {count} finite numbers")
        require(rotation is None or any(rotation), f"{at}: cam_from_rig_rotation must not be all 0")
        require((rotation is None) == (translation is None), f"{at}: needs both cam_from_rig_rotation and _translation")
        if camera.camera_params is not None:
            require(camera.camera_model_name is not None, f"{at}: camera_params need a camera_model_name")
            check_intrinsics(camera.camera_params, f"{at}: camera_params")
        if camera.camera_model_name is not None:
            check_camera(camera.camera_model_name, camera.camera_params, at)


def read_rigs(path: Path, names: Iterable[str]) -> "list[pycolmap.RigConfig]":
    """A file of rigs, checked against the images.

    Raises:
        UsageError: it cannot be read, or a camera has no image.
    """
    import pycolmap

    hush_colmap()
    where = f"--rig-config {quoted(path)}"
    _check_file(path, where)
    try:
        rigs = pycolmap.read_rig_config(str(path))
    except (RuntimeError, ValueError, OSError) as error:
        raise UsageError(f"{where}: {_said(error)}; must be COLMAP's JSON") from error
    every = list(names)
    for rig in rigs:
        for camera in rig.cameras:
            if not any(name.startswith(camera.image_prefix) for name in every):
                raise UsageError(f"{where}: no image has the prefix {quoted(camera.image_prefix)}")
    if not rigs:
        raise UsageError(f"{where}: no rig in it")
    return rigs


def _said(error: Exception) -> str:
    """What COLMAP says, without the place in its code."""
    return re.sub(r"^\[\S+:\d+\] Check failed: \S+ ", "", " ".join(str(error).split()))


def has_places(rigs: "Sequence[pycolmap.RigConfig]") -> bool:
    """Whether the places of all cameras on their rigs are known."""
    return all(camera.ref_sensor or camera.cam_from_rig is not None for rig in rigs for camera in rig.cameras)


def recorded_rigs(database: Path, names: Iterable[str]) -> "list[pycolmap.RigConfig]":
    """The rigs of a database whose cameras' places a model is to tell; none where there are no such rigs."""
    text = read_record(database, RECORD)
    if text is None:
        return []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rigs.json"
        path.write_text(text, encoding="utf-8")
        return read_rigs(path, names)


def rig_cameras(rigs: "Sequence[pycolmap.RigConfig]") -> dict[str, GivenCamera | None]:
    """Prefix of the names of each camera's images -> its intrinsics, or None where the file does not give them."""
    found: dict[str, GivenCamera | None] = {}
    for camera in (camera for rig in rigs for camera in rig.cameras):
        own = camera.camera
        given = GivenCamera(f"{camera.image_prefix}*", own.model_name, tuple(own.params)) if own is not None else None
        found[camera.image_prefix] = given
    return found


def apply_rigs(
    rigs: "Sequence[pycolmap.RigConfig]",
    database: Path,
    path: Path,
    model: "pycolmap.Reconstruction | None" = None,
) -> None:
    """Writes rigs and their frames to a database, in place of those it has.

    Args:
        rigs: of `read_rigs`.
        database: of their images.
        path: of the configuration, for messages.
        model: of images of these rigs, from which places that are not known are read; it gets the rigs, too.

    Raises:
        UsageError: the images do not make rigs: two cameras of a rig share a camera of the database, mostly.
    """
    import pycolmap

    opened = pycolmap.Database.open(str(database))
    try:
        if model is None:
            pycolmap.apply_rig_config(list(rigs), opened)
        else:
            pycolmap.apply_rig_config(list(rigs), opened, model)
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"--rig-config {path}: {_said(error)}") from error
    finally:
        opened.close()


def with_places_of(
    model: "pycolmap.Reconstruction", rigs: "Sequence[pycolmap.RigConfig]", database: Path, copy: Path
) -> Path:
    """A copy of a database in which the rigs have the places that their cameras have in a model.

    Raises:
        UsageError: as `apply_rigs`; or the model has not two cameras of a rig in one frame.
    """
    import pycolmap

    shutil.copyfile(database, copy)
    apply_rigs(rigs, copy, database, pycolmap.Reconstruction(model))
    return copy
