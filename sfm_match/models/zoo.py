"""Published weights: getting them once, whole and unchanged."""

import json
import os
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from platformdirs import user_cache_dir

from exports.registry import FAMILY, LIGHTGLUE, WeightsFile
from sfm_match.errors import NothingDone, SfmMatchError, UsageError, quoted
from sfm_match.models.model import BUILT_IN, check_name
from sfm_match.store.records import DamagedRecord, read_json
from sfm_match.store.shard import sha256_of, write_text

_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 16  # bytes; a cut connection loses less than one
LARGEST = 2 << 30  # bytes of a file; the largest of the published ones has 1.2 GB
_REDIRECTS = 5
_SEEN = "sha256.json"  # of files for which nobody we trust published a hash: what the first download had
PUBLISHED = {name: spec.weights for name, spec in FAMILY.items() if spec.weights}
PUBLISHED |= {name: (file,) for name, file in LIGHTGLUE.items()}


def weights_dir(chosen: Path | None = None) -> Path:
    """`--weights-dir`, else SFM_MATCH_WEIGHTS, else the user's cache."""
    if chosen is not None:
        return chosen
    if os.environ.get("SFM_MATCH_WEIGHTS"):
        return Path(os.environ["SFM_MATCH_WEIGHTS"])
    return Path(user_cache_dir("sfm-match"))


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


def download(file: WeightsFile, folder: Path, *, trust_unknown: bool = False, quiet: bool = False) -> Path:
    """Fetches a file unless it is there, goes on where an earlier attempt stopped, and checks it.

    Args:
        file: what to fetch, over https.
        folder: of weights.
        trust_unknown: where nobody published a sha256, take what comes; its own is kept, and later ones must have it.
        quiet: no progress.

    Raises:
        UsageError: there is no sha256 to check it against, and `trust_unknown` was not said.
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
    expected = file.sha256 or _seen(folder).get(file.name)
    by_hand = f"fetch {file.url} elsewhere and put it at {path}"
    if expected is None and not trust_unknown:
        raise UsageError(
            f"{file.url}: nobody published its sha256, so that it cannot be checked; add --trust-unknown to take what "
            f"comes, or {by_hand}"
        )
    _require_https(file.url)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        pooch.retrieve(
            file.url,
            known_hash=f"sha256:{expected}" if expected else None,
            fname=file.name,
            path=folder,
            downloader=_Resuming(folder / f"{file.name}.part", quiet),
        )
    except _Unfit as error:
        raise NothingDone(f"{file.url}: {error}; {by_hand}") from error
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


class _Unfit(Exception):
    """What a server answers is not what was asked for; the message says why."""


def _require_https(url: str) -> None:
    """Raises NothingDone for an address that others on the way could change; this machine's own are fine."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")):
        raise NothingDone(
            f"{quoted(url)}: not https, so that what comes could be anybody's; nothing is fetched from it"
        )


def _check_redirect(response: Any, *_: Any, **__: Any) -> None:
    if response.is_redirect:
        _require_https(urljoin(response.url, response.headers["Location"]))


def _length(response: Any) -> int | None:
    """Bytes that are to come, None where the server does not say."""
    told = response.headers.get("Content-Length")
    if told is None:
        return None
    if not (told.isascii() and told.isdecimal() and len(told) < 16):
        raise _Unfit(f"its server tells a length of {quoted(told)}")
    return int(told)


class _Resuming:
    """A downloader for pooch that keeps what came in `part` until it is whole."""

    def __init__(self, part: Path, quiet: bool) -> None:
        self._part, self._quiet = part, quiet

    def __call__(self, url: str, output_file: str, _pooch: Any) -> None:
        import requests

        have = self._part.stat().st_size if self._part.exists() else 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.Session() as session:
            session.max_redirects = _REDIRECTS
            session.hooks["response"].append(_check_redirect)
            with session.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
                if response.status_code == requests.codes.requested_range_not_satisfiable:
                    if response.headers.get("Content-Range") != f"bytes */{have}":  # else it is whole
                        self._part.unlink()
                        raise _Unfit(
                            f"the {have:,} bytes of an earlier attempt are no part of it and were deleted; run again"
                        )
                else:
                    response.raise_for_status()
                    self._receive(response, have)
        shutil.move(self._part, output_file)

    def _receive(self, response: Any, have: int) -> None:
        """Appends to the part, or begins it anew where the server sends all."""
        import requests
        from tqdm import tqdm

        resumed = response.status_code == requests.codes.partial_content
        if resumed and not response.headers.get("Content-Range", f"bytes {have}-").startswith(f"bytes {have}-"):
            self._part.unlink(missing_ok=True)
            raise _Unfit("its server sent another part than it was asked for; run again to begin anew")
        have, length = have if resumed else 0, _length(response)
        total = None if length is None else have + length
        if total is not None and total > LARGEST:
            raise _Unfit(f"{total:,} bytes, at most {LARGEST:,} are taken")
        bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, disable=self._quiet or None)
        with bar, self._part.open("ab" if resumed else "wb") as file:
            for chunk in response.iter_content(_CHUNK):
                have += len(chunk)
                if have > (LARGEST if total is None else total):
                    raise _Unfit(f"more than the {LARGEST if total is None else total:,} bytes that there should be")
                file.write(chunk)
                bar.update(len(chunk))
        if total is not None and total > have:  # some servers end a broken answer as if it were whole
            raise requests.ConnectionError(f"{have} of {total} bytes came")


def _seen(folder: Path) -> dict[str, str]:
    try:
        return read_json(folder / _SEEN, dict[str, str], "")
    except (FileNotFoundError, DamagedRecord):
        return {}


def _remember(file: WeightsFile, folder: Path) -> None:
    seen = _seen(folder)
    if file.sha256 is None and file.name not in seen:
        write_text(folder / _SEEN, json.dumps({**seen, file.name: sha256_of(folder / file.name)}, indent=1) + "\n")
