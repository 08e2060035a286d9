"""Rows of `gpu_check` as Markdown and as a picture. Needs nothing but Python; the picture needs matplotlib."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gpu.goals import BASELINE, best, goals, good, speed_up
from gpu.plan import Settings, tasks
from gpu.rows import END, Row, key_of

NONE = "–"
_SPEEDS = ("speed", "matching-speed", "jpegs")
_HEAD = ("settings", "call")  # parts that hold no result
_NO_FIGURE = ("part", "engine", "model", "case", "status", "why", "at", "before", "after", "log", "seconds")
_LONGEST = 300  # characters of a reason
_STATE = ("sm_mhz", "clocks.sm", "power_w", "power.draw", "temperature", "temperature.gpu", "throttling")


def shown(value: Any) -> str:
    """A figure for a cell."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    text = value if isinstance(value, str) else json.dumps(value)
    return " ".join(text.split()).replace("|", "\\|")[:_LONGEST]


def table(heads: Sequence[str], lines: Iterable[Sequence[Any]]) -> list[str]:
    """Markdown, and an empty line."""
    rows = [f"| {' | '.join(map(shown, line))} |" for line in lines]
    return [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *rows, ""] if rows else []


def markdown(rows: Sequence[Row]) -> str:
    """A whole report: goals, speeds beside their roofs, proofs, and all that failed or was left out."""
    lines = ["# GPU check", "", *_head(rows)]
    lines += ["## Goals", "", *_goals(rows)]
    for title, found in (("Networks", _networks(rows)), ("Matching", _matching(rows)), ("From JPEGs", _jpegs(rows))):
        lines += [f"## {title}", "", *found] if found else []
    proofs = list(dict.fromkeys(row["part"] for row in rows if row["part"] not in (*_SPEEDS, *_HEAD)))
    for part in proofs:
        found = _figures(rows, part)
        lines += [f"## {part}", "", *found] if found else []
    lines += ["## Failed", "", *(_reasons(rows, "failed") or ["Nothing.", ""])]
    lines += ["## Left out", "", *(_reasons(rows, "left out") or ["Nothing.", ""])]
    waiting = _open(rows)
    lines += (
        ["## Not done yet", "", "Another call of `gpu_check` with the same --out goes on with:", "", *waiting]
        if waiting
        else []
    )
    states = _states(rows)
    lines += ["## The GPU meanwhile", "", *states] if states else []
    return "\n".join(lines).rstrip() + "\n"


def _head(rows: Sequence[Row]) -> list[str]:
    """When, where, of which sources, under which settings."""
    calls = [row for row in rows if row["part"] == "call"]
    lines = []
    if calls:
        first, machine, versions = calls[0], calls[0].get("machine") or {}, calls[0].get("versions") or {}
        facts = ", ".join(f"{name} {shown(value)}" for name, value in {**machine, **versions}.items())
        lines = [
            f"{str(first.get('at', ''))[:10]}, {len(calls)} calls: {facts}",
            "",
            f"`{first.get('command', '')}`",
            "",
        ]
    settings: Row = next((row["settings"] for row in rows if row["part"] == "settings"), {})
    if settings.get("device") == "cpu" or settings.get("quick"):
        lines += ["A run of the code, on a CPU or with small sizes: its speeds say nothing about a GPU.", ""]
    ceiling = next((row for row in good(rows, "ceiling") if "product_tflops" in row), None)
    if ceiling:
        lines += [
            f"Ceilings, measured: a product of {ceiling.get('product_side')}² matrices runs at "
            f"{shown(ceiling['product_tflops'])} TFLOP/s, a copy at {shown(ceiling.get('copy_gb_per_s'))} GB/s. The "
            "layerwise roof takes each convolution with its norm and ReLU as one kernel, at the slower of the two.",
            "",
        ]
    return lines


def _goals(rows: Sequence[Row]) -> list[str]:
    words = {True: "reached", False: "not reached", None: "not measured"}
    lines = [(g.text, g.wanted, g.measured, words[g.reached], g.by) for g in goals(rows)]
    return table(("goal", "at least", "measured", "", "by"), lines)


def _networks(rows: Sequence[Row]) -> list[str]:
    """A line for each model, size and engine, at its best batch; then all batches."""
    found = good(rows, "speed")
    lines, batches = [], sorted({row["batch"] for row in found if "batch" in row})
    by_batch = []
    for model, size, engine in dict.fromkeys((row["model"], row.get("size"), row["engine"]) for row in found):
        mine = [row for row in found if (row["model"], row.get("size"), row["engine"]) == (model, size, engine)]
        row = best(mine, "images_per_s")
        if row is None:
            continue
        factor = None if engine == BASELINE else speed_up(rows, row)
        figures = [
            row.get(name) for name in ("batch", "images_per_s", "share_of_product", "share_of_layers", "memory_gb")
        ]
        lines.append((model, size, _engine(engine), *figures[:2], factor, *figures[2:]))
        cells = {one.get("batch"): one["images_per_s"] for one in mine if "images_per_s" in one}
        by_batch.append((model, size, _engine(engine), *(cells.get(batch) for batch in batches)))
    heads = ("model", "size", "engine", "best batch", "images/s", "times torch AMP")
    text = table((*heads, "of product ceiling", "of layerwise roof", "GB in use"), lines)
    return text + table(("images/s", "size", "engine", *(f"batch {b}" for b in batches)), by_batch)


