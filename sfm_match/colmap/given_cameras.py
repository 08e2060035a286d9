"""Cameras that the user gives for some of the images: a YAML file of patterns of names.

    "drone/*":     {model: OPENCV, params: [2410.5, 2409.1, 2000, 1500, -0.012, 0.004, 0, 0]}
    "phone/*.jpg": {model: SIMPLE_RADIAL}        # parameters are looked for, as without the file

The first pattern that fits a name counts; images of one pattern and size share a camera.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from sfm_match.colmap.cameras import GivenCamera, check_camera
from sfm_match.errors import UsageError, quoted
from sfm_match.options.stages import check_intrinsics
from sfm_match.options.yaml_file import read_yaml

_KEYS = {"model", "params"}


def read_given_cameras(path: Path, names: Iterable[str], default_model: str) -> list[GivenCamera]:
    """The file, checked against the images.

    Args:
        path: of the file.
        names: of the images.
        default_model: of an entry that names none.

    Raises:
        UsageError: it cannot be read, or an entry is wrong or fits no image; the message names the entry.
    """
    content = read_yaml(path, f"--cameras {quoted(path)}")
    if not isinstance(content, dict) or not content:
        raise UsageError(
            f'--cameras {path}: must be lines as "folder/*": {{model: PINHOLE, params: [900, 900, 640, 360]}}'
        )
    every = list(names)
    found = [_entry(path, str(pattern), entry, default_model) for pattern, entry in content.items()]
    for one in found:
        if not any(map(one.fits, every)):
            raise UsageError(f"--cameras {quoted(path)}: {quoted(one.pattern)}: no image has such a name")
    return found


def _entry(path: Path, pattern: str, entry: object, default_model: str) -> GivenCamera:
    where = f"--cameras {quoted(path)}: {quoted(pattern)}"
    if not isinstance(entry, dict) or not entry.keys() <= _KEYS:
        raise UsageError(f"{where}: must be {{model: NAME, params: [...]}}, either may be left out")
    params = entry.get("params")
    if params is not None:
        numbers = isinstance(params, Sequence) and all(type(one) in (int, float) for one in params)
        if not numbers:
            raise UsageError(f"{where}: params must be a list of numbers")
        check_intrinsics(params, f"{where}: params")
        params = tuple(float(one) for one in params)
    model = str(entry.get("model", default_model))
    check_camera(model, params, where)
    return GivenCamera(pattern, model, params)
