"""Frames of videos: how many, which, and what an interrupted call leaves."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import clip, shade

from sfm_match.images import videos
from sfm_match.images.videos import Sampling, VideoError, frame_name, read_header, some_frames, write_frames


def numbers(contents: Iterable[bytes]) -> list[int]:
    """Of frames, by their shades."""
    decoded = [cv2.imdecode(np.frombuffer(one, np.uint8), cv2.IMREAD_GRAYSCALE) for one in contents]
    return [round((int(np.asarray(one)[4, 4]) - shade(0)) / 6) for one in decoded]


def taken(folder: Path) -> list[int]:
    """The frames in a folder."""
    return numbers(path.read_bytes() for path in sorted(folder.glob("*.jpg")))


@pytest.mark.parametrize(
    ("sampling", "count"),
    [
        (Sampling(), 250),  # two a second
        (Sampling(fps=5), 625),
        (Sampling(frames=40), 40),
        (Sampling(frames=10**6), 3750),  # no more than there are
        (Sampling(fps=0.001), 1),
    ],
)
def test_frames_of_125_seconds(sampling: Sampling, count: int) -> None:
    assert sampling.count(3750, 30.0) == count


def test_a_short_clip_gives_a_hundred_frames_or_all_it_has() -> None:
    assert Sampling().count(300, 30.0) == 100
    assert Sampling().count(50, 30.0) == 50


def test_the_sharpest_of_each_stretch_is_taken(tmp_path: Path) -> None:
    video = clip(tmp_path / "clip.mp4", sharp={2, 5, 7, 10})
    header = read_header(video)
    assert (header.frames, header.rate) == (12, 10.0)
    seen: list[int] = []
    assert write_frames(video, tmp_path / "out", header, 4, seen.append) == 4
    assert taken(tmp_path / "out") == [2, 5, 7, 10]
    assert sum(seen) == 4
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [frame_name(0.2, 0), frame_name(0.5, 1), frame_name(0.7, 2), frame_name(1.0, 3)]
    assert names[3] == "00001.000s-00003.jpg"


def test_an_interrupted_call_goes_on_after_its_last_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video, out = clip(tmp_path / "clip.mp4", sharp={2, 5, 7, 10}), tmp_path / "out"
    header = read_header(video)

    def interrupt(_: int) -> None:
        if len(list(out.glob("*.jpg"))) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_frames(video, out, header, 4, interrupt)
    assert taken(out) == [2, 5]
    compared: list[float] = []

    def sharpness(frame: videos.Frame) -> float:
        compared.append(real(frame))
        return compared[-1]

    real = videos.sharpness
    monkeypatch.setattr(videos, "sharpness", sharpness)
    assert write_frames(video, out, header, 4) == 4
    assert taken(out) == [2, 5, 7, 10]
    assert len(compared) == 6  # of the frames of the second half


def test_a_video_that_ends_early_gives_what_it_has(tmp_path: Path) -> None:
    video = clip(tmp_path / "clip.mp4", sharp={2, 5, 7, 10})
    longer = videos.VideoHeader(24, 10.0)
    assert write_frames(video, tmp_path / "out", longer, 8) == 4
    assert taken(tmp_path / "out") == [2, 5, 7, 10]


@pytest.mark.parametrize("content", [b"", b"not a video", b"\0\0\0\x18ftypmp42" + bytes(400)])
def test_what_is_no_video_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clip.mp4").write_bytes(content)
    with pytest.raises(VideoError, match="cannot be opened as a video"):
        read_header(tmp_path / "clip.mp4")


def test_a_few_frames_come_from_all_over(tmp_path: Path) -> None:
    video = clip(tmp_path / "clip.mp4", sharp=set(range(12)))
    assert numbers(some_frames(video, read_header(video), 3)) == [0, 4, 8]
