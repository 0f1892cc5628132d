"""The page of 500 predictions in a real browser: sorted, filtered, enlarged, and nothing run."""

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Browser

from napari_msp.review.predictions import open_review
from napari_msp.review.ratings import Ratings
from napari_msp.review.report import review_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]

EVIL = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"


@pytest.fixture(scope="module")
def many(tmp_path_factory, predict_many) -> Path:
    return predict_many(tmp_path_factory.mktemp("many") / "predictions", 500)


@pytest.fixture(scope="module")
def browser(many, tmp_path_factory):
    path = review_report(open_review(many))
    print(f"report of 500: {path.stat().st_size / 1e6:.1f} MB")
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        began = time.perf_counter()
        opened.open(path)
        print(f"loaded in {time.perf_counter() - began:.1f} s")
        yield opened


SHOWN = (
    """[...document.querySelectorAll('.entry')].filter(e => !e.hidden).map(e => e.dataset.name)"""
)


def test_nothing_complains_and_nothing_of_others_runs(browser):
    complaints = [
        each["params"]
        for each in browser.events
        if each["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")
    ]
    assert complaints == []
    assert browser.run("document.title") == "Review of predictions"
    assert browser.run("document.querySelectorAll('script').length") == 1
    assert browser.run("document.body.innerText.includes('onerror')")
    # Its own policy refuses what an injected script would do.
    browser.run(
        "const s = document.createElement('script'); s.textContent = \"document.title = 'run'\";"
        "document.body.append(s); s.remove()"
    )
    assert browser.run("document.title") == "Review of predictions"


def test_columns_sort_both_ways(browser):
    assert browser.run("document.querySelectorAll('.entry').length") == 500
    browser.click("th[data-by='snr']")
    first = browser.run(f"{SHOWN}[0]")
    values = browser.run(
        "[...document.querySelectorAll('.entry')].map(e => Number(e.rows[0].cells[2].dataset.v))"
    )
    assert values == sorted(values, reverse=True)
    browser.click("th[data-by='snr']")
    assert browser.run(f"{SHOWN}.at(-1)") == first
    assert browser.run("document.querySelector('th[data-by=snr]').ariaSort") == "ascending"
    browser.click("th[data-by='name']")
    names = browser.run(SHOWN)
    assert names == sorted(names)
    browser.click("th[data-by='risk']")
    assert browser.run(f"{SHOWN}[0]").startswith("sub-007")


def test_rows_are_filtered(browser):
    for value, name in (("fail", "sub-007"), ("unusual", "sub-007")):
        browser.run(
            "(() => { const s = document.getElementById('status');"
            f"s.value = {value!r}; s.dispatchEvent(new Event('input')); }})()"
        )
        shown = browser.run(SHOWN)
        assert 0 < len(shown) < 500
        assert any(each.startswith(name) for each in shown)
    browser.run(
        "(() => { const s = document.getElementById('status'); s.value = '';"
        "s.dispatchEvent(new Event('input')); })()"
    )
    browser.click("#find")
    browser.ask("Input.insertText", text="SUB-123")
    assert browser.run(SHOWN) == ["sub-123 ses-ge MSP prisma_st"]
    assert browser.run("document.getElementById('count').textContent") == "1 of 500"
    browser.ask("Input.insertText", text=" nobody")
    assert browser.run(SHOWN) == []
    assert browser.run("document.getElementById('nothing').hidden") is False
    browser.run(
        "(() => { const f = document.getElementById('find'); f.value = '';"
        "f.dispatchEvent(new Event('input')); })()"
    )
    assert len(browser.run(SHOWN)) == 500


def test_a_picture_is_enlarged_and_keys_go_on(browser):
    browser.click(".entry .strip")
    browser.run("new Promise(done => setTimeout(done, 300))")
    assert browser.run("document.getElementById('large').open")
    assert browser.run("document.getElementById('title').textContent").startswith("sub-007")
    brightest = (
        "document.querySelector('#panels canvas').getContext('2d')"
        ".getImageData(0, 0, 250, 250).data.reduce((a, b, i) => i % 4 < 3 ? Math.max(a, b) : a, 0)"
    )
    assert browser.run(brightest) > 100
    assert browser.run("document.querySelectorAll('#panels canvas').length") == 4
    second = browser.run(f"{SHOWN}[1]")
    browser.press("ArrowRight")
    assert browser.run("document.getElementById('title').textContent") == second
    browser.press("ArrowLeft")
    browser.press("Escape")
    assert not browser.run("document.getElementById('large').open")


def test_a_dot_opens_its_prediction(browser):
    number = browser.run("document.querySelector('circle.out').dataset.e")
    browser.click("circle.out")
    title = browser.run("document.getElementById('title').textContent")
    assert title == browser.run(f"document.getElementById('e{number}').dataset.name")
    browser.press("Escape")


def test_it_is_dark_where_that_is_asked(browser):
    colour = "getComputedStyle(document.body).backgroundColor"
    browser.dark(False)
    light = browser.run(colour)
    browser.dark()
    assert (light, browser.run(colour)) == ("rgb(255, 255, 255)", "rgb(20, 24, 29)")
    browser.dark(False)


@pytest.fixture(scope="module")
def predict_many(pristine_pictures):
    """Write many predictions that share one head's maps."""

    def write(root: Path, count: int) -> Path:
        rng = np.random.default_rng(5)
        old = sorted(pristine_pictures.rglob("sub-01*"))
        shutil.copy(pristine_pictures / "dataset_description.json", root.parent)
        root.mkdir()
        shutil.move(root.parent / "dataset_description.json", root)
        for number in range(1, count + 1):
            for path in (each for each in old if each.is_file()):
                inside = str(path.relative_to(pristine_pictures))
                new = root / inside.replace("sub-01", f"sub-{number:03d}")
                new.parent.mkdir(parents=True, exist_ok=True)
                if path.name.endswith("_dwi.json"):
                    content = json.loads(path.read_text())
                    content["Measures"] = {
                        "SNR": 4.0 if number == 7 else float(rng.normal(20, 1)),
                        "MaskVolume": float(rng.normal(1400, 100)),
                        "DisagreementOfOrder0": float(rng.normal(0.01, 0.001)),
                    }
                    content["Warnings"] = [EVIL] * (number == 9)
                    new.write_text(json.dumps(content))
                else:
                    os.link(path, new)
        ratings = Ratings.open(root, "anna")
        for entry in open_review(root).entries[:20]:
            ratings.rate(entry, "fail" if entry.subject == "sub-007" else "pass", EVIL)
        return root

    return write
