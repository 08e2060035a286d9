"""Decoders of JPEGs: what is refused, what is fingerprinted, and what falls back to Pillow.

A fake of nvImageCodec stands in where the real one is not installed: it decodes with Pillow and adds one level, so
that its pixels can be told from Pillow's.
"""

import importlib.util
import io
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from jobs import sfm_match as command
from PIL import Image

import sfm_match
from sfm_match.errors import UsageError
from sfm_match.images import decoders
from sfm_match.images.decoders import decoder_inputs, find_decoder
from sfm_match.images.files import ImageError, decode, read_header
from sfm_match.models import find_model
from sfm_match.options.stages import ExtractOptions
from sfm_match.stages.extract import feature_inputs

SIZE = (640, 480)
OPTIONS: dict[str, Any] = {"size": 256, "max_keypoints": 100}


class Fake(ModuleType):
    """As much of nvidia.nvimgcodec as is used."""

    NVIMGCODEC_DEVICE_CPU_ONLY = -99999
    BackendKind = SimpleNamespace(CPU_ONLY="cpu", GPU_ONLY="gpu", HYBRID_CPU_GPU="hybrid", HW_GPU_ONLY="hw")
    ColorSpec = SimpleNamespace(SRGB="srgb")

    def __init__(self) -> None:
        super().__init__("nvidia.nvimgcodec")
        self.made: list[tuple[int, list[str] | None]] = []  # device, backends
        self.error: RuntimeError | None = None

    Backend = staticmethod(lambda kind: kind)
    CodeStream = staticmethod(lambda content: content)
    DecodeParams = staticmethod(lambda **settings: settings)

    def Decoder(self, device: int = -1, **settings: Any) -> Any:  # noqa: N802 - the library's name
        self.made.append((device, settings.get("backends")))
        return SimpleNamespace(decode=self._decode)

    def _decode(self, content: bytes, params: dict[str, Any] | None = None) -> Any:
        if self.error is not None:
            raise self.error
        assert params is None or params["apply_exif_orientation"] is False
        try:
            pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        except OSError:
            return None
        return SimpleNamespace(cpu=lambda: np.minimum(pixels, 254) + np.uint8(1))


@pytest.fixture
def forget() -> Iterator[None]:
    """What was found out about a library belongs to one test."""
    decoders._backend.cache_clear()
    yield
    decoders._backend.cache_clear()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, forget: None) -> Fake:  # noqa: ARG001
    module, package = Fake(), ModuleType("nvidia")
    package.nvimgcodec = module  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nvidia", package)
    monkeypatch.setitem(sys.modules, "nvidia.nvimgcodec", module)
    monkeypatch.setattr(decoders, "driver_present", lambda: False)
    return module


