"""The report in a real browser: it loads in silence, asks for nothing, and answers pointer, keys, dark and paper."""

from __future__ import annotations

import base64
import functools
import http.server
import io
import json
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from helpers.photos import write_photos
from helpers.servers import serving
from PIL import Image

import headstart as hs
from headstart import report

pytestmark = pytest.mark.slow
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
NAMES = ("<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "مرحبا")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report with mistakes, hostile names and every section."""
    folder = tmp_path_factory.mktemp("browser")
    sources = [write_photos(folder / str(seed), 12, ("disc", "stripes", "dots"), seed) for seed in range(2)]
    paths, labels = [], []
    for source in sources:
        for old, new in zip(("disc", "stripes", "dots"), NAMES, strict=True):
            for path in sorted((source / old).iterdir()):
                paths.append(str(path))
                labels.append(new)
    labels[0], labels[1] = NAMES[2], NAMES[1]  # two that it must get wrong
    clf = hs.ImageClassifier(runtime="onnxruntime", cache=False, cut="features", head="ridge").fit(paths, labels)
    clf.run_["learning_curve"] = {
        "points": [{"pictures": c, "accuracy": a, "interval": [a - 0.1, a + 0.05]} for c, a in ((24, 0.7), (72, 0.9))],
        "expectation": {"more": 72, "pictures": 144, "accuracy": 0.94},
    }
    clf.save(folder / "model")
    return report.write(clf, folder / "model")


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
def seen(driver, page):
    """The page, freshly opened on a desktop in the light; what it complained of is an error at the end."""
    show(driver, page)
    yield driver
    complaints = [entry["message"] for entry in driver.get_log("browser")]
    assert complaints == []


def show(driver, page, width=1280, height=900, **media):
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})
    driver.get_log("performance")
    driver.get(page.as_uri())


def all_of(driver, selector):
    return driver.find_elements("css selector", selector)


def one(driver, selector):
    (found,) = all_of(driver, selector)
    return found


def press(driver, element):
    driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
    element.click()


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32)


def on_canvas(driver, place):
    """Where a picture's mark is drawn, in pixels from the middle of the map, as the page's own data tell."""
    told = json.loads(one(driver, "#told").get_attribute("textContent"))
    canvas = one(driver, "#places")
    width, height = (driver.execute_script(f"return arguments[0].client{side}", canvas) for side in ("Width", "Height"))
    x = told["layouts"][0]["x"][place] / 1000 * (width - 20) + 10
    y = (1 - told["layouts"][0]["y"][place] / 1000) * (height - 20) + 10
    return x - width / 2, y - height / 2


def test_it_asks_for_nothing_and_says_nothing(driver, page):
    show(driver, page)
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]
    assert driver.get_log("browser") == []
    assert driver.execute_script("return document.querySelectorAll('script').length") == 2
    broken = "return [...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    assert driver.execute_script(broken) == 0


def test_the_policy_stops_what_is_smuggled_in(driver, page, tmp_path):
    """Were a name not escaped, the policy would still stop it: a script, a style and a picture from outside."""
    asked = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_):
            pass

    with serving(Server) as address:
        bad = f'<script>document.title="hacked"</script><img src="{address}/i" onerror="document.title=\'hacked\'">'
        copy = tmp_path / "smuggled.html"
        copy.write_text(page.read_text("utf-8").replace("<footer>", bad + "<footer>"), "utf-8")
        show(driver, copy)
        title = driver.title
    assert title == "model: Headstart report"
    assert asked == []
    assert any("Content Security Policy" in entry["message"] for entry in driver.get_log("browser"))


def test_names_are_text(seen):
    names = {element.text for element in all_of(seen, ".matrix tbody th .class")}
    assert names == set(NAMES)
    assert seen.title == "model: Headstart report"


def test_a_cell_opens_its_pictures(seen):
    cell = max(all_of(seen, ".matrix td.miss button"), key=lambda c: int(c.text))
    count = int(cell.text)
    assert not one(seen, "#opened").is_displayed()
    press(seen, cell)
    assert one(seen, "#opened").is_displayed()
    assert len(all_of(seen, "#opened .card")) == count
    assert f": {count} group left out" in one(seen, "#opened-title").text
    assert all(e.is_displayed() for e in all_of(seen, "#opened .card img, #opened .card canvas"))
    press(seen, one(seen, "#close"))
    assert not one(seen, "#opened").is_displayed()


def test_a_cell_opens_by_keyboard_and_gives_the_focus_back(seen):
    from selenium.webdriver.common.keys import Keys

    cell = all_of(seen, ".matrix td.hit button")[0]
    seen.execute_script("arguments[0].focus()", cell)
    cell.send_keys(Keys.ENTER)
    assert one(seen, "#opened").is_displayed()
    sure = [float(re.search(r"([\d.]+)% sure", e.text)[1]) for e in all_of(seen, "#opened .sure")]
    assert sure == sorted(sure)
    assert len(sure) == int(cell.get_attribute("textContent"))
    seen.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not one(seen, "#opened").is_displayed()
    assert seen.switch_to.active_element == cell


