"""Published weights: getting them once, whole and unchanged."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from exports.registry import FAMILY, LIGHTGLUE, WeightsFile
from sfm_match.errors import NothingDone, SfmMatchError, UsageError
from sfm_match.models.model import BUILT_IN, check_name
from sfm_match.store.shard import sha256_of, write_text

_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 16  # bytes; a cut connection loses less than one
_SEEN = "sha256.json"  # of files for which nobody we trust published a hash: what the first download had
PUBLISHED = {name: spec.weights for name, spec in FAMILY.items() if spec.weights}
PUBLISHED |= {name: (file,) for name, file in LIGHTGLUE.items()}


def weights_dir(chosen: Path | None = None) -> Path:
    """`--weights-dir`, else SFM_MATCH_WEIGHTS, else the user's cache."""
    if chosen is not None:
        return chosen
    if os.environ.get("SFM_MATCH_WEIGHTS"):
        return Path(os.environ["SFM_MATCH_WEIGHTS"])
    import pooch

    return Path(pooch.os_cache("sfm-match"))


def files_of(model: str) -> tuple[WeightsFile, ...]:
    """Of a model, or of a LightGlue. Raises UsageError where it has no published weights."""
    if model in BUILT_IN:
        raise UsageError(f"{model}: comes with sfm-match, nothing to download")
    if model not in LIGHTGLUE:
        check_name(model, "NAME")
    return PUBLISHED[model]


def published_files(model: str, folder: Path) -> list[Path]:
    """A model's downloaded files.

    Raises:
        NothingDone: one is not there, or is not what was published.
    """
    for file in files_of(model):
        found = state(file, folder)
        if found != "present":
            raise NothingDone(
                f"{folder / file.name}: {found}; run `sfm-match models download {model}`, or give --weights FILE"
            )
    return [folder / file.name for file in files_of(model)]


def state(file: WeightsFile, folder: Path) -> str:
    """`present`, `absent`, or `damaged`: there, but not what was published, or not what came first."""
    path = folder / file.name
    if not path.is_file():
        return "absent"
    expected = file.sha256 or _seen(folder).get(file.name)
    return "present" if expected in (None, sha256_of(path)) else "damaged"


def download(file: WeightsFile, folder: Path, *, quiet: bool = False) -> Path:
    """Fetches a file unless it is there, goes on where an earlier attempt stopped, and checks it.

    Raises:
        NothingDone: no connection, or the server does not have it; the message says which file to put where.
        SfmMatchError: what came is not what was published.
    """
    import pooch
    import requests

    path = folder / file.name
    found = state(file, folder)
    if found == "present":
        _remember(file, folder)
        return path
    if found == "damaged":
        raise SfmMatchError(f"{path}: its sha256 is not the one on record; delete it and download again")
    folder.mkdir(parents=True, exist_ok=True)
    expected = file.sha256 or _seen(folder).get(file.name)
    by_hand = f"fetch {file.url} elsewhere and put it at {path}"
    try:
        pooch.retrieve(
            file.url,
            known_hash=f"sha256:{expected}" if expected else None,
            fname=file.name,
            path=folder,
            downloader=_Resuming(folder / f"{file.name}.part", quiet),
        )
    except requests.HTTPError as error:
        raise NothingDone(f"{file.url}: {error}; {by_hand}") from error
    except requests.RequestException as error:
        raise NothingDone(
            f"{file.url}: no connection ({type(error).__name__}); run again to go on, or {by_hand}"
        ) from error
    except ValueError as error:  # pooch's word for another hash
        raise SfmMatchError(f"{file.url}: what came has another sha256 than expected; nothing was kept") from error
    _remember(file, folder)
    return path


class _Resuming:
    """A downloader for pooch that keeps what came in `part` until it is whole."""

    def __init__(self, part: Path, quiet: bool) -> None:
        self._part, self._quiet = part, quiet

    def __call__(self, url: str, output_file: str, _pooch: Any) -> None:
        import requests
        from tqdm import tqdm

        have = self._part.stat().st_size if self._part.exists() else 0
        headers = {"Range": f"bytes={have}-"} if have else {}
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                self._part.unlink()  # longer than the file: not ours
            response.raise_for_status()
            resumed = response.status_code == requests.codes.partial_content
            have = have if resumed else 0
            total = have + int(response.headers.get("Content-Length", 0))
            bar = tqdm(total=total or None, initial=have, unit="B", unit_scale=True, disable=self._quiet or None)
            with bar, self._part.open("ab" if resumed else "wb") as file:
                for chunk in response.iter_content(_CHUNK):
                    file.write(chunk)
                    bar.update(len(chunk))
        got = self._part.stat().st_size
        if total > got:  # some servers end a broken answer as if it were whole
            raise requests.ConnectionError(f"{got} of {total} bytes came")
        shutil.move(self._part, output_file)


def _seen(folder: Path) -> dict[str, str]:
    try:
        return dict(json.loads((folder / _SEEN).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _remember(file: WeightsFile, folder: Path) -> None:
    seen = _seen(folder)
    if file.sha256 is None and file.name not in seen:
        write_text(folder / _SEEN, json.dumps({**seen, file.name: sha256_of(folder / file.name)}, indent=1) + "\n")
