"""Which images are mapped together, and which of several tries counts."""

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pycolmap
import pytest
from jobs import NAMES, accepted_database

from sfm_match.colmap import mapper
from sfm_match.colmap.components import Component, components
from sfm_match.colmap.mapper import map_components
from sfm_match.colmap.mapper_options import CAREFUL, FAST
from sfm_match.colmap.plausibility import Kept
from sfm_match.colmap.queries import MOST_IMAGES
from sfm_match.colmap.robust_bundle_adjustment import Spread
from sfm_match.images.files import Header
from sfm_match.job.progress import Clock
from sfm_match.options.stages import ReconstructOptions


@dataclass
class Model:
    """As much of a reconstruction as choosing needs."""

    names: list[str]
    focal: float = 1000.0
    points: int = 100
    off: bool = False  # from GPS
    images: dict[int, "Image"] = field(init=False)

    def __post_init__(self) -> None:
        self.images = {number: Image(name) for number, name in enumerate(self.names)}

    def num_reg_images(self) -> int:
        return len(self.names)

    def num_points3D(self) -> int:  # noqa: N802 - pycolmap's
        return self.points

    def write(self, _: str) -> None:
        """Where a mapper is to begin."""


@dataclass
class Image:
    name: str
    has_pose: bool = True


@dataclass
class Runs:
    """What COLMAP's mappers are made to give, and what they were asked for."""

    found: dict[tuple[int, bool], list[Model]]  # seed, EXIF held -> models
    of_few: list[list[Model]] = field(default_factory=list)  # what the first calls give instead
    asked: list[tuple[int, bool]] = field(default_factory=list)
    whole: list[list[str]] = field(default_factory=list)  # images of each call
    priors: list[bool] = field(default_factory=list)  # GPS holds the cameras, in each call
    growth: list[float] = field(default_factory=list)  # after which all is adjusted, in each call
    databases: list[str] = field(default_factory=list)  # name of each call's
    begun: list[bool] = field(default_factory=list)  # each call: from a model

    def incremental(
        self,
        database: str,
        *_: str,
        options: pycolmap.IncrementalPipelineOptions,
        input_path: str = "",
        **_callbacks: object,
    ) -> dict[int, Model]:
        self.databases.append(Path(database).name)
        self.begun.append(bool(input_path))
        assert options.random_seed == options.mapper.random_seed
        assert options.constant_cameras == options.mapper.constant_cameras
        self.asked.append((options.random_seed, bool(options.constant_cameras)))
        self.whole.append(options.image_names)
        self.priors.append(options.use_prior_position)
        self.growth.append(options.ba_global_frames_ratio)
        of_few = self.of_few[len(self.asked) - 1 :][:1]
        return dict(enumerate(of_few[0] if of_few else self.found.get(self.asked[-1], [])))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    found = Runs({})
    monkeypatch.setattr(pycolmap, "incremental_mapping", found.incremental)
    monkeypatch.setattr(pycolmap, "global_mapping", lambda *_, options: {0: Model(list(options.image_names))})
    monkeypatch.setattr(mapper, "cameras_of_exif", lambda _: {1})
    monkeypatch.setattr(mapper, "camera_of", lambda _: {})  # no doubts about EXIF
    monkeypatch.setattr(mapper, "trusted_components", lambda *given: (components(*given), 0))
    monkeypatch.setattr(mapper, "own_database", lambda database, *_: database)
    monkeypatch.setattr(mapper, "thinned", lambda _, copy, __: copy if found.of_few else None)
    monkeypatch.setattr(mapper, "triangulated", lambda model, *_: model)
    monkeypatch.setattr(mapper, "keep_earned", lambda model, _: Kept(model, {}))

    def far(model: Model, headers: Mapping[str, Header]) -> bool:
        exif = headers["a.jpg"].focal
        return exif is not None and not 0.85 <= model.focal / exif <= 1.15

    monkeypatch.setattr(mapper, "far_from_exif", far)
    monkeypatch.setattr(mapper, "far_from_gps", lambda model, _: model.off)
    monkeypatch.setattr(mapper, "refine_robustly", lambda model, **_: model)
    yield found


