"""The curves of a training log: losses, repeatability, and validation.

python scripts/plot_training.py runs/nano/log.jsonl curves.png
"""

import json
import sys
from pathlib import Path

from matplotlib.figure import Figure

PANELS = {
    "detector loss": ("detector",),
    "descriptor loss": ("descriptor",),
    "on training pairs": ("accuracy", "repeat_1px", "repeat_3px"),
    "localisation, px": ("place_px",),
    "validation": ("val_mma@1", "val_mma@3", "val_mma@5", "val_repeatability@1", "val_repeatability@3"),
}


def main() -> None:
    log, out = map(Path, sys.argv[1:3])
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    panels = {title: [k for k in keys if any(k in line for line in lines)] for title, keys in PANELS.items()}
    panels = {title: keys for title, keys in panels.items() if keys}
    figure = Figure(figsize=(4 * len(panels), 3.2), layout="constrained")
    for axes, (title, keys) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for key in keys:
            points = [(line["step"], line[key]) for line in lines if key in line]
            axes.plot(*zip(*points, strict=True), label=key)
        axes.set(title=title, xlabel="step")
        axes.legend(fontsize="small")
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main()
