"""What fits and what is built: batches by memory, TensorRT profiles by buckets, pairs a call. Pure arithmetic."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sfm_match.runtime.protocol import Shape, Shapes

OWN_PROFILE = 64  # images of one shape that pay for an engine of their own
MOST_IMAGES = 16  # a call; more gains nothing on the largest GPUs
USABLE = 0.6  # of the free memory; the rest is for workers, allocators and neighbours
WORKERS = 2  # of a GPU
MOST_ELEMENTS = 2**31 - 1  # of a tensor: TensorRT refuses more, and kernels of other engines count in 32 bits
MATRICES = 4  # float32 matrices of a pair that matching holds at once
MOST_PAIRS = 64  # a call
FEW = 4  # images at once where nobody tells the memory


@dataclass(frozen=True)
class Range:
    """Batches of images that one engine serves: (B, H, W) each."""

    least: tuple[int, int, int]
    usual: tuple[int, int, int]
    largest: tuple[int, int, int]

    def shapes(self, before: Shape = (), after: Shape = ()) -> tuple[Shape, Shape, Shape]:
        """Of a tensor (B, *before, H, W, *after)."""
        least, usual, largest = ((b, *before, h, w, *after) for b, h, w in (self.least, self.usual, self.largest))
        return least, usual, largest

    def rows(self, *after: int) -> tuple[Shape, Shape, Shape]:
        """Of a tensor (B, *after)."""
        return (self.least[0], *after), (self.usual[0], *after), (self.largest[0], *after)


def ranges(buckets: Mapping[tuple[int, int], int], batch: int) -> list[Range]:
    """The engines of a job: one for each frequent shape, one for all the others.

    Args:
        buckets: (width, height) of padded images, pixels -> how many.
        batch: images a call.

    Returns:
        The most specific first.
    """
    frequent = sorted(bucket for bucket, count in buckets.items() if count >= OWN_PROFILE)
    others = [bucket for bucket, count in buckets.items() if count < OWN_PROFILE]
    found = [Range((1, h, w), (batch, h, w), (batch, h, w)) for w, h in frequent]
    if others:
        widths, heights = zip(*others, strict=True)
        usual = max(others, key=lambda bucket: (buckets[bucket], bucket))
        found.append(
            Range((1, min(heights), min(widths)), (batch, usual[1], usual[0]), (batch, max(heights), max(widths)))
        )
    return found


def fits(shape: Shape, least: Shape, largest: Shape) -> bool:
    """Whether a profile takes a shape."""
    return len(shape) == len(least) and all(a <= n <= b for a, n, b in zip(least, shape, largest, strict=True))


def profile_for(profiles: Sequence[Shapes], shapes: Mapping[str, Shape]) -> int | None:
    """Place of the first profile that takes all inputs."""
    for place, profile in enumerate(profiles):
        if all(
            name not in profile or fits(shape, profile[name][0], profile[name][2]) for name, shape in shapes.items()
        ):
            return place
    return None


def whole_range(profiles: Sequence[Shapes]) -> dict[str, tuple[Shape, Shape, Shape]]:
    """One profile that takes what all of them take; the usual shapes are those of the first."""

    def extreme(name: str, place: int, pick: Callable[[Sequence[int]], int]) -> Shape:
        return tuple(pick(sides) for sides in zip(*(profile[name][place] for profile in profiles), strict=True))

    return {name: (extreme(name, 0, min), usual[1], extreme(name, 2, max)) for name, usual in profiles[0].items()}


def assumed_free(total: int) -> int:
    """Bytes of a GPU's memory to plan with where nothing tells what is free."""
    return int(total * 0.8)


def images_at_once(images: int, bytes_each: float, cores: int, memory: int | None) -> int:
    """Images that a CPU works on side by side, one a core.

    Args:
        images: that there are.
        bytes_each: of an image's activations; all together take a quarter of the memory at most.
        cores: of the machine.
        memory: of the machine, bytes; None: unknown.
    """
    fitting = FEW if memory is None else int(memory / 4 / bytes_each)
    return max(1, min(images, cores, fitting))


def images_a_call(free: int | None, pixels: int, bytes_per_pixel: float, elements: int) -> int:
    """The batch of a GPU: a power of two that fits.

    Args:
        free: bytes of the device; None: unknown, 8 GB are assumed.
        pixels: of the largest padded image.
        bytes_per_pixel: activations of the larger network.
        elements: of the largest tensor that such an image makes.
    """
    room = USABLE * (free if free is not None else 8 << 30)
    fitting = int(room / (WORKERS * pixels * bytes_per_pixel))
    return 1 << (max(1, min(MOST_IMAGES, fitting, most_a_call(elements))).bit_length() - 1)


def most_a_call(elements: int) -> int:
    """Images or pairs of which no tensor of a call has more elements than engines take, at least one."""
    return max(1, MOST_ELEMENTS // max(elements, 1))


def pairs_a_call(free: int | None, keypoints: int) -> int:
    """Image pairs that matching takes at once, a power of two: their matrices are what is large."""
    room = USABLE * (free if free is not None else 8 << 30)
    matrix = max(keypoints, 1) ** 2
    fitting = int(room / (WORKERS * MATRICES * 4 * matrix))
    return 1 << (max(1, min(MOST_PAIRS, fitting, most_a_call(matrix))).bit_length() - 1)