def test_squares_of_the_sheet_are_the_right_pictures(seen):
    """A card without a thumbnail shows its square of the sheet: it must look like the picture's own file."""
    press(seen, all_of(seen, ".matrix td.hit button")[0])
    cards = [c for c in all_of(seen, "#opened .card") if c.find_elements("css selector", "canvas")]
    assert cards
    own = {path: small(path) for path in _folder(seen).glob("[01]/*/*.jpg")}
    for card in cards[:4]:
        data = seen.execute_script("return arguments[0].querySelector('canvas').toDataURL()", card)
        told = seen.execute_script("return arguments[0].querySelector('.path').textContent", card)
        shown = small(io.BytesIO(base64.b64decode(data.split(",")[1])))
        assert str(min(own, key=lambda path: np.abs(own[path] - shown).mean())).endswith(told)


def small(file):
    """The middle square of a picture at 12 x 12: fine stripes depend on the way of shrinking, this does not."""
    with Image.open(file) as image:
        edge = min(image.size)
        left, top = (image.width - edge) // 2, (image.height - edge) // 2
        square = image.convert("RGB").crop((left, top, left + edge, top + edge))
    return np.asarray(square.resize((12, 12), Image.Resampling.BOX), np.float32)


def _folder(driver):
    return Path(driver.current_url.removeprefix("file://")).parent.parent


def test_the_map_answers_the_pointer(seen):
    from selenium.webdriver import ActionChains

    canvas = one(seen, "#places")
    seen.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", canvas)
    told = json.loads(one(seen, "#told").get_attribute("textContent"))
    for place in (5, 40):
        x, y = on_canvas(seen, place)
        ActionChains(seen).move_to_element_with_offset(canvas, round(x), round(y)).perform()
        chosen = int(canvas.get_attribute("data-chosen"))
        cx, cy = on_canvas(seen, chosen)
        assert (cx - x) ** 2 + (cy - y) ** 2 <= 4  # that picture, or one drawn over it
        assert told["path"][chosen] in one(seen, "#preview-text").text
        assert told["classes"][told["truth"][chosen]] in one(seen, "#preview-text").text
        assert len(all_of(seen, "#preview-picture img, #preview-picture canvas")) == 1


def test_the_map_answers_the_keyboard(seen):
    from selenium.webdriver.common.keys import Keys

    told = json.loads(one(seen, "#told").get_attribute("textContent"))
    canvas = one(seen, "#places")

    def chosen(key):
        canvas.send_keys(key)
        return int(canvas.get_attribute("data-chosen"))

    assert chosen(Keys.HOME) == 0
    assert chosen(Keys.END) == len(told["path"]) - 1
    wrong = [i for i, (a, b) in enumerate(zip(told["truth"], told["answer"], strict=True)) if a != b]
    assert chosen("n") in wrong
    assert "taken for" in one(seen, "#preview-text").text
    assert one(seen, "#preview-text").get_attribute("aria-live") == "polite"
    start = chosen(Keys.HOME)
    for key, axis, sign in (
        (Keys.ARROW_RIGHT, 0, 1), (Keys.ARROW_LEFT, 0, -1), (Keys.ARROW_DOWN, 1, 1), (Keys.ARROW_UP, 1, -1),
    ):  # fmt: skip
        before = on_canvas(seen, start)
        start = chosen(key)
        after = on_canvas(seen, start)
        assert (after[axis] - before[axis]) * sign >= 0
    assert seen.switch_to.active_element == canvas


def test_from_every_picture_the_arrows_lead_on(seen):
    """No picture is a dead end: by arrows alone every one is left again, and many are reached."""
    from selenium.webdriver.common.keys import Keys

    canvas = one(seen, "#places")
    canvas.send_keys(Keys.HOME)
    reached = set()
    for key in [Keys.ARROW_RIGHT] * 30 + [Keys.ARROW_DOWN] * 30 + [Keys.ARROW_LEFT] * 30 + [Keys.ARROW_UP] * 30:
        canvas.send_keys(key)
        reached.add(canvas.get_attribute("data-chosen"))
    assert len(reached) > 15


def test_classes_can_be_hidden_and_the_map_arranged_anew(seen):
    def drawn():
        seen.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
        return seen.execute_script("return document.getElementById('places').toDataURL()")

    before = drawn()
    button = all_of(seen, "#legend button")[0]
    press(seen, button)
    assert button.get_attribute("aria-pressed") == "false"
    hidden = drawn()
    assert hidden != before
    press(seen, button)
    assert drawn() == before
    press(seen, all_of(seen, "input[name=layout]")[1])
    assert drawn() != before
    assert [e.is_displayed() for e in all_of(seen, ".about-layout")] == [False, True]


