"""`bench`: how long detector, descriptor and matcher take on this machine, by backend and number of keypoints.

Three figures a cell, all medians: a pair from images to matches (the earlier port's table), one image from pixels to
descriptors, one pair from descriptors to matches. A collection of N images pays N of the second, not N^2 of the first.
"""

import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from exports.registry import FAMILY
from sfm_match.commands.bench_rows import EngineRow, Row, TorchRow
from sfm_match.errors import NothingDone, SfmMatchError, UsageError
from sfm_match.images.coordinates import orient
from sfm_match.images.files import ImageError, decode, read_header, scan
from sfm_match.images.loader import normalise
from sfm_match.models import Weights, check_name
from sfm_match.models.engines import runtime_for
from sfm_match.options.arguments import checked
from sfm_match.reporting.pictures import BLUE, GREEN, ORANGE, PURPLE, write_picture
from sfm_match.runtime.devices import why_not

BACKENDS = ("torch", "ort", "tensorrt")
WARM_UP = 2  # runs before the clock
_BARS = ((BLUE, ""), (ORANGE, "//"), (GREEN, ".."), (PURPLE, "xx"))  # colour and hatch of a row in the picture
_ENOUGH_SECONDS = 20.0  # for one figure; slow cells stop there
_FEWEST = 3  # runs of a figure, however slow


@dataclass(frozen=True)
class Cell:
    """One row of the table at one number of keypoints; median milliseconds."""

    row: str
    keypoints: int
    pair_ms: float  # two images to their matches
    image_ms: float  # an image to its descriptors
    match_ms: float  # two images' descriptors to their matches
    runs: int  # behind pair_ms


@dataclass(frozen=True)
class Bench:
    """The whole table, and what it was measured on."""

    model: str
    size: tuple[int, int]  # (height, width), pixels
    pairs: int  # image pairs taken in turn
    cells: list[Cell]
    left_out: dict[str, str]  # row -> why
    machine: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def markdown(self) -> str:
        """One table a figure: rows by backend, columns by number of keypoints."""
        counts = sorted({cell.keypoints for cell in self.cells})
        rows = list(dict.fromkeys(cell.row for cell in self.cells))
        found = {(cell.row, cell.keypoints): cell for cell in self.cells}
        lines = [f"{self.model}, {self.size[0]} × {self.size[1]} px, {', '.join(self.machine.values())}", ""]
        titles = {
            "pair_ms": "Images to matches, ms a pair",
            "image_ms": "Image to descriptors, ms an image",
            "match_ms": "Descriptors to matches, ms a pair",
        }
        for field, title in titles.items():
            lines += [f"| {title} | " + " | ".join(f"{count:,}" for count in counts) + " |"]
            lines += ["|---|" + "---|" * len(counts)]
            for row in rows:
                values = (f"{getattr(found[row, n], field):.1f}" if (row, n) in found else "–" for n in counts)
                lines += [f"| {row} | " + " | ".join(values) + " |"]
            lines += [""]
        return "\n".join([*lines, *(f"Left out: {row} ({why})" for row, why in self.left_out.items())]).rstrip() + "\n"


