"""What the project wants of a GPU, and whether rows of `gpu_check` show it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gpu.rows import END, Row

BASELINE = "amp"  # torch AMP with cuDNN on
MODEL, SIZE, KEYPOINTS = "dedode-l-b", 784, 4096  # that the goals are set for
SPEED_UP, OF_LAYERS = 4.0, 0.6
PAIRS, KERNEL_PAIRS = 5000.0, 15000.0  # a second
OF_NETWORK = 0.8


@dataclass(frozen=True)
class Goal:
    """One goal, and what was measured."""

    text: str
    wanted: float
    measured: float | None  # None: no row tells
    by: str  # engine and case of the best row

    @property
    def reached(self) -> bool | None:
        return None if self.measured is None else self.measured >= self.wanted


def good(rows: Iterable[Row], part: str, **same: Any) -> list[Row]:
    """Rows of a part that hold a figure, with these values."""
    figures = (row for row in rows if row["part"] == part and row.get("status") == "ok" and row["case"] != END)
    return [row for row in figures if all(row.get(k) == v for k, v in same.items())]


def best(rows: Sequence[Row], figure: str) -> Row | None:
    """The row where a figure is highest."""
    having = [row for row in rows if isinstance(row.get(figure), int | float)]
    return max(having, key=lambda row: float(row[figure]), default=None)


def speed_up(rows: Sequence[Row], row: Row) -> float | None:
    """Of a row of `speed` over the baseline's best batch, of the same model and size."""
    base = best(good(rows, "speed", engine=BASELINE, model=row["model"], size=row["size"]), "images_per_s")
    return float(row["images_per_s"]) / float(base["images_per_s"]) if base else None


def goals(rows: Sequence[Row]) -> list[Goal]:
    """Every goal. What counts is the best engine, and no baseline."""
    networks = [row for row in good(rows, "speed", model=MODEL, size=SIZE) if row["engine"] != BASELINE]
    pairs = good(rows, "matching-speed", keypoints=KEYPOINTS)
    jpegs = good(rows, "jpegs", model=MODEL)

    def goal(text: str, wanted: float, found: Sequence[Row], figure: str, of: Callable[[Row], float | None]) -> Goal:
        row = best(found, figure)
        measured = of(row) if row is not None else None
        return Goal(text, wanted, measured, f"{row['engine']}, {row['case']}" if row else "")

    def own(figure: str) -> Callable[[Row], float]:
        return lambda row: float(row[figure])

    what = f"L-B at {SIZE}²"
    return [
        goal(f"{what}: times torch AMP", SPEED_UP, networks, "images_per_s", lambda row: speed_up(rows, row)),
        goal(f"{what}: share of the layerwise roof", OF_LAYERS, networks, "share_of_layers", own("share_of_layers")),
        goal(f"{KEYPOINTS} keypoints: pairs/s end to end", PAIRS, pairs, "pairs_per_s", own("pairs_per_s")),
        goal(
            f"{KEYPOINTS} keypoints: pairs/s in the kernel",
            KERNEL_PAIRS,
            pairs,
            "kernel_pairs_per_s",
            own("kernel_pairs_per_s"),
        ),
        goal(
            "L-B from JPEGs: share of the network alone", OF_NETWORK, jpegs, "share_of_network", own("share_of_network")
        ),
    ]
