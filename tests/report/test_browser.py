"""The page in a browser: no requests, no errors; pointer, keyboard, screen reader, dark scheme and print."""

from __future__ import annotations

import base64
import functools
import http.server
import io
import json
import re
import shutil
import subprocess
import time
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from helpers.photos import write_photos
from helpers.servers import serving
from PIL import Image

from headstart import report
from headstart.classifier import FitOptions, fit_dataset
from headstart.data import from_images
from headstart.features import Compute
from headstart.model.folder import write_model

pytestmark = pytest.mark.slow
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
NAMES = ("<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "مرحبا")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report with errors, hostile names and every section."""
    folder = tmp_path_factory.mktemp("browser")
    sources = [write_photos(folder / str(seed), 12, ("disc", "stripes", "dots"), seed) for seed in range(2)]
    paths, labels = [], []
    for source in sources:
        for old, new in zip(("disc", "stripes", "dots"), NAMES, strict=True):
            for path in sorted((source / old).iterdir()):
                paths.append(str(path))
                labels.append(new)
    labels[0], labels[1] = NAMES[2], NAMES[1]  # two wrong labels, which must become errors
    options = FitOptions("headstart-s", compute=Compute("onnxruntime"), cache=False, cut="features", head="ridge")
    result = fit_dataset(from_images(paths, labels), options)
    learning_curve = {
        "points": [{"pictures": c, "accuracy": a, "interval": [a - 0.1, a + 0.05]} for c, a in ((24, 0.7), (72, 0.9))],
        "expectation": {"more": 72, "pictures": 144, "accuracy": 0.94},
    }
    model = replace(result.model, run={**result.model.run, "learning_curve": learning_curve})
    return report.write_report(replace(result, model=model), write_model(model, folder / "model"))


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    if BROWSER is None or DRIVER is None:
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    selenium = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")
    from selenium.webdriver.chrome.service import Service

    options = selenium.ChromeOptions()
    options.binary_location = BROWSER
    for argument in (*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('browser-profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = selenium.Chrome(options=options, service=Service(DRIVER))
    yield browser
    browser.quit()


@pytest.fixture
def browser(driver, page):
    """The page opened at desktop size in the light scheme; the browser's log must be empty at the end."""
    show(driver, page)
    yield driver
    messages = [entry["message"] for entry in driver.get_log("browser")]
    assert messages == []


def show(driver, page, width=1280, height=900, **media):
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})
    driver.get_log("performance")
    driver.get(page.as_uri())
    until = time.monotonic() + 30
    while not elements(driver, "#details") and time.monotonic() < until:  # the last section: the page is there
        time.sleep(0.05)


def elements(driver, selector):
    return driver.find_elements("css selector", selector)


def element(driver, selector):
    (match,) = elements(driver, selector)
    return match


def report_data(driver):
    return json.loads(element(driver, "#report-data").get_attribute("textContent"))


def click(driver, element):
    driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
    element.click()


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32)


def position_on_map(driver, index):
    """Position of an image's mark in pixels from the center of the map, computed from the page's data."""
    projection = report_data(driver)["projections"][0]
    canvas = element(driver, "#map")
    width, height = (driver.execute_script(f"return arguments[0].client{side}", canvas) for side in ("Width", "Height"))
    x = projection["x"][index] / 1000 * (width - 20) + 10
    y = (1 - projection["y"][index] / 1000) * (height - 20) + 10
    return x - width / 2, y - height / 2


def test_the_page_makes_no_request_and_logs_nothing(driver, page):
    show(driver, page)
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in urls if not url.startswith("data:")] == [page.as_uri()]
    assert driver.get_log("browser") == []
    assert driver.execute_script("return document.querySelectorAll('script').length") == 2
    broken = "return [...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    assert driver.execute_script(broken) == 0


