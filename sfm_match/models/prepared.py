"""Checkpoints as the ONNX files that the pipeline runs: converted with torch once, then kept beside the weights."""

import json
import shutil
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from exports.registry import FAMILY
from sfm_match.errors import NothingDone, SfmMatchError, UsageError
from sfm_match.job.log import LOGGER
from sfm_match.models import zoo
from sfm_match.models.model import BUILT_IN, DESCRIPTOR, DETECTOR, Model, Weights
from sfm_match.runtime import refuse_failed_export
from sfm_match.signals import removed_if_stopped
from sfm_match.store.shard import TEMPORARY, commit, fingerprint, sha256_of, temporary_name

if TYPE_CHECKING:
    from exports.command import Exported

FORM = 2  # raise it when equal weights come to give other files
HALF_FORM = 3  # the same of half-precision files
_DAY = 86400.0  # seconds
_FOLDER = "onnx"  # within the folder of weights


def prepared_model(name: str, weights: Weights, *, half: bool = False) -> Model:
    """The files that the pipeline runs: any batch and size.

    Raises:
        NothingDone: weights are missing or damaged, or torch is not there to convert them, or the conversion failed its
            check.
        UsageError: weights that do not fit the model.
    """

    def make(folder: Path, files: list[Path]) -> Iterable["Exported"]:
        from exports.command import export_pipeline

        detector, descriptor = folder / DETECTOR, folder / DESCRIPTOR
        return export_pipeline(name, detector, descriptor, half=half, weights=files, random_weights=weights.random)

    files, source = sources(name, weights)
    place = prepared(name, weights, files, source, "pipeline", make, half=half)
    return Model(
        name=name,
        spec=FAMILY[name],
        source={**source, "form": str(HALF_FORM if half else FORM)},
        detector=place / DETECTOR,
        descriptor=place / DESCRIPTOR,
        half=half,
        weights=tuple(files),
    )


def exported_file(name: str, part: str, weights: Weights, num_keypoints: int, *, half: bool = False) -> Path:
    """A file of `export onnx`, of any size and batch: what `DeDoDeRunner` takes.

    Args:
        name: of the model.
        part: `detector`, `descriptor`, `matcher` or `end2end`.
        weights: where they come from.
        num_keypoints: of each image.
        half: half-precision weights.

    Raises:
        As `prepared_model`.
    """

    def make(folder: Path, files: list[Path]) -> Iterable["Exported"]:
        from exports.command import any_size, export_onnx

        shapes = any_size(name, num_keypoints)
        return export_onnx(name, folder, shapes, parts=[part], half=half, weights=files, random_weights=weights.random)

    files, source = sources(name, weights)
    form = part if part in ("descriptor", "matcher") else f"{part} {num_keypoints}"
    place = prepared(name, weights, files, source, form, make, half=half)
    return next(place.glob("*.onnx"))


@cache
def say_random() -> None:
    """Once is enough."""
    LOGGER.warning("RANDOM WEIGHTS: for checks of shapes and memory; they match nothing")


def sources(name: str, weights: Weights) -> tuple[list[Path], dict[str, str]]:
    """Checkpoints, and what tells them from others."""
    if weights.random:
        say_random()
        return [], {"weights": "random, seed 0"}
    files = list(weights.files) or checkpoints(name, weights.folder)
    if not files:
        raise NothingDone(f"--model {name}: no checkpoint of it is in the package; give --weights FILE")
    return files, {"weights": ",".join(sorted(digest_of(file) for file in files))}  # not their names: those may repeat


def checkpoints(name: str, folder: Path | None) -> list[Path]:
    """A model's own checkpoints: in the package, or as downloaded."""
    if name in BUILT_IN:
        return sorted(BUILT_IN[name].glob("*.safetensors"))
    return zoo.published_files(name, zoo.weights_dir(folder))


def digest_of(file: Path) -> str:
    """A checkpoint's sha256. Raises NothingDone where it is not there."""
    if not file.is_file():
        raise NothingDone(f"--weights {file}: no such file")
    return sha256_of(file)


def prepared(
    name: str,
    weights: Weights,
    files: list[Path],
    source: dict[str, str],
    form: str,
    make: Callable[[Path, list[Path]], Iterable["Exported"]],
    *,
    half: bool = False,
    option: str = "--model",
) -> Path:
    """The folder of a conversion, made beside its place and then moved there: a kill leaves nothing half.

    Args:
        name: of what is converted.
        weights: where the checkpoints come from.
        files: the checkpoints.
        source: what tells them from others.
        form: which conversion of them.
        make: writes the files into a folder that it makes.
        half: half-precision weights.
        option: that named it, for errors.

    Raises:
        As `prepared_model`.
    """
    folder = zoo.weights_dir(weights.folder) / _FOLDER
    form, version = (f"{form} fp16", HALF_FORM) if half else (form, FORM)
    place = folder / f"{name}-{fingerprint([source, form, version])}"
    if not place.is_dir():
        LOGGER.info("%s: converting its weights to ONNX, once, in %s", name, place)
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        temporary = place.with_name(temporary_name(place.name))
        try:
            with removed_if_stopped(temporary):
                for file in make(temporary, files):
                    if file.parity is not None and not file.parity.passed:
                        used = ", ".join(path.name for path in files) or "random weights"
                        raise SfmMatchError(f"{option} {name} from {used}: not what torch computes ({file.parity})")
                note = {"model": name, "form": form, "weights": source}
                (temporary / "manifest.json").write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
                commit(temporary, place)
        except ImportError as error:
            raise NothingDone(
                f"{option} {name}: its weights must be converted once, which needs torch and onnx ({error}); install "
                f"them with: pip install 'sfm-match[export]', or copy {place} from a machine that has them"
            ) from None
        except ValueError as error:
            raise UsageError(str(error)) from error
        except OSError:
            if not place.is_dir():  # otherwise another process was faster, with the same weights
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    for path in place.glob("*.onnx"):
        refuse_failed_export(path)
    return place


def _sweep(folder: Path) -> None:
    """Deletes what killed conversions left. A day later nobody works on it any more."""
    for stale in folder.glob(f"*{TEMPORARY}*"):
        if time.time() - stale.stat().st_mtime > _DAY:
            shutil.rmtree(stale, ignore_errors=True)
