"""The tables and the picture of the README, from the JSON files of `scripts/gpu_check.py`.

python scripts/gpu_report.py scripts/benchmarks/results/*_gpu_check_cuda.json --out scripts/benchmarks/results
"""

import argparse
import json
from pathlib import Path
from typing import Any

NONE = "–"


def table(rows: list[dict[str, Any]], line: str, columns: list[str], value: str) -> list[str]:
    """Markdown: a line for each `line`, a column for each combination of `columns`, cells of `value`."""
    heads = list(dict.fromkeys(tuple(row[name] for name in columns) for row in rows))
    names = list(dict.fromkeys(row[line] for row in rows))
    cells = {(row[line], tuple(row[name] for name in columns)): row[value] for row in rows}

    def shown(head: tuple[Any, ...]) -> str:
        return ", ".join(f"{name} {part:,}" for name, part in zip(columns, head, strict=True))

    lines = [f"| {value} | " + " | ".join(shown(head) for head in heads) + " |", "|---|" + "---|" * len(heads)]
    for name in names:
        found = (cells.get((name, head)) for head in heads)
        lines.append(f"| {name} | " + " | ".join(NONE if cell is None else f"{cell:,}" for cell in found) + " |")
    return [*lines, ""]


def markdown(check: dict[str, Any]) -> str:
    """One run as Markdown."""
    machine = ", ".join(f"{key} {value}" for key, value in check["machine"].items())
    ceiling = check["ceiling"]
    lines = [
        f"{check['date'][:10]}, {machine}. A product of {ceiling['product_side']}² matrices runs at "
        f"{ceiling['product_tflops']} TFLOP/s, a copy at {ceiling['copy_gb_per_s']} GB/s. `{check['command']}`",
        "",
    ]
    for row in check["parity"]:
        lines.append(
            f"- {row['engine']}, {row['precision']}: {row['keypoint_overlap']:.1%} of float32's keypoints within half "
            f"a pixel, descriptors' cosine {row['descriptor_cosine_mean']:.5f} on average, "
            f"{row['descriptor_cosine_least']:.5f} at the least, {row['redone']} images done again"
        )
    lines += [""]
    for value in ("images_per_s", "share_of_product"):
        lines += table(check["extraction"], "engine", ["size", "batch"], value) if check["extraction"] else []
    for value in ("pairs_per_s", "share_of_product"):
        lines += table(check["matching"], "engine", ["keypoints"], value) if check["matching"] else []
    lines += [f"- Left out: {what} ({why})" for what, why in check["left_out"].items()]
    return "\n".join(lines).rstrip() + "\n"


def draw(check: dict[str, Any], path: Path) -> None:
    """Images a second against the batch, a panel a size; pairs a second against the keypoints."""
    from matplotlib.figure import Figure

    sizes = sorted({row["size"] for row in check["extraction"]})
    figure = Figure(figsize=(4 * (len(sizes) + 1), 3.5), layout="constrained")
    panels = figure.subplots(1, len(sizes) + 1, squeeze=False)[0]
    for axes, size in zip(panels, sizes, strict=False):
        _lines(axes, [row for row in check["extraction"] if row["size"] == size], "batch", "images_per_s")
        axes.set(title=f"{size} × {size} px", xlabel="images a call", ylabel="images/s")
    _lines(panels[-1], check["matching"], "keypoints", "pairs_per_s")
    panels[-1].set(title="matching", xlabel="keypoints an image", ylabel="pairs/s")
    handles = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(4, max(1, len(handles))))
    figure.suptitle(check["machine"]["gpu"])
    figure.savefig(path, dpi=120)


def _lines(axes: Any, rows: list[dict[str, Any]], across: str, up: str) -> None:
    for place, engine in enumerate(dict.fromkeys(row["engine"] for row in rows)):
        mine = sorted((row[across], row[up]) for row in rows if row["engine"] == engine)
        axes.plot(*zip(*mine, strict=True), marker="o", label=engine, color=f"C{place}")
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="of gpu_check.py")
    parser.add_argument("--out", type=Path, help="folder; without: beside each file")
    options = parser.parse_args()
    for file in options.files:
        check = json.loads(file.read_text(encoding="utf-8"))
        folder = options.out or file.parent
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{file.stem}.md").write_text(markdown(check), encoding="utf-8")
        draw(check, folder / f"{file.stem}.png")
        print(folder / f"{file.stem}.md")


if __name__ == "__main__":
    main()
