"""`convert --from hloc`: what `--to hloc` wrote comes back the same; files as hloc's programs write them."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import Shared
from jobs import sfm_match as command
from PIL import Image

import sfm_match
from sfm_match.errors import NothingDone, UsageError

FILES = ("features", "matches", "pairs")


def files_in(folder: Path) -> dict[str, Any]:
    return {name: folder / f"{name}.{'txt' if name == 'pairs' else 'h5'}" for name in FILES}


def hloc_matches(path: Path, name0: str, name1: str) -> tuple[np.ndarray, np.ndarray]:
    """As hloc's `get_matches` is described: (M, 2) keypoints of name0 and name1, and (M,) scores."""
    with h5py.File(path) as file:
        flat = [name.replace("/", "-") for name in (name0, name1)]
        forward, backward = "/".join(flat), "/".join(flat[::-1])
        reverse = forward not in file
        group = file[backward if reverse else forward]
        places, scores = group["matches0"][()], group["matching_scores0"][()]
    rows = np.flatnonzero(places != -1)
    return np.column_stack((places[rows], rows) if reverse else (rows, places[rows])), scores[rows]


@pytest.fixture(scope="session")
def exported(finished: Path, shared: Shared) -> Path:
    return shared("hloc", lambda out: sfm_match.convert(finished, to="hloc", out=out))


def test_there_and_back(exported: Path, finished: Path, rendered: Path, tmp_path: Path) -> None:
    """Features, matches and pairs are the same, bit by bit, and so are the keypoints of the database made of them."""
    work = tmp_path / "work"
    extracted, paired, matched = sfm_match.from_hloc(rendered, work, **files_in(exported), size=320)
    assert (extracted.done, paired.done, matched.done) == (6, 15, 15)
    before, after = sfm_match.open(finished), sfm_match.open(work)
    assert dict(after.images) == dict(before.images)
    assert after.pairs == before.pairs
    for name, ours in before.iter_features():
        for field in ("keypoints", "scores", "descriptors"):
            found, expected = getattr(after.features(name), field), getattr(ours, field)
            assert found.dtype == expected.dtype
            assert found.tobytes() == expected.tobytes()
    for first, second in before.pairs:
        for a, b in ((first, second), (second, first)):
            indices, scores = hloc_matches(exported / "matches.h5", a, b)
            for one in (before.matches(a, b), after.matches(a, b)):
                order = np.lexsort(one.indices.T)
                np.testing.assert_array_equal(one.indices[order], indices[np.lexsort(indices.T)])
                np.testing.assert_array_equal(one.scores[order], scores[np.lexsort(indices.T)])
    sfm_match.import_(work)
    assert after.verified_pairs == before.verified_pairs
    for name in before.images:
        np.testing.assert_array_equal(after.adjusted_keypoints(name), before.adjusted_keypoints(name))
    assert sfm_match.reconstruct(work).facts["registered"] == 6
    again = sfm_match.from_hloc(rendered, work, **files_in(exported), size=320)
    assert [(report.done, report.cached) for report in again] == [(0, 6), (15, 0), (0, 15)]


NAMES = ("a.jpg", "db/b-1.jpg", "db/c.jpg", "db/late.jpg")


@pytest.fixture
def foreign(tmp_path: Path) -> dict[str, Any]:
    """Photographs, and files of another extractor: half precision, 128 float32 values a descriptor, no scores; earlier
    names of pairs, pairs in the other order."""
    for name in NAMES:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (96, 64)).save(tmp_path / "photos" / name)
    rng, files = np.random.default_rng(0), files_in(tmp_path)
    with h5py.File(files["features"], "w", libver="latest") as file:
        for count, name in enumerate(("query/other.jpg", *NAMES[:3]), 5):
            group = file.create_group(name)
            group["keypoints"] = rng.uniform(0, 60, (count, 2)).astype(np.float16)
            group["descriptors"] = rng.normal(0, 0.1, (128, count)).astype(np.float32)
            group["image_size"] = np.array((96, 64))
    with h5py.File(files["matches"], "w", libver="latest") as file:
        file["db-c.jpg/a.jpg/matches0"] = np.array([-1, 5, 0, -1, -1, 1, 2, -1], np.int16)  # of db/c.jpg's 8
        file["db-b-1.jpg_db-c.jpg/matches0"] = np.array([7, -1, -1, -1, -1, -1, 0], np.int16)
        file["db-b-1.jpg_db-c.jpg/matching_scores0"] = np.linspace(0.1, 0.7, 7).astype(np.float16)
        file["a.jpg/db-b-1.jpg/matches0"] = np.full(6, -1, np.int16)
    files["pairs"].write_text("a.jpg db/c.jpg\ndb/c.jpg db/b-1.jpg\n\na.jpg db/b-1.jpg\ndb/c.jpg a.jpg\n")
    return {"images": tmp_path / "photos", "workspace": tmp_path / "foreign", **files}


