"""Features and matches in valid HDF5 that lies, with the right checksum; and files whose bytes are damaged."""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hostile import small_job
from hostile.case import Case

from sfm_match.store.shard import write_shard

Arrays = dict[str, Any]
OF_THE_FILE = {"schema", "checksum"}  # which the writer gives


def _contents(path: Path) -> tuple[Arrays, Arrays]:
    with h5py.File(path) as file:
        arrays = {n: list(d.asstr()[()]) if h5py.check_string_dtype(d.dtype) else d[()] for n, d in file.items()}
        return arrays, {n: v for n, v in file.attrs.items() if n not in OF_THE_FILE}


def _set(name: str, change: Callable[[Any], Any], arrays: Arrays) -> None:
    arrays[name] = change(arrays[name])


def _filled(value: float, values: np.ndarray) -> np.ndarray:
    wide = values.dtype == np.uint16 and value > np.iinfo(np.uint16).max
    values = values.astype(np.uint32) if wide else values.copy()  # a file of matches may have either
    with np.errstate(all="ignore"):
        values.reshape(-1)[:: max(1, values.size // 7)] = value
    return values


def _as(kind: Any, values: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.asarray(values).astype(kind)


NUMBERS: dict[str, Callable[[np.ndarray], Any]] = {
    "float64": partial(_as, np.float64),
    "int64": partial(_as, np.int64),
    "int8": partial(_as, np.int8),
    "uint8": partial(_as, np.uint8),
    "texts": lambda v: ["x"] * len(v),
    "empty": lambda v: v[:0],
    "one fewer": lambda v: v[:-1],
    "one more": lambda v: np.concatenate((v, v[-1:])),
    "reversed": lambda v: v[::-1].copy(),
    "flat": lambda v: v.reshape(-1),
    "another axis": lambda v: v[..., None],
    "scalar": lambda _: np.float32(1),
    "twice as long": lambda v: np.concatenate((v, v)),
    "of bool": partial(_as, bool),
    "complex": partial(_as, np.complex64),
}
FLOATS = {f"{value}": partial(_filled, value) for value in (np.nan, np.inf, -np.inf, 1e30, -1e5, 65000, -1)}
WHOLE = {f"{value}": partial(_filled, value) for value in (2**31 - 1, 70000, 300, 1)}
SIGNED = {f"{value}": partial(_filled, value) for value in (-1, -(2**31))}
COLUMNS = {
    "three columns": lambda v: np.concatenate((v, v[:, :1]), 1),
    "one column": lambda v: v[:, :1],
    "swapped columns": lambda v: v[:, ::-1].copy(),
}
TEXTS: dict[str, Callable[[list[str]], Any]] = {
    "none": lambda _: [],
    "one twice": lambda v: [v[0]] * len(v),
    "unknown": lambda v: ["nobody.jpg", *v[1:]],
    "numbers": lambda v: np.arange(len(v)),
    "reversed": lambda v: v[::-1],
    "one fewer": lambda v: v[:-1],
    "outside": lambda v: ["../../outside.jpg", *v[1:]],
    "long": lambda v: ["x" * 100_000, *v[1:]],
    "empty texts": lambda v: [""] * len(v),
    "one more": lambda v: [*v, "more"],
}
DATASETS: dict[str, dict[str, dict[str, Callable[[Any], Any]]]] = {
    "features": {
        "keypoints": {**NUMBERS, **FLOATS, **COLUMNS},
        "scores": {**NUMBERS, **FLOATS},
        "descriptors": {**NUMBERS, "nan": FLOATS["nan"], "inf": FLOATS["inf"], **COLUMNS},
        "offsets": {**NUMBERS, **WHOLE, **SIGNED},
        "names": TEXTS,
        "signatures": TEXTS,
        "failed_retry": {"one more": lambda _: np.ones(1, np.uint8)},
        "failed_names": {"a used one": lambda _: ["view04.jpg"]},
        "failed_reasons": {"one more": lambda _: ["x"]},
    },
    "matches": {
        "first_steps": {**NUMBERS, **WHOLE},
        "second": {**NUMBERS, **WHOLE},
        "below_one": {**NUMBERS, **WHOLE},
        "offsets": {**NUMBERS, **WHOLE, **SIGNED},
        "pairs": {**NUMBERS, **WHOLE, **SIGNED, **COLUMNS},
        "names": TEXTS,
        "signatures": TEXTS,
    },
}
ATTRIBUTES = {"features": ("fingerprint", "convention"), "matches": ("fingerprint",)}
VALUES: dict[str, Any] = {
    "number": 7,
    "text": "x",
    "array": np.arange(3),
    "nothing": "",
    "long": "y" * 60_000,
    "nan": float("nan"),
}
LATER = {"features": ("matches", "database.db", "sparse"), "matches": ("database.db", "sparse")}


def _lying(store: str, change: Callable[[Arrays, Arrays], None], folder: Path) -> list[str]:
    work = small_job.work(folder, *LATER[store])
    path = sorted((work / store).glob("*.h5"))[0]
    arrays, attributes = _contents(path)
    change(arrays, attributes)
    write_shard(path, arrays, attributes)
    return small_job.run(folder)


def _dataset(name: str, change: Callable[[Any], Any], arrays: Arrays, _: Arrays) -> None:
    if name in arrays:
        arrays[name] = change(arrays[name])


def _gone(name: str, arrays: Arrays, attributes: Arrays) -> None:
    arrays.pop(name, None)
    attributes.pop(name, None)


def _attribute(name: str, value: Any, _: Arrays, attributes: Arrays) -> None:
    attributes[name] = value


# Other data of the right form: only a checksum would tell, and here it is right. No crash is all that is asked.
PLAUSIBLE = ("reversed", "swapped columns", "1", "outside", "unknown")
ALSO = {
    "keypoints, -1",
    "below_one, 300",
    *(f"scores, {value}" for value in FLOATS),
}  # within a pixel of the image; a probability, as any number to 1920; scores are logits, too


def _case(store: str, title: str, change: Callable[[Arrays, Arrays], None]) -> Case:
    plausible = (
        title in ALSO or title.endswith(tuple(f", {one}" for one in PLAUSIBLE)) or title.startswith("convention")
    )
    check = None if plausible else small_job.same_or_said
    return Case(f"{store}: {title}", "lying stores", partial(_lying, store, change), check=check)


def _raw(store: str, damage: Callable[[Path], object], folder: Path) -> list[str]:
    work = small_job.work(folder, *LATER[store])
    damage(sorted((work / store).glob("*.h5"))[0])
    return small_job.run(folder)


def _replaced_by(kind: str, path: Path) -> None:
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    else:
        path.write_bytes(
            {"empty": b"", "text": b"x\n" * 999, "sqlite": b"SQLite format 3\x00" + bytes(999), "zeros": bytes(9999)}[
                kind
            ]
        )


def _bytes(seed: str, path: Path) -> None:
    dice, content = random.Random(seed), bytearray(path.read_bytes())
    if dice.random() < 0.3:
        content = content[: dice.randrange(len(content))]
    first = dice.choice([100, 1000, 9000, len(content)])
    for _ in range(dice.choice([1, 2, 8, 64])):
        if content:
            content[dice.randrange(min(first, len(content)))] = dice.randrange(256)
    path.write_bytes(content)


def _foreign(path: Path) -> None:
    """A valid file of somebody else."""
    with h5py.File(path, "w") as file:
        file.create_group("names").create_dataset("keypoints", data=np.zeros((3, 2)))
        file.attrs["schema"] = 3


def _scores(file: h5py.File) -> str:
    """The dataset of scores."""
    return "below_one" if "below_one" in file else "scores"


def _bomb(path: Path) -> None:
    """Megabytes of zeros, in a few bytes."""
    with h5py.File(path, "a") as file:
        name = _scores(file)
        how: dict[str, Any] = {"scaleoffset": 0} if name == "below_one" else {"compression": "gzip"}
        dtype = file[name].dtype
        del file[name]
        file.create_dataset(name, shape=(10**11,), dtype=dtype, chunks=(2**20,), **how)


def _linked(path: Path) -> None:
    with h5py.File(path, "a") as file:
        name = _scores(file)
        del file[name]
        file[name] = h5py.ExternalLink("/etc/passwd", f"/{name}")


RAW: dict[str, Callable[[Path], object]] = {
    **{kind: partial(_replaced_by, kind) for kind in ("empty", "folder", "loop", "text", "sqlite", "zeros")},
    "foreign": _foreign,
    "10^11 scores": _bomb,
    "link to outside": _linked,
    "unlink": Path.unlink,
}

CASES = [
    *(
        _case(store, f"{name}, {title}", partial(_dataset, name, change))
        for store, names in DATASETS.items()
        for name, changes in names.items()
        for title, change in changes.items()
    ),
    *(
        _case(store, f"{name} is missing", partial(_gone, name))
        for store in DATASETS
        for name in (*DATASETS[store], *ATTRIBUTES[store])
    ),
    *(
        _case(store, f"{name} is {title}", partial(_attribute, name, value))
        for store, names in ATTRIBUTES.items()
        for name in names
        for title, value in VALUES.items()
    ),
    *(
        Case(f"{store}: file, {title}", "damaged stores", partial(_raw, store, damage), check=small_job.same_or_said)
        for store in DATASETS
        for title, damage in RAW.items()
    ),
]


def generate(seed: int) -> list[Case]:
    """Wrong bytes in a file of each kind, four times."""
    return [
        Case(
            f"{store}: wrong bytes {n} (seed {seed})",
            "damaged stores",
            partial(_raw, store, partial(_bytes, f"{store} {seed} {n}")),
            check=small_job.same_or_said,
        )
        for store in DATASETS
        for n in range(4)
    ]
