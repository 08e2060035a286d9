"""Reports in a headless Chromium: no error, nothing from elsewhere, a camera clicked, a table sorted and searched."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Page, browser, find_browser
from large_report import large_facts

import sfm_match
from sfm_match.errors import NothingDone
from sfm_match.reporting.collect import content
from sfm_match.reporting.page import page as page_of
from sfm_match.store.columns import Names

PROGRAM = find_browser()
needs_browser = pytest.mark.skipif(PROGRAM is None, reason="no Chromium is installed")
NAMES_SHOWN = "[...document.querySelectorAll('#images tbody th')].map((cell) => cell.textContent)"


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A page that must end without errors, and that asked for nothing but its file."""
    with browser(str(PROGRAM)) as opened:
        yield opened
        assert not opened.errors
        assert not [url for url in opened.requests if not url.startswith(("file:", "data:"))]


def click_camera(page: Page) -> str:
    """On the apex of a camera in sight; returns the name that the page then shows beside the model."""
    page.evaluate("document.documentElement.style.scrollBehavior = 'auto'")
    page.evaluate("document.getElementById('scene').scrollIntoView({block: 'center'})")
    page.until("window.viewer && viewer.model")
    box = page.evaluate("(({left, top}) => [left, top])(document.getElementById('scene').getBoundingClientRect())")
    x, y = page.evaluate(
        "viewer.model.images.map((_, c) => viewer.place(c))"
        ".find((at) => at && at[0] > 9 && at[1] > 9 && at[0] < scene.clientWidth - 9 && at[1] < scene.clientHeight - 9)"
    )
    page.click(box[0] + x, box[1] + y)
    page.until("document.getElementById('detail-title').textContent !== 'No image selected'")
    return str(page.evaluate("document.getElementById('detail-title').textContent"))


def sort_and_search(page: Page, text: str) -> None:
    """Sorts by keypoints, both ways, then searches."""
    header = "[...document.querySelectorAll('#images thead button')].find((b) => b.textContent === 'Keypoints')"
    cells = "[...document.querySelectorAll('#images tbody tr td:nth-child(3)')].map((c) => c.textContent)"
    for direction in ("ascending", "descending"):
        page.evaluate(f"{header}.click()")
        assert page.evaluate(f"{header}.parentElement.getAttribute('aria-sort')") == direction
        shown = [float(value.replace(",", "")) for value in page.evaluate(cells) if value != "–"]
        assert shown == sorted(shown, reverse=direction == "descending")
    page.evaluate(
        f"(s => {{ s.value = {text!r}; s.dispatchEvent(new Event('input')); }})(document.getElementById('search'))"
    )
    rows = page.evaluate("[...document.querySelectorAll('#images tbody tr')].map((row) => row.textContent)")
    assert rows
    assert all(text in row for row in rows)  # in the name or in the reason


@needs_browser
def test_a_finished_job(finished: Path, page: Page) -> None:
    page.open(finished / "report.html")
    assert "6 of 6 images are registered" in page.evaluate("document.querySelector('h1').textContent")
    assert click_camera(page) in sfm_match.open(finished).images
    page.evaluate("document.querySelector('.neighbours button').click()")
    page.until("/of [\\d,]+ inliers are drawn/.test(document.getElementById('pair').textContent)")
    assert page.evaluate("document.querySelectorAll('.neighbours button[aria-pressed=true]').length") == 1
    sort_and_search(page, "view05")
    assert page.evaluate(NAMES_SHOWN) == ["view05.jpg"]


@needs_browser
def test_the_keyboard_reaches_all(finished: Path, page: Page) -> None:
    page.open(finished / "report.html")
    page.evaluate("document.getElementById('settings').scrollIntoView()")  # figures are drawn when they are seen
    wanted = "[...document.querySelectorAll('a, button, input, select, summary, [tabindex=\"0\"]')]"
    visible = f"{wanted}.filter((e) => e.checkVisibility() && !e.disabled)"
    count = page.evaluate(f"{visible}.length")
    page.evaluate("document.activeElement.blur(); window.reached = new Set()")
    for _ in range(count + 2):
        page.press("Tab")
        page.evaluate("void window.reached.add(document.activeElement)")
    assert page.evaluate(f"{visible}.filter((e) => !window.reached.has(e)).map((e) => e.outerHTML.slice(0, 80))") == []
    page.evaluate("document.querySelector('#images tbody button').focus()")
    page.press("Enter")
    assert page.evaluate("document.getElementById('detail-title').textContent") == page.evaluate(NAMES_SHOWN)[0]
    page.evaluate("[...document.querySelectorAll('#detail button')].find((b) => b.textContent === 'Enlarge').click()")
    assert page.evaluate("document.querySelector('dialog').open")
    page.press("Escape")
    assert not page.evaluate("document.querySelector('dialog').open")