def test_files_of_another_extractor(foreign: dict[str, Any]) -> None:
    extracted, paired, matched = sfm_match.from_hloc(**foreign)
    assert (extracted.done, extracted.failed, paired.done, matched.done) == (3, 1, 3, 3)
    results = sfm_match.open(foreign["workspace"])
    assert results.failed == {"db/late.jpg": "not in features.h5"}
    with h5py.File(foreign["features"]) as file:
        for name in NAMES[:3]:
            found = results.features(name)
            np.testing.assert_array_equal(found.keypoints, file[name]["keypoints"][()].astype(np.float32) + 0.5)
            np.testing.assert_array_equal(found.descriptors, file[name]["descriptors"][()].T.astype(np.float16))
            assert (found.scores == 1).all()
    matches = results.matches("a.jpg", "db/c.jpg")
    assert sorted(matches.indices.tolist()) == [[0, 2], [1, 5], [2, 6], [5, 1]]
    assert (matches.scores == 1).all()
    matches = results.matches("db/b-1.jpg", "db/c.jpg")
    assert matches.indices.tolist() == [[0, 7], [6, 0]]
    np.testing.assert_allclose(
        matches.scores, np.array((0.1, 0.7), np.float16), rtol=1 / 256
    )  # 8 bits of them are kept
    assert not len(results.matches("a.jpg", "db/b-1.jpg").indices)


def test_no_descriptors(foreign: dict[str, Any], tmp_path: Path) -> None:
    with h5py.File(foreign["features"], "a") as file:
        for name in (*NAMES[:3], "query/other.jpg"):
            del file[name]["descriptors"]
    sfm_match.from_hloc(**foreign)
    assert sfm_match.open(foreign["workspace"]).features("a.jpg").descriptors.shape == (6, 0)
    sfm_match.convert(foreign["workspace"], to="hloc", out=tmp_path / "out")
    with h5py.File(tmp_path / "out" / "features.h5") as file:
        assert set(file["a.jpg"]) == {"keypoints", "scores", "image_size"}


def change(path: Path, dataset: str, value: Any) -> None:
    with h5py.File(path, "a") as file:
        if dataset in file:
            del file[dataset]
        if value is not None:
            file[dataset] = value


@pytest.mark.parametrize(
    ("file", "dataset", "value", "message"),
    [
        (
            "features",
            "a.jpg/image_size",
            (64, 96),
            r"a\.jpg: features of a picture of 64 x 96 pixels, the photograph has",
        ),
        ("features", "a.jpg/keypoints", np.zeros((6, 4)), r"a\.jpg: keypoints \(6, 4\), .*; expected \(N, 2\)"),
        ("features", "a.jpg/keypoints", None, "features.h5: not as hloc writes it"),
        ("features", "db/c.jpg/descriptors", np.zeros((64, 8)), r"expected \(N, 2\), \(N,\), \(128, N\)"),
        ("features", "a.jpg/keypoints", 5.0, r"keypoints: expected numbers \(N, 2\)"),
        ("features", "a.jpg/keypoints", "text", r"keypoints: expected numbers \(N, 2\)"),
        ("features", "a.jpg/keypoints", np.full((6, 2), np.nan), "keypoints: not all finite numbers"),
        ("features", "a.jpg/scores", 5.0, r"scores: expected numbers \(N\)"),
        ("features", "a.jpg/image_size", "text", r"image_size: expected numbers \(2\)"),
        ("features", "db/c.jpg/descriptors", 5, r"descriptors: expected numbers \(D, N\)"),
        ("matches", "a.jpg/db-b-1.jpg/matches0", np.full((6, 2), -1), r"matches0: expected numbers \(N\)"),
        ("matches", "a.jpg/db-b-1.jpg/matches0", "text", r"matches0: expected numbers \(N\)"),
        ("matches", "a.jpg/db-b-1.jpg/matching_scores0", 5.0, r"matching_scores0: expected numbers \(N\)"),
        ("matches", "a.jpg/db-b-1.jpg/matching_scores0", np.ones(5), "5 matching_scores0 for 6 matches0"),
        ("matches", "a.jpg/db-b-1.jpg", None, r"no matches of a\.jpg, db/b-1\.jpg; matched with other pairs\?"),
        ("matches", "a.jpg/db-b-1.jpg/matches0", np.full(5, -1), "not of these features; matched with others?"),
        ("matches", "a.jpg/db-b-1.jpg/matches0", np.full(6, 7), "not of these features; matched with others?"),
    ],
)
def test_files_that_do_not_fit(foreign: dict[str, Any], file: str, dataset: str, value: Any, message: str) -> None:
    right = foreign[file].read_bytes()
    change(foreign[file], dataset, value)
    with pytest.raises(UsageError, match=f"--from hloc: .*{message}"):
        sfm_match.from_hloc(**foreign)
    foreign[file].write_bytes(right)
    assert sfm_match.from_hloc(**foreign)[2].done == 3


