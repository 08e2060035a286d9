"""The commands as scripts use them: options, exit status, messages, files."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pycolmap
import pytest
from conftest import SMALL
from jobs import sfm_match, sfm_match_process
from PIL import Image

from sfm_match.runtime.gpus import gpus

LARGER = ["--size", "512", "--max-keypoints", "1024"]


@pytest.fixture(scope="module")
def after_stages(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace after each stage alone, in order."""
    work = tmp_path_factory.mktemp("stages")
    stages = (
        ["extract", "--images", rendered, *LARGER],
        ["pairs", "--strategy", "exhaustive"],
        ["match"],
        ["import", "--camera-mode", "single"],
        ["reconstruct"],
    )
    for stage in stages:
        result = sfm_match(*stage, "--workspace", work)
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith(str(stage[0]))
        assert result.stderr == ""
    return work


def test_stages_one_by_one(after_stages: Path) -> None:
    model = pycolmap.Reconstruction(str(after_stages / "sparse" / "0"))
    assert model.num_reg_images() == 6
    assert (after_stages / "sparse" / "0" / "points.ply").stat().st_size > 10_000
    assert (after_stages / "failed.csv").read_text() == "image,reason\n"
    assert len((after_stages / "pairs.txt").read_text().splitlines()) == 15


def test_run_after_the_stages_computes_nothing(after_stages: Path, rendered: Path) -> None:
    options = ["--pairs", "exhaustive", "--camera-mode", "single", *LARGER]
    again = sfm_match("run", "--images", rendered, "--workspace", after_stages, *options)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("nothing to do") == 5
    assert again.stdout.splitlines()[-1].startswith("up to date: ")


def test_changed_options_are_refused(after_stages: Path, rendered: Path) -> None:
    result = sfm_match("extract", "--images", rendered, "--workspace", after_stages, "--size", "640")
    assert result.returncode == 2
    assert "--size was 512, now 640" in result.stderr
    assert "--overwrite" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_json_is_one_object_a_stage(after_stages: Path, rendered: Path) -> None:
    options = ["--pairs", "exhaustive", "--camera-mode", "single", *LARGER, "--json"]
    lines = sfm_match("run", "--images", rendered, "--workspace", after_stages, *options).stdout.splitlines()
    reports = [json.loads(line) for line in lines]
    assert [report["stage"] for report in reports] == ["extract", "pairs", "match", "import", "reconstruct"]
    assert reports[-1]["registered"] == 6


def test_growth_and_overwrite(rendered: Path, tmp_path: Path) -> None:
    images, work = tmp_path / "images", tmp_path / "work"
    images.mkdir()
    views = sorted(rendered.iterdir())
    options = ["--mapper", "none", *SMALL]
    for view in views[:3]:
        (images / view.name).symlink_to(view)
    first = sfm_match("run", "--images", images, "--workspace", work, *options)
    assert "match 3 pairs" in first.stdout, first.stderr
    (images / views[3].name).symlink_to(views[3])
    grown = sfm_match("run", "--images", images, "--workspace", work, *options)
    assert "extract 1 images" in grown.stdout, grown.stderr
    assert "match 3 pairs" in grown.stdout
    assert "3 pairs up to date" in grown.stdout
    assert "import 3 pairs" in grown.stdout  # the others are taken over
    fewer = ["--max-keypoints", "300", "--mapper", "none", "--size", "320"]
    assert sfm_match("run", "--images", images, "--workspace", work, *fewer).returncode == 2
    anew = sfm_match("run", "--images", images, "--workspace", work, *fewer, "--overwrite")
    assert anew.returncode == 0, anew.stderr
    assert "extract 4 images" in anew.stdout
    assert "match 6 pairs" in anew.stdout
    assert anew.stdout.count("up to date") == 1  # the pairs, which depend on neither option


