"""The options of each command as keywords: made by scripts/generate_keywords.py, not by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict


class ExtractKeywords(TypedDict, total=False):
    """Of `extract`; the option groups say what they mean."""

    model: str
    quality: str
    size: int
    max_keypoints: int
    tile: int | None
    tile_overlap: int
    device: str
    precision: str
    masks: str | Path | None
    fps: float | None
    frames: int | None
    turns: bool
    batch: str | int
    devices: str | None
    workers: int
    ray: str | None
    part: str | None
    detection_threshold: float
    border: int
    subpixel: bool
    all_keypoints: bool
    decoder: str
    reduced_decode: bool
    weights: str | None
    weights_dir: str | Path | None
    random_weights: bool
    dummy_network: bool


class PairsKeywords(TypedDict, total=False):
    """Of `pairs`; the option groups say what they mean."""

    strategy: str
    overlap: int
    loop_detection: bool
    num_images: int
    match_list_path: str | Path | None
    max_num_neighbors: int
    max_distance: float
    reference_model: str | Path | None
    prune: bool
    ray: str | None
    quadratic_overlap: bool
    loop_detection_period: int
    loop_detection_num_images: int
    query_prefix: str | None
    query_list: str | Path | None
    db_prefix: str | None
    db_list: str | Path | None
    ignore_z: bool
    num_matched: int
    rotation_threshold: float
    pose_distance: float | None
    prune_threshold: float | None
    prune_num_images: int | None
    repair_pairs: int


class MatchKeywords(TypedDict, total=False):
    """Of `match`; the option groups say what they mean."""

    matcher: str
    matcher_weights: str | Path | None
    weights_dir: str | Path | None
    match_threshold: float | None
    device: str
    devices: str | None
    ray: str | None
    part: str | None
    match_workers: int
    inverse_temperature: float | None


class ImportKeywords(TypedDict, total=False):
    """Of `import`; the option groups say what they mean."""

    camera_mode: str
    camera_model: str
    camera_params: str | Sequence[float] | None
    cameras: str | Path | None
    rig_config: str | Path | None
    verify: bool
    adjust_keypoints: bool
    accept_pairs: str
    ray: str | None


class ReconstructKeywords(TypedDict, total=False):
    """Of `reconstruct`; the option groups say what they mean."""

    mapper: str
    known_poses: str | Path | None
    refine_focal_length: bool | None
    min_registered: float
    min_model_size: int
    mapper_threads: int
    seed: int
    use_position_priors: bool
    align_to_gps: bool
    robust_refinement: bool


class RunKeywords(TypedDict, total=False):
    """Of `run`; the option groups say what they mean."""

    model: str
    quality: str
    size: int
    max_keypoints: int
    tile: int | None
    tile_overlap: int
    device: str
    precision: str
    masks: str | Path | None
    fps: float | None
    frames: int | None
    turns: bool
    batch: str | int
    devices: str | None
    workers: int
    ray: str | None
    detection_threshold: float
    border: int
    subpixel: bool
    all_keypoints: bool
    decoder: str
    reduced_decode: bool
    weights: str | None
    weights_dir: str | Path | None
    random_weights: bool
    strategy: str
    overlap: int
    loop_detection: bool
    num_images: int
    match_list_path: str | Path | None
    max_num_neighbors: int
    max_distance: float
    reference_model: str | Path | None
    prune: bool
    quadratic_overlap: bool
    loop_detection_period: int
    loop_detection_num_images: int
    query_prefix: str | None
    query_list: str | Path | None
    db_prefix: str | None
    db_list: str | Path | None
    ignore_z: bool
    num_matched: int
    rotation_threshold: float
    pose_distance: float | None
    prune_threshold: float | None
    prune_num_images: int | None
    matcher: str
    matcher_weights: str | Path | None
    match_threshold: float | None
    match_workers: int
    inverse_temperature: float | None
    camera_mode: str
    camera_model: str
    camera_params: str | Sequence[float] | None
    cameras: str | Path | None
    rig_config: str | Path | None
    verify: bool
    adjust_keypoints: bool
    accept_pairs: str
    mapper: str
    known_poses: str | Path | None
    refine_focal_length: bool | None
    min_registered: float
    min_model_size: int
    mapper_threads: int
    seed: int
    use_position_priors: bool
    align_to_gps: bool
    robust_refinement: bool


class InferKeywords(TypedDict, total=False):
    """Of `infer`; the option groups say what they mean."""

    model: str
    quality: str
    size: int
    max_keypoints: int
    device: str
    precision: str
    turns: bool
    batch: str | int
    detection_threshold: float
    border: int
    subpixel: bool
    all_keypoints: bool
    decoder: str
    weights: str | None
    weights_dir: str | Path | None
    random_weights: bool
    match_threshold: float | None
    inverse_temperature: float | None


class LocalizeKeywords(TypedDict, total=False):
    """Of `localize`; the option groups say what they mean."""

    num_images: int | None
    camera_model: str
    camera_params: str | Sequence[float] | None
    adjust_keypoints: bool
    device: str
    batch: str | int
    workers: int
    weights: str | None
    matcher_weights: str | Path | None
    weights_dir: str | Path | None
