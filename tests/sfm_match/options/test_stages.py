import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfm_match.errors import UsageError
from sfm_match.options.base import Options, about, aliases_of, fields_of, flag
from sfm_match.options.job_file import read_job
from sfm_match.options.pairs import PairsOptions
from sfm_match.options.stages import (
    GROUPS,
    ExtractOptions,
    ImportOptions,
    MatchOptions,
    ReconstructOptions,
)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ExtractOptions(device="cud"), r"--device cud: accepted values are auto, cpu, cuda, tensorrt.*'cuda'"),
        (lambda: ExtractOptions(size=10), "--size 10: must be at least 64 and at most 65,536 pixels"),
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
        (
            "pairs: sequential\nstrategy: list",
            "--config .*--pairs sequential, --strategy list: two names of one option",
        ),
        ("dummy_network: true", "unknown option 'dummy_network'"),
        ("- a", "expected `option: value` lines"),
        ("a: [", "--config .*job.yaml: line 1: "),
        ("size: 10", r"--config .*job.yaml: size 10: must be at least 64"),
        ("batch: few", r"--config .*job.yaml: batch few: must be auto"),
        ("seed: 2147483648", "seed 2147483648: must be at least 0 and at most 2,147,483,647"),
        ("camera_params: [.nan, 1, 2, 3]", "camera_params nan,1,2,3: must be finite"),
        ("images: ''", "images: empty"),
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


BOUNDED: list[tuple[type[Options], str, Any]] = [
    (ReconstructOptions, "seed", 1 << 31),
    (ReconstructOptions, "min_model_size", 1 << 31),
    (ReconstructOptions, "mapper_threads", 100_000),
    (PairsOptions, "overlap", 10**20),
    (ExtractOptions, "size", 10**5000),
    (ExtractOptions, "workers", 10**6),
    (ExtractOptions, "device", "cuda:" + "9" * 5000),
    (ExtractOptions, "batch", "9" * 5000),
    (MatchOptions, "match_threshold", float("nan")),
    (MatchOptions, "match_threshold", 10**400),
    (ImportOptions, "camera_params", "nan,1,2,3"),
    (ImportOptions, "camera_params", "inf,1,2,3"),
    (ImportOptions, "camera_params", "0,1,2,3"),
    (ImportOptions, "camera_params", [-5, 1, 2, 3]),
    (ImportOptions, "camera_params", "1e300,1,2,3"),
    (ImportOptions, "cameras", "x" * 5000),
    (ExtractOptions, "masks", "a\0b"),
    (ExtractOptions, "masks", ""),
    (ExtractOptions, "model", "x" * 100_000),
    (ExtractOptions, "precision", "\x1b[31mred\n" * 1000),
]


@pytest.mark.parametrize(
    ("group", "name", "value"), BOUNDED, ids=[f"{name} {number}" for number, (_, name, _) in enumerate(BOUNDED)]
)
def test_every_value_has_bounds_and_its_line(group: type[Options], name: str, value: Any) -> None:
    with pytest.raises(UsageError) as error:
        group(**{name: value})
    text = str(error.value)
    assert text.startswith(flag(name)) and len(text) < 500 and text.isprintable(), text


def test_numbers_of_numpy_and_paths_of_any_kind(tmp_path: Path) -> None:
    class Named:
        def __fspath__(self) -> bytes:
            return bytes(tmp_path)

    made = ExtractOptions(size=np.int32(512), masks=Named(), subpixel=np.bool_(False))  # type: ignore[arg-type]
    assert (made.size, made.masks, made.subpixel) == (512, tmp_path, False)
    given = ImportOptions(camera_params=np.array((900.0, 640, 360, 0)))  # type: ignore[arg-type]
    assert given.intrinsics == (900, 640, 360, 0)
