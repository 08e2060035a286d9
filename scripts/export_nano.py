"""Writes the package's dedode-nano from a training checkpoint.

python scripts/export_nano.py runs/nano/checkpoint.pt --version 1
python scripts/export_nano.py sfm_match/models/dedode_nano --version N     # of a folder with .safetensors
"""

import argparse
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import cast

import safetensors.torch
import torch
from torch import nn

from exports.half_precision import halved
from exports.networks import DeDoDe
from exports.onnx_export import FREE, export_dense_detector, export_descriptor
from exports.registry import FAMILY

PACKAGE = Path(__file__).parents[1] / "sfm_match" / "models" / "dedode_nano"


def write_onnx(nets: nn.ModuleDict, folder: Path, *, half: bool) -> dict[str, str]:
    """Both networks' files; returns their sha256 by name."""
    files = {part: folder / f"{part}{'_fp16' if half else ''}.onnx" for part in nets}
    networks = {part: cast(DeDoDe, network) for part, network in nets.items()}
    used = {part: halved(network) if half else network for part, network in networks.items()}
    for part, export in (("detector", export_dense_detector), ("descriptor", export_descriptor)):
        network = used[part]
        export(network, files[part], dataclasses.replace(FREE, multiple=network.config.alignment))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files.values()}


def load(nets: nn.ModuleDict, source: Path) -> int:
    """Takes over the weights; returns the steps of their training."""
    if source.is_dir():
        for part, network in nets.items():
            safetensors.torch.load_model(network, str(source / f"{part}.safetensors"))
        return int(json.loads((source / "manifest.json").read_text())["steps"])
    state = torch.load(source, weights_only=True)
    averaged = {key.removeprefix("module."): v for key, v in state["average"].items() if key.startswith("module.")}
    nets.load_state_dict(averaged)
    return int(state["step"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a training checkpoint, or a folder of weights as in the package")
    parser.add_argument("--version", required=True, help="of the weights, as the manifest and results name them")
    parser.add_argument("--out", type=Path, default=PACKAGE)
    options = parser.parse_args()

    nano = FAMILY["dedode-nano"]
    nets = nn.ModuleDict({"detector": DeDoDe(nano.detector), "descriptor": DeDoDe(nano.descriptor)})
    steps = load(nets, options.source)
    nets.eval()
    options.out.mkdir(parents=True, exist_ok=True)
    digests = write_onnx(nets, options.out, half=False)
    half_digests = write_onnx(nets, options.out, half=True)
    for part, network in nets.items():  # for `export onnx`, and for those who train on
        path = options.out / f"{part}.safetensors"
        safetensors.torch.save_model(network, str(path))
        path.chmod(0o644)
    manifest = {
        "version": options.version,
        "steps": steps,
        "sha256": digests,
        "sha256_fp16": half_digests,
    }
    (options.out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    print(json.dumps(manifest, indent=1))


if __name__ == "__main__":
    main()
