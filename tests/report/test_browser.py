"""The page in a browser: no requests, no errors; pointer, keyboard, screen reader, dark scheme and print."""

from __future__ import annotations

import base64
import functools
import http.server
import io
import json
import re
import shlex
import shutil
import subprocess
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from helpers.browser import accessibility_violations, click, element, elements, show
from helpers.photos import write_photos
from helpers.servers import serving
from PIL import Image

from headstart import report
from headstart.classifier import FitOptions, fit_dataset
from headstart.data import from_images
from headstart.features import Compute
from headstart.model.folder import write_model

pytestmark = pytest.mark.slow
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


@pytest.fixture
def browser(driver, page):
    """The page opened at desktop size in the light scheme; the browser's log must be empty at the end."""
    show(driver, page)
    yield driver
    messages = [entry["message"] for entry in driver.get_log("browser")]
    assert messages == []


def report_data(driver):
    return json.loads(element(driver, "#report-data").get_attribute("textContent"))


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
    # What begins with chrome:// is of the page that the browser shows as it starts.
    assert [url for url in urls if not url.startswith(("data:", "chrome://"))] == [page.as_uri()]
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
    assert f"(training, group left out): {count} image" in element(browser, "#dialog-title").text
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
    confidence = [float(re.search(r" ([\d.]+)%", text)[1]) for text in texts]
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
    assert "taken for" in element(browser, "#preview-text").text
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


@pytest.mark.parametrize("width", [320, 700, 1280])
def test_the_accuracy_is_beside_its_count_whatever_it_is(driver, page, width):
    show(driver, page, width=width, height=800)
    for text in ("87.5%", "100.0%", "over 99.9%"):
        wide, left, room = driver.execute_script(
            """
            const [figure, counts] = document.querySelector(".headline").children;
            figure.textContent = arguments[0];
            const range = document.createRange();
            range.selectNodeContents(figure);
            const { left, width } = counts.getBoundingClientRect();
            return [range.getBoundingClientRect().right, left, width];
            """,
            text,
        )
        assert wide + 8 < left
        assert room > 60


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
    page_colour, surface = colour("body", "backgroundColor"), colour(".headlines", "backgroundColor")
    for selector in (
        "body",
        "h1",
        ".eyebrow",
        ".explanation",
        ".confidence",
        ".path",
        "nav a",
        "caption",
        ".points a",
        "th",
    ):
        assert contrast(colour(selector, "color"), page_colour) >= 4.5, selector
    for selector in (".range", ".counts"):
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
    unnamed = """
        const named = "img[alt]:not([alt='']), [aria-label]";
        const hasName = (b) => b.ariaLabel || b.textContent.trim() || b.querySelector(named);
        return [...document.querySelectorAll("button")].filter((b) => !hasName(b));
    """
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
        "Result",
        "Classes",
        "Confusion matrix",
        "Errors and uncertain images",
        "Find images",
        "Data check",
        "What more images would bring",
        "Choose a threshold",
        "Where the model looked",
        "Map of the images",
        "Can the probabilities be trusted?",
        "Details",
    ]
    for link in elements(browser, "nav a"):
        assert element(browser, link.get_attribute("href").split("#")[1].join(("#", ""))).is_displayed()


def test_an_image_is_enlarged_and_the_keys_go_to_its_neighbours(browser):
    from selenium.webdriver.common.keys import Keys

    data = report_data(browser)
    gallery = elements(browser, "#errors [data-gallery=errors] .enlarge")
    members = [e.get_attribute("data-members") or e.get_attribute("data-image") for e in gallery]
    order = [int(i) for images in members for i in images.split(",")]
    assert len(order) >= 2

    def shown():
        return element(browser, "#viewer-text").text.split("\n")[-1]

    browser.execute_script("arguments[0].focus()", gallery[0])
    gallery[0].send_keys(Keys.ENTER)
    assert element(browser, "#viewer").is_displayed()
    assert shown() == data["paths"][order[0]]
    first = order[0]
    true_name, predicted_name = (data["classNames"][data[key][first]] for key in ("trueClass", "predictedClass"))
    assert element(browser, "#viewer-title").text == f"{true_name}, taken for {predicted_name}"
    assert f"{data['confidence'][first]:.1f}%" in element(browser, "#viewer-text").text
    for key, place in (
        (Keys.ARROW_RIGHT, 1),
        (Keys.END, -1),
        (Keys.ARROW_RIGHT, -1),
        (Keys.HOME, 0),
        (Keys.ARROW_LEFT, 0),
    ):
        browser.switch_to.active_element.send_keys(key)
        assert shown() == data["paths"][order[place]]
    side = browser.execute_script("return document.querySelector('#viewer-stage > *').clientWidth")
    assert side > 300  # of a thumbnail of 192 pixels
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not element(browser, "#viewer").is_displayed()
    assert browser.switch_to.active_element == gallery[0]


