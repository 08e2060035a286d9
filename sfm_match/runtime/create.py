"""The engine of a device."""

from pathlib import Path

from sfm_match.errors import UsageError
from sfm_match.runtime.protocol import Runtime


def create_runtime(device: str, cache: Path, index: int = 0, at_once: int = 1, *, keeps_memory: bool = True) -> Runtime:
    """The engine for a device.

    Args:
        device: a name of `options.devices.ENGINES`.
        cache: folder of what engines build once.
        index: of the GPU.
        at_once: images or pairs that a CPU works on side by side, each with its share of the cores.
        keeps_memory: a CPU keeps what an image took for the next one, which is faster, and several times as much.

    Raises:
        UsageError: it is not available on this machine; the message says what is missing.
    """
    if device in ("cpu", "cuda", "ort-tensorrt"):
        from sfm_match.runtime.ort import OrtRuntime

        return OrtRuntime(device, cache, index=index, at_once=at_once, keeps_memory=keeps_memory)
    if device == "tensorrt":
        from sfm_match.runtime.trt import TrtRuntime

        return TrtRuntime(cache, index)
    if device == "torch":
        from sfm_match.runtime.torch import TorchRuntime

        return TorchRuntime(index=index)
    raise UsageError(f"--device {device}: no such engine")


def resolve_precision(precision: str, device: str) -> str:
    """`auto` by device: half on a GPU. On a CPU half is slower than single, and less exact.

    Args:
        precision: `auto`, `fp32` or `fp16`.
        device: not `auto`.
    """
    if device == "torch":
        from sfm_match.runtime.torch import best_device

        device = best_device()
    if device == "cpu":
        if precision == "fp16":
            raise UsageError("--precision fp16: not on the CPU; accepted there are auto, fp32")
        return "fp32"
    return "fp16" if precision == "auto" else precision
