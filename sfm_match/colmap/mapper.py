"""From accepted pairs to models: COLMAP's mappers, one component of the images at a time.

A folder may hold several places and pictures of none. Images that accepted pairs connect are mapped on their own, so
that none of them is spent on another place's start, and each place has its own model.

The poses are found with few matches (`thinning`), then all points are (`triangulation`); where an image is missing
then, the mapper goes on with all matches. A focal length from EXIF holds the model while it grows, and is refined at
its end. Where the result says otherwise, lacks many images or lies far from GPS, the mapper runs again, more carefully,
with GPS or without EXIF and with another seed, and the best counts.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from sfm_match.colmap import hush_colmap
from sfm_match.colmap.cameras import all_given, cameras_of_exif, given_cameras
from sfm_match.colmap.components import Component
from sfm_match.colmap.exif_doubt import agreeing, camera_of, contradictions, doubted, headers_without, without_focals
from sfm_match.colmap.georeference import position_priors, reference_of
from sfm_match.colmap.mapper_options import CAREFUL, FAST, Pace, global_options, incremental_options
from sfm_match.colmap.partial_database import own_database
from sfm_match.colmap.plausibility import LEAST_JUDGED, far_from_exif, far_from_gps, keep_earned
from sfm_match.colmap.repeated_structure import trusted_components
from sfm_match.colmap.robust_bundle_adjustment import ONE_ROUND, TOLERANCES, refine_robustly, spread
from sfm_match.colmap.thinning import thinned
from sfm_match.colmap.triangulation import triangulated
from sfm_match.images.files import Header
from sfm_match.job.log import LOGGER
from sfm_match.job.progress import UNKNOWN, Clock, MakeProgress, no_progress
from sfm_match.options.stages import ReconstructOptions

if TYPE_CHECKING:
    import pycolmap

ALGORITHM = 7  # raise it when the same database and options come to give other models
TRIES = 3  # with other seeds, where images are missing, a place fell apart, or EXIF or GPS contradict
_ENOUGH = 0.9  # of the images that could be registered
_EXPLAINED = 0.99  # of the inliers of accepted pairs, which lie between images of one model
_WORTH = 1.1  # deviation of the residuals with EXIF's focal length over that without, from which EXIF is wrong
_WORTH_OF = attrgetter("worth")
_TRIED_IMAGES = 200  # at most; with more a try takes long


@dataclass(frozen=True)
class Mapped:
    """What the mapper made of a database."""

    models: list["pycolmap.Reconstruction"]  # largest first
    dropped: dict[str, int]  # images that saw too few points to count, and how many
    contradicted: dict[str, str] = field(default_factory=dict)  # images whose EXIF was left out: what it and they say


@dataclass(frozen=True)
class _Try:
    """One run of a mapper over a component."""

    models: list["pycolmap.Reconstruction"]  # largest first
    dropped: dict[str, int]
    plausible: bool  # the first model's focal length is near EXIF's and its places near GPS, or there is none
    left_out: frozenset[str] = frozenset()  # images whose focal length in EXIF was not used

    @property
    def worth(self) -> tuple[float, int]:
        """Images in large models are worth most, less where EXIF or GPS contradict; then the points count."""
        seen: set[str] = set()
        squares = 0
        for model in self.models:
            new = registered(model) - seen
            squares += len(new) ** 2
            seen |= new
        return squares**0.5 * (1.0 if self.plausible else _ENOUGH), sum(one.num_points3D() for one in self.models)

    def is_enough(self, component: Component) -> bool:
        """Whether another try would hardly find more.

        Two places may be one component, by a few pairs that are accepted by chance; one place that fell apart has lost
        pairs with many inliers between its parts, or its parts share images.
        """
        holding = [registered(model) for model in self.models]
        inside = set().union(*holding)
        kept = sum(
            count for (a, b), count in component.inliers.items() if any(a in one and b in one for one in holding)
        )
        return (
            self.plausible
            and len(inside) >= _ENOUGH * component.held
            and sum(map(len, holding)) == len(inside)
            and (len(holding) == 1 or kept >= _EXPLAINED * sum(component.inliers.values()))
        )


def map_components(
    database: Path,
    images: Path,
    headers: Mapping[str, Header],
    options: ReconstructOptions,
    output: Path,
    clock: Clock,
    standing: Sequence["pycolmap.Reconstruction"] = (),
    progress: MakeProgress = no_progress,
) -> Mapped:
    """Maps each component of the accepted pairs.

    Args:
        database: as `import` leaves it.
        images: folder of the photographs, for the points' colours.
        headers: of the images in the database.
        options: of the reconstruction.
        output: an empty folder for the mapper's own files.
        clock: told about mapping and refinement.
        standing: models of fewer of these images: a component that holds one of them goes on from it.
        progress: shows how many images of a component are registered, and how many of its models refined.
    """
    hush_colmap()
    every = all_given(database)
    refine = options.refine_focal_length if options.refine_focal_length is not None else not every
    constant = frozenset(given_cameras(database)) if options.refine_focal_length is None else frozenset[int]()
    job = _Job(database, images, headers, options, output, clock, refine, every, constant, progress)
    models: list[pycolmap.Reconstruction] = []
    dropped: dict[str, int] = {}
    contradicted: dict[str, str] = {}
    with clock.on("map"):
        found, doubted = trusted_components(database, sorted(headers), options.min_model_size)
    pairs = None if doubted else sum(len(component.inliers) for component in found)
    for component in found:
        with clock.on("map"):
            its = own_database(database, _next(job, ".db"), component, pairs)
        best = _map_component(replace(job, database=its), component, standing)
        if its != database:
            its.unlink()  # of a thousand components each has one
        models += best.models
        dropped |= best.dropped
        contradicted |= contradictions(best.models, headers, best.left_out)
    models.sort(key=lambda model: -model.num_reg_images())
    return Mapped(_without_repeated(models), dropped, contradicted)


def _without_repeated(models: list["pycolmap.Reconstruction"]) -> list["pycolmap.Reconstruction"]:
    """Without those whose images are all in a larger one."""
    kept: list[pycolmap.Reconstruction] = []
    for model in models:
        names = registered(model)
        if not any(names <= registered(other) for other in kept):
            kept.append(model)
    return kept


def registered(model: "pycolmap.Reconstruction") -> set[str]:
    """Names of the images with a pose."""
    return {image.name for image in model.images.values() if image.has_pose}


@dataclass(frozen=True)
class _Job:
    database: Path
    images: Path
    headers: Mapping[str, Header]
    options: ReconstructOptions
    output: Path
    clock: Clock
    refine: bool  # focal lengths and distortion
    given: bool  # the user gave the intrinsics of all cameras
    constant: frozenset[int]  # cameras whose intrinsics stay
    progress: MakeProgress


def _map_component(job: _Job, component: Component, standing: Sequence["pycolmap.Reconstruction"]) -> _Try:
    """The best of some tries with the mapper that is asked for; where it finds no model, the global one has a try."""
    best = _Try([], {}, True)
    if job.options.mapper == "incremental":
        inside = [model for model in standing if not registered(model).isdisjoint(component.names)]
        if len(inside) == 1:
            best = _incremental(job, component, next(_attempts(job, component)), inside[0])
        for number, attempt in enumerate(_attempts(job, component)):
            if best.models and best.is_enough(component):
                break
            if number and (len(component.names) > _TRIED_IMAGES or not best.models):
                break
            if number == 0:
                found = _first(job, component, attempt)
                best = max(best, _without_doubted(job, component, attempt, found), key=_WORTH_OF)
            else:
                best = max(best, _incremental(job, component, attempt), key=_WORTH_OF)
    return best if best.models else _global(job, component)


def _first(job: _Job, component: Component, attempt: "_Attempt") -> _Try:
    """With few matches; where images are missing then, on with all of them, and at last from the start."""
    best = _Try([], {}, True)
    if job.options.robust_refinement and len(component.names) > 2:
        with job.clock.on("map"):
            few = thinned(job.database, _next(job, ".db"), component.inliers)
        if few is not None:
            best = _incremental(job, component, attempt, few=few)
            few.unlink(missing_ok=True)  # of a thousand components each has one
            if best.plausible and len(best.models) == 1 and len(registered(best.models[0])) < component.held:
                best = max(best, _incremental(job, component, attempt, best.models[0]), key=_WORTH_OF)
    if best.models and best.is_enough(component):
        return best
    return max(best, _incremental(job, component, attempt), key=_WORTH_OF)


def _without_doubted(job: _Job, component: Component, attempt: "_Attempt", found: _Try) -> _Try:
    """The better of what was found and another try, where EXIF may be why images are lost, or bend the model.

    Focal lengths on which both agree, against EXIF, are EXIF's fault, too.
    """
    if job.given or not job.refine or len(component.names) > _TRIED_IMAGES:
        return found
    pairs = Counter(name for pair in component.inliers for name in pair)
    held = {name: camera for name, camera in camera_of(job.database).items() if pairs[name] > 1}
    cameras = doubted(found.models, held, job.headers) - job.constant
    if not cameras:
        return found
    copy = without_focals(job.database, _next(job, ".db"), cameras)
    names = frozenset(name for name, camera in held.items() if camera in cameras)
    other = replace(job, database=copy, headers=headers_without(job.headers, names))
    tried = _first(other, component, attempt)
    if tried.worth > found.worth:
        return replace(tried, left_out=names)
    return replace(found, left_out=agreeing(found.models, tried.models, job.headers, names))


@dataclass(frozen=True)
class _Attempt:
    """How the incremental mapper is to try."""

    seed: int
    held: bool  # EXIF's focal lengths stay as they are while the model grows
    priors: bool  # GPS positions hold the cameras
    pace: Pace | None  # how often the model is adjusted; None: as COLMAP does


def _attempts(job: _Job, component: Component) -> Iterator[_Attempt]:
    """First without GPS, which then is a witness; where it contradicts the model, a second time with it.

    A plane seen from above fits many focal lengths, each at its own height: only GPS tells.
    """
    headers = [job.headers[name] for name in component.names]
    exif = job.refine and not job.given and any(header.focal is not None for header in headers)
    located = sum(header.location is not None for header in headers) >= LEAST_JUDGED
    for further in range(TRIES):
        pace = CAREFUL if further else FAST
        yield _Attempt(
            job.options.seed + further,
            exif and (further != 1 or located),
            job.options.use_position_priors or (further == 1 and located),
            pace if job.options.robust_refinement else None,
        )


def _next(job: _Job, suffix: str = "") -> Path:
    """A path in the mapper's folder that is not there yet."""
    paths = (job.output / f"{number}{suffix}" for number in itertools.count())
    return next(path for path in paths if not path.exists())