def mapped(
    tmp_path: Path,
    *,
    exif: float | None = None,
    located: int = 0,
    pairs: list[tuple[int, int]] | None = None,
    robust: bool = False,
) -> list[list[str]]:
    """Ten images that are all connected, or these pairs. Names of each model."""
    ring = [(i, (i + 1) % 10) for i in range(9)] + [(0, 9)]
    path = accepted_database(tmp_path / "a.db", ring if pairs is None else pairs)
    headers = {
        name: Header(1000, 800, focal=exif, location=(50.0, 8.0, None) if number < located else None)
        for number, name in enumerate(NAMES)
    }
    output = tmp_path / "out"
    output.mkdir()
    options = ReconstructOptions(seed=7, robust_refinement=robust)
    models = map_components(path, tmp_path, headers, options, output, Clock()).models
    return [cast(Model, model).names for model in models]


@pytest.mark.parametrize(
    ("by_seed", "expected", "tried"),
    [
        ({7: [9], 8: [10]}, 9, [7]),  # 9 of 10 are nearly all
        ({7: [5, 4], 8: [6], 9: [5]}, 6, [7, 8, 9]),
        ({7: [5, 4], 8: [9], 9: [10]}, 9, [7, 8]),
        ({7: [5], 8: [], 9: [5, 4]}, 5, [7, 8, 9]),  # of equals the first
    ],
)
def test_a_set_that_falls_apart_is_mapped_again(
    by_seed: dict[int, list[int]], expected: int, tried: list[int], runs: Runs, tmp_path: Path
) -> None:
    runs.found = {(seed, False): [Model(NAMES[:count]) for count in counts] for seed, counts in by_seed.items()}
    assert len(mapped(tmp_path)[0]) == expected
    assert runs.asked == [(seed, False) for seed in tried]


def test_exif_holds_the_model_and_a_plausible_one_is_enough(runs: Runs, tmp_path: Path) -> None:
    runs.found = {(7, True): [Model(NAMES, focal=1100)]}
    mapped(tmp_path, exif=1000.0)
    assert runs.asked == [(7, True)]


def test_where_exif_does_not_fit_it_lets_go(runs: Runs, tmp_path: Path) -> None:
    """EXIF may be wrong: a free model with as many images, and more points, counts."""
    runs.found = {
        (7, True): [Model(NAMES, focal=800, points=100)],
        (8, False): [Model(NAMES, focal=700, points=120)],
        (9, True): [Model(NAMES[:8], focal=1000)],
    }
    assert mapped(tmp_path, exif=1000.0) == [NAMES]
    assert runs.asked == [(7, True), (8, False), (9, True)]


def test_a_model_far_from_gps_is_tried_again(runs: Runs, tmp_path: Path) -> None:
    runs.found = {(7, False): [Model(NAMES, points=900, off=True)], (8, False): [Model(NAMES)]}
    assert mapped(tmp_path) == [NAMES]
    assert runs.asked == [(7, False), (8, False)]


@pytest.mark.parametrize(("located", "second"), [(5, (8, False)), (6, (8, True))])
def test_where_gps_contradicts_it_holds_the_next_try(
    located: int, second: tuple[int, bool], runs: Runs, tmp_path: Path
) -> None:
    """With EXIF's focal length, too; of few positions one gross error would bend the model."""
    runs.found = {(7, True): [Model(NAMES, off=True)], second: [Model(NAMES, focal=1001.0, points=50)]}
    assert mapped(tmp_path, exif=1000.0, located=located) == [NAMES]
    assert runs.asked == [(7, True), second]  # the second is enough
    assert runs.priors == [False, second[1]]


