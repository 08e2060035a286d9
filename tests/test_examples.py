"""The examples do what their first lines say, and docs/formats.md describes the files that are there."""

import io
import re
import runpy
import shlex
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import h5py
import kornia.feature as kornia
import numpy as np
import pytest
import torch
from jobs import sfm_match as command

import sfm_match
from sfm_match.store.features import read_features

ROOT = Path(__file__).parents[1]
EXAMPLES, FORMATS, RECIPES = ROOT / "scripts" / "examples", ROOT / "docs" / "formats.md", ROOT / "docs" / "recipes.md"
SMALL = {"size": 320, "max_keypoints": 400}


def main_of(name: str) -> Callable[..., None]:
    """The function `main` of an example."""
    main: Callable[..., None] = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]
    return main


@pytest.fixture(scope="module")
def done(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A job of `run_with_progress`, and what it printed."""
    work = tmp_path_factory.mktemp("examples") / "work"
    out = io.StringIO()
    with redirect_stdout(out):
        main_of("run_with_progress")(str(rendered), str(work), **SMALL)
    return work, out.getvalue()


def test_run_with_progress(done: tuple[Path, str]) -> None:
    _, out = done
    for stage in ("extract: 6 of 6", "match: 15 of 15", "verify: 15 of 15"):
        assert f"  {stage}\n" in out
    assert out.endswith("6 of 6 images registered\n")


def test_read_features(done: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Without a line of ours, the same as with our reader."""
    work, _ = done
    main_of("read_features")(str(work))
    lines = capsys.readouterr().out.splitlines()
    stored = {name: one for path in work.glob("features/*.h5") for name, one in read_features(path).items()}
    assert len(lines) == len(stored) == 6
    for line, (name, one) in zip(lines, sorted(stored.items()), strict=True):
        left, top = one.keypoints.min(axis=0)
        assert line.startswith(f"{name}: {len(one.keypoints)} keypoints, descriptors of 64 values, x from {left:.1f} ")
        assert f"y from {top:.1f} " in line


def test_read_features_needs_no_sfm_match() -> None:
    assert "sfm_match" not in (EXAMPLES / "read_features.py").read_text(encoding="utf-8")


def test_matches_of_a_pair(done: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    work, _ = done
    results = sfm_match.open(work)
    first, second = results.verified_pairs[0]
    main_of("matches_of_a_pair")(str(work), first, second)
    out = capsys.readouterr().out
    counts = f"{len(results.matches(first, second).indices)} matches, {len(results.verified(first, second))} inliers"
    assert out.startswith(f"{first}, {second}: {counts}\n")
    assert out.count("probability") == 5
    assert f"import moved the inliers of {second} by 0." in out


def test_own_pairs(rendered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main_of("own_pairs")(str(rendered), str(tmp_path / "work"), **SMALL)
    out = capsys.readouterr().out
    assert out.startswith("15 pairs, ")  # of six images in a ring, with three each: every pair
    assert out.endswith("6 of 6 images registered\n")


@torch.no_grad()
def test_export_aliked() -> None:
    """In the form that is exported, the network gives what kornia's gives, at random weights."""
    torch.manual_seed(0)
    example = runpy.run_path(str(EXAMPLES / "export_aliked.py"))
    reference = kornia.ALIKED(example["NAME"], max_num_keypoints=300, detection_threshold=0.0).eval()
    reference.double()  # scores of random weights are close to one another
    network = kornia.ALIKED(example["NAME"]).double()
    network.load_state_dict(reference.state_dict())
    image = torch.rand(2, 3, 96, 160, dtype=torch.float64)
    points, scores, descriptors = example["Extract"](network, 500)(image)
    for row, expected in enumerate(reference(image)):
        count = expected.n
        assert 100 < count <= 300
        torch.testing.assert_close(points[row, :count], expected.keypoints, atol=1e-5, rtol=0)
        torch.testing.assert_close(scores[row, :count], expected.keypoint_scores, atol=1e-5, rtol=0)
        torch.testing.assert_close(descriptors[row, :count], expected.descriptors, atol=1e-5, rtol=0)
        assert count == 300 or not scores[row, count:].any()


@pytest.mark.slow
@pytest.mark.scenes
def test_aliked_reconstructs_a_scene(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = scenes.parent / "weights" / "aliked-n16rot.pth"
    if not weights.is_file():
        pytest.skip(f"no {weights}")
    main_of("export_aliked")(str(weights), str(tmp_path / "aliked"))
    assert "model.toml" in capsys.readouterr().out
    reports = sfm_match.run(scenes / "fountain-P11" / "images", tmp_path / "work", model=str(tmp_path / "aliked"))
    assert reports[-1].facts["registered"] == 11


def test_the_reader_of_formats_md(done: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    work, _ = done
    block = re.findall(r"^```python\n(.*?)^```", FORMATS.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)[0]
    assert "sfm_match" not in block
    exec(block.replace('"workspace/features"', repr(str(work / "features"))), {})
    assert len(capsys.readouterr().out.splitlines()) == 6


@pytest.mark.parametrize("kind", ["features", "matches"])
def test_the_tables_of_formats_md(done: tuple[Path, str], kind: str) -> None:
    """Every dataset and attribute, with its type."""
    work, _ = done
    section = FORMATS.read_text(encoding="utf-8").split(f"\n## {kind}/")[1].split("\n## ")[0]
    datasets = {name: dtype for name, _, dtype in re.findall(r"^\| `(\w+)` \| (\([^|]+\)) \| (\w+) \|", section, re.M)}
    attributes = set(re.findall(r"^\| `(\w+)` \| (?:int|string) \|", section, re.M))
    for path in (work / kind).glob("*.h5"):
        with h5py.File(path) as file:
            types = {
                name: "string" if h5py.check_string_dtype(file[name].dtype) else str(file[name].dtype) for name in file
            }
            assert types == datasets
            assert set(file.attrs) == attributes
            assert f"| `schema` | int | {np.asarray(file.attrs['schema'])} |" in section


@pytest.mark.parametrize(
    "heading",
    ["nerfstudio, Gaussian splatting", "Features of another extractor, through hloc", "Files for other programs"],
)
def test_recipes_for_other_programs(
    heading: str, workspace: Path, rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their command lines, one after the other, leave what the remarks beside them say."""
    section = RECIPES.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = re.findall(r"^ {4,}sfm-match (.+)$", re.sub(r" *\\\n +", " ", section), flags=re.MULTILINE)
    assert len(lines) > 1
    workspace.rename(tmp_path / "workspace")
    (tmp_path / "photos").symlink_to(rendered)
    monkeypatch.chdir(tmp_path)
    for line in lines:
        done = command(*shlex.split(line, comments=True))
        assert done.returncode == 0, f"{line}: {done.stderr}"
        if "--to " in line:
            out = Path(re.findall(r"--out (\S+)", line)[0])
            assert all((out / name).exists() for name in re.findall(r"[\w.-]+\.(?:json|ply|h5|txt)", line))


def test_each_example_is_tested() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f"test_{path.stem}" in tests
