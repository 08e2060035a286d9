"""Which engines are here; what they cost to build; which nodes of a network fall back to the CPU."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from gpu import bare
from gpu.plan import ENGINES, ON_CPU, LeftOut, Work


def engines(work: Work) -> None:
    """A row an engine: ok, or left out with the reason."""
    for name in ENGINES if work.cuda else (*ON_CPU, *ENGINES[1:]):
        work.case(name, partial(_present, work, name))


def _present(work: Work, name: str) -> Mapping[str, Any]:
    from sfm_match.runtime.devices import gpus, why_not

    if name == "torch":  # its own runtime needs nothing else
        import torch

        if work.cuda and not torch.cuda.is_available():
            raise LeftOut(f"torch {torch.__version__} finds no GPU")
        return {"version": torch.__version__, "cuda": torch.version.cuda}
    if not work.cuda and name != "cpu":
        raise LeftOut("--device cpu")
    if name != "tensorrt":
        bare.require("onnxruntime")
    if (reason := why_not(name)) is not None:
        raise LeftOut(reason)
    return {"gpus": ", ".join(gpu.name for gpu in gpus()) or "none"}
