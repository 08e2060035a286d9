"""Records: of the right types and as they were written, or a line that says what is not."""

import errno
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfm_match.errors import SfmMatchError
from sfm_match.images.collection import Collection
from sfm_match.images.files import Header
from sfm_match.images.image_table import ImageRecord
from sfm_match.images.sources import Source
from sfm_match.job.stage_record import read_stages
from sfm_match.job.workspace import Workspace
from sfm_match.store import records
from sfm_match.store.records import DamagedRecord, OtherSchema, read_json, sealed

HEADER = Header(640, 480, 6, "Nikon", 812.5, (48.1, 11.5, None))


@dataclass(frozen=True)
class Point:
    x: float
    name: str = ""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"x": "1"}', r"damaged \(Expected `float`, got `str` - at `\$\.x`\); mend it"),
        (b"{", r"damaged \(Input data was truncated\)"),
        (b"[]", r"damaged \(Expected `object`, got `array`\)"),
        (b"\xff\xfe", r"damaged \("),
        (b'{"x": 1, "name": "\xff"}', r"damaged \("),
        (b'{"x": 1, "name": "\\ud800"}', r"damaged \("),
        (b'{"x": 1e999}', r"damaged \("),
        (b"[" * 100_000, r"damaged \("),
        (b'{"x":' * 100_000, r"damaged \("),
        (b'{"x": 1, "checksum": "0123456789abcdef"}', r"damaged \(it is not as it was written\)"),
        (b'{"x": 1, "checksum": null}', r"damaged \(it is not as it was written\)"),
    ],
)
def test_one_line(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DamagedRecord, match=r"a\.json: " + reason) as caught:
        read_json(tmp_path / "a.json", Point, "mend it")
    assert "\n" not in str(caught.value)


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DamagedRecord, match="Is a directory; mend it"):
        read_json(tmp_path, Point, "mend it")


def test_a_process_that_may_open_no_more_files_says_nothing_of_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("sfm_match.store.records.read_regular", refused)
    with pytest.raises(OSError, match="Too many open files"):
        read_json(tmp_path / "a.json", Point, "mend it")


