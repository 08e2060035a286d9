"""What was compiled is found, or nothing is."""

import platform
import shutil
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from sfm_match import compiled


def test_a_library_that_cannot_be_loaded_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"_kernels{EXTENSION_SUFFIXES[0]}").write_bytes(b"of another machine")
    monkeypatch.setattr(compiled, "__file__", str(tmp_path / "__init__.py"))
    assert compiled._library.__wrapped__() is None


def test_a_library_of_other_structures_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that was built before the sources were brought up to date: calls would write to wrong places."""
    if compiled._library() is None:
        pytest.skip("nothing was compiled")
    monkeypatch.setattr(compiled, "_LAYOUT", compiled._LAYOUT + 1)
    assert compiled._library.__wrapped__() is None


def test_where_there_is_a_compiler_there_are_kernels() -> None:
    """A file that does not compile fails no installation: everything would only be slower."""
    processor = Path("/proc/cpuinfo")
    if not any(map(shutil.which, ("gcc", "cc"))) or not processor.exists():
        pytest.skip("no compiler, or no Linux")
    if " avx2 " not in processor.read_text(errors="replace") and platform.machine() != "aarch64":
        pytest.skip("a processor without AVX2")
    assert compiled.kernels()
    assert compiled.fastest() in compiled.kernels().values()


def test_no_kernels_without_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_library", lambda: None)
    assert compiled.kernels.__wrapped__() == {}
    with pytest.raises(RuntimeError, match="nothing was compiled"):
        compiled.function.__wrapped__("patches_fit", object, None)
