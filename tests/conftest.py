"""Shared fixtures: the photographs where they are, and a small rendered scene that is always there."""

import importlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from fake_gpu import GPU, FakeCuda, fake_tensorrt

from sfm_match.commands.scene import cameras, render, room
from sfm_match.images.coordinates import ImageGeometry
from sfm_match.images.loader import Item, Loaded
from sfm_match.runtime import devices

if not devices.gpus():  # read when triton is imported; there its kernels run on arrays of the host
    os.environ.setdefault("TRITON_INTERPRET", "1")

logging.getLogger("sfm_match").setLevel(logging.INFO)  # for caplog

SMALL = ["--size", "512", "--max-keypoints", "1024"]  # options that keep a test of the whole job short


@pytest.fixture(scope="session")
def scenes() -> Path:
    """The folder of photographed scenes."""
    root = Path(os.environ.get("SFM_MATCH_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (root / "scenes").is_dir():
        pytest.skip(f"no photographs at {root}; set SFM_MATCH_DATA to their folder")
    return root / "scenes"


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six views of the demo's room."""
    folder = tmp_path_factory.mktemp("rendered")
    planes = room()
    for view in cameras(16)[4:10]:
        cv2.imwrite(str(folder / view.name), render(view, planes)[..., ::-1])
    return folder


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """A machine with a GPU, CUDA and TensorRT, over host memory (`tests/fake_gpu.py`)."""
    pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
    cuda = FakeCuda()
    monkeypatch.setattr(devices, "gpus", lambda: (GPU,))
    devices.why_not.cache_clear()
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(cuda))
    for name in ("sfm_match.runtime.cuda", "sfm_match.runtime.trt"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(importlib.import_module("sfm_match.runtime.cuda"), "cudart", cuda)
    monkeypatch.setattr(importlib.import_module("sfm_match.runtime.trt"), "gpus", lambda: (GPU,))
    yield cuda
    devices.why_not.cache_clear()
    for name in ("sfm_match.runtime.cuda", "sfm_match.runtime.trt"):  # they hold the fake
        sys.modules.pop(name, None)


@pytest.fixture(scope="session")
def batch() -> Loaded:
    """Three views in one bucket: one padded, one with a mask, one with an orientation."""
    views = [cv2.resize(np.asarray(render(view, room()), np.uint8), (320, 240)) for view in cameras(16)[4:7]]
    images = np.stack([cv2.copyMakeBorder(view, 0, 16, 0, 0, cv2.BORDER_REPLICATE) for view in views])
    geometries = [
        ImageGeometry((640, 480), 1, (320, 240), (320, 256)),
        ImageGeometry((320, 240), 1, (320, 240), (320, 256)),
    ]
    geometries.append(ImageGeometry((480, 640), 6, (320, 240), (320, 256)))
    mask = np.zeros((240, 320), np.uint8)
    mask[:, 100:] = 255
    items = [Item(f"{i}.png", geometry) for i, geometry in enumerate(geometries)]
    return Loaded(items, images, [None, mask, None], {}, set())
