"""Engines of devices; what they build once is kept beside the downloaded weights."""

from sfm_match.models import zoo
from sfm_match.runtime import Choice, Runtime, choose, create_runtime

_FOLDER = "engines"  # within the folder of weights


def runtime_for(device: str, at_once: int = 1, *, keeps_memory: bool = True) -> tuple[Runtime, Choice]:
    """The engine of a device, `auto` resolved. The rest is as in `create_runtime`.

    Raises:
        UsageError: the device is not here; the message says what is missing.
    """
    choice = choose(device)
    cache = zoo.weights_dir() / _FOLDER
    return create_runtime(choice.device, cache, choice.index, at_once, keeps_memory=keeps_memory), choice
