"""Options of `pairs`: what is accepted where, and what is recorded."""

from pathlib import Path
from typing import Any

import pytest

from sfm_match.errors import UsageError
from sfm_match.options.pairs import STRATEGIES, PairsOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "retreival"}, "accepted values are auto, exhaustive.*did you mean 'retrieval'"),
        ({"strategy": "auto+retrieval"}, "auto cannot be joined with other strategies"),
        ({"strategy": "poses"}, "--reference-model belongs to the strategies poses and covisibility"),
        ({"reference_model": "."}, "--reference-model belongs to"),
        ({"strategy": "poses", "reference_model": "/nowhere"}, "--reference-model /nowhere: no such folder"),
        ({"strategy": "retrieval", "db_list": "/nowhere"}, "--db-list /nowhere: no such file"),
        ({"num_images": 0}, "--num-images 0: must be at least 1"),
        ({"loop_detection_period": 0}, "--loop-detection-period 0: must be at least 1"),
        ({"prune_num_images": 0}, "--prune-num-images 0: must be at least 1"),
        ({"prune_threshold": -1.0}, "--prune-threshold -1.0: must be at least 0"),
        ({"rotation_threshold": 200.0}, "--rotation-threshold 200.0: must be above 0 and at most 180 degrees"),
        ({"pose_distance": 0.0}, "--pose-distance 0.0: must be above 0"),
    ],
)
def test_errors_name_what_is_accepted(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PairsOptions(**options)


def test_second_rounds() -> None:
    alone = [name for name in STRATEGIES if name not in ("poses", "covisibility", "list")]  # those need files
    assert [name for name in alone if PairsOptions(strategy=name).second_round] == ["transitive", "repair"]
    assert PairsOptions(strategy="sequential+repair").second_round
    assert not PairsOptions(strategy="sequential+retrieval").second_round


def test_every_option_is_recorded(tmp_path: Path) -> None:
    chosen = PairsOptions(strategy="poses", reference_model=tmp_path).inputs()
    assert (chosen["num_images"], chosen["reference_model"]) == (20, str(tmp_path))


def test_a_run_has_no_second_rounds() -> None:
    PairsOptions(strategy="sequential+repair").check_for("pairs")
    with pytest.raises(UsageError, match=r"`run` are .*, list; .* `sfm-match pairs --strategy sequential\+repair`"):
        PairsOptions(strategy="sequential+repair").check_for("run")
    with pytest.raises(UsageError, match="--repair-pairs: not an option of `plan`"):
        PairsOptions(repair_pairs=3).check_for("plan")
