"""What half precision does to the networks, in torch's half arithmetic on the CPU.

    python scripts/benchmarks/half_precision.py [--models dedode-l-b dedode-l-g] [--side 224] [--out results.md]

Published weights are not needed: random ones are made as large inside as published ones may be, which in float32
changes nothing (`exports.half_precision.enlarge_activations`). Each network is halved as it is, and halved after its
batch norms are folded into convolutions; both are compared with float32 on noise. The packaged networks have their
trained weights, which are not enlarged.
"""

import argparse
import copy
import os
import platform
import time
from dataclasses import replace
from pathlib import Path

import torch

from exports.half_precision import InHalf, compare_in_half, enlarge_activations, halved
from exports.networks import DeDoDe
from exports.registry import FAMILY
from exports.weights import Networks, load_networks, random_networks
from sfm_match.models import BUILT_IN

PARTS = ("detector", "descriptor")
HEAD = (
    "| network | halved | values not finite | largest activation | largest difference of logits (their deviation) "
    "| keypoints in common | least descriptor cosine | gate | seconds |\n|---|---|---|---|---|---|---|---|---|"
)


def networks_of(model: str, part: str, side: int) -> Networks:
    """With trained weights, or random ones of which `part` is enlarged."""
    if model in BUILT_IN:
        return load_networks(FAMILY[model], sorted(BUILT_IN[model].glob("*.safetensors")))
    networks = random_networks(FAMILY[model])
    enlarge_activations(getattr(networks, part), torch.randn(1, 3, side, side))
    return networks


def row(model: str, part: str, how: str, found: InHalf, seconds: float) -> str:
    logits = "" if found.logit_difference is None else f"{found.logit_difference:.3f} ({found.logit_deviation:.3f})"
    shared = "" if found.keypoint_overlap is None else f"{100 * found.keypoint_overlap:.1f} %"
    cosine = "" if found.descriptor_cosine is None else f"{found.descriptor_cosine:.5f}"
    gate = "passed" if found.passed else "failed"
    numbers = f"{found.not_finite:,} | {found.largest_activation:,.1f} | {logits} | {shared} | {cosine}"
    return f"| {model}, {part} | {how} | {numbers} | {gate} | {seconds:.0f} |"


def as_it_is(network: DeDoDe) -> DeDoDe:
    return copy.deepcopy(network).half()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["dedode-l-b", "dedode-l-g", "dedode-nano"], choices=FAMILY)
    parser.add_argument("--side", type=int, default=224, help="of the image, pixels; at most 224")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "half_precision.md")
    options = parser.parse_args()

    torch.manual_seed(0)
    lines, seen, before = [], set(), os.getloadavg()[0]
    for model in options.models:
        for part in PARTS:
            config = getattr(FAMILY[model], part)
            if config in seen:  # the detector of L-B is that of L-G
                continue
            seen.add(config)
            networks = networks_of(model, part, options.side)
            for how, halve in (("as it is", as_it_is), ("batch norms folded", halved)):
                half = replace(networks, **{part: halve(getattr(networks, part))})
                start = time.perf_counter()
                generator = torch.Generator().manual_seed(0)
                found = compare_in_half(networks, half, (part,), (options.side, options.side), generator)
                lines.append(row(model, part, how, found, time.perf_counter() - start))
                print(lines[-1], flush=True)
    load = f"Load before and after: {before:.1f}, {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    text = (
        f"# Half precision\n\n`python scripts/benchmarks/half_precision.py`: {options.side} x {options.side} pixels of "
        f"noise, {torch.get_num_threads()} threads. {load}. Python {platform.python_version()}, "
        f"torch {torch.__version__}.\n\n{HEAD}\n" + "\n".join(lines) + "\n"
    )
    options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
