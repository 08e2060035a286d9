"""Writes the package's dedode-nano from a training checkpoint.

python scripts/export_nano.py runs/nano/checkpoint.pt --version 1
"""

import argparse
import hashlib
import json
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from exports.config import FAMILY
from exports.networks import DeDoDe
from exports.onnx_export import export_dense_detector, export_descriptor

PACKAGE = Path(__file__).parents[1] / "sfm_match" / "models" / "dedode_nano"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--version", required=True, help="of the weights, as the manifest and results name them")
    parser.add_argument("--out", type=Path, default=PACKAGE)
    options = parser.parse_args()

    state = torch.load(options.checkpoint, weights_only=True)
    nano = FAMILY["dedode-nano"]
    nets = nn.ModuleDict({"detector": DeDoDe(nano.detector), "descriptor": DeDoDe(nano.descriptor)})
    averaged = {key.removeprefix("module."): v for key, v in state["average"].items() if key.startswith("module.")}
    nets.load_state_dict(averaged)
    nets.eval()
    options.out.mkdir(parents=True, exist_ok=True)
    files = {part: options.out / f"{part}.onnx" for part in nets}
    export_dense_detector(nets["detector"], files["detector"])
    export_descriptor(nets["descriptor"], files["descriptor"])
    for part, network in nets.items():  # for `export onnx`, and for those who train on
        path = options.out / f"{part}.safetensors"
        safetensors.torch.save_model(network, str(path))
        path.chmod(0o644)
    manifest = {
        "version": options.version,
        "steps": state["step"],
        "divisor": nano.detector.divisor,
        "dimension": nano.descriptor.prototypes,
        "match_threshold": nano.match_threshold,
        "nms_radius": 2,
        "sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files.values()},
    }
    (options.out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    print(json.dumps(manifest, indent=1))


if __name__ == "__main__":
    main()
