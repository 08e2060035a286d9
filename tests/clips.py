"""Small videos whose frames can be told apart."""

import os
from pathlib import Path

import cv2
import numpy as np

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read when the first clip is written


def shade(frame: int) -> int:
    return 40 + 6 * frame


def clip(path: Path, sharp: set[int], count: int = 12, rate: float = 10.0) -> Path:
    """A grey video, frame i of the shade of i, in which some frames have an edge that is not blurred."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, (96, 64))
    for number in range(count):
        frame = np.full((64, 96, 3), shade(number), np.uint8)
        cv2.rectangle(frame, (32, 16), (64, 48), (250, 250, 250), -1)
        writer.write(frame if number in sharp else cv2.GaussianBlur(frame, (0, 0), 4))
    writer.release()
    return path
