import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from sfm_match.runtime import EngineError
from sfm_match.runtime.engines import EngineInputs, EngineStore

SHAPES = {"image": ((1, 3, 64, 64), (8, 3, 64, 64), (8, 3, 64, 64))}
FACTS = EngineInputs("abc", "11.4.0", "NVIDIA A", (9, 0), SHAPES, exact=True, level=3)


class Builds:
    """A builder that counts, and an engine that is its text."""

    def __init__(self, *, good: bool = True) -> None:
        self.timings: list[bytes] = []
        self.good = good

    def make(self, timing: bytes) -> tuple[bytes, bytes]:
        self.timings.append(timing)
        return f"engine {len(self.timings)}".encode(), b"learned"

    def open(self, plan: bytes) -> str | None:
        return plan.decode() if self.good else None


def test_built_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    builds, store = Builds(), EngineStore(tmp_path / "engines")
    assert store.load("detector", FACTS, builds.make, builds.open) == "engine 1"
    assert "building a TensorRT engine of detector, once for this GPU" in caplog.text
    assert EngineStore(tmp_path / "engines").load("detector", FACTS, builds.make, builds.open) == "engine 1"
    assert builds.timings == [b""]
    assert not list((tmp_path / "engines").glob("*.tmp*"))


def test_two_workers_build_one_engine(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The second waits for the first, and finds its engine."""
    builds, begun = Builds(), threading.Event()

    def slowly(timing: bytes) -> tuple[bytes, bytes]:
        begun.set()
        time.sleep(0.2)
        return builds.make(timing)

    def load(make: Callable[[bytes], tuple[bytes, bytes]]) -> str:
        return EngineStore(tmp_path).load("detector", FACTS, make, builds.open)

    with ThreadPoolExecutor(2) as pool:  # locks of two objects, as of two processes
        first = pool.submit(load, slowly)
        begun.wait(10)
        second = pool.submit(load, builds.make)
        assert first.result() == second.result() == "engine 1"
    assert len(builds.timings) == 1
    assert caplog.text.count("building") == 1


@pytest.mark.parametrize(
    "other",
    [
        {"model": "abd"},
        {"tensorrt": "10.16.1"},
        {"gpu": "NVIDIA B"},
        {"compute_capability": (8, 6)},
        {"shapes": {"image": ((1, 3, 64, 64), (4, 3, 64, 64), (4, 3, 64, 64))}},
        {"exact": False},
        {"level": 5},
    ],
    ids=lambda other: next(iter(other)),
)
def test_everything_that_matters_is_in_the_name(other: dict, tmp_path: Path) -> None:
    store = EngineStore(tmp_path)
    assert store.path("detector", FACTS) != store.path("detector", replace(FACTS, **other))


def test_a_timing_cache_helps_the_same_gpu_only(tmp_path: Path) -> None:
    builds, store = Builds(), EngineStore(tmp_path)
    store.load("detector", FACTS, builds.make, builds.open)
    store.load("detector", replace(FACTS, model="abd"), builds.make, builds.open)
    store.load("detector", replace(FACTS, gpu="NVIDIA B"), builds.make, builds.open)
    assert builds.timings == [b"", b"learned", b""]


@pytest.mark.parametrize("damage", ["cut", "flipped", "headless", "foreign"])
def test_damaged_and_foreign_engines_are_built_anew(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    builds, store = Builds(), EngineStore(tmp_path)
    store.load("detector", FACTS, builds.make, builds.open)
    path = store.path("detector", FACTS)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "flipped":
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    elif damage == "headless":
        path.write_bytes(b"engine 1")
    opened: list[bytes] = []

    def picky(plan: bytes) -> str | None:
        opened.append(plan)
        return None if damage == "foreign" and len(opened) == 1 else plan.decode()

    assert store.load("detector", FACTS, builds.make, picky) == "engine 2"
    assert len(opened) == (2 if damage == "foreign" else 1)  # damage never reaches TensorRT, which may crash on it
    assert "damaged" in caplog.text
    assert store.load("detector", FACTS, builds.make, builds.open) == "engine 2"


def test_a_folder_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The engine is in hand all the same."""
    (tmp_path / "file").write_text("no folder")
    builds = Builds()
    assert EngineStore(tmp_path / "file" / "engines").load("detector", FACTS, builds.make, builds.open) == "engine 1"
    assert "not kept for the next run" in caplog.text


def test_an_engine_that_is_refused_when_fresh(tmp_path: Path) -> None:
    builds = Builds(good=False)
    with pytest.raises(EngineError, match="refuses the engine that it built"):
        EngineStore(tmp_path).load("detector", FACTS, builds.make, builds.open)
    assert not list(tmp_path.glob("*.engine"))
