"""`cubemap`: panoramas as pinhole pictures of a rig, for `run --rig-config`."""

import json
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

import cv2

from sfm_match.errors import NothingDone, UsageError, quoted
from sfm_match.images.files import Header, ImageError, decode, scan
from sfm_match.images.headers import read_headers
from sfm_match.images.panoramas import FACES, Cube, Lookup, cut, is_panorama
from sfm_match.job.cores import cores
from sfm_match.job.progress import OnProgress, Progress
from sfm_match.options.arguments import checked
from sfm_match.store.shard import replacing, write_text

RIGS = "rig.json"
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class Cubemaps:
    """What `cubemap` wrote."""

    rig_config: Path
    panoramas: list[str]  # names
    failed: dict[str, str]  # name -> why it is not among them

    def line(self) -> str:
        """For people, with the next command."""
        text = f"{len(self.panoramas):,} panoramas, {6 * len(self.panoramas):,} pictures"
        if self.failed:
            name, why = next(iter(self.failed.items()))
            text += f"; {len(self.failed):,} files left out ({name}: {why})"
        return f"{text}; next: sfm-match run --images {self.rig_config.parent} --rig-config {self.rig_config}"


@checked
def cubemap(
    images: str | Path, out: str | Path, *, quiet: bool = True, on_progress: OnProgress | None = None
) -> Cubemaps:
    """Cuts equirectangular panoramas into the six faces of a cube, and writes the rig that they are.

    Args:
        images: folder of panoramas.
        out: folder for `SIDEpx/FACE/NAME.jpg` and `rig.json`, COLMAP's rig configuration with places and intrinsics.
            Faces that are there are kept, where they are as old as their panorama.
        quiet: no progress on stderr.
        on_progress: told how far it is.

    Raises:
        UsageError: no such folder, `out` is the folder of panoramas, or it holds rigs of other pictures.
        NothingDone: no panorama in it.
    """
    folder, target = Path(images), Path(out)
    if target.resolve() == folder.resolve() or target.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"--out {out}: inside the folder of panoramas; choose another folder")
    _refuse_foreign(target / RIGS)
    names = [file.name for file in scan(folder) if file.error is None]
    good: dict[str, Header] = {}
    failed: dict[str, str] = {}
    for name, header in zip(names, read_headers(folder, names), strict=True):
        if isinstance(header, ImageError):
            failed[name] = str(header)
        elif not is_panorama(*header.upright_size):
            failed[name] = f"{header.width} x {header.height} pixels; a panorama is twice as wide as high"
        else:
            good[name] = header
    progress = Progress("cubemap", len(good), "panoramas", quiet=quiet, on_progress=on_progress)
    lookups = cache(lambda width: {face: Cube(width).lookup(face) for face in FACES})

    def write(name: str) -> str | None:
        cube, source = Cube(good[name].upright_size[0]), folder / name
        try:
            _write(source, target, name, cube, lookups(cube.width))
        except ImageError as error:
            return str(error)
        finally:
            progress.advance(1)
        return None

    cv2.setNumThreads(1)  # the threads are here
    try:
        with ThreadPoolExecutor(cores()) as pool:
            reasons = dict(zip(good, pool.map(write, good), strict=True))
    finally:
        progress.close()
    failed |= {name: why for name, why in reasons.items() if why is not None}
    done = [name for name in good if name not in failed]
    if not done:
        name, why = next(iter(failed.items()))
        raise NothingDone(f"{folder}: no panorama in it ({name}: {why})")
    write_text(target / RIGS, json.dumps(_rigs({good[name].upright_size[0] for name in done}), indent=1) + "\n")
    return Cubemaps(target / RIGS, done, failed)


def _refuse_foreign(path: Path) -> None:
    """Raises UsageError where a `rig.json` is there that is of other pictures than those of `cubemap`."""
    if not path.exists():
        return
    try:
        rigs = json.loads(path.read_text(encoding="utf-8"))
        prefixes = {camera["image_prefix"] for rig in rigs for camera in rig["cameras"]}
        own = all(re.fullmatch(rf"\d+px/({'|'.join(FACES)})/", prefix) for prefix in prefixes)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        own = False
    if not own:
        raise UsageError(f"--out {quoted(path.parent)}: {path} is of other pictures; choose another folder")


def _write(source: Path, target: Path, name: str, cube: Cube, lookups: Mapping[str, Lookup]) -> None:
    changed = source.stat().st_mtime_ns
    paths = {face: target / _prefix(cube, face) / PurePosixPath(name).with_suffix(".jpg") for face in FACES}
    if all(path.is_file() and path.stat().st_mtime_ns == changed for path in paths.values()):
        return
    panorama = decode(source)
    for face, path in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = cut(panorama, lookups[face])
        content = cv2.imencode(".jpg", pixels[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY))[1].tobytes()
        with replacing(path) as temporary:
            temporary.write_bytes(content)
            os.utime(temporary, ns=(changed, changed))  # tells which panorama it is of


def _prefix(cube: Cube, face: str) -> str:
    return f"{cube.side}px/{face}/"


def _rigs(widths: set[int]) -> list[dict[str, object]]:
    """COLMAP's configuration: a rig for each size of panoramas."""
    import pycolmap

    rigs: list[dict[str, object]] = []
    for width in sorted(widths):
        cube, cameras = Cube(width), []
        for face, axes in FACES.items():
            x, y, z, w = pycolmap.Rotation3d(axes).quat.tolist()
            place = {"cam_from_rig_rotation": [w, x, y, z], "cam_from_rig_translation": [0.0, 0.0, 0.0]}
            intrinsics = [cube.focal, cube.focal, cube.side / 2, cube.side / 2]
            cameras.append(
                {
                    "image_prefix": _prefix(cube, face),
                    **({"ref_sensor": True} if face == "front" else place),
                    "camera_model_name": "PINHOLE",
                    "camera_params": intrinsics,
                }
            )
        rigs.append({"cameras": cameras})
    return rigs
