"""Models: their names, their files, where their weights come from."""

from sfm_match.models.find import find_model, match_defaults, recorded_match_defaults
from sfm_match.models.model import (
    BUILT_IN,
    DESCRIPTOR,
    DETECTOR,
    MatchDefaults,
    Model,
    Weights,
    check_name,
    half_name,
)

__all__ = [
    "BUILT_IN",
    "DESCRIPTOR",
    "DETECTOR",
    "MatchDefaults",
    "Model",
    "Weights",
    "check_name",
    "find_model",
    "half_name",
    "match_defaults",
    "recorded_match_defaults",
]