@pytest.mark.parametrize(("deviation", "focal"), [(1.05, 1000.0), (1.2, 700.0)])
def test_a_focal_length_that_contradicts_exif_must_be_worth_it(
    deviation: float, focal: float, runs: Runs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Free, the residuals are 1 and the focal length 700; with EXIF's 1000 they are a little or much larger."""

    def refined(model: Model, *, refine_cameras: bool, **_: int) -> Model:
        return Model(model.names, 700.0) if refine_cameras else model

    monkeypatch.setattr(mapper, "refine_robustly", refined)
    monkeypatch.setattr(mapper, "spread", lambda model: Spread(1.0 if model.focal == 700 else deviation, 2.0))
    runs.found = {(7, True): [Model(NAMES)]}
    path = accepted_database(tmp_path / "a.db", [(i, j) for i in range(10) for j in range(i)])
    headers = {name: Header(1000, 800, focal=1000.0) for name in NAMES}
    (tmp_path / "out").mkdir()
    found = map_components(path, tmp_path, headers, ReconstructOptions(seed=7), tmp_path / "out", Clock())
    assert cast(Model, found.models[0]).focal == focal


@pytest.mark.parametrize("robust", [True, False])
def test_the_first_try_is_fast_where_a_refinement_follows(robust: bool, runs: Runs, tmp_path: Path) -> None:
    runs.found = {(7, False): [Model(NAMES[:5])], (8, False): [Model(NAMES[:6])], (9, False): [Model(NAMES)]}
    assert mapped(tmp_path, robust=robust) == [NAMES]
    colmaps = pycolmap.IncrementalPipelineOptions().ba_global_frames_ratio
    assert runs.growth == ([FAST.growth, CAREFUL.growth, CAREFUL.growth] if robust else [colmaps] * 3)


@pytest.mark.parametrize(
    ("of_few", "expected", "begun", "with_few"),
    [
        ([[Model(NAMES)]], 10, [False], [True]),  # all are there
        ([[Model(NAMES[:9])], [Model(NAMES)]], 10, [False, True], [True, False]),  # it goes on with all matches
        ([[Model(NAMES[:9])], [Model(NAMES[:9])]], 9, [False, True], [True, False]),  # nearly all will do
        ([[Model(NAMES[:4])], [Model(NAMES[:5])]], 10, [False, True, False], [True, False, False]),
        ([[Model(NAMES[:5]), Model(NAMES[4:])]], 10, [False, False], [True, False]),  # it fell apart
        ([[Model(NAMES, off=True)]], 10, [False, False], [True, False]),  # far from GPS
        ([[]], 10, [False, False], [True, False]),
    ],
)
def test_few_matches_are_tried_first(
    of_few: list[list[Model]], expected: int, begun: list[bool], with_few: list[bool], runs: Runs, tmp_path: Path
) -> None:
    runs.found, runs.of_few = {(7, False): [Model(NAMES)]}, of_few
    (found,) = mapped(tmp_path, robust=True)
    assert len(found) == expected
    assert runs.begun == begun
    assert [name != "a.db" for name in runs.databases] == with_few


def test_a_model_near_exif_is_worth_a_few_images(runs: Runs, tmp_path: Path) -> None:
    runs.found = {(7, True): [Model(NAMES[:8], focal=1050)], (8, False): [Model(NAMES[:8], focal=450, points=999)]}
    assert mapped(tmp_path, exif=1000.0) == [NAMES[:8]]


def test_each_component_is_mapped_on_its_own(runs: Runs, tmp_path: Path) -> None:
    triangles = [(0, 1), (0, 2), (1, 2), (4, 5), (4, 6), (5, 6), (8, 9)]
    assert mapped(tmp_path, pairs=triangles) == [NAMES[:3], NAMES[4:7]]  # by the global mapper: incremental finds none
    assert runs.whole == [NAMES[:3], NAMES[4:7]]


def test_a_model_within_another_is_none(runs: Runs, tmp_path: Path) -> None:
    runs.found = {(7, False): [Model(NAMES[:9]), Model(NAMES[2:6]), Model(NAMES[6:])]}
    assert mapped(tmp_path) == [NAMES[:9], NAMES[6:]]


def tried(*models: Model) -> mapper._Try:
    """A try that gave these, near EXIF's focal length."""
    return mapper._Try(cast(list[pycolmap.Reconstruction], list(models)), {}, True)


def test_two_places_joined_by_chance_are_not_one_that_fell_apart(tmp_path: Path) -> None:
    two = [(i, j) for part in (range(5), range(5, 10)) for i in part for j in part if i < j]
    path = accepted_database(tmp_path / "b.db", [*two, (0, 9)])
    connection = sqlite3.connect(path)
    with connection:  # a pair with few inliers, as chance gives
        connection.execute("UPDATE two_view_geometries SET rows = 15 WHERE pair_id = ?", (MOST_IMAGES + 10,))
    connection.close()
    (component,) = components(path, NAMES, 3)
    apart = tried(Model(NAMES[:5]), Model(NAMES[5:]))
    assert apart.is_enough(component)
    assert not tried(Model(NAMES[:5]), Model(NAMES[4:])).is_enough(component)  # they share an image
    assert not tried(Model(NAMES[:5]), Model(NAMES[5:8])).is_enough(component)  # two are missing
    (ring,) = components(accepted_database(tmp_path / "c.db", [(i, (i + 1) % 10) for i in range(10)]), NAMES, 3)
    assert not apart.is_enough(ring)  # two of ten pairs are lost


def test_two_images_make_a_model_where_that_is_enough(tmp_path: Path) -> None:
    """All of their tracks are of two views, which COLMAP's mapper passes over where there may be longer ones."""
    path = tmp_path / "database.db"
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 1, 2
    options.num_points3D, options.inlier_match_ratio = 800, 1.0
    with pycolmap.Database.open(str(path)) as opened:
        truth = pycolmap.synthesize_dataset(options, opened)
    headers = {image.name: Header(1024, 768) for image in truth.images.values()}
    output = tmp_path / "output"
    output.mkdir()
    found = map_components(path, tmp_path, headers, ReconstructOptions(min_model_size=2), output, Clock())
    assert [model.num_reg_images() for model in found.models] == [2]
    assert found.models[0].num_points3D() > 700  # all points, not those of few matches


def test_databases_of_few_matches_do_not_pile_up(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    def thinned(_: Path, copy: Path, __: object) -> Path:
        copy.touch(exist_ok=False)
        made.append(copy)
        return copy

    monkeypatch.setattr(mapper, "thinned", thinned)
    runs.found, runs.of_few = {(7, False): [Model(NAMES[:4])]}, [[Model(NAMES[:4])]]
    mapped(tmp_path, robust=True)
    assert made
    assert not any(path.exists() for path in made)
    assert len(runs.databases) > 1  # each with a folder of its own


@pytest.mark.parametrize("doubted", [0, 1])
def test_components_are_mapped_from_databases_of_their_own(
    doubted: int, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which are gone afterwards. Where pairs are not to be used, no component is mapped from the whole database."""
    asked: list[int | None] = []

    def own(_: Path, copy: Path, __: Component, pairs: int | None) -> Path:
        asked.append(pairs)
        copy.touch()
        return copy

    monkeypatch.setattr(mapper, "trusted_components", lambda *given: (components(*given), doubted))
    monkeypatch.setattr(mapper, "own_database", own)
    runs.found = {(7, False): [Model(NAMES[:3])]}
    mapped(tmp_path, pairs=[(0, 1), (1, 2), (0, 2), (5, 6), (6, 7), (5, 7)])
    assert asked == [None if doubted else 6] * 2
    assert "a.db" not in runs.databases
    assert not list((tmp_path / "out").glob("*.db"))
