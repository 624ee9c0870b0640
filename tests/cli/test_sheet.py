"""The contact sheet: its file, and what a browser makes of it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from pictures import exif, save

from .conftest import a_hit


@pytest.fixture
def found(daemon, tmp_path):
    """Pictures of several shapes, one upright by its orientation, one gone."""
    folder = tmp_path / "photos"
    sizes = [(640, 480), (480, 640), (1200, 200), (32, 32)]
    paths = [save(folder / f"{number}.jpg", number, size) for number, size in enumerate(sizes)]
    turned = exif()
    turned[0x0112] = 6
    paths.append(save(folder / 'tu"rned <b>&.jpg', 9, (400, 300), exif=turned))
    sizes.append((300, 400))
    hits = [
        a_hit(str(path), rank, width=width, height=height, caption="<script>alert(1)</script>")
        for rank, (path, (width, height)) in enumerate(zip(paths, sizes, strict=True), start=1)
    ]
    hits.append(a_hit(f"{folder}/gone\udce9.jpg", 6))
    daemon.answers["/search"] = {"hits": hits, "notes": [], "took_ms": 1}
    return hits


@pytest.fixture
def sheet(imagedb, found, tmp_path) -> str:
    ran = imagedb("search", "a <red> car", "--not", "people", "--where", "iso < 400", "--sheet", "sheet.html")
    assert (ran.code, ran.data) == (0, b"")
    assert ran.words == "Wrote 6 pictures to sheet.html; 1 of them has no thumbnail.\n"
    return (tmp_path / "sheet.html").read_text(encoding="utf-8")


def test_needs_nothing_from_elsewhere(sheet):
    assert not re.search(r"https?://", sheet)
    assert "default-src 'none'" in sheet
    assert sheet.count("data:image/jpeg;base64,") == 5


def test_says_what_was_asked(sheet):
    assert "<title>a &lt;red&gt; car</title>" in sheet
    assert (
        "imagedb search &#x27;a &lt;red&gt; car&#x27; --not people --where &#x27;iso &lt; 400&#x27;" in sheet
    )


def test_no_name_is_markup(sheet):
    assert "<script" not in sheet
    assert "tu&quot;rned &lt;b&gt;&amp;.jpg" in sheet
    assert "gone%E9.jpg" in sheet


def test_replaces_a_sheet_and_nothing_else(sheet, imagedb, tmp_path):
    assert imagedb("search", "x", "--sheet", "sheet.html").code == 0
    (tmp_path / "mine.html").write_text("<p>Mine.")
    ran = imagedb("search", "x", "--sheet", "mine.html")
    assert ran.code == 2
    assert "is there already and no contact sheet" in ran.words
    assert (tmp_path / "mine.html").read_text() == "<p>Mine."


@pytest.mark.parametrize("path", ["sheet.jpg", "nowhere/sheet.html"])
def test_is_not_written_anywhere(daemon, imagedb, found, path):
    ran = imagedb("search", "x", "--sheet", path)
    assert ran.code == 2
    assert not daemon.requests
    assert os.listdir(".") == ["photos"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium here")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.usefixtures("sheet")
@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 380)])
def test_a_browser_shows_every_thumbnail(browser, tmp_path, found, scheme, width):
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 800})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((tmp_path / "sheet.html").as_uri())
    images = page.evaluate(
        "[...document.images].map("
        "i => ({w: i.naturalWidth, h: i.naturalHeight, box: i.getBoundingClientRect()}))"
    )
    assert complaints == []
    assert len(images) == 5
    shapes = [(hit["width"], hit["height"]) for hit in found[:5]]
    for image, (w, h) in zip(images, shapes, strict=True):
        assert image["w"] / image["h"] == pytest.approx(w / h, rel=0.02)
        assert image["w"] * image["h"] <= 205_000
        assert image["box"]["width"] > 50
        assert image["box"]["height"] > 20
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert "It cannot be read" in page.inner_text(".lacking") or "No such file" in page.inner_text(".lacking")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    shade = sum(map(int, re.findall(r"\d+", paper)[:3]))
    assert shade < 150 if scheme == "dark" else shade > 600
    page.close()


def test_on_paper_it_is_black_on_white_and_no_picture_is_cut(browser, sheet, tmp_path):
    page = browser.new_page(color_scheme="dark")
    page.goto((tmp_path / "sheet.html").as_uri())
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.querySelector('figure')).breakInside") == "avoid"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.pdf().startswith(b"%PDF")
    page.close()