def test_the_policy_blocks_injected_markup(driver, page, tmp_path):
    """Even if a name were not escaped, the policy would block its script and its image from another host."""
    requests = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_):
            pass

    with serving(Server) as address:
        bad = f'<script>document.title="hacked"</script><img src="{address}/i" onerror="document.title=\'hacked\'">'
        copy = tmp_path / "injected.html"
        copy.write_text(page.read_text("utf-8").replace("<footer>", bad + "<footer>"), "utf-8")
        show(driver, copy)
        title = driver.title
    assert title == "model: Headstart report"
    assert requests == []
    assert any("Content Security Policy" in entry["message"] for entry in driver.get_log("browser"))


def test_names_are_text(browser):
    names = {e.text for e in elements(browser, ".matrix tbody th .class")}
    assert names == set(NAMES)
    assert browser.title == "model: Headstart report"


def test_a_cell_opens_its_images(browser):
    cell = max(elements(browser, ".matrix td.error button"), key=lambda c: int(c.text))
    count = int(cell.text)
    assert not element(browser, "#image-dialog").is_displayed()
    click(browser, cell)
    assert element(browser, "#image-dialog").is_displayed()
    assert len(elements(browser, "#image-dialog .card")) == count
    assert f"(leave-one-group-out): {count} image" in element(browser, "#dialog-title").text
    assert all(e.is_displayed() for e in elements(browser, "#image-dialog .card img, #image-dialog .card canvas"))
    click(browser, element(browser, "#close"))
    assert not element(browser, "#image-dialog").is_displayed()


def test_a_cell_opens_by_keyboard_and_gets_the_focus_back(browser):
    from selenium.webdriver.common.keys import Keys

    cell = elements(browser, ".matrix td.correct button")[0]
    browser.execute_script("arguments[0].focus()", cell)
    cell.send_keys(Keys.ENTER)
    assert element(browser, "#image-dialog").is_displayed()
    texts = [e.text for e in elements(browser, "#image-dialog .confidence")]
    confidence = [float(re.search(r"([\d.]+)% confidence", text)[1]) for text in texts]
    assert confidence == sorted(confidence)
    assert len(confidence) == int(cell.get_attribute("textContent"))
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not element(browser, "#image-dialog").is_displayed()
    assert browser.switch_to.active_element == cell


def test_tiles_of_the_sprite_sheet_show_their_images(browser):
    """A card without a thumbnail shows its tile of the sprite sheet, which must look like the image file."""
    click(browser, elements(browser, ".matrix td.correct button")[0])
    cards = [c for c in elements(browser, "#image-dialog .card") if c.find_elements("css selector", "canvas")]
    assert cards
    files = {path: small(path) for path in image_folder(browser).glob("[01]/*/*.jpg")}
    for card in cards[:4]:
        data = browser.execute_script("return arguments[0].querySelector('canvas').toDataURL()", card)
        name = browser.execute_script("return arguments[0].querySelector('.path').textContent", card)
        tile = small(io.BytesIO(base64.b64decode(data.split(",")[1])))
        assert str(min(files, key=lambda path: np.abs(files[path] - tile).mean())).endswith(name)


def small(file):
    """The central square of an image at 12 x 12, where the method of shrinking hardly matters."""
    with Image.open(file) as image:
        edge = min(image.size)
        left, top = (image.width - edge) // 2, (image.height - edge) // 2
        square = image.convert("RGB").crop((left, top, left + edge, top + edge))
    return np.asarray(square.resize((12, 12), Image.Resampling.BOX), np.float32)


def image_folder(driver):
    return Path(driver.current_url.removeprefix("file://")).parent.parent


def test_the_map_follows_the_pointer(browser):
    from selenium.webdriver import ActionChains

    canvas = element(browser, "#map")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", canvas)
    data = report_data(browser)
    for index in (5, 40):
        x, y = position_on_map(browser, index)
        ActionChains(browser).move_to_element_with_offset(canvas, round(x), round(y)).perform()
        selected = int(canvas.get_attribute("data-selected"))
        selected_x, selected_y = position_on_map(browser, selected)
        assert (selected_x - x) ** 2 + (selected_y - y) ** 2 <= 4  # that image, or one drawn over it
        assert data["paths"][selected] in element(browser, "#preview-text").text
        assert data["classNames"][data["trueClass"][selected]] in element(browser, "#preview-text").text
        assert len(elements(browser, "#preview-image img, #preview-image canvas")) == 1