def _incremental(
    job: _Job,
    component: Component,
    attempt: _Attempt,
    start: "pycolmap.Reconstruction | None" = None,
    few: Path | None = None,
) -> _Try:
    """From a pair of images, or from a model. `few`: a database of few matches, with which the poses are found."""
    import pycolmap

    pycolmap.set_random_seed(attempt.seed)
    options = incremental_options(replace(job.options, seed=attempt.seed), job.refine, attempt.pace)
    options.image_names = component.names
    options.triangulation.ignore_two_view_tracks = len(component.names) > 2  # of two images there are no others
    options.use_prior_position = options.use_robust_loss_on_prior_position = attempt.priors
    held = cameras_of_exif(job.database) if attempt.held else set[int]()
    options.constant_cameras = options.mapper.constant_cameras = held | job.constant
    place = _next(job)
    place.mkdir()
    if start is not None:
        start.write(str(place))
    begun = "" if start is None else str(place)
    # called by the mapper in this thread, where Python then acts on signals, too
    with job.clock.on("map"), _registering(job, len(component.names)) as advance:
        found = pycolmap.incremental_mapping(
            str(few or job.database),
            str(job.images),
            str(place),
            options=options,
            input_path=begun,
            initial_image_pair_callback=lambda: advance(2),
            next_image_callback=lambda: advance(1),
        )
    incomplete = component.names if few is not None else None
    return _finished(job, list(found.values()), attempt.held, attempt.priors, incomplete)


