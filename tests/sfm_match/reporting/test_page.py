"""One file that asks nobody for more, of whatever is in a workspace; names are data in it, and nothing else."""

import base64
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import sfm_match
from sfm_match.errors import NothingDone, UsageError
from sfm_match.job.workspace import Workspace
from sfm_match.reporting.page import as_json, inputs_of, page, write_report
from sfm_match.store.columns import Texts

HOSTILE = [
    "</script><script>alert(1)</script>.jpg",
    "<img src=x onerror=alert(2)>.jpg",
    "\"quotes\" and 'apostrophes' & {{data}}.jpg",
    "two\nlines\u2028three.jpg",
    "{{scripts}}<!--.jpg",
]


class Reader(HTMLParser):
    """What a browser would take for elements, and the text of the data."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][1].get("id") == "data":
            self.data += data


def data_of(path: Path) -> dict[str, Any]:
    """The data of a report, as an HTML parser finds them."""
    found: dict[str, Any] = json.loads(Reader(path.read_text(encoding="utf-8")).data)
    return found


def test_hostile_names_stay_data() -> None:
    plain, hostile = (Reader(page({"images": {"name": names}}, "0")) for names in (["a.jpg"], HOSTILE))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    assert json.loads(hostile.data)["images"]["name"] == HOSTILE


def test_json_in_html_is_ascii_without_markup() -> None:
    data = {
        "names": HOSTILE,
        "ü": 1.5,
        "a": {"<b>": {"c": [1]}, "d": {}},
        "e": {},
        "long": [[n, "<"] for n in range(1000)],
    }
    text = "".join(as_json(data))
    assert text.isascii()
    assert not set("<>&") & set(text)
    assert json.loads(text) == data
    many = [f"<{number}>" for number in range(1000)]
    for texts in (many, many[:2]):
        assert json.loads("".join(as_json({"name": Texts(texts)}))) == {"name": texts}
    assert "".join(as_json({"picture": [b"\xff\xd8", None]})) == '{"picture":["/9g=",null]}'
    long = bytes(range(256)) * 999
    assert base64.b64decode(json.loads("".join(as_json(long)))) == long
    with pytest.raises(ValueError, match="JSON"):
        list(as_json({"error": float("nan")}))
    with pytest.raises(TypeError, match="int64"):
        list(as_json({"number": np.int64(3)}))


def test_nothing_comes_from_elsewhere(finished: Path) -> None:
    text = (finished / "report.html").read_text(encoding="utf-8")
    reader = Reader(text)
    assert not [value for _, attributes in reader.tags for name, value in attributes.items() if name == "src"]
    assert not {attributes["href"] for tag, attributes in reader.tags if "href" in attributes} - {"#main"}
    (policy,) = (one["content"] for _, one in reader.tags if one.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
    assert "Copyright © 2010-2026 three.js authors" in text


def test_scripts_make_no_markup_of_text() -> None:
    assets = Path(sfm_match.__file__).parent / "reporting" / "assets"
    scripts = [path for path in assets.glob("*.js") if path.name != "three.min.js"]
    assert len(scripts) > 5
    for path in scripts:
        text = path.read_text(encoding="utf-8")
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|\bfetch\b|https?:(?!//www\.w3)", text
        )
        assert len(text.splitlines()) <= 400


def test_a_finished_job(finished: Path) -> None:
    data = data_of(finished / "report.html")
    results = sfm_match.open(finished)
    assert data["verdict"]["level"] == "good"
    assert data["images"]["name"] == sorted(results.images)
    assert data["images"]["keypoints"] == [len(results.features(name).keypoints) for name in sorted(results.images)]
    assert data["images"]["model"] == [0] * 6
    assert all(data["images"]["picture"])
    assert [one["stage"] for one in data["stages"]] == ["extract", "pairs", "match", "import", "reconstruct"]
    assert all(one["seconds"] > 0 for one in data["stages"])
    assert data["settings"]["extract"]["size"] == 320
    assert not data["problems"]


def test_a_report_is_up_to_date_until_something_changes(workspace: Path) -> None:
    place = Workspace(workspace)
    write_report(place)
    before = inputs_of(place)
    assert inputs_of(place) == before
    (workspace / "unregistered.csv").write_text("image,reason\nx.jpg,not usable: gone\n")
    assert inputs_of(place) != before


def test_a_file_of_somebody_else_is_kept(workspace: Path) -> None:
    (workspace / "report.html").write_text("<p>mine</p>")
    with pytest.raises(UsageError, match="not made by sfm-match"):
        sfm_match.report(workspace)
    assert (workspace / "report.html").read_text() == "<p>mine</p>"


def test_no_workspace(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(NothingDone, match="no such workspace"):
            sfm_match.report(folder)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "broken", ["sfm-match.json", "images.json", "database.db", "sparse/0/points3D.bin", "stages.json"]
)
def test_what_is_damaged_leaves_the_rest(workspace: Path, broken: str) -> None:
    (workspace / broken).write_bytes(b"\x00garbage" * 50)
    report = sfm_match.report(workspace)
    data = data_of(workspace / "report.html")
    if broken == "stages.json":
        assert (data["stages"], data["problems"]) == ([], [])
        return
    assert len(data["problems"]) == 1
    assert report.facts["level"] in ("look", "bad")
    assert any("what is damaged is moved aside" in one["text"] for one in data["advice"])
    assert len(data["images"]["name"]) == (0 if broken in ("sfm-match.json", "images.json") else 6)


def test_a_summary_that_was_edited(workspace: Path) -> None:
    path = workspace / "sparse" / "sfm-match.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "models": [{"registered": 6}]}))
    sfm_match.report(workspace)
    (problem,) = data_of(workspace / "report.html")["problems"]
    assert problem.startswith("sparse cannot be read: ")
    assert "sfm-match.json: damaged (it is not as it was written)" in problem


@pytest.mark.parametrize(
    ("gone", "stage"),
    [
        (("features", "pairs.txt", "matches", "database.db", "sparse"), "extract"),
        (("pairs.txt", "matches", "database.db", "sparse"), "pairs"),
        (("matches", "database.db", "sparse"), "match"),
        (("database.db", "sparse"), "import"),
        (("sparse",), "reconstruct"),
    ],
)
def test_an_unfinished_job_names_the_next_stage(workspace: Path, gone: tuple[str, ...], stage: str) -> None:
    for name in (*gone, "unregistered.csv"):
        path = workspace / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert sfm_match.report(workspace).facts["level"] == "unfinished"
    data = data_of(workspace / "report.html")
    assert data["verdict"]["title"] == f"The job is not finished: {stage} is next."
    assert any("run --images" in one["command"] for one in data["advice"])


def test_the_photographs_are_gone(workspace: Path, tmp_path: Path) -> None:
    images = json.loads((workspace / "images.json").read_text())
    (workspace / "images.json").write_text(json.dumps({**images, "folder": str(tmp_path / "gone")}))
    sfm_match.report(workspace)
    data = data_of(workspace / "report.html")
    assert data["images"]["picture"] == [None] * 6
    assert data["models"]
    assert any("not in" in one["text"] for one in data["advice"])


def test_images_that_failed_are_in_it(tmp_path: Path, rendered: Path) -> None:
    images = Path(shutil.copytree(rendered, tmp_path / "images"))
    name = "<b>&'broken.jpg"
    (images / name).write_bytes(b"no image")
    cv2.imwrite(str(images / "grey.png"), np.full((300, 400, 3), 128, np.uint8))
    sfm_match.run(images, tmp_path / "work", pairs="exhaustive", size=320, max_keypoints=400)
    data = data_of(tmp_path / "work" / "report.html")
    place = data["images"]["name"].index(name)
    assert data["images"]["failed"][place]
    assert "not an image" in data["images"]["why"][place]
    assert data["images"]["keypoints"][place] is None
