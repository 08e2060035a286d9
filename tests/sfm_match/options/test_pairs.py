"""Options of `pairs`: what is accepted, and what is recorded."""

from pathlib import Path
from typing import Any

import pytest

from sfm_match.errors import UsageError
from sfm_match.options.pairs import STRATEGIES, PairsOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "retreival"}, "accepted are auto, exhaustive.*did you mean 'retrieval'"),
        ({"strategy": "auto+retrieval"}, "auto stands alone"),
        ({"strategy": "poses"}, "--reference-model DIR belongs to the strategies `poses` and `covisibility`"),
        ({"reference_model": "."}, "--reference-model DIR belongs to"),
        ({"strategy": "poses", "reference_model": "/nowhere"}, "--reference-model /nowhere: no such folder"),
        ({"strategy": "retrieval", "db_list": "/nowhere"}, "--db-list /nowhere: no such file"),
        ({"num_images": 0}, "--num-images 0: accepted are 1 and more"),
        ({"loop_detection_period": 0}, "--loop-detection-period 0: accepted are 1 and more"),
        ({"prune_num_images": 0}, "--prune-num-images 0: accepted are 1 and more"),
        ({"prune_threshold": -1.0}, "--prune-threshold -1.0: accepted are scores from 0"),
        ({"rotation_threshold": 200.0}, "--rotation-threshold 200.0: accepted are degrees"),
        ({"pose_distance": 0.0}, "--pose-distance 0.0: accepted are distances above 0"),
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


def test_new_options_are_recorded_where_they_are_used(tmp_path: Path) -> None:
    plain = PairsOptions(strategy="retrieval").identity()
    assert "num_images" not in plain
    assert plain["overlap"] == 10
    assert PairsOptions(strategy="retrieval", num_images=10).identity() == {**plain, "num_images": 10}
    chosen = PairsOptions(strategy="poses", reference_model=tmp_path).identity()
    assert chosen["reference_model"] == str(tmp_path)