@checked
def bench(
    images: str | Path | None = None,
    *,
    model: str = "dedode-nano",
    num_keypoints: Sequence[int] = (1024, 2048, 4096, 8192),
    backends: Sequence[str] = BACKENDS,
    size: tuple[int, int] = (512, 512),
    repeats: int = 20,
    weights: Weights | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Bench:
    """Measures every backend that this machine has.

    Args:
        images: folder of image pairs, taken in the order of their names, two by two; None: rendered views.
        model: a name of the family.
        num_keypoints: of each image; one column each.
        backends: rows, of `BACKENDS`.
        size: (height, width) to which images are squeezed, pixels.
        repeats: measured runs of a figure; less where they take long.
        weights: where the model's weights come from.
        progress: told what is measured now.

    Raises:
        UsageError: an unknown backend or model, a count that the size does not hold.
        NothingDone: fewer than two readable images.
    """
    check_name(model)
    divisor = FAMILY[model].divisor
    if min(size) < divisor or size[0] % divisor or size[1] % divisor:
        raise UsageError(f"--img-size {size[0]} {size[1]}: accepted are multiples of {divisor} for {model}")
    if repeats < 1:
        raise UsageError(f"--repeats {repeats}: accepted are 1 and more")
    for backend in backends:
        if backend not in BACKENDS:
            raise UsageError(f"--backends {backend}: accepted are {', '.join(BACKENDS)}")
    for count in num_keypoints:
        if not 1 <= count <= size[0] * size[1]:
            raise UsageError(f"--num-keypoints {count}: accepted are 1 to {size[0] * size[1]} at this size")
    pairs = [np.stack([normalise(image) for image in pair]) for pair in _pairs(images, size)]
    cells: list[Cell] = []
    left_out = _absent(backends)
    for count in num_keypoints:
        for name, make in _rows(model, weights or Weights(), backends, count, size):
            try:
                row = make()
                progress(f"{row.name}, {count} keypoints")
                cells.append(_measure(row, pairs, count, repeats))
            except (SfmMatchError, ImportError) as error:  # what was measured is kept
                left_out[name] = str(error)
    if not cells:
        raise NothingDone(f"--backends: none of them is here ({', '.join(left_out.values())})")
    return Bench(model, size, len(pairs), cells, left_out, _machine())


def _measure(row: Row, pairs: list[NDArray[np.float32]], keypoints: int, repeats: int) -> Cell:
    given = [[row.put(image[None], 2 * i + side) for side, image in enumerate(pair)] for i, pair in enumerate(pairs)]

    def described(turn: int) -> list[Any]:
        return [row.describe(image, side) for side, image in enumerate(given[turn % len(given)])]

    given_features = described(0)

    def whole(turn: int) -> None:
        row.match(*described(turn))

    def image(turn: int) -> None:
        row.describe(given[turn % len(given)][turn % 2], turn % 2)

    def match(_: int) -> None:
        row.match(*given_features)

    # matching first, while the features that it starts from are those of one pair
    (match_ms, _), (pair_ms, runs), (image_ms, _) = (_median_ms(action, repeats) for action in (match, whole, image))
    return Cell(row.name, keypoints, pair_ms, image_ms, match_ms, runs)


def _median_ms(action: Callable[[int], None], repeats: int) -> tuple[float, int]:
    for turn in range(WARM_UP):
        action(turn)
    seconds: list[float] = []
    while len(seconds) < repeats and (len(seconds) < _FEWEST or sum(seconds) < _ENOUGH_SECONDS):
        start = time.perf_counter()
        action(len(seconds))
        seconds.append(time.perf_counter() - start)
    return round(1000 * median(seconds), 3), len(seconds)


def _pairs(folder: str | Path | None, size: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """(2, H, W, 3) uint8 RGB each. A pair of which an image cannot be read is left out."""
    if folder is None:
        from sfm_match.commands.scene import cameras, render, room

        views = [np.asarray(render(view, room()), np.uint8) for view in cameras(16)[4:8]]
        return [np.stack([_shrunk(view, size) for view in views[i : i + 2]]) for i in (0, 2)]
    names = [facts.name for facts in scan(Path(folder))]
    pairs = []
    for first, second in zip(names[0::2], names[1::2], strict=False):
        try:
            pairs.append(np.stack([_read(Path(folder) / name, size) for name in (first, second)]))
        except ImageError:
            continue
    if not pairs:
        raise NothingDone(f"--images {folder}: fewer than two readable images")
    return pairs


def _read(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    return _shrunk(orient(decode(path), read_header(path).orientation), size)


def _shrunk(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def _absent(backends: Sequence[str]) -> dict[str, str]:
    """The rows that were asked for and that this machine does not have."""
    absent: dict[str, str] = {}
    if "torch" in backends:
        try:
            import exports.weights  # noqa: F401
        except ImportError as error:
            absent["torch"] = f"{error}; pip install 'sfm-match[export]'"
    for backend, device in (("tensorrt", "tensorrt"), ("ort", "cuda")):
        if backend in backends and (reason := why_not(device)) is not None:
            absent[device] = reason
    return absent


def _rows(
    model: str, weights: Weights, backends: Sequence[str], keypoints: int, size: tuple[int, int]
) -> Iterator[tuple[str, Callable[[], Row]]]:
    """What of `backends` is here, to be made one after the other, so that one network is in memory at a time."""
    absent = _absent(backends)
    if "torch" in backends and "torch" not in absent:
        yield "torch float32", partial(TorchRow, model, weights, keypoints, amp=False)
        yield "torch AMP", partial(TorchRow, model, weights, keypoints, amp=True)

    def row(device: str, *, half: bool) -> Row:
        return EngineRow(runtime_for(device)[0], model, weights, keypoints, size, half=half)

    if "ort" in backends:
        yield "ONNX Runtime", partial(row, "cpu" if "cuda" in absent else "cuda", half="cuda" not in absent)
    if "tensorrt" in backends and "tensorrt" not in absent:
        yield "TensorRT", partial(row, "tensorrt", half=True)


def _machine() -> dict[str, str]:
    load = f"load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return {"processor": _processor(), "cores": f"{os.cpu_count()} cores", "load": load}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def draw(result: Bench, path: Path) -> None:
    """The three figures as bars, by row and number of keypoints.

    Raises:
        NothingDone: matplotlib is not installed.
        SfmMatchError: the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise NothingDone(
            "the figure needs matplotlib: pip install 'sfm-match[bench]'; the tables are complete"
        ) from None
    rows = list(dict.fromkeys(cell.row for cell in result.cells))
    counts = sorted({cell.keypoints for cell in result.cells})
    titles = {"pair_ms": "images to matches", "image_ms": "image to descriptors", "match_ms": "descriptors to matches"}
    figure = Figure(figsize=(12, 4), layout="constrained")
    for axes, (field, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        width = 0.8 / len(rows)
        for place, row in enumerate(rows):
            values = {cell.keypoints: getattr(cell, field) for cell in result.cells if cell.row == row}
            at = [i + (place - (len(rows) - 1) / 2) * width for i, count in enumerate(counts) if count in values]
            colour, hatch = _BARS[place % len(_BARS)]
            bars = [values[count] for count in counts if count in values]
            axes.bar(at, bars, width, label=row, color=np.divide(colour, 255), hatch=hatch, edgecolor="white")
        axes.set_xticks(range(len(counts)), [f"{count:,}" for count in counts])
        axes.set(title=title, xlabel="keypoints", ylabel="median ms")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(rows))
    figure.suptitle(f"{result.model}, {result.size[0]} × {result.size[1]} px, {result.machine['processor']}")
    canvas: Any = FigureCanvasAgg(figure)
    figure.set_dpi(120)
    canvas.draw()
    write_picture(path, np.asarray(canvas.buffer_rgba(), np.uint8)[..., :3])
