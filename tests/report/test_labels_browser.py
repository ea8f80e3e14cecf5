"""The page of several labels in a browser: cells and the search open images, the viewer tells of each."""

import json
from dataclasses import replace

import pytest
from helpers.browser import accessibility_violations, click, element, elements, show

from headstart.report.labels.gather import gather_labels
from headstart.report.labels.page import render_labels

pytestmark = pytest.mark.slow
NAMES = ("<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "مرحبا")


@pytest.fixture(scope="module")
def page(label_fit, tmp_path_factory):
    path = tmp_path_factory.mktemp("labels") / "report.html"
    report = replace(gather_labels(label_fit), labels=NAMES)
    path.write_text(render_labels(report, label_fit.model.label_thresholds, label_fit.model.run, "model"), "utf-8")
    return path


@pytest.fixture
def browser(driver, page):
    """The page at desktop size; the browser's log must be empty at the end."""
    show(driver, page)
    yield driver
    assert [entry["message"] for entry in driver.get_log("browser")] == []


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "light"), (390, "dark")])
def test_the_page_fits_the_screen_and_keeps_people_in(driver, page, width, scheme):
    show(driver, page, width=width, height=844, prefers_color_scheme=scheme)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in urls if not url.startswith(("data:", "chrome://"))] == [page.as_uri()]
    broken = "return [...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    assert driver.execute_script(broken) == 0
    assert accessibility_violations(driver, page, width=width, height=844, prefers_color_scheme=scheme) == []


def test_names_are_text(browser):
    assert {e.get_attribute("textContent") for e in elements(browser, ".matrix tbody th .class")} == set(NAMES)
    assert {e.get_attribute("textContent") for e in elements(browser, "#filter-true option")} == {*NAMES, "any label"}


def test_a_cell_opens_the_images_that_have_both_labels(browser, label_fit):
    predictions = label_fit.evaluations["validation"].predictions
    for what, cells in (("true", predictions.label_truth), ("said", predictions.decisions)):
        table = element(browser, f".matrix[data-set='0'][data-what='{what}']")
        button = table.find_element("css selector", "button[data-first='2'][data-second='0']")
        count = int((cells[:, 0] & cells[:, 2]).sum())
        assert int(button.text) == count > 0
        click(browser, button)
        assert len(elements(browser, "#image-dialog .card")) == count
        how = "labelled" if what == "true" else "predicted"
        title = f"{NAMES[2]} and {NAMES[0]}, {how} (validation): {count} image"
        assert element(browser, "#dialog-title").text.startswith(title)
        click(browser, element(browser, "#close"))


def test_the_search_finds_by_label_and_by_error(browser, label_fit):
    from selenium.webdriver.support.ui import Select

    truth, said = (
        [cells for name in label_fit.evaluations for cells in getattr(label_fit.evaluations[name].predictions, field)]
        for field in ("label_truth", "decisions")
    )
    Select(element(browser, "#filter-true")).select_by_value("1")
    found = sum(bool(cells[1]) for cells in truth)
    assert element(browser, "#find-count").text == f"{found} of 110 images found."
    Select(element(browser, "#filter-said")).select_by_value("0")
    found = sum(bool(a[1] and b[0]) for a, b in zip(truth, said, strict=True))
    assert element(browser, "#find-count").text == f"{found} of 110 images found."
    for name in ("true", "said"):
        Select(element(browser, f"#filter-{name}")).select_by_value("")
    click(browser, element(browser, "#filter-errors"))
    wrong = sum((a != b).any() for a, b in zip(truth, said, strict=True))
    assert element(browser, "#find-count").text == f"{wrong} of 110 images found."


def test_the_viewer_says_of_each_label_whether_it_is_right(browser, label_fit):
    suspect = elements(browser, "#errors .enlarge")[0]
    index = int(suspect.get_attribute("data-image"))
    click(browser, suspect)
    image = gather_labels(label_fit).images[index]
    assert element(browser, "#viewer-title").text == (
        ", ".join(NAMES[cell.label] for cell in image.cells if cell.is_true) or "None of the labels"
    )
    lines = element(browser, "#viewer-text").text.splitlines()
    verdicts = {(True, True): "found", (True, False): "missed", (False, True): "a false alarm"}
    for cell, line in zip(image.cells, lines, strict=False):
        verdict = verdicts[cell.is_true, cell.is_said]
        assert line == f"{NAMES[cell.label]}: {100 * cell.probability:.1f}%, {verdict}"
    assert lines[-1] == image.path


def test_tables_sort_and_the_ring_marks_the_threshold(browser, label_fit):
    heading = next(b for b in elements(browser, "#classes .sort") if b.text.startswith("recall"))
    click(browser, heading)
    values = [
        float(row.find_elements("css selector", "td")[1].get_attribute("data-value"))
        for row in elements(browser, "#classes table")[0].find_elements("css selector", "tbody tr")
    ]
    assert values == sorted(values, reverse=True)
    metrics = label_fit.evaluations["validation"].metrics.per_label
    assert sorted(values) == pytest.approx(sorted(label.recall.value for label in metrics))
    assert len(elements(browser, "#curves svg")) == 3
    assert len(elements(browser, "#curves svg .ring")) == 6
