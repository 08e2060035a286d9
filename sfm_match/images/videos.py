"""Videos as folders of photographs: of each stretch of time the sharpest frame.

Motion blurs most frames of a hand-held video a little and some a lot. Of N stretches of equal length each gives one
frame, the one with the largest variance of the Laplacian (Pech-Pacheco et al., ICPR 2000), so that frames are sharp and
still follow one another.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sfm_match.store.shard import replacing

SUFFIXES = {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mts", ".m2ts", ".mpg", ".mpeg", ".wmv", ".3gp"}
DEFAULT_FPS, LEAST_FRAMES = 2.0, 100  # of a clip shorter than 50 s, 100 frames, or all it has
_COMPARED_SIDE = 640  # pixels, at which sharpness is compared
_JPEG_QUALITY = 95

Frame = NDArray[np.uint8]  # (H, W, 3) BGR, upright


class VideoError(Exception):
    """This video cannot be used; the message says why."""


@dataclass(frozen=True)
class Sampling:
    """How many frames of a video are taken: so many a second, or so many in all."""

    fps: float | None = None
    frames: int | None = None

    def count(self, available: int, rate: float) -> int:
        """Number of frames.

        Args:
            available: frames that the video has.
            rate: of them a second.
        """
        if self.frames is not None:
            wanted = self.frames
        elif self.fps is not None:
            wanted = round(available / rate * self.fps)
        else:
            wanted = max(round(available / rate * DEFAULT_FPS), LEAST_FRAMES)
        return min(max(wanted, 1), available)


@dataclass(frozen=True)
class VideoHeader:
    """What the head of a video tells."""

    frames: int
    rate: float  # frames a second


def read_header(path: Path) -> VideoHeader:
    """How many frames there are. Where the head does not say, they are counted, which takes as long as to decode them.

    Raises:
        VideoError: it cannot be read, or has no frame.
    """
    with _opened(path) as capture:
        frames, rate = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), capture.get(cv2.CAP_PROP_FPS)
        if frames <= 0:
            frames = 0
            while capture.grab():
                frames += 1
    if frames <= 0:
        raise VideoError("no frame in it")
    return VideoHeader(frames, rate if math.isfinite(rate) and rate > 0 else 30.0)


def write_frames(
    path: Path, folder: Path, header: VideoHeader, count: int, advance: Callable[[int], None] = lambda _: None
) -> int:
    """Writes the sharpest frame of each stretch of a video. Those that an interrupted call left are kept.

    Args:
        path: of the video.
        folder: to write to; it is made. Files are named after the time and a running number, `00012.345s-00037.jpg`,
            and hold upright pixels.
        header: of the video.
        count: of stretches, at most `header.frames`.
        advance: told as frames are written.

    Returns:
        Number of frames in the folder: fewer than `count` where the video ends before its head says.

    Raises:
        VideoError: it cannot be read, or not one frame of it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = len(list(folder.glob("*.jpg")))
    advance(written)
    best: tuple[float, float, Frame] | None = None  # sharpness, seconds
    current = written

    def flush() -> None:
        nonlocal best, written
        if best is not None:
            with replacing(folder / frame_name(best[1], written)) as temporary:
                temporary.write_bytes(_jpeg(best[2]))
            best, written = None, written + 1
            advance(1)

    with _opened(path) as capture:
        index = 0
        while capture.grab():
            stretch = min(index * count // header.frames, count - 1)
            index += 1
            if stretch < current:  # an earlier call wrote it
                continue
            if stretch > current:
                flush()
                current = stretch
            seconds = max(capture.get(cv2.CAP_PROP_POS_MSEC), 0.0) / 1000
            read, frame = capture.retrieve()
            if not read:
                continue
            pixels = np.asarray(frame, np.uint8)
            sharp = sharpness(pixels)
            if best is None or sharp > best[0]:
                best = sharp, seconds, pixels
        flush()
    if written == 0:
        raise VideoError("not one frame can be decoded")
    return written


def frame_name(seconds: float, number: int) -> str:
    """Sorts by time, as text and by number."""
    return f"{seconds:09.3f}s-{number:05d}.jpg"


def sharpness(frame: Frame) -> float:
    """Variance of the Laplacian of a (H, W, 3) frame, grey, at a long side of at most 640 pixels."""
    scale = _COMPARED_SIDE / max(frame.shape[:2])
    grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(grey, cv2.CV_32F).var())


def some_frames(path: Path, header: VideoHeader, count: int) -> Iterator[bytes]:
    """A few frames from all over a video as JPEGs, at once: what a plan looks at.

    Raises:
        VideoError: it cannot be read.
    """
    with _opened(path) as capture:
        for number in range(count):
            capture.set(cv2.CAP_PROP_POS_FRAMES, number * header.frames // count)
            read, frame = capture.read()
            if read:
                yield _jpeg(np.asarray(frame, np.uint8))


def _jpeg(frame: Frame) -> bytes:
    return cv2.imencode(".jpg", frame, (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY))[1].tobytes()


@contextmanager
def _opened(path: Path) -> Iterator[cv2.VideoCapture]:
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg's own lines name neither the file nor the cure
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise VideoError("cannot be opened as a video: damaged, or of a kind that OpenCV does not decode")
        yield capture
    finally:
        capture.release()