def test_schemas(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for content, found in (('{"schema": 4}', "4"), ("{}", "unknown"), ('{"schema": "x"}', "unknown")):
        path.write_text(content)
        with pytest.raises(OtherSchema, match=rf"another version of sfm-match \(schema {found}, this one reads 3\)"):
            read_json(path, Point, "mend it", 3)


def test_what_is_sealed_is_read_and_folders_may_change(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(sealed({"x": 0.1 + 0.2, "name": "ü/\t", "folder": "/a"})).replace('"/a"', '"/b"'))
    assert read_json(path, Point, "mend it") == Point(0.1 + 0.2, "ü/\t")


def written(folder: Path) -> Workspace:
    place = Workspace(folder)
    good, bad = ImageRecord("ü/a.jpg", "5:7", 0, HEADER, None), ImageRecord("b.jpg", "1:1", None, None, "not an image")
    absent = ImageRecord("c.jpg", "5:7", 0, HEADER, None)
    Collection(Source(folder, folder), None, [good, bad], [absent], 1).save(place)
    place.write_record("extract", {"size": 1024, "model": "dedode-nano"})
    return place


def test_digests_stay_what_they_were(tmp_path: Path) -> None:
    """So that workspaces of before are up to date: these are of a commit of before columns."""
    made = [
        ImageRecord("ü/a.jpg", "5:7", 0, HEADER, None),
        ImageRecord("b.jpg", "1:1", None, None, "not an image"),
        ImageRecord("c.jpg", "2:3 mask 4:5", 1, Header(32, 33), None),
    ]
    place = Workspace(tmp_path)
    Collection(Source(Path("/p"), Path("/p")), None, made, [], 2).save(place)
    assert json.loads(place.collection.read_text())["checksum"] == "82f9ebbe2eb5d657"
    found = Collection.load(place)
    assert found.digest == "715e0e7c689f1b4a00a53f067100a5ce12cf4acf2fe7a71657fa0c0e9de77705"
    assert list(found.records.values()) == sorted(made, key=lambda record: record.name)


@pytest.mark.parametrize("count", [0, 1, 3, 6, 7])
def test_entries_come_in_pieces_or_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(records, "_AT_ONCE", 3)
    made = [ImageRecord(f"{number}\n],{{[.jpg", "5:7", number, HEADER, None) for number in range(count)]
    place = Workspace(tmp_path)
    Collection(Source(tmp_path, tmp_path), None, made, made[1:], 9).save(place)
    text = place.collection.read_bytes()
    assert max(line.count(b'"name"') for line in text.splitlines()) == min(count, 3)
    for laid_out in (text, json.dumps(json.loads(text)).encode(), json.dumps(json.loads(text), indent=0).encode()):
        place.collection.write_bytes(laid_out)
        found = Collection.load(place)
        assert list(found.records.values()) == made
        found.save(place)
        assert place.collection.read_bytes() == laid_out  # it holds the same
    place.collection.write_bytes(text[: text.index(b"]\n") if count else -3])
    with pytest.raises(DamagedRecord, match=r"images\.json: damaged \("):
        Collection.load(place)


def test_the_checksum_of_a_whole_record_is_read(tmp_path: Path) -> None:
    place = written(tmp_path)
    whole = Collection.load(place).records
    stored = json.loads(place.collection.read_text())
    del stored["checksum"]
    place.collection.write_text(json.dumps(sealed(stored)))
    assert Collection.load(place).records == whole
    place.collection.write_text(json.dumps({**sealed(stored), "next_unit": 2}))
    with pytest.raises(DamagedRecord, match="not as it was written"):
        Collection.load(place)


@settings(max_examples=300)
@given(images=st.booleans(), at=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_is_harmless_or_noticed(
    tmp_path_factory: pytest.TempPathFactory, images: bool, at: int, bit: int
) -> None:
    place = written(tmp_path_factory.mktemp("w"))
    whole = Collection.load(place).records, place.read_record()
    path = place.collection if images else place.record
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 1 << bit
    path.write_bytes(content)
    try:
        found = Collection.load(place).records, place.read_record()
    except SfmMatchError as error:
        assert len(str(error).splitlines()) == 1
        assert str(path) in str(error) or str(place.folder) in str(error)
    else:
        assert found == whole


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda stored: stored["images"][1]["header"].update(width=10**12), "a.jpg has 1000000000000 x 480 pixels"),
        (lambda stored: stored["images"][1]["header"].update(width="640"), r"Expected `int`, got `str` - at `.*width`"),
        (lambda stored: stored["images"][1]["header"].update(height=0), "has 640 x 0 pixels"),
        (lambda stored: stored["images"][1]["header"].update(orientation=9), "has orientation 9"),
        (lambda stored: stored["images"][1].update(unit=1), "is in unit 1 of 1"),
        (lambda stored: stored.update(next_unit=-5), "-5 units"),
        (lambda stored: stored.update(next_unit=2**70), f"{2**70} units"),
        (lambda stored: stored["images"][1].update(name="../../x.jpg"), "is no name of an image"),
        (lambda stored: stored["images"][1].update(name="/x.jpg"), "is no name of an image"),
        (lambda stored: stored["images"][1].update(name="b.jpg"), "out of order after 'b.jpg', or there twice"),
        (lambda stored: stored["images"][1].pop("header"), "missing required field `header`"),
        (lambda stored: stored.update(images=5), "Expected `array`"),
    ],
)
@pytest.mark.parametrize("lines", [False, True])
def test_images_that_cannot_be(tmp_path: Path, change: Callable[[dict], None], reason: str, lines: bool) -> None:
    place = written(tmp_path)
    stored = json.loads(place.collection.read_text())
    del stored["checksum"]  # as earlier commits wrote it
    for impossible in (False, True):
        if impossible:
            change(stored)
        place.collection.write_text(in_lines(stored) if lines else json.dumps(stored))
        if not impossible:
            assert Collection.load(place).usable == {"ü/a.jpg": HEADER}
    with pytest.raises(DamagedRecord, match=rf"images\.json: damaged \(.*{reason}.*`sfm-match doctor --repair`"):
        Collection.load(place)


def in_lines(stored: dict) -> str:
    """As `write_entries` lays a record out."""
    fields = []
    for field, value in stored.items():
        listed = isinstance(value, list)
        text = json.dumps(value)
        fields.append(f'"{field}":' + (f"[\n{text[1:-1]}\n]\n" if listed else f"{text}\n"))
    return "{" + ",".join(fields) + "}\n"


def test_the_times_of_stages(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "stages.json").write_text(json.dumps(sealed({"match": {"error": "no pair"}})).replace("no", "na"))
    assert read_stages(Workspace(tmp_path)) == {}
    assert "stages.json: damaged (it is not as it was written); the times of earlier stages" in caplog.text
