"""What `growth.py` measures: photographs are made, and each stage is run, in a process of its own.

python scripts/benchmarks/growth_steps.py '{"method": "extract", "place": FOLDER, "count": 1000, ...}'
"""

import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

WIDTH, HEIGHT = 128, 96  # of a photograph, pixels
ACROSS, DOWN = 24, 20  # pixels between neighbours
FIELD = (40, 25)  # photographs of one texture, by columns and rows
KEYPOINTS, PARTNERS, OVERLAP = 96, 20, 20
BY_CHANCE = 8  # matches of a pair of two fields that are filled in

Report = dict[str, Any]


def texture(number: int) -> Any:
    """(H, W, 3) uint8: noise of all scales, and bright and dark shapes whose corners a network finds."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(number)
    width, height = (FIELD[0] - 1) * ACROSS + WIDTH, (FIELD[1] - 1) * DOWN + HEIGHT
    made = np.zeros((height, width, 3), np.float32)
    for scale in (4, 9, 20, 45, 100):
        small = rng.normal(0, 14, (height // scale + 2, width // scale + 2, 3)).astype(np.float32)
        made += cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    made += 128
    for _ in range(width * height // 500):
        centre = rng.uniform((0, 0), (width, height))
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 7)))
        corners = centre + rng.uniform(3, 12) * np.stack((np.cos(angles), np.sin(angles)), axis=1)
        cv2.fillPoly(made, [corners.astype(np.int32)], rng.uniform(0, 255, 3).tolist())
    return np.clip(made, 0, 255).astype(np.uint8)


def photographs(folder: Path, count: int) -> None:
    """Writes `count` JPEGs, a folder for every texture. Those of a texture that is finished are left as they are."""
    import cv2

    columns, rows = FIELD
    for number in range(-(-count // (columns * rows))):
        place = folder / _field(number)
        wanted = min(count - number * columns * rows, columns * rows)
        if place.is_dir() and sum(1 for _ in place.iterdir()) >= wanted:
            continue
        place.mkdir(parents=True, exist_ok=True)
        whole = texture(number)
        for one in range(wanted):
            row, column = divmod(one, columns)
            column = columns - 1 - column if row % 2 else column  # there and back, as one flies
            top, left = row * DOWN, column * ACROSS
            cut = whole[top : top + HEIGHT, left : left + WIDTH]
            cv2.imwrite(str(place / f"{one:05d}.jpg"), cut, [cv2.IMWRITE_JPEG_QUALITY, 92])


class Steps:
    """What a process of its own does. Each step returns what it tells, beside its time and its memory."""

    def __init__(self, place: Path, count: int, kill_at: tuple[str, float] | None, until: float | None) -> None:
        self.images, self.work, self.count = place / "images", place / "work", count
        self._kill, self._until, self._began = kill_at, until, time.monotonic()

    def told(self, what: str, done: int, total: int) -> None:
        """Kills this process, with all its threads, where it is to be killed."""
        if self._kill is not None and what == self._kill[0] and done >= self._kill[1] * total:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._until is not None and time.monotonic() - self._began > self._until:
            print(json.dumps({"stopped": what, "done": done, "total": total}), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    def make(self) -> Report:
        photographs(self.images, self.count)
        return {}

    def plan(self) -> Report:
        from sfm_match.commands.plan.job import plan

        made = plan(self.images, self.work, **self._run_options())
        return {"pairs": made.pairs.pairs, "stages": {one.stage: one.done for one in made.stages}}

    def extract(self) -> Report:
        import sfm_match

        return _of(sfm_match.extract(self.images, self.work, on_progress=self.told, **self._extraction()))

    def sequential(self) -> Report:
        import sfm_match

        return _of(sfm_match.pairs(self.work, overwrite=True, **self._pairs()))

    def pairs(self) -> Report:
        import sfm_match

        return _of(sfm_match.pairs(self.work, strategy="retrieval", num_images=PARTNERS))

    def match(self) -> Report:
        import sfm_match

        return _of(sfm_match.match(self.work, on_progress=self.told))

    def import_(self) -> Report:
        import sfm_match

        return _of(sfm_match.import_(self.work, on_progress=self.told))

    def fill_features(self) -> Report:
        """Writes the units that are open, from what the first field's images have."""
        import numpy as np

        from sfm_match.images.collection import Collection
        from sfm_match.job.workspace import Workspace
        from sfm_match.stages.state import iter_features, recorded_features
        from sfm_match.store.features import Features, UnitResult, unit_path, write_unit

        place = Workspace(self.work)
        collection = Collection.load(place)
        found = recorded_features(place, collection)
        first = dict(iter_features(found, [name for name in found.counts if name.startswith(_field(0))]))
        for unit, names in found.open_units.items():
            made = {}
            for name in names:
                field, _, file = name.partition("/")
                like = first[f"{_field(0)}/{file}"]
                turned = like.descriptors.astype(np.float32) @ _rotation(int(field.removeprefix("field")))
                made[name] = Features(like.keypoints, like.scores, turned.astype(np.float16))
            signatures = {name: collection.records[name].signature for name in names}
            result = UnitResult(made, {}, signatures)
            write_unit(unit_path(place.features, unit), result, found.fingerprint, turned.shape[1])
        return {"filled": sum(map(len, found.open_units.values()))}

    def fill_matches(self) -> Report:
        """Writes open blocks: what the first field's pairs have or, where it has none, a few matches by chance."""
        import numpy as np

        from sfm_match.images.collection import Collection
        from sfm_match.job.workspace import Workspace
        from sfm_match.stages.listed_matches import iter_matches
        from sfm_match.stages.pair_blocks import plan_blocks
        from sfm_match.stages.state import recorded_features, recorded_matches
        from sfm_match.store.matches import Matches, PairBlock, write_block

        place, rng = Workspace(self.work), np.random.default_rng(0)
        collection = Collection.load(place)
        features = recorded_features(place, collection)
        found = recorded_matches(place, collection, features)
        inside = f"{_field(0)}/"
        first = {
            (low.removeprefix(inside), high.removeprefix(inside)): some
            for low, high, some in iter_matches(found, features)
            if low.startswith(inside) and high.startswith(inside)
        }
        for plan in plan_blocks(place.matches, found.fingerprint, found.names, features, found.open_pairs):
            names, made = list(plan.images), []
            counts = [features.counts[name] for name in names]
            for pair in plan.pairs:
                (field, _, low), (other, _, high) = (names[image].partition("/") for image in pair)
                if field == other and (low, high) in first:
                    made.append(first[low, high])
                    continue
                sides = [np.sort(rng.permutation(counts[image])[:BY_CHANCE]) for image in pair]
                least = min(map(len, sides))
                indices = np.stack([side[:least] for side in sides], axis=1).astype(np.uint32)
                made.append(Matches(indices, np.full(least, 0.1, np.float16)))
            write_block(plan.path, PairBlock(found.fingerprint, plan.images, plan.pairs, made))
        return {"filled": len(found.open_pairs)}

    def fill_verification(self) -> Report:
        """Writes the verdicts that are open: all matches fit, as if the two images were of one plane."""
        import numpy as np

        from sfm_match.colmap import verification
        from sfm_match.colmap.two_view import Configuration, TwoView
        from sfm_match.images.collection import Collection
        from sfm_match.job.workspace import Workspace
        from sfm_match.matching.acceptance import FirstLook, Verdict
        from sfm_match.stages.listed_matches import iter_matches
        from sfm_match.stages.state import recorded_features, recorded_matches

        def accepted(pair: Any, **_: object) -> verification.Judged:
            geometry = TwoView(Configuration.PLANAR_OR_PANORAMIC, np.ones(len(pair.indices), bool), h=np.eye(3))
            look = FirstLook(len(pair.indices), None, None)
            return verification.Judged(pair.number, pair.indices, look, geometry, -9.0, Verdict.ACCEPTED, pair.work)

        verification._judge = accepted
        place = Workspace(self.work)
        collection, partial = Collection.load(place), self.work / "database.db.partial"
        features = recorded_features(place, collection)
        matches = recorded_matches(place, collection, features)
        judging = verification.judging_of(partial, verification.How())
        with closing(sqlite3.connect(partial)) as connection:
            ((done,),) = connection.execute("SELECT COUNT(*) FROM sfm_match_pairs")
        verification.verify_pairs(partial, iter_matches(matches, features), judging, lambda *_: None)
        return {"filled": len(matches.pairs) - done}

    def report(self) -> Report:
        import sfm_match

        return _of(sfm_match.report(self.work))

    def run(self) -> Report:
        import sfm_match

        reports = sfm_match.run(self.images, self.work, **self._run_options())
        return {"done": sum(one.done for one in reports), "cached": sum(one.cached for one in reports)}

    def doctor(self) -> Report:
        from sfm_match.commands.workspace_files import checks
        from sfm_match.job.workspace import Workspace

        return {"damaged": sum(one.trouble for one in checks(Workspace(self.work)))}

    def _extraction(self) -> dict[str, Any]:
        return {"size": 128, "max_keypoints": KEYPOINTS}

    def _pairs(self) -> dict[str, Any]:
        return {"strategy": "sequential", "overlap": OVERLAP, "quadratic_overlap": False}

    def _run_options(self) -> dict[str, Any]:
        return {**self._extraction(), **self._pairs(), "mapper": "none"}


