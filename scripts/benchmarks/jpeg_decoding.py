"""What decodes JPEGs fastest on a CPU: Pillow, which is what runs, or another library.

    python scripts/benchmarks/jpeg_decoding.py [--images DIR] [--turbojpeg LIBRARY] [--out results.md]

OpenCV, PyTurboJPEG, simplejpeg and nvImageCodec are compared; those that cannot be imported are named and left out.
Photographs of 12 megapixels are made from those given (without: from rendered views), with the noise of a sensor, and
are held in memory. In each round every decoder decodes the same photograph once, in turn, in one thread. Counted is the
time of this process on the CPU and not of the clock, so that a busy machine changes less; compared are ratios to Pillow
of the same round. The second table is the loader's work: decoding, at the fraction that will do, and shrinking to the
network's size.
"""

import argparse
import io
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from loader import SIZE, originals
from numpy.typing import NDArray
from PIL import Image, features

from sfm_match.images.files import Header, reduced
from sfm_match.images.loader import to_network

DIVISORS = (1, 2, 4, 8)
SMALL = (1600, 1200)  # pixels; decoded whole
LONG_SIDE = 1024  # at the network, pixels
NOISE = 4.0  # levels, standard deviation
QUALITY = 92
Pixels = NDArray[np.uint8]
Decoder = Callable[[bytes, int], Pixels]  # the file's bytes, the divisor -> (H, W, 3) uint8 RGB


@dataclass(frozen=True)
class Row:
    """A decoder at one divisor."""

    decoder: str
    what: str
    milliseconds: float  # median, CPU time of an image
    ratio: float  # to Pillow's time; below 1 is faster; the median of the rounds
    low: float  # its quartiles
    high: float
    mean_difference: float  # levels, to Pillow's pixels
    largest_difference: int