@pytest.mark.parametrize("command", ["extract", "run"])
def test_bad_files_are_listed_and_the_job_goes_on(command: str, rendered: Path, tmp_path: Path) -> None:
    images, work = tmp_path / "images", tmp_path / "work"
    images.mkdir()
    good = sorted(rendered.iterdir())[0]
    (images / "good.jpg").write_bytes(good.read_bytes())
    (images / "truncated.jpg").write_bytes(good.read_bytes()[:60_000])
    (images / "text.jpg").write_text("these are not the pixels")
    Image.new("RGB", (1, 1)).save(images / "one.png")
    for _ in range(2):  # the second run says the same
        result = sfm_match(command, "--images", images, "--workspace", work, *SMALL)
        assert result.returncode == 1, result.stderr
        with (work / "failed.csv").open() as file:
            rows = {row["image"]: row["reason"] for row in csv.DictReader(file)}
        assert rows.keys() == {"truncated.jpg", "text.jpg", "one.png"}
        assert "truncated" in rows["truncated.jpg"]
        assert "not an image" in rows["text.jpg"]
        assert "1 x 1 pixels" in rows["one.png"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["extract", "--images", "/nowhere"], 2, "no such folder"),
        (["extract", "--images", "EMPTY"], 3, "no image in it"),
        (["extract", "--images", "EMPTY", "--model", "dedode-nono"], 2, "did you mean 'dedode-nano'"),
        (["extract", "--images", "EMPTY", "--device", "tpu"], 2, "accepted values are auto, cpu, cuda, tensorrt"),
        (["extract", "--images", "EMPTY", "--precision", "fp16"], 2, "accepted there are auto, fp32"),
        (["match", "--workspace", "/nowhere"], 3, "run `sfm-match extract"),
        (["match", "--workspace", "EMPTY"], 3, "no images yet"),
        (["pairs", "--strategy", "list", "--workspace", "EMPTY"], 2, "--match-list-path"),
        (["pairs", "--strategy", "sequental", "--workspace", "EMPTY"], 2, "did you mean 'sequential'?"),
        (["pairs", "--strategy", "auto+spatial", "--workspace", "EMPTY"], 2, "auto cannot be joined"),
        (
            ["reconstruct", "--mapper", "none", "--workspace", "EMPTY"],
            2,
            "of `reconstruct` are incremental, global",
        ),
        (["run", "--images", "EMPTY", "--config", "/nowhere.yaml"], 2, "/nowhere.yaml"),
        (["demo", "--views", "2"], 2, "--views 2: must be at least 4 and at most 10,000"),
    ],
)
def test_wrong_use_is_one_line(tmp_path: Path, arguments: list[str], status: int, message: str) -> None:
    if "EMPTY" in arguments and arguments[0] == "extract" and len(arguments) > 3:
        Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    extra = [] if "--workspace" in arguments else ["--workspace", str(tmp_path / "work")]
    result = sfm_match(*(str(tmp_path) if a == "EMPTY" else a for a in arguments), *extra)
    assert result.returncode == status, result.stderr
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_config_file_gives_defaults(rendered: Path, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(f"images: {rendered}\nworkspace: {tmp_path / 'a'}\nmapper: none\nsize: 256\nmax_keypoints: 300\n")
    result = sfm_match("run", "--config", job, "--workspace", tmp_path / "b", "--max-keypoints", "200", "--json")
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "a").exists()  # the command line wins
    assert json.loads((tmp_path / "b" / "sfm-match.json").read_text())["extract"]["size"] == 256
    assert json.loads(result.stdout.splitlines()[0])["keypoints"] <= 6 * 200


