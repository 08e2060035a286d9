"""Files that options name: lists of pairs and of images, camera files, rigs, masks, model.toml, hloc's files."""

import json
import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from hostile import small_job
from hostile.case import Case
from PIL import Image

Write = Callable[[Path], object]
NAMES = [f"view{number:02d}.jpg" for number in (4, 5, 6, 7)]


def _bytes(content: bytes | str, path: Path) -> None:
    path.write_bytes(content.encode() if isinstance(content, str) else content)


CONTENTS: dict[str, bytes | str] = {
    "binary": bytes(range(256)) * 40,
    "zeros": bytes(9000),
    "not UTF-8": b"view04.jpg \xff\xfe\n",
    "BOM": b"\xef\xbb\xbfview04.jpg view05.jpg\n",
    "UTF-16": "view04.jpg view05.jpg\n".encode("utf-16"),
    "100,000 words": "a " * 100_000,
    "one long word": "a" * 3_000_000,
    "CRLF": "view04.jpg view05.jpg\r\nview06.jpg view07.jpg\r\n",
    "blank": "\n" * 1000,
    "deep": "[" * 100_000,
    "deep braces": '{"a":' * 50_000,
    "null": "null",
    "number": "7",
    "tabs": "\t\t\t\n",
    "escape": "\x1b[31m\x07 \x1b]0;x\x07\n",
    "nul in a name": b"view04\x00.jpg view05.jpg\n",
}
ANYTHING: dict[str, Write] = {
    "empty": Path.touch,
    "folder": Path.mkdir,
    "missing": lambda _: None,
    "loop": lambda p: p.symlink_to(p.name),
    "pipe": os.mkfifo,
    **{title: partial(_bytes, content) for title, content in CONTENTS.items()},
}
PAIRS = {
    "one word": "view04.jpg\n",
    "three words": "view04.jpg view05.jpg view06.jpg\n",
    "unknown": "a.jpg b.jpg\n",
    "itself": "view04.jpg view04.jpg\n",
    "twice": "view04.jpg view05.jpg\nview05.jpg view04.jpg\n" * 50,
    "outside": "../../etc/passwd view04.jpg\n",
    "comment": "# x y\nview04.jpg view05.jpg\n",
    "100,000 unknown": "".join(f"a{i}.jpg b{i}.jpg\n" for i in range(100_000)),
    "quoted": '"view04.jpg" "view05.jpg"\n',
}
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{c}: &{c} [{','.join([f'*{p}'] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)
)
CAMERAS = {
    "bomb": BOMB,
    "list": "- a\n",
    "unknown model": '"*": {model: FISH}\n',
    "no model": '"*": {}\n',
    "number": '"*": 7\n',
    "unknown key": '"*": {model: PINHOLE, focal: 3}\n',
    **{
        f"params {title}": f'"*": {{model: PINHOLE, params: {params}}}\n'
        for title, params in {
            "nan": "[.nan, 1, 1, 1]",
            "inf": "[.inf, 1, 1, 1]",
            "zero": "[0, 0, 0, 0]",
            "negative": "[-800, -800, 80, 60]",
            "few": "[1]",
            "text": "[a, b, c, d]",
            "none": "null",
            "many": str([1] * 10_000),
            "huge": "[1e308, 1e308, 1e308, 1e308]",
            "tiny": "[1e-300, 1e-300, 80, 60]",
            "deep": "[[[[1]]]]",
            "bool": "[true, true, true, true]",
        }.items()
    },
    "same key": '"*": {model: PINHOLE}\n"*": {model: OPENCV}\n',
    "python": "!!python/object/apply:os.system ['touch hacked']\n",
    "tabs in YAML": "\t- x\n",
    "pattern": '"[": {model: PINHOLE}\n',
    "alias to itself": "&a [*a]\n",
    "long pattern": f'"{"*a" * 5000}b": {{model: PINHOLE}}\n',
}
CONFIGS = {
    "bomb": BOMB,
    "unknown": "sizee: 3\n",
    "list": "- size\n",
    "size text": "size: big\n",
    "size list": "size: [1, 2]\n",
    "size bool": "size: true\n",
    "size date": "size: 2020-01-01\n",
    "size null": "size: null\n",
    "seed 2^31": "seed: 2147483648\n",
    "seed 10^30": f"seed: {10**30}\n",
    "float nan": "match_threshold: .nan\n",
    "number key": "1: 2\n",
    "sexagesimal": "size: 1:30\n",
    "same key": "size: 160\nsize: 320\n",
    "python": "!!python/object/apply:os.system ['touch hacked']\n",
    "alias to itself": "size: &a [*a]\n",
    "overlap": f"strategy: sequential\noverlap: {10**20}\n",
    "model folder": "model: ..\n",
    "long value": f"model: {'x' * 100_000}\n",
    "escape": 'model: "\\e[31mred"\n',
    "images": "images: 7\nworkspace: []\n",
    "json": "json: maybe\n",
    "two documents": "size: 1\n---\nsize: 2\n",
}
_REF = {"image_prefix": "a/", "ref_sensor": True}
RIGS = {
    "no cameras": [{}],
    "none": [],
    "text": "x",
    "cameras text": [{"cameras": "x"}],
    "two references": [{"cameras": [_REF, _REF]}],
    "no reference": [{"cameras": [{"image_prefix": "a/"}]}],
    "unknown prefix": [{"cameras": [_REF]}],
    "prefix number": [{"cameras": [{"image_prefix": 7, "ref_sensor": True}]}],
    "empty prefix": [{"cameras": [{"image_prefix": "", "ref_sensor": True}]}],
    **{
        f"{key} {title}": [
            {"cameras": [{"image_prefix": "view0", "ref_sensor": True}, {"image_prefix": "b/", key: value}]}
        ]
        for key in ("cam_from_rig_rotation", "cam_from_rig_translation")
        for title, value in {
            "short": [1],
            "text": ["a"] * 4,
            "zero": [0, 0, 0, 0],
            "huge": [1e308] * 4,
            "null": None,
            "number": 3,
            "nan": [float("nan")] * 4,
        }.items()
    },
    "params": [{"cameras": [{**_REF, "image_prefix": "view0", "camera_model_name": "FISH", "camera_params": [1]}]}],
    "params short": [
        {"cameras": [{**_REF, "image_prefix": "view0", "camera_model_name": "PINHOLE", "camera_params": [1]}]}
    ],
    "params nan": [
        {
            "cameras": [
                {**_REF, "image_prefix": "view0", "camera_model_name": "PINHOLE", "camera_params": [float("nan")] * 4}
            ]
        }
    ],
}


def _png(array: np.ndarray, path: Path) -> None:
    Image.fromarray(array).save(path, "PNG")


def _one_bit(path: Path) -> None:
    Image.new("1", (40_000, 30_000), 1).save(path, "PNG")


MASKS: dict[str, Write] = {
    "all black": partial(_png, np.zeros((120, 160), np.uint8)),
    "all white": partial(_png, np.full((120, 160), 255, np.uint8)),
    "1 x 1": partial(_png, np.zeros((1, 1), np.uint8)),
    "other ratio": partial(_png, np.full((160, 50), 255, np.uint8)),
    "colour": partial(_png, np.full((120, 160, 3), 255, np.uint8)),
    "16 bits": partial(_png, np.full((120, 160), 65535, np.uint16)),
    "alpha": partial(_png, np.full((120, 160, 4), 99, np.uint8)),
    "40000 x 30000": _one_bit,
}
TOML = """file = "x.onnx"\ncoordinates = "pixels"\nfirst_pixel = 0.5\ndimension = 64\nmatch_threshold = 0.1\n"""
TOMLS = {
    "no file": TOML,
    "file outside": TOML.replace("x.onnx", "../../../etc/passwd"),
    "dimension text": TOML.replace("64", '"x"'),
    "dimension negative": TOML.replace("64", "-1"),
    "dimension huge": TOML.replace("64", str(10**30)),
    "unknown key": TOML + "x = 1\n",
    "mean text": TOML + 'mean = "x"\n',
    "std zero": TOML + "std = 0\n",
    "divisor zero": TOML + "divisor = 0\n",
    "threshold nan": TOML.replace("0.1", "nan"),
}


def _given(option: str, write: Write, more: tuple[str, ...], folder: Path) -> list[str]:
    path = folder / "given"
    write(path)
    return small_job.run(folder, None, option, path, *more)


def _case(kind: str, option: str, title: str, write: Write, *more: str) -> Case:
    return Case(f"{option}: {title}", kind, partial(_given, option, write, more))


def _model(write: Write, folder: Path) -> list[str]:
    (folder / "m").mkdir()
    (folder / "m" / "x.onnx").write_bytes(b"no network")
    write(folder / "m" / "model.toml")
    return small_job.run(folder, None, "--model", folder / "m")


def _mask_folder(write: Write, name: str, folder: Path) -> list[str]:
    (folder / "masks").mkdir()
    write(folder / "masks" / name)
    return small_job.run(folder, None, "--masks", folder / "masks")


def _hloc(damage: Callable[[dict[str, Path]], object], folder: Path) -> list[str]:
    files = {name: folder / f"{name}.{'txt' if name == 'pairs' else 'h5'}" for name in ("features", "matches", "pairs")}
    dice = np.random.default_rng(0)
    with h5py.File(files["features"], "w") as file:
        for name in NAMES:
            group = file.create_group(name)
            group["keypoints"] = dice.uniform(1, 100, (50, 2)).astype(np.float32)
            group["scores"] = np.ones(50, np.float32)
            group["descriptors"] = dice.normal(size=(64, 50)).astype(np.float32)
            group["image_size"] = np.array([160, 120])
    pairs = [(a, b) for i, a in enumerate(NAMES) for b in NAMES[:i]]
    with h5py.File(files["matches"], "w") as file:
        for first, second in pairs:
            group = file.create_group(f"{first}/{second}")
            group["matches0"] = np.arange(50, dtype=np.int16)
            group["matching_scores0"] = np.ones(50, np.float16)
    files["pairs"].write_text("".join(f"{a} {b}\n" for a, b in pairs))
    damage(files)
    given = [str(one) for name in files for one in (f"--{name}", files[name])]
    return [
        "convert",
        "--from",
        "hloc",
        "--images",
        str(small_job.base() / "images"),
        "--workspace",
        str(folder / "work"),
        *given,
    ]


def _edit(which: str, dataset: str, value: object, files: dict[str, Path]) -> None:
    with h5py.File(files[which], "a") as file:
        group = file[NAMES[1]] if which == "features" else file[f"{NAMES[1]}/{NAMES[0]}"]
        del group[dataset]
        if value is not None:
            group[dataset] = value


def _replace(which: str, write: Write, files: dict[str, Path]) -> None:
    files[which].unlink()
    write(files[which])


ARRAYS = {
    "missing": None,
    "nan": np.full((50, 2), np.nan, np.float32),
    "huge": np.full((50, 2), 1e30, np.float32),
    "int": np.full(50, 2**31 - 1),
    "negative": np.full(50, -7),
    "scalar": 3,
    "text": "x",
    "empty": np.zeros((0, 2), np.float32),
    "three columns": np.zeros((50, 3), np.float32),
    "long": np.zeros(10**6, np.int32),
}
CASES = [
    *(
        _case("lists", "--match-list-path", f"with {t}", partial(_bytes, c), "--strategy", "list")
        for t, c in PAIRS.items()
    ),
    *(_case("lists", "--match-list-path", f"{t}, as list", w, "--strategy", "list") for t, w in ANYTHING.items()),
    *(_case("lists", "--query-list", f"{t}, of retrieval", w, "--strategy", "retrieval") for t, w in ANYTHING.items()),
    *(_case("cameras", "--cameras", t, w) for t, w in ANYTHING.items()),
    *(_case("cameras", "--cameras", f"with {t}", partial(_bytes, c)) for t, c in CAMERAS.items()),
    *(_case("rigs", "--rig-config", t, w) for t, w in ANYTHING.items()),
    *(_case("rigs", "--rig-config", f"with {t}", partial(_bytes, json.dumps(c))) for t, c in RIGS.items()),
    *(_case("yaml", "--config", t, w) for t, w in ANYTHING.items()),
    *(_case("yaml", "--config", f"with {t}", partial(_bytes, c)) for t, c in CONFIGS.items()),
    *(_case("masks", "--masks", f"{t}, one for all", w) for t, w in {**MASKS, **ANYTHING}.items()),
    *(
        Case(f"--masks: {t}, in a folder", "masks", partial(_mask_folder, w, "view05.jpg.png"))
        for t, w in {**MASKS, **ANYTHING}.items()
    ),
    *(Case(f"model.toml: with {t}", "model.toml", partial(_model, partial(_bytes, c))) for t, c in TOMLS.items()),
    *(Case(f"model.toml: {t}", "model.toml", partial(_model, w)) for t, w in ANYTHING.items()),
    *(
        Case(f"hloc {w}: file, {t}", "hloc", partial(_hloc, partial(_replace, w, write)))
        for w in ("features", "matches", "pairs")
        for t, write in ANYTHING.items()
    ),
    *(
        Case(f"hloc {w}: {d}, {t}", "hloc", partial(_hloc, partial(_edit, w, d, v)))
        for w, names in {
            "features": ("keypoints", "scores", "descriptors"),
            "matches": ("matches0", "matching_scores0"),
        }.items()
        for d in names
        for t, v in ARRAYS.items()
    ),
]


def _shuffled(text: str, seed: str, path: Path) -> None:
    dice, content = random.Random(seed), list(text)
    for _ in range(dice.choice([1, 3, 9])):
        content[dice.randrange(len(content))] = dice.choice(
            ["", "\x00", "\n", "{", "[", "'", '"', ":", "9" * 30, "é", "\t", "&a", "*a", "-"]
        )
    path.write_text("".join(content))


TEXTS = {
    "--match-list-path": ("lists", "".join(f"{a} {b}\n" for a in NAMES for b in NAMES), ("--strategy", "list")),
    "--cameras": ("cameras", '"view*": {model: PINHOLE, params: [150.0, 150.0, 80, 60]}\n', ()),
    "--rig-config": ("rigs", '[{"cameras": [{"image_prefix": "view0", "ref_sensor": true}]}]', ()),
    "--config": ("yaml", "size: 160\nmax_keypoints: 300\nseed: 0\nmapper_threads: 1\n", ()),
}


def generate(seed: int) -> list[Case]:
    """Good files with some wrong letters."""
    return [
        _case(kind, option, f"wrong letters {n} (seed {seed})", partial(_shuffled, text, f"{option} {seed} {n}"), *more)
        for option, (kind, text, more) in TEXTS.items()
        for n in range(3)
    ]
