"""The stage `pairs`: strategies that read features, models and verified pairs; what is kept, added and refused."""

import itertools
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest

import sfm_match
from pairs import Block, auto
from pairs.prune import Scored, above
from sfm_match.colmap.queries import verified_pairs
from sfm_match.errors import NothingDone, UsageError
from sfm_match.stages import strategies
from sfm_match.stages.state import FeatureSet
from sfm_match.store.pairs import read_pairs

SMALL: dict[str, Any] = {"size": 320, "max_keypoints": 400}


@pytest.fixture
def work(workspace: Path) -> Path:
    return workspace


def names_of(work: Path) -> list[str]:
    return [image["name"] for image in json.loads((work / "images.json").read_text())["images"]]


def written(work: Path) -> set[tuple[int, int]]:
    return {(int(i), int(j)) for i, j in read_pairs(work / "pairs.txt", names_of(work))}


EVERY = set(itertools.combinations(range(6), 2))


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "retrieval", "num_images": 2},
        {"strategy": "sequential", "overlap": 1, "loop_detection": True, "loop_detection_period": 2},
        {"strategy": "exhaustive", "prune": True, "prune_num_images": 2},
        {"strategy": "retrieval+sequential", "num_images": 1, "overlap": 1, "prune": True, "prune_threshold": 0.01},
    ],
)
def test_strategies_that_look_at_features(work: Path, rendered: Path, tmp_path: Path, options: dict) -> None:
    report = sfm_match.pairs(work, overwrite=True, **options)
    found = written(work)
    assert report.done == len(found)
    assert found < EVERY or found == EVERY
    neighbours = {(i, i + 1) for i in range(5)}  # along the room's walk
    assert len(found & neighbours) >= 4
    assert sfm_match.pairs(work, **options).done == 0  # it stands
    with pytest.raises(NothingDone, match=r"looks at descriptors; .*no features yet; run `sfm-match extract` first"):
        sfm_match.pairs(tmp_path / "other", rendered, **options)


def test_pruning_says_what_it_kept(work: Path) -> None:
    report = sfm_match.pairs(work, strategy="exhaustive", prune=True, prune_num_images=1, overwrite=True)
    assert (report.facts["candidates"], report.done) == (15, len(written(work)))
    assert f"pruned: {report.done} of 15 pairs kept" in report.line()
    assert 3 <= report.done <= 6
    everything = sfm_match.pairs(work, strategy="exhaustive", prune=True, prune_threshold=0.0, overwrite=True)
    assert everything.done == 15
    with pytest.raises(NothingDone, match="--strategy exhaustive: no pair among 6 images"):
        sfm_match.pairs(work, strategy="exhaustive", prune=True, prune_threshold=1e6, overwrite=True)
    assert written(work) == EVERY  # what stood stands


