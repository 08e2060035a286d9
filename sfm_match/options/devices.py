"""The names that `--device` and `--devices` take."""

from sfm_match.errors import UsageError, nearest, quoted

AUTO = "auto"
ENGINES = ("cpu", "cuda", "tensorrt", "ort-tensorrt", "torch")
DEVICES = (AUTO, *ENGINES)
EVERY_GPU = "all"
_DIGITS = 4  # of a GPU's number, at most


def split_device(name: str, where: str = "--device") -> tuple[str, int]:
    """A device's engine and the index of its GPU: `cuda:1` -> ("cuda", 1), `cuda` -> ("cuda", 0). `where` names it.

    Raises:
        UsageError: it is not an engine's name, with or without an index.
    """
    engine, colon, index = name.partition(":")
    if engine not in DEVICES:
        raise UsageError(f"{where} {quoted(name)}: accepted values are {', '.join(DEVICES)}{nearest(engine, DEVICES)}")
    if colon and not (index.isdecimal() and len(index) <= _DIGITS):
        raise UsageError(
            f"{where} {quoted(name)}: must be {engine}, or {engine} and the number of a GPU, as {engine}:1"
        )
    return engine, int(index or 0)