@pytest.mark.parametrize("width", [320, 375, 768, 1280])
def test_nothing_is_wider_than_the_screen(driver, page, width):
    show(driver, page, width=width, height=800)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    assert driver.get_log("browser") == []


def test_dark_is_dark_and_paper_is_white(driver, page, tmp_path):
    def ground(**media):
        show(driver, page, **media)
        shot = pixels(driver.get_screenshot_as_png())
        return shot[5, 5].mean(), shot.min(), shot.max()

    light, dark = ground(prefers_color_scheme="light"), ground(prefers_color_scheme="dark")
    assert light[0] > 250
    assert light[1] < 60
    assert dark[0] < 40
    assert dark[2] > 220
    made = driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})  # still in the dark
    (tmp_path / "page.pdf").write_bytes(base64.b64decode(made["data"]))
    reader = shutil.which("pdftoppm")
    if reader is None:
        pytest.skip("needs pdftoppm (poppler-utils) to look at the printed page")
    command = [reader, "-r", "40", "-png", "-f", "1", "-l", "1", tmp_path / "page.pdf", tmp_path / "printed"]
    subprocess.run(command, check=True)
    printed = pixels(next(tmp_path.glob("printed*.png")).read_bytes())
    assert printed[5, 5].mean() > 250
    assert printed.min() < 90


def contrast(one_colour, other):
    """The contrast of two colours, 1 to 21 (WCAG 2.1, 1.4.3)."""

    def light(colour):
        channels = [int(c) / 255 for c in re.findall(r"\d+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(one_colour), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out(driver, page, scheme):
    show(driver, page, prefers_color_scheme=scheme)
    colour = functools.partial(
        driver.execute_script,
        "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]",
    )
    ground, raised = colour("body", "backgroundColor"), colour(".headline", "backgroundColor")
    for words in ("body", "h1", ".eyebrow", ".sure", ".path", "nav a", "caption", ".glance a", "th"):
        assert contrast(colour(words, "color"), ground) >= 4.5, words
    for words in (".how", ".of"):
        assert contrast(colour(words, "color"), raised) >= 4.5, words


def test_a_screen_reader_finds_its_way(seen):
    levels = [int(e.tag_name[1]) for e in all_of(seen, "main h2, main h3, h1")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert one(seen, "html").get_attribute("lang") == "en"
    assert all(e.get_attribute("scope") in ("row", "col") for e in all_of(seen, "th"))
    assert all(e.get_attribute("alt") is not None for e in all_of(seen, "img"))
    assert len(all_of(seen, "table")) == len(all_of(seen, "table > caption"))
    assert all(e.get_attribute("aria-label") for e in all_of(seen, "svg[role=img]"))
    ids = seen.execute_script("return [...document.querySelectorAll('[id]')].map(e => e.id).filter(Boolean)")
    assert len(ids) == len(set(ids))
    for element in all_of(seen, "[aria-labelledby], [aria-describedby]"):
        for name in ("aria-labelledby", "aria-describedby"):
            assert element.get_attribute(name) is None or element.get_attribute(name) in ids
    unnamed = "return [...document.querySelectorAll('button')].filter(b => !(b.ariaLabel || b.textContent.trim()))"
    hidden = [e for e in seen.execute_script(unnamed) if e.get_attribute("id") not in ("more",)]
    assert hidden == []


def test_the_focus_can_be_seen_and_reaches_everything(seen):
    from selenium.webdriver.common.keys import Keys

    reached, element = [], one(seen, "body")
    while True:
        element.send_keys(Keys.TAB)
        element = seen.switch_to.active_element
        if element.tag_name == "body" or len(reached) > 300:  # once round
            break
        outline = seen.execute_script("return getComputedStyle(arguments[0]).outlineStyle", element)
        assert outline != "none"
        reached.append(element.get_attribute("id") or element.tag_name)
    assert reached[0] == "a"  # skips to the report
    assert "button" in reached
    assert "summary" in reached
    assert "places" in reached


def test_every_section_is_there(seen):
    headings = [e.text for e in all_of(seen, "h2") if e.is_displayed()]
    assert headings == [
        "How often it is right", "What it confuses", "Its mistakes and its doubts", "What is odd in the data",
        "Where it looked", "A map of the pictures", "Does it mean what it says?", "Would more pictures help?",
        "What was tried", "What it is made of",
    ]  # fmt: skip
    for link in all_of(seen, "nav a"):
        assert one(seen, link.get_attribute("href").split("#")[1].join(("#", ""))).is_displayed()
