"""What a reconstruction says to people."""

from dataclasses import replace

from sfm_match.stages.model_lines import model_lines
from sfm_match.stages.reconstruct import ModelSummary

MODEL = ModelSummary(6, 1234, 3.5, 0.456, "a.jpg ... f.jpg", None, None, {}, [])


def test_one_model_is_one_line_and_what_is_odd_one_each() -> None:
    numbers = "1,234 points, track length 3.50, reprojection error 0.46 px"
    assert list(model_lines([MODEL], 6, 6, {})) == [f"6/6 images registered, {numbers}"]
    odd = replace(MODEL, gps="9 m from GPS", odd=["3 images up to 9 m from GPS", "cameras that only rotate"])
    assert list(model_lines([odd], 6, 8, {"not placed": 1, "not usable": 1})) == [
        f"6/8 images registered, {numbers}",
        "sparse/0 is NOT TO BE TRUSTED: 3 images up to 9 m from GPS",
        "sparse/0 is NOT TO BE TRUSTED: cameras that only rotate",
        "2 images in no model (1 not placed, 1 not usable): unregistered.csv",
    ]
    near = replace(MODEL, gps="1 m from GPS")
    assert list(model_lines([near], 6, 6, {}))[1] == "sparse/0: in the mapper's axes, 1 m from GPS"


def test_many_models_are_cut_and_the_rest_counted() -> None:
    lines = list(model_lines([MODEL] * 8 + [replace(MODEL, odd=["odd"])] * 3, 66, 70, {}))
    assert lines[0] == "66/70 images registered, 11 models"
    assert lines[8].startswith("sparse/7: 6 images, 1,234 points")
    assert lines[9:] == ["3 smaller models, 3 NOT TO BE TRUSTED"]