def test_an_enlarged_image_shows_and_hides_its_activation_map(browser):
    click(browser, elements(browser, "#activation-maps .enlarge")[0])
    assert len(elements(browser, "#viewer-stage .overlay")) == 1
    browser.switch_to.active_element.send_keys("m")
    assert elements(browser, "#viewer-stage .overlay") == []
    assert element(browser, "#viewer-map").get_attribute("aria-pressed") == "false"
    click(browser, element(browser, "#viewer-map"))
    assert len(elements(browser, "#viewer-stage .overlay")) == 1
    click(browser, element(browser, "#viewer-close"))


def test_images_are_found_by_name_class_and_error(browser):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select

    data = report_data(browser)
    is_error = [t != p for t, p in zip(data["trueClass"], data["predictedClass"], strict=True)]
    field = element(browser, "#filter-text")
    field.send_keys("007.JPG")
    expected = [path for path in data["paths"] if "007.jpg" in path]

    def found():
        return [e.get_attribute("textContent") for e in elements(browser, "#found .path")]

    assert found() == expected
    assert element(browser, "#find-count").text.startswith(f"{len(expected)} of {len(data['paths'])}")
    field.clear()
    field.send_keys("x", Keys.BACKSPACE)  # clear() alone sends no input event
    assert found() == []
    click(browser, element(browser, "#filter-errors"))
    assert found() == [path for path, wrong in zip(data["paths"], is_error, strict=True) if wrong][:24]
    true_class = data["trueClass"][is_error.index(True)]
    Select(element(browser, "#filter-true")).select_by_value(str(true_class))
    assert found() == [
        path
        for path, wrong, truth in zip(data["paths"], is_error, data["trueClass"], strict=True)
        if wrong and truth == true_class
    ]
    assert NAMES[0] in {e.text for e in elements(browser, "#filter-true option")}


def test_the_table_of_classes_sorts_by_any_column(browser):
    def column(number):
        cells = elements(browser, f"#classes tbody tr > :nth-child({number})")
        return [cell.get_attribute("data-value") for cell in cells]

    for number in (2, 3, 4, 5, 6):
        button = elements(browser, f"#classes thead th:nth-child({number}) .sort")[0]
        click(browser, button)
        assert column(number) == sorted(column(number), key=float, reverse=True)
        click(browser, button)
        assert column(number) == sorted(column(number), key=float)
    click(browser, elements(browser, "#classes thead th:nth-child(1) .sort")[0])
    assert set(column(1)) == set(NAMES)
    headings = elements(browser, "#classes thead th[aria-sort]")
    assert [e.get_attribute("aria-sort") for e in headings] == ["ascending"]


def test_a_threshold_shows_what_it_would_do(browser):
    """The counts of the page, from the images that it lists, by another way."""
    from selenium.webdriver.support.ui import Select

    data = report_data(browser)
    chooser = Select(element(browser, "#threshold-class"))
    assert {option.text for option in chooser.options} == set(NAMES)
    number = data["classNames"].index(NAMES[1])
    chooser.select_by_value(str(number))
    called = sum(p == number for p in data["predictedClass"])
    found = sum(p == t == number for p, t in zip(data["predictedClass"], data["trueClass"], strict=True))
    total = data["trueClass"].count(number)
    text = element(browser, "#threshold-text").text
    assert "Threshold 0.50" in text
    assert f"{found} of {total} {NAMES[1]} found (recall {found / total:.1%})" in text
    assert f"of {called} images called {NAMES[1]}, {found} are (precision {found / called:.1%})" in text
    cost = element(browser, "#cost-miss")
    cost.clear()
    cost.send_keys("1000")
    assert f"Cost {1000 * (total - found) + called - found:,}." in element(browser, "#threshold-text").text
    click(browser, element(browser, "#threshold-best button"))
    (counts,) = [entry["classes"][str(number)] for entry in data["classThresholds"]]
    costs = [1000 * (counts[0] - f) + alarms for f, alarms in zip(counts[1], counts[2], strict=True)]
    best = data["thresholds"][int(element(browser, "#threshold").get_attribute("value"))]
    assert costs[data["thresholds"].index(best)] == min(costs)
    # A class may be named like a command: the option is one word of a shell.
    command = element(browser, "#threshold-command code").text
    assert shlex.split(command)[-1] == f"{NAMES[1]}={best:.2f}"


