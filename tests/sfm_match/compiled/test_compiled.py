"""What was compiled is found, or nothing is."""

from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from sfm_match import compiled


def test_a_library_that_cannot_be_loaded_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"_kernels{EXTENSION_SUFFIXES[0]}").write_bytes(b"of another machine")
    monkeypatch.setattr(compiled, "__file__", str(tmp_path / "__init__.py"))
    assert compiled._library.__wrapped__() is None


def test_no_kernels_without_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_library", lambda: None)
    assert compiled.kernels.__wrapped__() == {}
    with pytest.raises(RuntimeError, match="nothing was compiled"):
        compiled.function.__wrapped__("patches_fit", object, None)