def _matching(rows: Sequence[Row]) -> list[str]:
    names = ("pairs_per_s", "kernel_pairs_per_s", "share_of_product", "share_of_layers")
    lines = [
        (row.get("keypoints"), _engine(row["engine"]), *(row.get(name) for name in names))
        for row in sorted(good(rows, "matching-speed"), key=lambda row: row.get("keypoints", 0))
    ]
    heads = ("keypoints", "engine", "pairs/s end to end", "in the kernel", "of product ceiling", "of layerwise roof")
    return table(heads, lines)


def _jpegs(rows: Sequence[Row]) -> list[str]:
    names = ("images_per_s", "network_images_per_s", "share_of_network", "pairs_per_s")
    lines = [
        (row["model"], _engine(row["engine"]), row["case"], *(row.get(n) for n in names)) for row in good(rows, "jpegs")
    ]
    return table(("model", "engine", "case", "images/s", "network alone", "share", "pairs/s"), lines)


def _engine(name: str) -> str:
    return "torch AMP (baseline)" if name == BASELINE else name


def _figures(rows: Sequence[Row], part: str) -> list[str]:
    """Every row of a part with all its figures."""
    mine = [row for row in rows if row["part"] == part and row["case"] != END and row.get("status") != "left out"]
    names = list(dict.fromkeys(name for row in mine for name in row if name not in _NO_FIGURE))
    lines = [
        (row.get("engine"), row.get("model"), row["case"], row.get("status"), *(row.get(name) for name in names))
        for row in mine
    ]
    return table(("engine", "model", "case", "", *names), lines)


def _reasons(rows: Sequence[Row], status: str) -> list[str]:
    """One line for each reason, with all that it held back."""
    by_reason: dict[str, list[str]] = {}
    for row in rows:
        if row.get("status") == status:
            case = "the whole part" if row["case"] == END else row["case"]
            what = ", ".join(filter(None, (row["part"], row.get("engine"), row.get("model"), case)))
            by_reason.setdefault(shown(row.get("why") or "no reason given"), []).append(what)
    return [f"- {'; '.join(what)}: {why}" for why, what in by_reason.items()] + ([""] if by_reason else [])


def _open(rows: Sequence[Row]) -> list[str]:
    """Tasks that no row closes, of the engines that are there."""
    found: Row = next((row["settings"] for row in rows if row["part"] == "settings"), {})
    try:
        settings = Settings.from_json(found)
    except TypeError:  # of another version
        return []
    ended = {key_of(row) for row in rows if row["case"] == END}
    present = {row["case"] for row in good(rows, "engines")}
    waiting = [task.head for task in tasks(settings, present.__contains__) if task.end not in ended]
    lines = [f"- {', '.join(filter(None, head.values()))}" for head in waiting]
    return [*lines, ""] if lines else []


def _states(rows: Sequence[Row]) -> list[str]:
    """Clock, power, heat and throttling before and after each part, where nvidia-smi told."""
    lines = []
    names = [name for name in _STATE if any(name in (row.get("after") or {}) for row in rows)]
    for row in rows:
        before, after = row.get("before") or {}, row.get("after") or {}
        if row["case"] == END and names and after:
            cells = (f"{shown(before.get(name))} → {shown(after.get(name))}" for name in names)
            lines.append((row["part"], row.get("engine"), row.get("model"), row.get("seconds"), *cells))
    return table(("part", "engine", "model", "s", *names), lines)


def draw(rows: Sequence[Row], path: Path) -> bool:
    """Images a second by batch, a panel for each model and size; pairs a second by keypoints. False without any."""
    from matplotlib.figure import Figure

    speeds, pairs = good(rows, "speed"), good(rows, "matching-speed")
    panels = list(dict.fromkeys((row["model"], row.get("size")) for row in speeds))
    count = len(panels) + bool(pairs)
    if not count:
        return False
    figure = Figure(figsize=(4 * count, 3.5), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    for one, (model, size) in zip(axes, panels, strict=False):
        mine = [row for row in speeds if (row["model"], row.get("size")) == (model, size)]
        _lines(one, mine, "batch", "images_per_s")
        one.set(title=f"{model}, {size} × {size} px", xlabel="images a call", ylabel="images/s")
    if pairs:
        _lines(axes[-1], pairs, "keypoints", "pairs_per_s")
        axes[-1].set(title="matching", xlabel="keypoints an image", ylabel="pairs/s")
    handles = {label: handle for one in axes for handle, label in zip(*one.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(4, max(1, len(handles))))
    figure.savefig(path, dpi=120)
    return True


def _lines(axes: Any, rows: Sequence[Row], across: str, up: str) -> None:
    for engine in dict.fromkeys(row["engine"] for row in rows):
        mine = sorted((row[across], row[up]) for row in rows if row["engine"] == engine and across in row and up in row)
        if mine:
            axes.plot(*zip(*mine, strict=True), marker="o", label=_engine(engine))
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