@contextmanager
def _registering(job: _Job, images: int) -> Iterator[Callable[[int], None]]:
    """Shows how many images of a component are registered; a mapper that begins again cannot go back on the bar."""
    shown, left = job.progress("map", images, "images", UNKNOWN), images

    def advance(count: int) -> None:
        nonlocal left
        count = min(count, left)
        left -= count
        shown.advance(count)

    try:
        yield advance
    finally:
        shown.close()


def _global(job: _Job, component: Component) -> _Try:
    import pycolmap

    pycolmap.set_random_seed(job.options.seed)
    options = global_options(job.options, job.refine)
    options.image_names = component.names
    LOGGER.info("global mapping of %d images; COLMAP does not tell how far it is", len(component.names))
    with job.clock.on("map"):
        found = pycolmap.global_mapping(str(job.database), str(job.images), str(job.output), options=options)
    return _finished(job, list(found.values()))


def _finished(
    job: _Job,
    models: list["pycolmap.Reconstruction"],
    held: bool = False,
    with_priors: bool = False,
    incomplete: Sequence[str] | None = None,
) -> _Try:
    """Refined, and with those images alone that the points hold.

    `held`: focal lengths are EXIF's so far. `incomplete`: images of which few points were used so far.
    """
    kept: list[pycolmap.Reconstruction] = []
    dropped: dict[str, int] = {}
    shown = job.progress("refine", len(models), "models", UNKNOWN)
    with job.clock.on("refine"), closing(shown):
        for model in models:
            shown.advance(1)
            if model.num_reg_images() < job.options.min_model_size:
                continue
            if job.options.robust_refinement:
                model = _refined(job, model, held, with_priors, incomplete)
            earned = keep_earned(model, job.options.min_model_size)
            dropped |= earned.dropped
            if earned.model is not None:
                kept.append(earned.model)
    kept.sort(key=lambda model: -model.num_reg_images())
    for model in kept:
        for name in registered(model):
            dropped.pop(name, None)
    odd = bool(kept) and (far_from_gps(kept[0], job.headers) or (not job.given and far_from_exif(kept[0], job.headers)))
    return _Try(kept, dropped, not odd)