@pytest.mark.parametrize(("turns", "expected"), [(1, 1.0), (4, 0.75)])
def test_pruning_asks_less_of_turned_images(
    turns: int, expected: float, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def noted(scored: Iterable[Scored], least: float) -> Iterator[Block]:
        asked.append(least)
        return above(scored, 0.0)

    monkeypatch.setattr(strategies, "above", noted)
    monkeypatch.setattr(FeatureSet, "rotations", turns)  # descriptors are then taken as four short ones
    sfm_match.pairs(work, strategy="exhaustive", prune=True, overwrite=True)
    sfm_match.pairs(work, strategy="exhaustive", prune=True, prune_threshold=0.5, overwrite=True)
    assert asked == [expected, 0.5]


def test_pairs_are_made_anew_when_their_features_are(work: Path, rendered: Path) -> None:
    options: dict[str, Any] = {"strategy": "retrieval", "num_images": 2}
    sfm_match.pairs(work, overwrite=True, **options)
    sfm_match.extract(rendered, work, size=320, max_keypoints=100, overwrite=True)
    assert sfm_match.pairs(work, **options).done > 0
    assert sfm_match.pairs(work, **options).done == 0
    # exhaustive does not look at them
    sfm_match.pairs(work, strategy="exhaustive", overwrite=True)
    sfm_match.extract(rendered, work, size=320, max_keypoints=150, overwrite=True)
    assert sfm_match.pairs(work, strategy="exhaustive").done == 0


def test_turned_features_are_compared_by_the_turn_that_fits(rendered: Path, tmp_path: Path) -> None:
    """A view and the same view turned by a quarter, among other views."""
    import cv2

    images, work = tmp_path / "images", tmp_path / "work"
    shutil.copytree(rendered, images)
    first = sorted(images.iterdir())[0]
    picture = cv2.imread(str(first))
    assert picture is not None
    cv2.imwrite(str(images / "zturned.jpg"), cv2.rotate(picture, cv2.ROTATE_90_CLOCKWISE))
    sfm_match.extract(images, work, turns=True, **SMALL)
    sfm_match.pairs(work, strategy="retrieval", num_images=1)
    assert (0, 6) in written(work)
    sfm_match.pairs(work, strategy="exhaustive", prune=True, prune_num_images=1, overwrite=True)
    assert (0, 6) in written(work)


def test_pairs_of_a_model(work: Path) -> None:
    model = work / "sparse" / "0"
    names = names_of(work)
    assert sfm_match.pairs(work, strategy="covisibility", reference_model=model, overwrite=True).done == 15
    near = sfm_match.pairs(work, strategy="poses", reference_model=model, num_matched=1, overwrite=True)
    assert 3 <= near.done <= 6
    assert sfm_match.pairs(work, strategy="poses", reference_model=str(model), num_matched=1).done == 0
    # the content of the model counts, not where it lies
    moved = shutil.copytree(model, work / "moved")
    assert sfm_match.pairs(work, strategy="poses", reference_model=moved, num_matched=1).done == 0
    smaller = pycolmap.Reconstruction(str(model))
    image = smaller.find_image_with_name(names[2])
    smaller.deregister_frame(image.frame_id)
    smaller.write(str(moved))
    with pytest.raises(UsageError, match="--reference-model was"):
        sfm_match.pairs(work, strategy="poses", reference_model=moved, num_matched=1)
    sfm_match.pairs(work, strategy="poses", reference_model=moved, num_matched=5, overwrite=True)
    assert not any(2 in pair for pair in written(work))
    (work / "nothing").mkdir()
    with pytest.raises(UsageError, match="no COLMAP model to be read there"):
        sfm_match.pairs(work, strategy="covisibility", reference_model=work / "nothing", overwrite=True)


def test_prefixes_and_lists_of_names(work: Path, tmp_path: Path) -> None:
    names = names_of(work)
    (tmp_path / "queries.txt").write_text(f"{names[0]}\n")
    options: dict[str, Any] = {
        "strategy": "retrieval",
        "query_list": tmp_path / "queries.txt",
        "db_prefix": names[0][:-5],
    }
    sfm_match.pairs(work, overwrite=True, **options)
    assert written(work) == {(0, j) for j in range(1, 6) if names[j].startswith(names[0][:-5])}
    (tmp_path / "queries.txt").write_text(f"# other\n{names[0]}\n")
    with pytest.raises(UsageError, match="--query-list was"):
        sfm_match.pairs(work, **options)
    (tmp_path / "queries.txt").write_text("nobody.jpg\n")
    with pytest.raises(UsageError, match=r"names are not in the collection: 'nobody.jpg'"):
        sfm_match.pairs(work, overwrite=True, **options)


def test_a_second_round_adds_pairs_and_a_run_keeps_them(rendered: Path, tmp_path: Path) -> None:
    images, work = tmp_path / "images", tmp_path / "work"
    images.mkdir()
    views = sorted(rendered.iterdir())
    for view in views[:5]:
        shutil.copy(view, images)
    options: dict[str, Any] = {"pairs": "sequential", "overlap": 1, "mapper": "none", **SMALL}
    sfm_match.run(images, work, **options)
    chain = {(i, i + 1) for i in range(4)}
    assert written(work) == chain
    report = sfm_match.pairs(work, strategy="transitive")
    assert (report.done, report.cached) == (3, 4)
    assert written(work) == chain | {(0, 2), (1, 3), (2, 4)}
    assert sfm_match.pairs(work, strategy="transitive").done == 0  # once for a database
    matched = sfm_match.run(images, work, **options)
    assert [report.done for report in matched[:3]] == [0, 0, 3]  # extract, pairs, match: the list goes on
    again = sfm_match.pairs(work, strategy="transitive+repair")
    assert again.done >= 1  # from the database that is there now
    before = written(work)
    shutil.copy(views[5], images)
    grown = sfm_match.run(images, work, **options)
    assert grown[1].done == len(before) + 1
    assert written(work) == before | {(4, 5)}  # new images make the list anew; what was added stays
    sfm_match.pairs(work, strategy="sequential", overlap=2, overwrite=True)  # another list: theirs are gone
    assert written(work) == {(i, i + k) for i in range(6) for k in (1, 2) if i + k < 6}


def test_repair_joins_what_verification_left_apart(work: Path, tmp_path: Path) -> None:
    names = names_of(work)
    apart = {(0, 1), (1, 2), (3, 4), (4, 5)}
    (tmp_path / "list.txt").write_text("".join(f"{names[i]}\t{names[j]}\n" for i, j in apart))
    sfm_match.pairs(work, strategy="list", match_list_path=tmp_path / "list.txt", overwrite=True)
    sfm_match.match(work)
    sfm_match.import_(work, overwrite=True)
    assert len(verified_pairs(work / "database.db", names)) == 4
    report = sfm_match.pairs(work, strategy="repair", repair_pairs=2)
    assert "4 verified pairs, 2 components, 4 bridges" in report.line()
    added = written(work) - apart
    assert len(added) == report.done >= 2
    assert any(i <= 2 < j for i, j in added)
    sfm_match.match(work)
    sfm_match.import_(work)
    graph = sfm_match.pairs(work, strategy="repair", repair_pairs=2)
    assert "1 components" in graph.line()


def test_second_rounds_need_verified_pairs(work: Path, rendered: Path) -> None:
    (work / "database.db").unlink()
    for strategy in ("transitive", "repair", "sequential+repair"):
        with pytest.raises(NothingDone, match=r"no verified pairs yet; .*is a second round"):
            sfm_match.pairs(work, strategy=strategy)
    with pytest.raises(UsageError, match="then `sfm-match pairs --strategy repair`, then the same run again"):
        sfm_match.run(rendered, work, pairs="repair", **SMALL)


def test_auto_takes_what_the_names_ask_for(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "EXHAUSTIVE_UP_TO", 2)
    ordered = sfm_match.pairs(work, strategy="auto", overwrite=True)
    assert ordered.facts["strategy"] == "sequential"
    assert "returns are looked for" in ordered.line()
    monkeypatch.setattr(auto, "consecutive_share", lambda _: 0.0)
    some = sfm_match.pairs(work, strategy="auto")  # the same options, another choice
    assert some.facts["candidates"] == 15
    monkeypatch.setattr(auto, "PRUNED_UP_TO", 2)
    many = sfm_match.pairs(work, strategy="auto")
    assert many.facts["strategy"] == "retrieval"
    assert sfm_match.pairs(work, strategy="auto").done == 0


def test_changed_options_are_named_by_their_flags(work: Path) -> None:
    sfm_match.pairs(work, strategy="sequential", overwrite=True)
    assert sfm_match.pairs(work, strategy="sequential", num_images=20).done == 0
    with pytest.raises(UsageError, match="--loop-detection was off, now on"):
        sfm_match.pairs(work, strategy="sequential", loop_detection=True)


def test_verified_pairs_are_those_of_colmap(work: Path) -> None:
    names = names_of(work)
    database = pycolmap.Database.open(str(work / "database.db"))
    theirs = {image.image_id: image.name for image in database.read_all_images()}
    pair_ids, _ = database.read_two_view_geometry_num_inliers()
    expected = set()
    for one in pair_ids:
        i, j = sorted(names.index(theirs[image]) for image in pycolmap.pair_id_to_image_pair(one))
        expected.add((i, j))
    database.close()
    found = verified_pairs(work / "database.db", names)
    assert {tuple(sorted(pair)) for pair in found.tolist()} == expected
    assert len(verified_pairs(work / "database.db", names[:3])) == len([p for p in expected if max(p) < 3])
    assert found.dtype == np.int64