def test_lists_that_do_not_fit(foreign: dict[str, Any]) -> None:
    foreign["pairs"].write_text("a.jpg db/c.jpg\na.jpg query/other.jpg\n")
    with pytest.raises(UsageError, match=r"pairs\.txt, line 2: not two images of the folder: a\.jpg query/other\.jpg"):
        sfm_match.from_hloc(**foreign)
    Image.new("RGB", (96, 64)).save(foreign["images"] / "db-c.jpg")
    foreign["pairs"].write_text("a.jpg db/c.jpg\na.jpg db-c.jpg\n")
    with pytest.raises(UsageError, match=r"--from hloc: .* hloc gives both pairs the name a\.jpg/db-c\.jpg"):
        sfm_match.from_hloc(**foreign)
    with pytest.raises(UsageError, match=r"pairs\.txt: not readable as HDF5"):
        foreign["pairs"].write_text("a.jpg db/c.jpg\n")
        sfm_match.from_hloc(**{**foreign, "features": foreign["pairs"]})
    for content, said in ((b"\xff\xfea\0", "not UTF-8"), (b"a\0b", "a zero byte"), (b"x " * 9000, "more than 10,000")):
        foreign["pairs"].write_bytes(content)
        with pytest.raises(UsageError, match=said):
            sfm_match.from_hloc(**foreign)
    foreign["pairs"].write_text("a.jpg a.jpg\n")
    with pytest.raises(NothingDone, match="no pair in it"):
        sfm_match.from_hloc(**foreign)
    foreign["pairs"].write_text("db-c.jpg db/late.jpg\n")
    with pytest.raises(NothingDone, match="no pair of images that both have features"):
        sfm_match.from_hloc(**foreign)
    with pytest.raises(NothingDone, match=r"none of the 3 images of .* is in it; it has a\.jpg, \.\.\."):
        foreign["pairs"].write_text("b-1.jpg c.jpg\n")
        sfm_match.from_hloc(
            **{**foreign, "images": foreign["images"] / "db", "workspace": foreign["workspace"] / "new"}
        )


def test_results_of_another_origin_are_kept(foreign: dict[str, Any], workspace: Path, rendered: Path) -> None:
    sfm_match.from_hloc(**foreign)
    work = foreign["workspace"]
    read = r"were read from the files of hloc; choose another --workspace, or add --overwrite to replace them"
    with pytest.raises(UsageError, match=f"the results of extract {read}"):
        sfm_match.extract(foreign["images"], work, size=320)
    for again in (lambda: sfm_match.run(foreign["images"], work), lambda: sfm_match.pairs(work)):
        with pytest.raises(UsageError, match=f"the results of pairs {read}"):
            again()
    with pytest.raises(UsageError, match="its features came from hloc; bring their matches with `convert --from hloc`"):
        sfm_match.match(work, overwrite=True)
    with pytest.raises(UsageError, match="the results of extract were read from other files of hloc"):
        sfm_match.from_hloc(**foreign, size=640)
    assert sfm_match.from_hloc(**foreign, size=640, overwrite=True)[0].done == 3
    foreign["pairs"].write_text("view04.jpg view05.jpg\n")
    with pytest.raises(UsageError, match="the results of extract were computed by sfm-match"):
        sfm_match.from_hloc(**{**foreign, "images": rendered, "workspace": workspace})


def test_command_line(foreign: dict[str, Any], tmp_path: Path) -> None:
    files = [word for name in FILES for word in (f"--{name}", foreign[name])]
    where = ["--images", foreign["images"], "--workspace", foreign["workspace"]]
    done = command("convert", "--from", "hloc", *files, *where)
    assert (done.returncode, done.stderr) == (1, "")  # one photograph has no features
    assert [line.split()[:3] for line in done.stdout.splitlines()] == [
        ["extract", "3", "images,"],
        ["pairs", "3", "pairs,"],
        ["match", "3", "pairs,"],
    ]
    for words, message in (
        ([], "takes --to or --from, one of them"),
        (["--to", "ply", "--from", "hloc"], "takes --to or --from, one of them"),
        (["--to", "ply"], "--to ply: needs --out, the folder to write to"),
        (["--from", "hloc", *where], "--from hloc: needs --images, --features, --matches and --pairs"),
        (["--from", "colmap"], "--from colmap: accepted values are hloc"),
        (["--from", "hloc", *files, *where, "--features", tmp_path / "no.h5"], "no.h5: no such file"),
    ):
        done = command("convert", *words)
        assert done.returncode == 2
        assert message in done.stderr