def _refined(
    job: _Job,
    model: "pycolmap.Reconstruction",
    held: bool,
    with_priors: bool,
    incomplete: Sequence[str] | None,
) -> "pycolmap.Reconstruction":
    """By the robust adjustment. A focal length that then contradicts EXIF must be worth it.

    Pictures taken straight ahead hardly say what it is: on lund a focal length 24 % off fits 6 % better.
    """
    reference = reference_of(job.headers) if with_priors else None

    def adjusted(
        model: "pycolmap.Reconstruction", tolerances: Sequence[float], *, free: bool
    ) -> "pycolmap.Reconstruction":
        return refine_robustly(
            model,
            refine_cameras=free,
            threads=job.options.mapper_threads or -1,
            priors=position_priors(model, job.headers, reference) if reference is not None else (),
            constant_cameras=job.constant,
            tolerances=tolerances,
        )

    tolerances: Sequence[float] = TOLERANCES if incomplete is None else ONE_ROUND
    if incomplete is not None:  # points are found by poses: these had better be right
        rough = adjusted(model, tolerances, free=job.refine and not held)
        model = triangulated(rough, job.database, incomplete, job.options.seed)
    free = adjusted(model, tolerances, free=job.refine)
    if not held or not far_from_exif(free, job.headers):
        return free
    kept = adjusted(model, tolerances, free=False)
    with_exif, without = spread(kept), spread(free)
    if with_exif is None or without is None or with_exif.deviation > _WORTH * without.deviation:
        return free
    return kept