@needs_browser
def test_hostile_names_are_shown_as_they_are(page: Page, tmp_path: Path) -> None:
    names = [
        "</script><script>window.hurt = 1</script>.jpg",
        "<img src=x onerror='window.hurt=2'>.jpg",
        "a\n'\"&amp;.jpg",
    ]
    facts = large_facts(3)
    facts.names = Names(names)
    path = tmp_path / "report.html"
    path.write_text(page_of(content(facts, "now"), "0"), encoding="utf-8")
    page.open(path)
    page.evaluate("select(0, PARTNERS.get(0)[0])")
    assert page.evaluate("window.hurt === undefined")
    assert sorted(page.evaluate(NAMES_SHOWN)) == sorted(names)
    assert page.evaluate("document.getElementById('detail-title').textContent") == names[0]


@needs_browser
def test_an_image_of_another_model_before_the_model_is_in_sight(page: Page, tmp_path: Path) -> None:
    """On a telephone, the model is below: nothing is drawn of it until it is in sight."""
    data, path = content(large_facts(6), "now"), tmp_path / "report.html"
    data["models"].append({**data["models"][0], "images": [3]})
    data["images"]["model"] = [0, 0, 0, 1, 0, 0]
    path.write_text(page_of(data, "0"), encoding="utf-8")
    page.open(path, width=390, height=500)
    page.evaluate("select(2)")
    page.evaluate("select(3)")
    page.until("viewer.model?.images.length === 1")
    assert page.evaluate("document.getElementById('which').value") == "1"


@needs_browser
def test_on_a_telephone_the_selected_image_comes_in_sight(finished: Path, page: Page) -> None:
    """There it has no column of its own: it is between the model and the table."""
    page.open(finished / "report.html", width=390, height=844)
    page.evaluate("document.documentElement.style.scrollBehavior = 'auto'")
    top = "((name) => document.querySelector(name).getBoundingClientRect().top)"
    assert page.evaluate(f"{top}('#model') < {top}('aside') && {top}('aside') < {top}('#images')")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.evaluate("document.querySelector('#images tbody tr:last-child button').scrollIntoView()")
    page.evaluate("document.querySelector('#images tbody tr:last-child button').click()")
    page.until(f"Math.abs({top}('aside')) < 100")


@needs_browser
@pytest.mark.parametrize("broken", ["images.json", "database.db"])
def test_a_broken_workspace(workspace: Path, page: Page, broken: str) -> None:
    (workspace / broken).write_bytes(b"garbage")
    sfm_match.report(workspace)
    page.open(workspace / "report.html", dark=True)
    assert broken in page.evaluate("document.getElementById('failures').textContent")
    assert "what is damaged is moved aside" in page.evaluate("document.getElementById('advice').textContent")


@needs_browser
@pytest.mark.slow
def test_two_thousand_images_open_and_scroll(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page_of(content(large_facts(2000), "now"), "0"), encoding="utf-8")
    assert path.stat().st_size < 50e6
    started = time.monotonic()
    page.open(path)
    assert time.monotonic() - started < 5
    page.evaluate("document.documentElement.style.scrollBehavior = 'auto'")
    for place in ("model", "graph", "matrix", "settings", "model"):
        page.evaluate(f"document.getElementById('{place}').scrollIntoView()")
        page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert click_camera(page).startswith("image")
    sort_and_search(page, "0123")


@needs_browser
@pytest.mark.slow
@pytest.mark.scenes
@pytest.mark.parametrize("scene", ["fountain-P11", "sacre_coeur"])
def test_photographed_scenes(page: Page, scenes: Path, tmp_path: Path, scene: str) -> None:
    sfm_match.run(scenes / scene / "images", tmp_path / "work", size=640, max_keypoints=1024)
    page.open(tmp_path / "work" / "report.html")
    assert click_camera(page) in {path.name for path in (scenes / scene / "images").iterdir()}
    assert page.evaluate("document.querySelectorAll('.neighbours button').length") > 0
    sort_and_search(page, "1")


@needs_browser
@pytest.mark.slow
@pytest.mark.scenes
def test_strangers(page: Page, scenes: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for path in sorted((scenes.parent / "train" / "bsds500").iterdir())[::12]:
        shutil.copy(path, images)
    with pytest.raises(NothingDone, match=r"report\.html"):
        sfm_match.run(images, tmp_path / "work", size=480, max_keypoints=512)
    page.open(tmp_path / "work" / "report.html")
    assert page.evaluate("document.querySelector('.badge').textContent") == "✕ No model"
    assert "nothing in common" in page.evaluate("document.querySelector('.verdict').textContent")
    sort_and_search(page, "1")


@needs_browser
@pytest.mark.slow
def test_the_demo(page: Page, tmp_path: Path) -> None:
    sfm_match.demo(tmp_path / "demo")
    page.open(tmp_path / "demo" / "report.html")
    assert click_camera(page).startswith("view")
    sort_and_search(page, "view1")
