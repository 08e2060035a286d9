"""What the graphs between the networks (`exports.graphs`) are made for, and the values that go into them. No torch."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB in [0, 1]: every network of the registry is fed (x - mean) / deviation
IMAGENET_STD = (0.229, 0.224, 0.225)

NEVER = -1e30  # a logit that nothing reaches, finite for engines that dislike infinities
CONTRAST_RADIUS = 4  # network pixels, in rows and in columns
OUTSIDE, MASKED, VALID = 0, 1, 2  # of the valid mask: padding; the border and user masks; where keypoints may be
PADDING = -1000.0  # in the columns that tell keypoints from padding: exp(t (cos - 1000 - 1)) is 0 for any t in use
MODES = {  # (radius of non-maximum suppression, rank by coverage, refine below the pixel) -> name
    (2, False, True): "nano",
    (2, False, False): "nano-raw",
    (1, True, True): "published",
    (0, True, False): "published-raw",
}
CAPACITIES = (2048, 4096, 8192)  # keypoints; the least that holds `--max-keypoints` is taken


def select_file(mode: str, capacity: int) -> str:
    """File name of the selection graph of a mode of `MODES` and a capacity of `CAPACITIES`."""
    return f"select_{mode}_{capacity}.onnx"