def test_more_errors_are_shown_on_request(browser):
    parts = elements(browser, "[data-gallery=errors] .card")
    visible = [e for e in parts if e.is_displayed()]
    assert len(visible) == min(12, len(parts))
    for button in elements(browser, "#errors .reveal"):
        while button.is_displayed():
            click(browser, button)
    assert all(e.is_displayed() for e in elements(browser, "#errors .card"))


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(driver, page, width, scheme):
    assert accessibility_violations(driver, page, width=width, height=844, prefers_color_scheme=scheme) == []


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 900)])
def test_the_first_screen_has_the_weakest_class_and_the_worst_confusions(driver, page, width, height):
    show(driver, page, width=width, height=height)
    for selector in ("h1", ".origin", ".lead", ".worst dd", ".worst button"):
        matches = elements(driver, selector)
        assert matches, selector
        for match in matches:
            bottom = driver.execute_script("return arguments[0].getBoundingClientRect().bottom", match)
            assert 0 < bottom <= height, selector
    assert len(elements(driver, ".worst button")) == 2


def test_headings_of_a_matrix_of_many_classes_stay_in_view(driver, page, tmp_path):
    """A copy of the page whose matrix is made larger than its region."""
    show(driver, page, width=390, height=844)
    region = elements(driver, ".frozen")[0]
    driver.execute_script(
        """
        const body = arguments[0].querySelector("tbody");
        for (let i = 0; i < 40; i++) body.append(body.rows[0].cloneNode(true));
        for (const row of arguments[0].querySelectorAll("tr")) {
          for (let i = 0; i < 40; i++) row.append(row.cells[1].cloneNode(true));
        }
        dispatchEvent(new Event("resize"));
        arguments[0].scrollTo(900, 900);
        """,
        region,
    )
    assert elements(driver, ".scroll-hint")[0].is_displayed()
    place = "const box = arguments[0].getBoundingClientRect(); return [box.left, box.top]"
    left, top = driver.execute_script(place, region)
    for selector, axis in (("thead th:nth-child(20)", 1), ("tbody tr:nth-child(20) th", 0)):
        heading = region.find_element("css selector", selector)
        assert abs(driver.execute_script(place, heading)[axis] - (left, top)[axis]) < 5


def test_on_a_narrow_screen_sections_are_folded_and_links_open_them(driver, page):
    show(driver, page, width=1280, height=900)
    assert elements(driver, ".fold") == []
    names = {section.get_attribute("id") for section in elements(driver, "main > section")}
    contents = {name: element(driver, f"#{name}").get_attribute("textContent") for name in names}
    show(driver, page, width=390, height=844)
    folded = {fold.find_element("xpath", "..").get_attribute("id") for fold in elements(driver, ".fold")}
    assert folded == names - {"accuracy", "classes", "confusion-matrix", "errors"}
    assert not any(fold.get_attribute("open") for fold in elements(driver, ".fold"))
    assert driver.execute_script("return document.documentElement.scrollHeight") < 8000
    for name in names - {"errors", "confusion-matrix"}:  # nothing is lost; these count what they show
        text = element(driver, f"#{name}").get_attribute("textContent")
        assert text.split() == contents[name].split(), name
    shown = [card for card in elements(driver, "#errors .card") if card.is_displayed()]
    assert len(shown) <= 12
    link = element(driver, "nav a[href='#image-map']")
    driver.execute_script("arguments[0].click()", link)
    assert element(driver, "#map").is_displayed()
    assert driver.execute_script("return document.getElementById('map').width") > 100  # drawn at its size
    show(driver, page.with_name(f"{page.name}"), width=390, height=844)
    driver.get(f"{page.as_uri()}#details")
    assert element(driver, "#details .fold").get_attribute("open")


def test_a_folded_section_is_opened_by_the_keyboard(driver, page):
    from selenium.webdriver.common.keys import Keys

    show(driver, page, width=390, height=844)
    heading = element(driver, "#calibration .fold > summary")
    driver.execute_script("arguments[0].focus()", heading)
    heading.send_keys(Keys.ENTER)
    assert element(driver, "#calibration .charts").is_displayed()
