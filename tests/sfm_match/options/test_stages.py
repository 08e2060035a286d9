import dataclasses
from pathlib import Path

import pytest

from sfm_match.errors import UsageError
from sfm_match.options.base import run_name
from sfm_match.options.pairs import PairsOptions
from sfm_match.options.stages import GROUPS, ExtractOptions, ImportOptions, MatchOptions, read_job


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ExtractOptions(device="cud"), r"--device cud: accepted values are auto, cpu, cuda, tensorrt.*'cuda'"),
        (lambda: ExtractOptions(size=10), "--size 10: accepted are 64"),
        (lambda: ExtractOptions(batch="few"), "accepted are auto and whole numbers"),
        (lambda: ExtractOptions(masks=Path("/nowhere")), "no such folder"),
        (lambda: PairsOptions(strategy="list"), "--match-list-path"),
        (lambda: PairsOptions(overlap=0), "--overlap 0: accepted are 1"),
        (lambda: MatchOptions(threshold=1.0), "accepted is a probability"),
        (lambda: MatchOptions(inverse_temperature=50), "up to 40"),
        (lambda: ImportOptions(camera_params="1,x"), "accepted are numbers"),
    ],
)
def test_errors_name_what_is_accepted(make, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_python_takes_what_yaml_takes(tmp_path: Path) -> None:
    options = ExtractOptions(batch=4, masks=str(tmp_path))  # type: ignore[arg-type]
    assert (options.batch, options.masks) == ("4", tmp_path)
    assert ImportOptions(camera_params=[1, 2.5]).camera_params == "1,2.5"  # type: ignore[arg-type]


def test_names_in_run_are_unique() -> None:
    """Two stages may share an option, as --device, but then it is the same."""
    known: dict[str, tuple] = {}
    for group in GROUPS:
        for f in dataclasses.fields(group):
            facts = f.type, f.default, f.metadata["choices"], f.metadata["identity"]
            assert known.setdefault(run_name(f), facts) == facts
    shared = [name for name in known if sum(name == run_name(f) for g in GROUPS for f in dataclasses.fields(g)) > 1]
    assert shared == ["device", "devices"]


def test_identity_leaves_out_the_machine() -> None:
    assert ExtractOptions(workers=3, batch="2").identity() == ExtractOptions().identity()
    assert ExtractOptions(size=512).identity() != ExtractOptions().identity()


def test_job_file(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(
        "images: 2021\noverwrite: true\nmax-keypoints: 2048\npairs: sequential\nmatch_threshold: 0.2\n"
        "camera_params: [1000, 500.5, 400]\nrefine_focal_length: null\nbatch: 4\nsubpixel: false\n"
    )
    assert read_job(path) == {
        "images": Path("2021"),
        "overwrite": True,
        "max_keypoints": 2048,
        "pairs": "sequential",
        "match_threshold": 0.2,
        "camera_params": "1000,500.5,400",
        "refine_focal_length": None,
        "batch": "4",
        "subpixel": False,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_keypoint: 3", r"unknown option 'max_keypoint' \(did you mean 'max_keypoints'\?\)"),
        ("size: large", "size: expected int, found 'large'"),
        ("size: true", "size: expected int, found True"),
        ("images: null", "images: expected Path, found None"),
        ("- a", "expected `option: value` lines"),
        ("a: [", "--config"),
    ],
)
def test_job_file_errors(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_job(path)


def test_empty_job_file(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("")
    assert read_job(tmp_path / "job.yaml") == {}
