"""LightGlue's weights: which ones belong to a model, and the ONNX file that is made of them once."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from sfm_match.errors import NothingDone, UsageError
from sfm_match.models import zoo
from sfm_match.models.model import Weights
from sfm_match.models.prepared import digest_of, prepared
from sfm_match.options.stages import MatchOptions

if TYPE_CHECKING:
    from exports.command import Exported

THRESHOLD = 0.1  # least probability of a match, as published


def chosen_weights(options: MatchOptions, published: str) -> Path:
    """The checkpoint that the options name, or the published one.

    Args:
        options: of matching.
        published: its name in `exports.registry.LIGHTGLUE`, "" where there is none for the model.

    Raises:
        UsageError: none was published for this model.
        NothingDone: it is not here.
    """
    if options.matcher_weights is not None:
        if not options.matcher_weights.is_file():
            raise NothingDone(f"--matcher-weights {options.matcher_weights}: no such file")
        return options.matcher_weights
    if not published:
        raise UsageError(
            "--matcher lightglue: none was published for this model, only for the published DeDoDe; "
            "give --matcher-weights FILE, or --matcher dual-softmax"
        )
    return zoo.published_files(published, zoo.weights_dir(options.weights_dir))[0]


def prepared_lightglue(weights: Path, folder: Path | None, dimension: int) -> Path:
    """The ONNX file of a checkpoint, for descriptors of this dimension.

    Args:
        weights: the checkpoint.
        folder: of weights; None: see `zoo.weights_dir`.
        dimension: of descriptors.

    Raises:
        UsageError: it is no LightGlue, or one for descriptors of another dimension.
        NothingDone: torch is not there to convert it, or the conversion failed its check.
    """

    def make(place: Path, files: list[Path]) -> Iterable["Exported"]:
        from exports.lightglue_export import export_lightglue

        return [export_lightglue(files[0], place)]

    source, where = {"weights": digest_of(weights)}, Weights((weights,), folder)
    place = prepared("lightglue", where, [weights], source, "block", make, option="--matcher")
    path = next(place.glob("lightglue_*.onnx"))
    its = int(path.stem.rpartition("_")[2])
    if its != dimension:
        raise UsageError(f"{weights}: a LightGlue for descriptors of {its} values; these have {dimension}")
    return path
