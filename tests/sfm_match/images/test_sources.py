"""What `--images` names: folders, videos, and folders with both."""

from pathlib import Path

import pytest
from clips import clip
from jobs import sfm_match
from PIL import Image

from sfm_match.errors import NothingDone, UsageError
from sfm_match.images.collection import Collection, preview_collection, refresh_collection
from sfm_match.images.videos import Sampling
from sfm_match.job.workspace import Workspace
from sfm_match.options.pairs import PairsOptions
from sfm_match.stages.pairs import settled

FOUR = Sampling(frames=4)


@pytest.fixture
def place(tmp_path: Path):
    with Workspace(tmp_path / "work") as workspace:
        yield workspace


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder of photographs and a video."""
    folder = tmp_path / "mixed"
    clip(folder / "day" / "clip.mp4", sharp={2, 5, 7, 10})
    Image.new("RGB", (64, 48), "red").save(folder / "a.png")
    Image.new("RGB", (64, 48), "red").save(folder / "day" / "b.png")
    return folder


def refreshed(place: Workspace, images: Path, sampling: Sampling | None = FOUR, overwrite: bool = False) -> Collection:
    collection = refresh_collection(place, images, None, sampling, overwrite=overwrite)
    collection.save(place)
    return Collection.load(place)


def test_a_video_is_a_folder_of_frames(place: Workspace, tmp_path: Path) -> None:
    collection = refreshed(place, clip(tmp_path / "clip.mp4", sharp={2, 5, 7, 10}))
    assert list(collection.usable) == [f"clip/00000.{s}00s-0000{i}.jpg" for i, s in enumerate((2, 5, 7))] + [
        "clip/00001.000s-00003.jpg"
    ]
    assert collection.video_frames == list(collection.usable)
    assert collection.folder == place.images.resolve()
    assert not [path for path in place.images.iterdir() if path.name.startswith(".")]  # nothing unfinished


def test_frames_are_taken_once(place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = clip(tmp_path / "clip.mp4", sharp={2, 5, 7, 10})
    before = refreshed(place, video)
    monkeypatch.setattr("sfm_match.images.sources.write_frames", None)
    for sampling in (FOUR, None):  # `pairs` says nothing about frames
        assert refreshed(place, video, sampling).records == before.records


def test_another_sampling_is_refused_until_overwritten(place: Workspace, tmp_path: Path) -> None:
    video = clip(tmp_path / "clip.mp4", sharp={2, 5, 7, 10})
    refreshed(place, video)
    with pytest.raises(UsageError, match=r"clip\.mp4 were taken with --frames 4, now --fps 2[.]0; .*--overwrite"):
        refreshed(place, video, Sampling(fps=2.0))
    assert len(refreshed(place, video, Sampling(fps=2.0), overwrite=True).usable) == 2


def test_a_video_that_changed_gives_new_frames(place: Workspace, tmp_path: Path) -> None:
    video = clip(tmp_path / "clip.mp4", sharp={2, 5, 7, 10})
    before = refreshed(place, video)
    after = refreshed(place, clip(video, sharp={1, 4, 8, 11}))
    assert set(before.usable).isdisjoint(after.usable)


def test_photographs_beside_videos_are_linked(place: Workspace, mixed: Path) -> None:
    collection = refreshed(place, mixed)
    assert [name for name in collection.usable if name.endswith("png")] == ["a.png", "day/b.png"]
    assert len(collection.video_frames) == 4
    assert all(name.startswith("day/clip/") for name in collection.video_frames)
    assert (collection.folder / "a.png").samefile(mixed / "a.png")
    (mixed / "a.png").unlink()
    (mixed / "day" / "clip.mp4").unlink()
    clip(mixed / "other.mp4", sharp=set())
    names = list(refreshed(place, mixed).usable)
    assert names[0] == "day/b.png"
    assert len(names) == 5
    assert all(name.startswith("other/") for name in names[1:])


def test_a_workspace_among_the_images_is_no_source(mixed: Path) -> None:
    with Workspace(mixed / "work") as place:
        first = list(refreshed(place, mixed).usable)
        assert list(refreshed(place, mixed).usable) == first


def test_a_damaged_video_is_a_failed_image(place: Workspace, mixed: Path, tmp_path: Path) -> None:
    (mixed / "bad.mov").write_bytes(b"nothing")
    record = refreshed(place, mixed).records["bad.mov"]
    assert record.unit is None
    assert "cannot be opened as a video" in str(record.error)
    (tmp_path / "alone.mp4").write_bytes(b"nothing")
    said = sfm_match("extract", "--images", tmp_path / "alone.mp4", "--workspace", tmp_path / "w")
    assert said.returncode == 3
    assert "alone.mp4: cannot be opened as a video" in said.stderr
    assert len(said.stderr.splitlines()) == 1


def test_names_that_meet_are_refused(place: Workspace, mixed: Path) -> None:
    clip(mixed / "day.mp4", sharp=set())
    with pytest.raises(UsageError, match=r"day\.mp4: its frames would go to a folder day, .* rename one"):
        refreshed(place, mixed)


def test_another_source_is_refused(place: Workspace, mixed: Path, tmp_path: Path) -> None:
    refreshed(place, mixed)
    with pytest.raises(UsageError, match=r"holds the images of .*mixed"):
        refreshed(place, clip(tmp_path / "clip.mp4", sharp=set()))


def test_what_is_neither_folder_nor_video_is_refused(place: Workspace, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UsageError, match=r"must be a folder of photographs, or a video \(\.3gp"):
        refreshed(place, tmp_path / "notes.txt")
    with pytest.raises(UsageError, match="no such folder"):
        refreshed(place, tmp_path / "nowhere.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NothingDone, match=r"no image in it \(looked for .*\.jpg.*\.mp4"):
        refreshed(place, tmp_path / "empty")


def test_a_plan_counts_frames_and_writes_nothing(place: Workspace, mixed: Path, tmp_path: Path) -> None:
    (tmp_path / "preview").mkdir()
    planned = preview_collection(place, mixed, None, FOUR, tmp_path / "preview")
    assert len(planned.usable) == 6
    assert not place.images.exists()
    with Image.open(planned.folder / planned.video_frames[0]) as frame:
        assert frame.size == (96, 64)
    real = refreshed(place, mixed)
    (tmp_path / "again").mkdir()
    assert preview_collection(place, mixed, None, FOUR, tmp_path / "again").units() == real.units()


def test_pairs_of_a_video_are_sequential(place: Workspace, tmp_path: Path) -> None:
    video = clip(tmp_path / "clip.mp4", sharp=set(), count=30)
    chosen, reason = settled(refreshed(place, video, Sampling(frames=30)), PairsOptions())
    assert (chosen.strategy, chosen.quadratic_overlap, chosen.loop_detection) == ("sequential", True, True)
    assert "video" in reason
