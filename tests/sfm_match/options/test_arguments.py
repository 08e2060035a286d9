"""What Python callers give is checked as options are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sfm_match
from sfm_match.errors import UsageError


class Named:
    """A path of another library."""

    def __fspath__(self) -> str:
        return "/nonexistent"


CASES: list[tuple[str, Callable[[], Any], str]] = [
    ("number for a folder", lambda: sfm_match.run(5), "--images: expected Path, found 5"),  # type: ignore[arg-type]
    ("empty folder", lambda: sfm_match.run(""), "--images: empty"),
    ("path of another kind", lambda: sfm_match.run(Named()), "--images /nonexistent: no such folder"),  # type: ignore
    ("nothing", lambda: sfm_match.run(), "run: missing a required argument: 'images'"),  # type: ignore[call-arg]
    ("text for a switch", lambda: sfm_match.run("x", overwrite="no"), "--overwrite: expected bool"),  # type: ignore
    ("dict for options", lambda: sfm_match.run("x", extract={}), "--extract: expected ExtractOptions"),  # type: ignore
    ("no function", lambda: sfm_match.run("x", on_report=5), "--on-report: expected a function"),  # type: ignore
    ("text for a number", lambda: sfm_match.demo("x", "a"), "--views: expected int"),  # type: ignore[arg-type]
    ("of numpy", lambda: sfm_match.demo("x", np.int64(2)), "--views 2: "),  # type: ignore[arg-type]
    ("views", lambda: sfm_match.demo("x", 10**20), "--views 1"),
    ("no list", lambda: sfm_match.bench(num_keypoints=5), "--num-keypoints: expected a list"),  # type: ignore
    ("too many", lambda: sfm_match.bench(size=(1, 2, 3)), "--size: expected 2 values"),  # type: ignore[arg-type]
    ("queries", lambda: sfm_match.localize([5]), "--queries: expected Path"),  # type: ignore[list-item]
    ("no out", lambda: sfm_match.convert("x", to="ply", out=None), "--out: expected Path"),  # type: ignore[arg-type]
    ("not UTF-8", lambda: sfm_match.run("caf\udce9"), r"--images caf\udce9: a name that is not UTF-8"),
    ("long name", lambda: sfm_match.run("x" * 5000), "--images xxx"),
    ("subpixel", lambda: sfm_match.extract("x", subpixel="no"), "--subpixel: expected bool, found 'no'"),  # type: ignore
    ("repair", lambda: sfm_match.doctor(repair=1), "--repair: expected bool, found 1"),  # type: ignore[arg-type]
    ("no workspace", lambda: sfm_match.report(None), "--workspace: expected Path, found None"),  # type: ignore
    ("open", lambda: sfm_match.open(3), "--workspace: expected Path, found 3"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_one_line(call: Callable[[], Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as error:
        call()
    text = str(error.value)
    assert text.startswith(said) and len(text) < 400 and text.isprintable()
