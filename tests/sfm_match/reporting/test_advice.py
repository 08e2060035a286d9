"""The verdict and the advice that facts give."""

from pathlib import Path

import numpy as np
import pytest
from large_report import large_facts

from sfm_match.images.files import Header
from sfm_match.reporting.advice import BAD, GOOD, LOOK, UNFINISHED, advice, verdict
from sfm_match.reporting.facts import Facts
from sfm_match.reporting.matching import Bridge


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    """Thirty images that are all in one model."""
    made = large_facts(30)
    made.folder = tmp_path
    return made


def texts(facts: Facts) -> str:
    return "\n".join(f"{one.text} {one.command}" for one in advice(facts))


def test_all_is_well(facts: Facts) -> None:
    facts.headers = {name: Header(4000, 3000, focal=3000.0, location=(55.0, 13.0, None)) for name in facts.names}
    told = verdict(facts)
    assert (told.level, told.title) == (GOOD, "30 of 30 images are registered, in one model.")
    assert advice(facts) == []


def test_what_speaks_against_a_model_comes_first(facts: Facts) -> None:
    facts.models[0]["odd"] = ["cameras hardly move"]
    told = verdict(facts)
    assert told.level == LOOK
    assert "Model 0: cameras hardly move." in told.lines


def test_few_registered(facts: Facts) -> None:
    assert facts.measured is not None
    facts.measured.per_image.model[:10] = -1
    facts.unregistered = dict.fromkeys(facts.names[:10], "no accepted pair: of 29; nearest x.jpg")
    assert verdict(facts).level == LOOK
    assert "10 images in no model, no accepted pair. Little overlap" in texts(facts)


def test_a_component_of_its_own(facts: Facts) -> None:
    assert facts.matching is not None
    facts.matching.component[18:] = 1
    assert "12 images form a component of their own" in texts(facts)
    assert f"sfm-match pairs --strategy repair --workspace {facts.workspace}" in texts(facts)
    facts.matching.verdicts["few matches"] = 1000  # then every pair was tried
    assert "repair" not in texts(facts)
    assert "Every pair was tried" in texts(facts)


def test_a_weak_bridge(facts: Facts) -> None:
    assert facts.matching is not None
    facts.matching.bridges.append(Bridge((3, 4), 17, 12))
    assert "image00003.jpg and image00004.jpg alone (17 inliers) connect 12 images" in texts(facts)


def test_few_keypoints_and_a_large_error(facts: Facts) -> None:
    facts.keypoints = np.array([50, *[4000] * 29])
    facts.models[0]["reprojection_error"] = 2.5
    assert "1 image has fewer than 200 keypoints" in texts(facts)
    assert "reprojection error of 2.50 px" in texts(facts)


def test_what_the_photographs_do_not_tell(facts: Facts) -> None:
    assert "No photograph has GPS" in texts(facts)
    assert "focal length in EXIF" in texts(facts)
    facts.record = {"import": {"camera_params": "1000,500,400"}}
    assert "focal length in EXIF" not in texts(facts)


def test_paths_are_quoted_for_the_shell(facts: Facts) -> None:
    facts.problems.append("database.db cannot be read")
    facts.workspace = Path("/my jobs/it's")
    assert advice(facts)[0].command == f"""sfm-match run --images {facts.folder} --workspace '/my jobs/it'"'"'s'"""


def test_a_stage_that_could_do_nothing_and_a_job_on_its_way(facts: Facts) -> None:
    facts.measured, facts.summary = None, {}
    assert verdict(facts).level == UNFINISHED
    assert verdict(facts).title == "The job is not finished: reconstruct is next."
    assert f"run --images {facts.folder}" in texts(facts)
    facts.stages = {"reconstruct": {"error": "no model: nothing in common", "at": "now"}}
    assert (verdict(facts).level, verdict(facts).lines[0]) == (BAD, "no model: nothing in common")
    facts.stages["reconstruct"]["error"] = f"some/where/{facts.workspace.name}: no model: nothing in common"
    assert verdict(facts).lines[0] == "no model: nothing in common"  # the page is sent to others
    assert "run --images" not in texts(facts)