def test_unknown_key_in_config(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("sise: 3\n")
    result = sfm_match("run", "--config", tmp_path / "job.yaml", "--images", tmp_path)
    assert result.returncode == 2
    assert "did you mean 'size'" in result.stderr


def test_a_process_of_its_own(rendered: Path, after_stages: Path) -> None:
    """Other tests run the command line within theirs."""
    where = ["extract", "--images", rendered, "--workspace", after_stages]
    done = sfm_match_process(*where, *LARGER)
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing to do" in done.stdout
    wrong = sfm_match_process(*where, "--size", "640")
    assert wrong.returncode == 2
    assert len(wrong.stderr.splitlines()) == 1


def test_importing_is_light() -> None:
    heavy = "torch", "pycolmap", "onnxruntime", "tensorrt", "ray", "h5py", "cv2"
    script = f"import sys, sfm_match, sfm_match.cli.main; print([m for m in {heavy!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_functions_of_the_same_names() -> None:
    import sfm_match as package

    assert all(callable(getattr(package, name)) for name in package.__all__)
    with pytest.raises(AttributeError, match="no attribute 'extrakt'"):
        package.extrakt  # noqa: B018


def test_interrupt_keeps_what_is_done_and_says_how_to_go_on(
    rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def stop(source: Path, target: Path) -> None:
        replace(source, target)
        if "00000.h5" in str(target):
            raise KeyboardInterrupt

    options = ["extract", "--images", rendered, "--workspace", tmp_path, *SMALL]
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stop)
        result = sfm_match(*options)
    assert result.returncode == 130
    assert "interrupted; run the same command again to resume" in result.stderr
    again = sfm_match(*options)
    assert "nothing to do, 6 images up to date" in again.stdout, again.stderr


def test_pairs_by_gps_and_by_order(rendered: Path, tmp_path: Path) -> None:
    """Six photographs ten metres apart, one without a position."""
    images, work = tmp_path / "images", tmp_path / "work"
    images.mkdir()
    for number, path in enumerate(sorted(rendered.iterdir())):
        exif = Image.Exif()
        if number != 3:
            place = {1: "N", 2: (48.0, 0.0, number * 10 / 30.887), 3: "E", 4: (11.0, 0.0, 0.0)}  # a second: 30.887 m
            exif.get_ifd(0x8825).update(place)
        Image.open(path).resize((96, 72)).save(images / path.name, exif=exif)
    near = ["pairs", "--images", images, "--workspace", work, "--max-distance", "11", "--overlap", "1"]
    assert "spatial" in sfm_match(*near, "--strategy", "spatial").stdout
    names = sorted(path.name for path in images.iterdir())
    expected = {(0, 1), (1, 2), (4, 5)}

    def written() -> set[tuple[int, int]]:
        lines = (work / "pairs.txt").read_text().splitlines()
        return {(names.index(first), names.index(second)) for first, second in (line.split("\t") for line in lines)}

    assert written() == expected
    assert sfm_match(*near, "--strategy", "sequential+spatial", "--overwrite").returncode == 0
    assert written() == {(i, i + 1) for i in range(5)} | expected
    none = sfm_match("pairs", "--images", rendered, "--workspace", tmp_path / "other", "--strategy", "spatial")
    assert none.returncode == 2
    assert "0 of 6 images have a GPS position" in none.stderr


@pytest.mark.skipif(bool(gpus()), reason="a GPU is here")
def test_devices_that_are_not_here_are_refused(rendered: Path, tmp_path: Path) -> None:
    for device in ("cuda", "tensorrt", "ort-tensorrt"):
        done = sfm_match("extract", "--images", rendered, "--workspace", tmp_path / "work", "--device", device)
        assert done.returncode == 2
        assert f"--device {device}: no NVIDIA GPU with a driver; accepted here: auto, cpu" in done.stderr
    engine = sfm_match("export", "engine", "--shapes", "64x64")
    assert engine.returncode == 2
    assert "--device tensorrt: no NVIDIA GPU with a driver" in engine.stderr
    shapes = sfm_match("export", "engine", "--shapes", "64-64")
    assert shapes.returncode == 2
    assert "--shapes 64-64: must be WxH, separated by commas" in shapes.stderr


def test_the_same_device_serves_both_stages_of_run(rendered: Path, tmp_path: Path) -> None:
    where = ["--images", rendered, "--workspace", tmp_path / "work"]
    done = sfm_match("run", *where, *SMALL, "--device", "torch", "--mapper", "none")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("torch 2.") == 2