def pillow(content: bytes, divisor: int) -> Pixels:
    """As `sfm_match.images.files.decode` does it."""
    with Image.open(io.BytesIO(content)) as image:
        image.draft(None, (image.width // divisor, image.height // divisor))
        return np.asarray(image)


def pillow_copied(content: bytes, divisor: int) -> Pixels:
    """As it was done before this was measured: `convert` copies what is RGB already."""
    with Image.open(io.BytesIO(content)) as image:
        image.draft(None, (image.width // divisor, image.height // divisor))
        return np.asarray(image.convert("RGB"))


def opencv(content: bytes, divisor: int) -> Pixels:
    flag = getattr(cv2, "IMREAD_COLOR" if divisor == 1 else f"IMREAD_REDUCED_COLOR_{divisor}")
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise ValueError("OpenCV cannot decode it")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def turbojpeg(library_path: str | None) -> tuple[str, Decoder]:
    import turbojpeg

    library = turbojpeg.TurboJPEG(library_path)

    def decode(content: bytes, divisor: int) -> Pixels:
        return np.asarray(library.decode(content, pixel_format=turbojpeg.TJPF_RGB, scaling_factor=(1, divisor)))

    return "PyTurboJPEG", decode


def simplejpeg() -> tuple[str, Decoder]:
    import simplejpeg

    def decode(content: bytes, divisor: int) -> Pixels:
        height, width, _, _ = simplejpeg.decode_jpeg_header(content)
        # the smallest of its sizes that is at least this
        least = height // divisor, width // divisor
        return np.asarray(simplejpeg.decode_jpeg(content, "RGB", False, False, *least, 1.0))

    return "simplejpeg", decode


def nvimgcodec() -> tuple[str, Decoder]:
    """Its CPU backend, in the way of `sfm_match.images.decoders`."""
    from nvidia import nvimgcodec

    backends = [nvimgcodec.Backend(nvimgcodec.BackendKind.CPU_ONLY)]
    own = nvimgcodec.Decoder(nvimgcodec.NVIMGCODEC_DEVICE_CPU_ONLY, max_num_cpu_threads=1, backends=backends)

    def decode(content: bytes, divisor: int) -> Pixels:
        pixels = np.asarray(own.decode(nvimgcodec.CodeStream(content)).cpu())
        smaller = pixels.shape[1] // divisor, pixels.shape[0] // divisor
        return pixels if divisor == 1 else np.asarray(cv2.resize(pixels, smaller, interpolation=cv2.INTER_AREA))

    return "nvImageCodec, CPU", decode


def present(library_path: str | None) -> tuple[dict[str, Decoder], list[str]]:
    """Decoders by name, Pillow first, and why others are left out."""
    found: dict[str, Decoder] = {"Pillow": pillow, "Pillow, copied once more": pillow_copied, "OpenCV": opencv}
    absent = []

    def with_library() -> tuple[str, Decoder]:
        return turbojpeg(library_path)

    with_library.__name__ = turbojpeg.__name__
    for make in (with_library, simplejpeg, nvimgcodec):
        try:
            name, decoder = make()
            found[name] = decoder
        except (ImportError, RuntimeError, OSError) as error:
            absent.append(f"{make.__name__}: {' '.join(str(error).split())}")
    return found, absent


def photographs(folder: Path | None, count: int, size: tuple[int, int] = SIZE) -> list[bytes]:
    """JPEG files of (width, height) pixels."""
    random = np.random.default_rng(0)
    made = []
    for image in originals(folder, count):
        large = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC).astype(np.float32)
        noisy = np.clip(large + random.normal(0, NOISE, large.shape), 0, 255).astype(np.uint8)
        made.append(cv2.imencode(".jpg", noisy[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes())
    return made


def timed(ways: dict[str, Callable[[bytes], Pixels]], contents: list[bytes], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each way in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way(contents[0])  # libraries load at first use
    names = list(ways)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:  # each is first as often
            start = time.process_time()
            ways[name](contents[turn % len(contents)])
            seconds[name].append(time.process_time() - start)
    return seconds


def compare(ways: dict[str, Callable[[bytes], Pixels]], contents: list[bytes], what: str, rounds: int) -> list[Row]:
    seconds = timed(ways, contents, rounds)
    expected = ways["Pillow"](contents[0]).astype(int)
    rows = []
    for name, way in ways.items():
        low, middle, high = np.percentile(np.array(seconds[name]) / np.array(seconds["Pillow"]), (25, 50, 75))
        apart = np.abs(way(contents[0]).astype(int) - expected)
        milliseconds = float(np.median(seconds[name])) * 1e3
        rows.append(Row(name, what, milliseconds, middle, low, high, float(apart.mean()), int(apart.max())))
    return rows


def at(decoder: Decoder, divisor: int) -> Callable[[bytes], Pixels]:
    return lambda content: decoder(content, divisor)


def loaded(decoder: Decoder, size: tuple[int, int]) -> Callable[[bytes], Pixels]:
    """Decoded at the fraction that will do, and shrunk to the network's size, as the loader does it."""
    geometry = Header(*size).geometry(LONG_SIDE, 16)
    divisor = size[0] // reduced(size, geometry.raw_network_size)[0]
    return lambda content: to_network(decoder(content, divisor), geometry)


def table(rows: list[Row]) -> list[str]:
    lines = ["| decoder | size | CPU ms an image | time against Pillow, median (quartiles) | pixels against Pillow's |"]
    lines.append("|---|---|---|---|---|")
    for row in rows:
        apart = f"{row.mean_difference:.2f} levels in the mean, {row.largest_difference} at most"
        pixels = apart if row.largest_difference else "equal"
        against = f"{row.ratio:.2f} ({row.low:.2f} to {row.high:.2f})"
        lines.append(f"| {row.decoder} | {row.what} | {row.milliseconds:.1f} | {against} | {pixels} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of photographs")
    parser.add_argument("--count", type=int, default=6, help="photographs")
    parser.add_argument("--rounds", type=int, default=60, help="of each size")
    parser.add_argument("--turbojpeg", help="libturbojpeg.so, which PyTurboJPEG's package does not hold")
    parser.add_argument("--out", type=Path, help="Markdown file")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    decoders, absent = present(options.turbojpeg)
    contents = photographs(options.images, options.count)
    before = os.getloadavg()[0]
    rows, loading = [], []
    for divisor in DIVISORS:
        what = "whole" if divisor == 1 else f"1/{divisor}"
        ways = {name: at(decoder, divisor) for name, decoder in decoders.items()}
        rows += compare(ways, contents, what, options.rounds)
    for width, height in (SIZE, SMALL):
        files = contents if (width, height) == SIZE else photographs(options.images, options.count, SMALL)
        ways = {name: loaded(decoder, (width, height)) for name, decoder in decoders.items()}
        loading += compare(ways, files, f"{width} x {height} to {LONG_SIDE}", options.rounds)
    size = np.mean([len(content) for content in contents]) / 1e6
    lines = [
        "# Decoding JPEGs on a CPU",
        "",
        f"`python scripts/benchmarks/jpeg_decoding.py`: {SIZE[0]} x {SIZE[1]} pixels, {size:.1f} MB on average, "
        f"{options.rounds} rounds of each size, one thread, CPU time. Load before and after: "
        f"{before:.1f}, {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores. Python {platform.python_version()}, "
        f"Pillow {Image.__version__} with libjpeg-turbo {features.version('libjpeg_turbo')}, OpenCV {cv2.__version__}.",
        "",
        *table(rows),
        "",
        "As the loader does it, decoded at the fraction that will do and shrunk:",
        "",
        *table(loading),
        *(f"\nLeft out: {reason}" for reason in absent),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