def test_the_map_follows_the_keyboard(browser):
    from selenium.webdriver.common.keys import Keys

    data = report_data(browser)
    canvas = element(browser, "#map")

    def selected_after(key):
        canvas.send_keys(key)
        return int(canvas.get_attribute("data-selected"))

    assert selected_after(Keys.HOME) == 0
    assert selected_after(Keys.END) == len(data["paths"]) - 1
    errors = [i for i, (a, b) in enumerate(zip(data["trueClass"], data["predictedClass"], strict=True)) if a != b]
    assert selected_after("n") in errors
    assert "classified as" in element(browser, "#preview-text").text
    assert element(browser, "#preview-text").get_attribute("aria-live") == "polite"
    directions = {
        Keys.ARROW_RIGHT: (0, 1),
        Keys.ARROW_LEFT: (0, -1),
        Keys.ARROW_DOWN: (1, 1),
        Keys.ARROW_UP: (1, -1),
    }
    selected = selected_after(Keys.HOME)
    for key, (axis, sign) in directions.items():
        before = position_on_map(browser, selected)
        selected = selected_after(key)
        after = position_on_map(browser, selected)
        assert (after[axis] - before[axis]) * sign >= 0
    assert browser.switch_to.active_element == canvas


def test_the_arrow_keys_reach_many_images(browser):
    """No image is a dead end."""
    from selenium.webdriver.common.keys import Keys

    canvas = element(browser, "#map")
    canvas.send_keys(Keys.HOME)
    reached = set()
    for key in [Keys.ARROW_RIGHT] * 30 + [Keys.ARROW_DOWN] * 30 + [Keys.ARROW_LEFT] * 30 + [Keys.ARROW_UP] * 30:
        canvas.send_keys(key)
        reached.add(canvas.get_attribute("data-selected"))
    assert len(reached) > 15


def test_classes_can_be_hidden_and_the_projection_changed(browser):
    def drawn():
        browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
        return browser.execute_script("return document.getElementById('map').toDataURL()")

    before = drawn()
    button = elements(browser, "#legend button")[0]
    click(browser, button)
    assert button.get_attribute("aria-pressed") == "false"
    hidden = drawn()
    assert hidden != before
    click(browser, button)
    assert drawn() == before
    click(browser, elements(browser, "input[name=projection]")[1])
    assert drawn() != before
    assert [e.is_displayed() for e in elements(browser, ".map-description")] == [False, True]


@pytest.mark.parametrize("width", [320, 375, 768, 1280])
def test_the_page_fits_the_screen(driver, page, width):
    show(driver, page, width=width, height=800)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    assert driver.get_log("browser") == []


def test_words_are_not_broken_on_a_narrow_screen(driver, page):
    show(driver, page, width=375, height=800)
    driver.execute_script("document.querySelectorAll('details').forEach(details => details.open = true)")
    click(driver, elements(driver, ".matrix td.correct button")[0])
    lines = """
        const range = document.createRange();
        range.selectNodeContents(arguments[0]);
        return range.getClientRects().length;
    """
    cells = elements(driver, "#heads td:nth-child(4), #heads td:nth-child(6), #calibration td:last-child, #close")
    assert len(cells) > 10
    assert {driver.execute_script(lines, cell) for cell in cells} == {1}


def test_the_dark_scheme_is_dark_and_print_is_white(driver, page, tmp_path):
    def brightness(**media):
        show(driver, page, **media)
        screenshot = pixels(driver.get_screenshot_as_png())
        return screenshot[5, 5].mean(), screenshot.min(), screenshot.max()

    light, dark = brightness(prefers_color_scheme="light"), brightness(prefers_color_scheme="dark")
    assert light[0] > 250
    assert light[1] < 60
    assert dark[0] < 40
    assert dark[2] > 220
    pdf = driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})  # still in the dark scheme
    (tmp_path / "page.pdf").write_bytes(base64.b64decode(pdf["data"]))
    converter = shutil.which("pdftoppm")
    if converter is None:
        pytest.skip("needs pdftoppm (poppler-utils) to convert the printed page")
    command = [converter, "-r", "40", "-png", "-f", "1", "-l", "1", tmp_path / "page.pdf", tmp_path / "printed"]
    subprocess.run(command, check=True)
    printed = pixels(next(tmp_path.glob("printed*.png")).read_bytes())
    assert printed[5, 5].mean() > 250
    assert printed.min() < 90