def noise(folder: Path, name: str = "a.jpg", size: tuple[int, int] = SIZE, **settings: Any) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    path = folder / name
    Image.fromarray(cv2.GaussianBlur(pixels, (0, 0), 3)).save(path, **settings)
    return path


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch, forget: None) -> None:  # noqa: ARG001
    """nvImageCodec is not installed."""
    monkeypatch.setitem(sys.modules, "nvidia", None)
    for name in [name for name in sys.modules if name.startswith("nvidia.")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.usefixtures("absent")
def test_a_decoder_that_is_not_installed_is_one_line(rendered: Path, tmp_path: Path) -> None:
    for arguments in (("extract", "--workspace", tmp_path), ("run", "--workspace", tmp_path), ("plan",)):
        done = command(*arguments, "--images", rendered, "--decoder", "nvimgcodec")
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("\n") == 1
        assert "--decoder nvimgcodec: nvImageCodec cannot be loaded" in done.stderr
        assert "pip install 'sfm-match[nvimgcodec]'" in done.stderr
    assert not list(tmp_path.glob("features/*"))
    unknown = command("extract", "--images", rendered, "--workspace", tmp_path, "--decoder", "nvimgcode")
    assert unknown.returncode == 2
    assert "accepted values are pillow, nvimgcodec (did you mean 'nvimgcodec'?)" in unknown.stderr


@pytest.mark.usefixtures("absent")
def test_doctor_says_what_is_missing() -> None:
    done = command("doctor")
    (line,) = [line for line in done.stdout.splitlines() if "--decoder nvimgcodec" in line]
    assert "pip install 'sfm-match[nvimgcodec]'" in line


def test_the_decoder_is_recorded(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """One decoder's features never mix with another's."""
    model = find_model("dedode-nano")
    plain = feature_inputs(ExtractOptions(), model)
    assert [key for key in plain if "decoder" in key] == ["decoder"]
    other = feature_inputs(ExtractOptions(decoder="nvimgcodec"), model)
    assert other == {**plain, "decoder": "nvimgcodec", "decoder_backend": "cpu"}
    decoders._backend.cache_clear()
    monkeypatch.setattr(decoders, "driver_present", lambda: True)
    assert decoder_inputs("nvimgcodec") == {"decoder_backend": "gpu"}
    assert fake.made


def test_without_nvjpeg_a_gpu_decodes_nothing(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "driver_present", lambda: True)
    monkeypatch.setattr(fake, "_decode", lambda *_, **__: None)
    assert decoder_inputs("nvimgcodec") == {"decoder_backend": "cpu"}


def test_each_thread_has_a_decoder_on_the_gpu_that_is_named(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = noise(tmp_path)
    monkeypatch.setattr(decoders, "driver_present", lambda: True)
    found = find_decoder("nvimgcodec", "cuda:1")
    fake.made.clear()
    threads = [threading.Thread(target=lambda: [found(path, None) for _ in range(3)]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [device for device, _ in fake.made] == [1, 1]
    decoders._backend.cache_clear()
    monkeypatch.setattr(decoders, "driver_present", lambda: False)
    find_decoder("nvimgcodec", "cuda:1")(path, None)
    assert fake.made[-1] == (Fake.NVIMGCODEC_DEVICE_CPU_ONLY, ["cpu"])


def raised_by_one(path: Path) -> np.ndarray:
    return np.minimum(decode(path), 254) + np.uint8(1)


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_jpegs_go_to_the_decoder_and_stay_as_the_sensor_stored_them(
    orientation: int, fake: Fake, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = noise(tmp_path, exif=exif)
    pixels = find_decoder("nvimgcodec")(path, None)
    np.testing.assert_array_equal(pixels, raised_by_one(path))
    assert read_header(path).orientation == orientation
    assert fake.made


@pytest.mark.parametrize("least", [(640, 480), (300, 225), (150, 110), (60, 40), (333, 250)])
def test_the_reduced_size_is_pillows(least: tuple[int, int], fake: Fake, tmp_path: Path) -> None:
    path = noise(tmp_path, quality=95)
    ours, theirs = find_decoder("nvimgcodec")(path, least), decode(path, least)
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs).mean() < 2
    assert fake.made


def test_other_files_go_to_pillow(fake: Fake, tmp_path: Path) -> None:
    found = find_decoder("nvimgcodec")
    deep = (np.arange(80 * 60) * 13 % 65536).reshape(60, 80).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(deep).save(tmp_path / "deep.tif")
    noise(tmp_path, "a.webp")
    noise(tmp_path, "a.bmp")
    noise(tmp_path, "b.jpg", format="PNG")  # the bytes decide, not the name
    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_array_equal(found(path, (20, 15)), decode(path, (20, 15)))
    assert not fake.made


def test_what_the_decoder_refuses_pillow_explains(fake: Fake, tmp_path: Path) -> None:
    found = find_decoder("nvimgcodec")
    path = noise(tmp_path)
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(ImageError, match="truncated") as caught:
        found(path, None)
    assert caught.value.lasting
    with pytest.raises(ImageError, match="cannot be opened"):
        found(tmp_path / "absent.jpg", None)
    fake.error = RuntimeError("CUDA Runtime failure:\n out of memory")
    with pytest.raises(ImageError, match=r"nvImageCodec: CUDA Runtime failure: out of memory") as caught:
        found(noise(tmp_path, "b.jpg"), None)
    assert not caught.value.lasting


def test_a_job_records_its_decoder_and_refuses_another(fake: Fake, tmp_path: Path) -> None:
    noise(tmp_path)
    noise(tmp_path, "b.jpg")
    sfm_match.extract(tmp_path, tmp_path / "work", decoder="nvimgcodec", **OPTIONS)
    with pytest.raises(UsageError, match="--decoder was nvimgcodec, now pillow"):
        sfm_match.extract(tmp_path, tmp_path / "work", **OPTIONS)
    record = json.loads((tmp_path / "work" / "sfm-match.json").read_text())["extract"]
    assert (record["decoder"], record["decoder_backend"]) == ("nvimgcodec", "cpu")
    report = sfm_match.extract(tmp_path, tmp_path / "work", decoder="nvimgcodec", overwrite=True, **OPTIONS)
    assert report.cached == 2
    assert fake.made


def test_infer_and_the_dummy_network_take_it(fake: Fake, tmp_path: Path) -> None:
    a, b = noise(tmp_path), noise(tmp_path, "b.jpg")
    report = sfm_match.extract(tmp_path, tmp_path / "work", decoder="nvimgcodec", dummy_network=True, size=256)
    assert "JPEGs by nvImageCodec on the CPU" in report.line()
    fake.made.clear()
    sfm_match.infer(a, b, decoder="nvimgcodec", size=256, max_keypoints=100)
    assert fake.made


@pytest.mark.skipif(
    importlib.util.find_spec("nvidia") is None or importlib.util.find_spec("nvidia.nvimgcodec") is None,
    reason="nvImageCodec is not installed: pip install 'sfm-match[nvimgcodec]'",
)
@pytest.mark.usefixtures("forget")
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_the_real_library_on_the_cpu_gives_pillows_pixels(
    mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(decoders, "driver_present", lambda: False)
    path = tmp_path / "a.jpg"
    Image.open(noise(tmp_path, "source.png")).convert(mode).save(path, quality=95)
    np.testing.assert_array_equal(find_decoder("nvimgcodec")(path, None), decode(path))
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(ImageError, match="truncated"):
        find_decoder("nvimgcodec")(path, None)
