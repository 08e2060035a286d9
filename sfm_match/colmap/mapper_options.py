"""What COLMAP's mappers are told, beside their own defaults."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sfm_match.options.stages import ReconstructOptions

if TYPE_CHECKING:
    import pycolmap

# Relative change of the cost, and number of iterations, that end an adjustment while a model grows that the robust
# refinement ends (COLMAP 0 and 50; 0 and 25). On the scenes with truth the poses come out the same (AUC@1 degree within
# 0.0006) in half to a fifth of the time.
_GLOBAL, _LOCAL = (1e-4, 20), (1e-3, 10)


@dataclass(frozen=True)
class Pace:
    """How often a model is adjusted while it grows."""

    growth: float  # all of it, after so many times as many images or points (COLMAP 1.1)
    refinements: int  # each time, at most (COLMAP 5 of all, 2 of what is new)


FAST, CAREFUL = Pace(1.4, 1), Pace(1.2, 2)


def incremental_options(
    options: ReconstructOptions, refine: bool, pace: Pace | None = None
) -> "pycolmap.IncrementalPipelineOptions":
    """COLMAP's, with our seeds, threads and least size.

    Args:
        options: of the reconstruction.
        refine: focal lengths and distortion.
        pace: of a model that the robust refinement ends; None: COLMAP's.
    """
    import pycolmap

    pipeline = pycolmap.IncrementalPipelineOptions()
    pipeline.min_model_size = options.min_model_size
    pipeline.extract_colors = False  # `colours` needs fewer photographs, and not whole ones
    pipeline.num_threads = pipeline.mapper.num_threads = options.mapper_threads or -1
    for part in (pipeline, pipeline.mapper, pipeline.triangulation):
        part.random_seed = options.seed
    pipeline.ba_refine_focal_length = pipeline.ba_refine_extra_params = refine
    pipeline.mapper.abs_pose_refine_focal_length = pipeline.mapper.abs_pose_refine_extra_params = refine
    if pace is not None:
        pipeline.ba_global_frames_ratio = pipeline.ba_global_points_ratio = pace.growth
        pipeline.ba_global_max_refinements = pipeline.ba_local_max_refinements = pace.refinements
        pipeline.ba_global_function_tolerance, pipeline.ba_global_max_num_iterations = _GLOBAL
        pipeline.ba_local_function_tolerance, pipeline.ba_local_max_num_iterations = _LOCAL
    return pipeline


def global_options(options: ReconstructOptions, refine: bool) -> "pycolmap.GlobalPipelineOptions":
    """As `incremental_options`."""
    import pycolmap

    pipeline = pycolmap.GlobalPipelineOptions()
    pipeline.min_model_size = options.min_model_size
    pipeline.num_threads = pipeline.mapper.num_threads = options.mapper_threads or -1
    for part in (
        pipeline,
        pipeline.mapper,
        pipeline.mapper.rotation_averaging,
        pipeline.mapper.global_positioning,
        pipeline.mapper.retriangulation,
    ):
        part.random_seed = options.seed
    pipeline.mapper.bundle_adjustment.refine_focal_length = refine
    pipeline.mapper.bundle_adjustment.refine_extra_params = refine
    return pipeline
