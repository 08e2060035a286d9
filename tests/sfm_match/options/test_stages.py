import dataclasses
from pathlib import Path

import pytest

from sfm_match.errors import UsageError
from sfm_match.options.base import Options, about, aliases_of, fields_of
from sfm_match.options.pairs import PairsOptions
from sfm_match.options.stages import (
    GROUPS,
    ExtractOptions,
    ImportOptions,
    MatchOptions,
    ReconstructOptions,
    read_job,
)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ExtractOptions(device="cud"), r"--device cud: accepted values are auto, cpu, cuda, tensorrt.*'cuda'"),
        (lambda: ExtractOptions(size=10), "--size 10: must be at least 64 pixels"),
        (lambda: ExtractOptions(batch="few"), "--batch few: must be auto, or a whole number"),
        (lambda: ExtractOptions(masks=Path("/nowhere")), "no such folder"),
        (lambda: PairsOptions(strategy="list"), "--match-list-path"),
        (lambda: PairsOptions(overlap=0), "--overlap 0: must be at least 1"),
        (lambda: MatchOptions(match_threshold=1.0), "--match-threshold 1.0: must be a probability"),
        (lambda: MatchOptions(inverse_temperature=50), "at most 40"),
        (lambda: MatchOptions(matcher="lightglue", inverse_temperature=20), "only with --matcher dual-softmax"),
        (lambda: MatchOptions(matcher_weights=Path("a.pth")), "--matcher-weights: only with --matcher lightglue"),
        (lambda: MatchOptions(matcher="superglue"), "accepted values are dual-softmax, lightglue"),
        (lambda: ImportOptions(camera_params="1,x"), "must be numbers separated by commas"),
    ],
)
def test_errors_name_what_is_accepted(make, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_python_takes_what_yaml_takes(tmp_path: Path) -> None:
    options = ExtractOptions(batch=4, masks=str(tmp_path))  # type: ignore[arg-type]
    assert (options.batch, options.masks) == ("4", tmp_path)
    assert ImportOptions(camera_params=[1, 2.5]).camera_params == "1,2.5"  # type: ignore[arg-type]


def test_names_are_one_option_each() -> None:
    """Two stages may share an option, as --device, but then it is the same."""
    every = [f for group in GROUPS for f in dataclasses.fields(group)]
    known: dict[str, tuple] = {}
    for f in every:
        facts = f.type, f.default, about(f)
        assert known.setdefault(f.name, facts) == facts
    shared = [name for name in known if sum(name == f.name for f in every) > 1]
    assert shared == ["device", "devices", "ray", "part", "weights_dir"]


@pytest.mark.parametrize(
    ("command", "groups", "aliases"),
    [
        ("extract", [ExtractOptions], {"threshold": "detection_threshold"}),
        ("match", [MatchOptions], {"threshold": "match_threshold", "workers": "match_workers"}),
        ("run", GROUPS, {"pairs": "strategy"}),
        ("plan", GROUPS, {"pairs": "strategy"}),
        ("infer", [ExtractOptions, MatchOptions], {}),
    ],
)
def test_earlier_names(command: str, groups: list[type[Options]], aliases: dict[str, str]) -> None:
    assert aliases_of(fields_of(command, groups)) == aliases


@pytest.mark.parametrize(
    ("command", "groups", "absent"),
    [
        ("run", GROUPS, {"dummy_network", "part", "repair_pairs"}),
        ("plan", GROUPS, {"dummy_network", "part", "repair_pairs"}),
        (
            "infer",
            [ExtractOptions, MatchOptions],
            {
                *("dummy_network", "masks", "workers", "match_workers", "devices", "reduced_decode", "fps", "frames"),
                *("matcher", "matcher_weights", "part", "ray", "tile", "tile_overlap"),
            },
        ),
        (
            "export engine",
            [ExtractOptions],
            {
                *("dummy_network", "masks", "workers", "device", "devices", "reduced_decode", "decoder", "border"),
                *("detection_threshold", "all_keypoints", "fps", "frames", "part", "ray"),
            },
        ),
        ("extract", [ExtractOptions], set()),
        ("reconstruct", [ReconstructOptions], set()),
    ],
)
def test_what_a_command_does_not_take(command: str, groups: list[type[Options]], absent: set[str]) -> None:
    every = {f.name for group in groups for f in dataclasses.fields(group)}
    assert every - fields_of(command, groups).keys() == absent


def test_no_mapper_is_a_choice_of_run() -> None:
    ReconstructOptions(mapper="none").check_for("run")
    with pytest.raises(UsageError, match="--mapper none: accepted values of `reconstruct` are incremental, global"):
        ReconstructOptions(mapper="none").check_for("reconstruct")


def test_identity_leaves_out_the_machine() -> None:
    assert ExtractOptions(workers=3, batch="2").inputs() == ExtractOptions().inputs()
    assert ExtractOptions(size=512).inputs() != ExtractOptions().inputs()


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
        "strategy": "sequential",
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
        ("overwrite: 1", "overwrite: expected bool, found 1"),
        ("strategy: 3", "strategy: expected str, found 3"),
        ("pairs: [1]\nstrategy: list", "--config .*--pairs 1, --strategy list: two names of one option"),
        ("dummy_network: true", "unknown option 'dummy_network'"),
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


def test_what_is_not_verified_is_neither_judged_nor_adjusted() -> None:
    assert ImportOptions().inputs()["adjust_keypoints"] is True
    assert ImportOptions(verify=False).inputs() == ImportOptions(verify=False, adjust_keypoints=False).inputs()
