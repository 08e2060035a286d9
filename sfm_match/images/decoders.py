"""Which library turns the bytes of a JPEG into pixels.

`pillow` is the default and reads every format. `nvimgcodec` is NVIDIA's nvImageCodec: it reads JPEGs, on the GPU where
there is one, and Pillow reads the rest. Pixels of two libraries differ, so that the choice is part of the fingerprint
of features. Keypoints are adjusted on Pillow's pixels in any case: that needs no library that another machine lacks.
"""

import threading
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sfm_match.errors import UsageError
from sfm_match.images.files import Decode, Image, ImageError, decode, reduced
from sfm_match.options.devices import AUTO, split_device
from sfm_match.options.stages import NVIMGCODEC, PILLOW
from sfm_match.runtime.devices import driver_present

_JPEG = b"\xff\xd8\xff"  # how a JPEG begins
# chroma between its samples as libjpeg makes it; nvJPEG would repeat samples, which is faster
_OPTIONS = ":fancy_upsampling=1"
_PROBE = 16  # pixels a side


def find_decoder(name: str, device: str = AUTO) -> Decode:
    """A decoder by its name.

    Args:
        name: of `config.DECODERS`.
        device: of the networks; what decodes on a GPU takes the one that this names.

    Raises:
        UsageError: it is not installed.
    """
    return decode if name == PILLOW else _NvImageCodec(split_device(device)[1])


def decoder_inputs(name: str) -> dict[str, str]:
    """What pixels depend on beside the decoder's name: nothing, for the default.

    Raises:
        UsageError: it is not installed.
    """
    return {} if name == PILLOW else {"decoder_backend": _backend()}


def decoder_note(name: str) -> str:
    """For the report; empty for the default."""
    return "" if name == PILLOW else f", JPEGs by nvImageCodec on the {_backend().upper()}"


def why_not(name: str) -> str | None:
    """What a decoder lacks here, None where it is available."""
    try:
        find_decoder(name)
    except UsageError as error:
        return str(error).removeprefix(f"--decoder {name}: ")
    return None


def _library() -> Any:
    try:
        from nvidia import nvimgcodec
    except ImportError as error:
        raise UsageError(
            f"--decoder {NVIMGCODEC}: nvImageCodec cannot be loaded ({error}); install it with: "
            "pip install 'sfm-match[nvimgcodec]'"
        ) from None
    return nvimgcodec


@cache
def _backend() -> str:
    """`gpu` or `cpu`: a driver alone is not enough, nvJPEG must be there, too."""
    library = _library()
    if not driver_present():
        return "cpu"
    kinds = library.BackendKind
    only_gpu = [library.Backend(kind) for kind in (kinds.GPU_ONLY, kinds.HYBRID_CPU_GPU, kinds.HW_GPU_ONLY)]
    content = cv2.imencode(".jpg", np.zeros((_PROBE, _PROBE, 3), np.uint8))[1].tobytes()
    try:
        decoder = library.Decoder(max_num_cpu_threads=1, backends=only_gpu, options=_OPTIONS)
        return "cpu" if decoder.decode(library.CodeStream(content)) is None else "gpu"
    except RuntimeError:
        return "cpu"


class _NvImageCodec:
    """nvImageCodec for JPEGs, Pillow for the rest. Threads may share it."""

    def __init__(self, gpu: int) -> None:
        """`gpu` is the index of the one to use, where there is any."""
        self._gpu = gpu
        self._library = _library()
        self._backend = _backend()
        self._of_thread = threading.local()
        # raw pixels are what `decode` promises: they are turned later
        self._params = self._library.DecodeParams(
            apply_exif_orientation=False, color_spec=self._library.ColorSpec.SRGB, allow_any_depth=False
        )

    def __call__(self, path: Path, least: tuple[int, int] | None = None) -> Image:
        """As `images.decode`; a JPEG that nvImageCodec refuses goes to Pillow, which reads it or says why not.

        nvImageCodec decodes at the full size. What Pillow decodes at a fraction is shrunk to that fraction by area.
        """
        try:
            with path.open("rb") as file:
                head = file.read(len(_JPEG))
                content = head + file.read() if head == _JPEG else b""
        except OSError:
            content = b""
        if not content:
            return decode(path, least)
        try:
            found = self._decoder().decode(self._library.CodeStream(content), params=self._params)
            pixels = None if found is None else np.asarray(found.cpu())
        except RuntimeError as error:  # of CUDA: no memory, a device that is lost
            raise ImageError(f"nvImageCodec: {' '.join(str(error).split())}", lasting=False) from error
        if pixels is None or pixels.shape[2:] != (3,) or pixels.dtype != np.uint8:
            return decode(path, least)
        size = pixels.shape[1], pixels.shape[0]
        smaller = size if least is None else reduced(size, least)
        return pixels if smaller == size else np.asarray(cv2.resize(pixels, smaller, interpolation=cv2.INTER_AREA))

    def _decoder(self) -> Any:
        """Of this thread: a decoder serves one at a time."""
        if not hasattr(self._of_thread, "decoder"):
            library = self._library
            if self._backend == "gpu":
                own = library.Decoder(self._gpu, max_num_cpu_threads=1, options=_OPTIONS)
            else:
                backends = [library.Backend(library.BackendKind.CPU_ONLY)]
                none = library.NVIMGCODEC_DEVICE_CPU_ONLY
                own = library.Decoder(none, max_num_cpu_threads=1, backends=backends, options=_OPTIONS)
            self._of_thread.decoder = own
        return self._of_thread.decoder