def _field(number: int) -> str:
    """The folder of a texture's photographs."""
    return f"field{number:04d}"


@cache
def _rotation(field: int) -> Any:
    """(64, 64) float32, of the descriptors of a field that are filled in."""
    import numpy as np

    rotation, _ = np.linalg.qr(np.random.default_rng(field).normal(size=(64, 64)))
    return rotation.astype(np.float32)


def _of(report: Any) -> Report:
    spent = {what: round(seconds, 2) for what, seconds in report.spent.items()}
    numbers = {key: value for key, value in report.facts.items() if isinstance(value, int | float)}
    return {"done": report.done, "cached": report.cached, "spent": spent, "facts": numbers, "detail": report.detail}


def as_child(asked: Mapping[str, Any]) -> None:
    """The process of a step: prints what it tells as JSON."""
    import sfm_match  # noqa: F401 - the start of the program is not part of a step's seconds
    from sfm_match.cli import main  # noqa: F401
    from sfm_match.stages.base import STAGES

    if asked["method"] != "make":
        for one in STAGES:
            one.load()
    kill = tuple(asked["kill"]) if asked["kill"] is not None else None
    steps = Steps(Path(asked["place"]), asked["count"], kill, asked["until"])
    began = time.monotonic()
    told = getattr(steps, asked["method"])()
    print(json.dumps({"step_s": round(time.monotonic() - began, 3), **told}), flush=True)


if __name__ == "__main__":
    as_child(json.loads(sys.argv[1]))
