"""What `plan` tells is what `run` then does; it leaves nothing behind."""

import dataclasses
import json
import shutil
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from jobs import sfm_match as command

import sfm_match
from pairs.exhaustive import exhaustive
from sfm_match.commands.plan import job as plan_job
from sfm_match.commands.plan.counts import Counted, cheaper_ones, count_pairs
from sfm_match.commands.plan.job import Plan, StagePlan
from sfm_match.commands.plan.measure import Measured, sample_of
from sfm_match.errors import NothingDone, UsageError
from sfm_match.images.collection import Collection
from sfm_match.images.files import Header
from sfm_match.images.image_table import ImageRecord
from sfm_match.images.sources import Source
from sfm_match.job.workspace import Workspace
from sfm_match.models import find_model
from sfm_match.options.pairs import PairsOptions
from sfm_match.options.stages import ExtractOptions
from sfm_match.runtime.devices import Choice, Gpu
from sfm_match.runtime.gpus import gpus
from sfm_match.stages.base import Job
from sfm_match.stages.match_blocks import BLOCK
from sfm_match.stages.strategies import Sources

SMALL: dict[str, Any] = {"size": 256, "max_keypoints": 200}


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def photos(rendered: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    shutil.copytree(rendered, folder)
    (folder / "broken.jpg").write_text("no image")
    return folder


def test_a_plan_is_what_the_run_does(photos: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    options: dict[str, Any] = {"pairs": "sequential", "overlap": 2, "mapper": "none", **SMALL}
    before = sfm_match.plan(photos, work, **options)
    assert not work.exists()
    assert (before.images, list(before.failing)) == (7, ["broken.jpg"])
    assert (before.pairs.pairs, before.pairs.exact) == (9, True)
    assert [stage.stage for stage in before.stages] == ["extract", "pairs", "match", "import"]
    assert all(stage.done == 0 and stage.seconds is not None for stage in before.stages)
    assert before.memory > 100 << 20
    assert before.gpu_memory is None

    sfm_match.run(photos, work, **options)
    sizes = {name: sum(p.stat().st_size for p in (work / name).iterdir()) for name in ("features", "matches")}
    planned = {stage.stage: stage.disk for stage in before.stages}
    assert planned["extract"] == pytest.approx(sizes["features"], rel=0.2)
    assert 0.3 * sizes["matches"] < planned["match"] < 3 * sizes["matches"]

    standing = snapshot(work)
    after = sfm_match.plan(photos, work, **options)
    assert snapshot(work) == standing  # nothing was written, not even a lock
    assert [(stage.done, stage.seconds) for stage in after.stages] == [(6, 0), (9, 0), (9, 0), (9, 0)]
    sfm_match.pairs(work, strategy="transitive")
    more = sfm_match.plan(photos, work, **options).stages[2]
    assert (more.total, more.done) == (9 + 5, 9)  # each with the third and the fourth that follow: 3 + 2
    anew = sfm_match.plan(photos, work, overwrite=True, **{**options, "max_keypoints": 100})
    assert all(stage.done == 0 for stage in anew.stages)
    with pytest.raises(UsageError, match="--max-keypoints was 200, now 100"):
        sfm_match.plan(photos, work, **{**options, "max_keypoints": 100})


def test_what_a_run_would_refuse_is_refused(photos: Path, tmp_path: Path) -> None:
    refused: tuple[dict[str, Any], ...] = (
        {"pairs": "spatial"},
        {"pairs": "repair"},
        {"pear": 1},
        {"model": "dedode-nono"},
    )
    for wrong in refused:
        with pytest.raises(UsageError):
            sfm_match.plan(photos, tmp_path / "work", **SMALL, **wrong)
    for one in list(photos.iterdir())[1:]:
        one.unlink()
    with pytest.raises(NothingDone):
        sfm_match.plan(photos, tmp_path / "work")


def test_the_command(photos: Path, tmp_path: Path) -> None:
    options = ["--images", photos, "--workspace", tmp_path / "work", "--size", "256", "--max-keypoints", "200"]
    said = command("plan", *options)
    assert said.returncode == 0, said.stderr
    assert "images       7, 1 of them cannot be used (broken.jpg: not an image" in said.stdout
    assert "exhaustive: 15 pairs (6 images are few enough to match every pair)" in said.stdout
    assert said.stdout.count("cheaper") == 2
    assert "reconstruct  6 images in 1 unit: time not known beforehand" in said.stdout
    assert "GPU" not in said.stdout
    told = json.loads(command("plan", *options, "--json", "--pairs", "retrieval", "--num-images", "1").stdout)
    assert told["pairs"] == {"strategy": "retrieval --num-images 1", "pairs": 6, "blocks": 1, "exact": False}
    job = tmp_path / "job.yaml"
    job.write_text("pairs: sequential\noverlap: 1\n")
    assert "sequential --overlap 1: 5 pairs" in command("plan", *options, "--config", job).stdout
    assert not (tmp_path / "work").exists()


def test_too_many_pairs_are_refused_with_the_alternatives(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_job, "TOO_MANY", 14)
    found = sfm_match.plan(photos, tmp_path / "work", pairs="exhaustive", **SMALL)
    assert found.refusal is not None
    assert "exhaustive: 15 pairs would take" in found.refusal
    assert "choose `--strategy sequential" in found.refusal
    options = ["--images", photos, "--workspace", tmp_path / "w", "--size", "256", "--max-keypoints", "200"]
    said = command("plan", *options)
    assert said.returncode == 2
    assert "pairs        exhaustive" in said.stdout  # the plan is shown all the same
    assert len(said.stderr.splitlines()) == 1


def sources(names: list[str], location: tuple[float, float, float] | None = None, **options: Any) -> Sources:
    """Images without files."""
    header = Header(640, 480, location=location)
    records = [ImageRecord(name, "1:1", 0, header, None) for name in names]
    collection = Collection(Source(Path(), Path()), None, records, [], 1)
    job = Job(Workspace(Path("nowhere")), collection)
    return Sources(job, PairsOptions(**options))


def test_pairs_are_counted_without_a_list() -> None:
    names = [f"{i:05d}.jpg" for i in range(50_000)]
    every = count_pairs(sources(names, strategy="exhaustive"))
    assert (every.pairs, every.exact) == (1_249_975_000, True)
    assert count_pairs(sources(names, strategy="exhaustive+sequential")).pairs == every.pairs
    few = names[:5000]
    in_order = sum(5000 - k for k in range(1, 11))
    for strategy, pairs, exact in (
        ("sequential", in_order, True),
        ("retrieval", 5000 * 20, False),
        ("sequential+retrieval", in_order + 5000 * 20, False),
    ):
        counted = count_pairs(sources(few, strategy=strategy))
        assert (counted.pairs, counted.exact) == (pairs, exact)
    looped = count_pairs(sources(few, strategy="sequential", loop_detection=True))
    assert (looped.pairs, looped.exact) == (in_order + 500 * 50, False)
    best = count_pairs(sources(names, strategy="exhaustive", prune=True, prune_num_images=30))
    assert (best.pairs, best.exact, best.strategy) == (1_500_000, False, "exhaustive --prune --prune-num-images 30")
    cheaper = cheaper_ones(sources(few, strategy="exhaustive"), every.pairs)
    assert [way.strategy for way in cheaper] == ["sequential", "retrieval"]


def test_blocks_are_counted_as_they_will_be() -> None:
    names = [f"{i:03d}.jpg" for i in range(150)]
    for options in ({"strategy": "sequential", "overlap": 40}, {"strategy": "exhaustive"}):
        counted = count_pairs(sources(names, **options))
        pairs = [p for p in combinations(range(150), 2) if options["strategy"] == "exhaustive" or p[1] - p[0] <= 40]
        assert counted.pairs == len(pairs)
        assert counted.blocks == len({(i // BLOCK, j // BLOCK) for i, j in pairs})
    assert sum(len(block) for block in exhaustive(150)) == counted.pairs


def test_a_sample_has_neighbours_and_others() -> None:
    names = [f"{i:03d}" for i in range(100)]
    found = sample_of(names)
    assert len(found) == 6
    assert {"050", "051", "052"} < set(found)
    assert {"000", "099"} < set(found)
    assert sample_of(names[:4]) == names[:4]


def test_costs_that_are_not_known_are_not_told() -> None:
    assert Measured().seconds_per_image is None
    assert plan_job._times(3, None, 1.0) is None
    assert plan_job._times(0, None) == 0
    assert plan_job._shown_time(None) == "time not known beforehand"
    assert plan_job._shown_time(4 * 86400 + 1) == "4.0 days"


def test_times_on_several_machines() -> None:
    """Extraction and matching are divided by whole units, the rest is done by one."""
    hour = 3600.0
    stages = [
        StagePlan("extract", "images", 100, 50, 4, 2 * hour, 0),  # two of the four units are left
        StagePlan("match", "pairs", 1000, 0, 10, 10 * hour, 0),
        StagePlan("import", "pairs", 1000, 0, 1, hour, 0),
        StagePlan("reconstruct", "images", 100, 0, 1, None, 0),
    ]
    counted = Counted("sequential", 1000, 10, exact=True)
    planned = Plan(100, {}, "", counted, [], [], stages, 0, None, None)
    assert planned.seconds == 13 * hour
    assert [planned.seconds_on(number) / hour for number in (1, 2, 4, 100)] == [13, 7, 5, 3]
    line = (
        "machines     7.0 hours on 2, 5.0 hours on 4, 4.0 hours on 8, 3.0 hours on 16, dividing extract and match; 13.0"
    )
    assert any(one.startswith(line) for one in planned.lines())
    assert planned.as_json()["seconds_on_machines"]["16"] == 3 * hour
    short = dataclasses.replace(planned, stages=[dataclasses.replace(stages[0], seconds=60.0)])
    assert not any(one.startswith("machines") for one in short.lines())


def test_memory_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    model = find_model("dedode-nano")
    headers = [Header(1000, 750), Header(4000, 3000)]
    assert plan_job.gpu_memory(ExtractOptions(), model, headers) is None or gpus()
    monkeypatch.setattr(plan_job, "gpus", lambda: (Gpu("a card", (9, 0), 80 << 30),))
    monkeypatch.setattr(plan_job, "choose", lambda _: Choice("cuda", ""))
    one, four = (plan_job.gpu_memory(ExtractOptions(batch=str(n)), model, headers) for n in (1, 4))
    assert one is not None
    assert four == pytest.approx(4 * one, rel=1e-6)
    small = plan_job.gpu_memory(ExtractOptions(size=512, batch="1"), model, headers)
    assert small is not None
    assert small < one
    # engines take no tensor of 2^31 elements: a batch that is asked for is cut to what they take
    assert plan_job.gpu_memory(ExtractOptions(batch="1024"), model, headers) == plan_job.gpu_memory(
        ExtractOptions(batch="1000"), model, headers
    )
    most = plan_job.gpu_memory(ExtractOptions(), model, headers)
    assert most is not None
    assert one < most < 80 << 30
    monkeypatch.setattr(plan_job, "choose", lambda _: Choice("cpu", ""))
    assert plan_job.gpu_memory(ExtractOptions(), model, headers) is None
