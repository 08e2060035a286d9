"""How fast: the machine's own ceiling, networks, matching."""

from collections.abc import Mapping
from typing import Any

import torch

from gpu.networks import rate, wait
from gpu.plan import Work

_SIDE = {False: 8192, True: 512}  # of the product, with and without --quick


def ceiling(work: Work) -> None:
    """What the machine can: a product of matrices, and a copy within its memory."""
    work.case("machine", lambda: _ceiling(work))


def _ceiling(work: Work) -> Mapping[str, Any]:
    device, side = work.settings.device, _SIDE[work.quick]
    found: dict[str, Any] = {"product_side": side}
    kinds = {"fp16": torch.float16, "bf16": torch.bfloat16} if work.cuda else {"fp32": torch.float32}
    for name, kind in kinds.items():
        a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
        products = rate(lambda a=a, b=b: a @ b, lambda: wait(work), work.settings.seconds)
        found[f"product_tflops_{name}"] = round(products * 2 * side**3 / 1e12, 3)
    found["product_tflops"] = found["product_tflops_fp16" if work.cuda else "product_tflops_fp32"]
    source, target = (torch.empty(16 << 20 if work.quick else 256 << 20, device=device) for _ in range(2))
    copies = rate(lambda: target.copy_(source), lambda: wait(work), work.settings.seconds)
    found["copy_gb_per_s"] = round(copies * 2 * source.numel() * 4 / 1e9, 2)
    return found