def contrast(first, second):
    """The contrast ratio of two colours, 1 to 21 (WCAG 2.1, 1.4.3)."""

    def luminance(colour):
        channels = [int(c) / 255 for c in re.findall(r"\d+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(driver, page, scheme):
    show(driver, page, prefers_color_scheme=scheme)
    colour = functools.partial(
        driver.execute_script,
        "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]",
    )
    page_colour, surface = colour("body", "backgroundColor"), colour(".headline", "backgroundColor")
    for selector in ("body", "h1", ".eyebrow", ".confidence", ".path", "nav a", "caption", ".points a", "th"):
        assert contrast(colour(selector, "color"), page_colour) >= 4.5, selector
    for selector in (".explanation", ".counts"):
        assert contrast(colour(selector, "color"), surface) >= 4.5, selector


def test_the_page_is_accessible_to_screen_readers(browser):
    levels = [int(e.tag_name[1]) for e in elements(browser, "main h2, main h3, h1")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert element(browser, "html").get_attribute("lang") == "en"
    assert all(e.get_attribute("scope") in ("row", "col") for e in elements(browser, "th"))
    assert all(e.get_attribute("alt") is not None for e in elements(browser, "img"))
    assert len(elements(browser, "table")) == len(elements(browser, "table > caption"))
    assert all(e.get_attribute("aria-label") for e in elements(browser, "svg[role=img]"))
    ids = browser.execute_script("return [...document.querySelectorAll('[id]')].map(e => e.id).filter(Boolean)")
    assert len(ids) == len(set(ids))
    for labelled in elements(browser, "[aria-labelledby], [aria-describedby]"):
        for name in ("aria-labelledby", "aria-describedby"):
            assert labelled.get_attribute(name) is None or labelled.get_attribute(name) in ids
    unnamed = "return [...document.querySelectorAll('button')].filter(b => !(b.ariaLabel || b.textContent.trim()))"
    hidden = [e for e in browser.execute_script(unnamed) if e.get_attribute("id") not in ("more",)]
    assert hidden == []


def test_the_focus_is_visible_and_reaches_everything(browser):
    from selenium.webdriver.common.keys import Keys

    reached, active = [], element(browser, "body")
    while True:
        active.send_keys(Keys.TAB)
        active = browser.switch_to.active_element
        if active.tag_name == "body" or len(reached) > 300:  # once around
            break
        outline = browser.execute_script("return getComputedStyle(arguments[0]).outlineStyle", active)
        assert outline != "none"
        reached.append(active.get_attribute("id") or active.tag_name)
    assert reached[0] == "a"  # the link that skips to the report
    assert "button" in reached
    assert "summary" in reached
    assert "map" in reached


def test_every_section_is_there(browser):
    def headings():
        return [e.text for e in elements(browser, "h2") if e.is_displayed()]

    from selenium.common.exceptions import TimeoutException
    from selenium.webdriver.support.ui import WebDriverWait

    with suppress(TimeoutException):  # a busy machine is still drawing the page
        WebDriverWait(browser, 30).until(lambda _: len(headings()) >= 10)
    assert headings() == [
        "Accuracy",
        "Confusion matrix",
        "Errors and uncertain images",
        "Data check",
        "Where the model looked",
        "Map of the images",
        "Calibration",
        "Learning curve",
        "Heads compared",
        "Details",
    ]
    for link in elements(browser, "nav a"):
        assert element(browser, link.get_attribute("href").split("#")[1].join(("#", ""))).is_displayed()
