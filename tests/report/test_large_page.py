"""The page of ten classes and two thousand images in a browser, at 1280 and 390 pixels and in the dark scheme."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from helpers.browser import accessibility_violations, click, element, elements, show
from PIL import Image

from headstart.report import thumbnails
from headstart.report.data import EvaluationSummary, ImageResult
from headstart.report.page import render
from headstart.report.thresholds import class_thresholds
from headstart.stats.classification import confusion_matrix

pytestmark = pytest.mark.slow
CLASSES, COUNT, BURST = 10, 2_000, 5
NAMES = tuple(f"species number {c}" for c in range(CLASSES))


def summary_of(name, truth, predicted, probabilities, base):
    counts = confusion_matrix(truth, predicted, CLASSES)
    cells = tuple((int(t), int(p), int(counts[t, p])) for t, p in np.argwhere(counts))
    return dataclasses.replace(
        EvaluationSummary(name, cells, base.reliability, base.risk_coverage),
        thresholds=class_thresholds(probabilities, truth, predicted),
    )


@pytest.fixture(scope="module")
def page(fit_report, fitted, tmp_path_factory):
    """Bursts of five images that are right or wrong together; every class is confused with its neighbour."""
    rng = np.random.default_rng(0)
    scene = np.arange(COUNT) // BURST
    truth = (scene % CLASSES).astype(np.int64)
    is_wrong = np.repeat(rng.random(COUNT // BURST) < 0.3, BURST)
    predicted = np.where(is_wrong, truth ^ 1, truth)
    probabilities = rng.dirichlet(np.full(CLASSES, 0.3), COUNT)
    top = probabilities.argmax(axis=1)
    rows = np.arange(COUNT)
    probabilities[rows, top], probabilities[rows, predicted] = probabilities[rows, predicted], probabilities.max(axis=1)
    sets = np.where(scene % 7 < 2, 0, 1)
    second = np.argsort(-probabilities, axis=1)[:, 1]
    images = tuple(
        ImageResult(
            f"{NAMES[t]}/{i:04}.jpg", int(s), int(t), int(p), int(b), float(q[p]), float(q[b]), float(q[t]), int(g)
        )
        for i, (s, t, p, b, q, g) in enumerate(zip(sets, truth, predicted, second, probabilities, scene, strict=True))
    )
    tiles = (rng.integers(0, 256, (48, 48, 3), np.uint8) for _ in range(COUNT))
    jpeg = thumbnails.encode_jpeg(Image.fromarray(rng.integers(0, 256, (192, 192, 3), np.uint8)))
    evaluations = tuple(
        summary_of(name, truth[sets == i], predicted[sets == i], probabilities[sets == i], fit_report.evaluations[i])
        for i, name in enumerate(("validation", "leave_group_out"))
    )
    positions = tuple(rng.integers(0, 1001, COUNT).tolist())
    report = dataclasses.replace(
        fit_report,
        classes=NAMES,
        known_classes=CLASSES,
        total_images=COUNT,
        images=images,
        evaluations=evaluations,
        projections=tuple(dataclasses.replace(p, x=positions, y=positions[::-1]) for p in fit_report.projections),
        sprite=thumbnails.sprite_sheet(enumerate(tiles), 48, 50, COUNT),
        thumbnails=dict.fromkeys(range(200), jpeg),
    )
    path = tmp_path_factory.mktemp("large") / "report.html"
    path.write_text(render(report, fitted.model.run, "ten species"), "utf-8")
    return path, truth, predicted, sets


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "light"), (390, "dark")])
def test_the_page_is_small_fits_the_screen_and_keeps_people_in(driver, page, width, scheme):
    path = page[0]
    assert path.stat().st_size < 15e6
    show(driver, path, width=width, height=844, prefers_color_scheme=scheme)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    assert driver.get_log("browser") == []
    assert accessibility_violations(driver, path, width=width, height=844, prefers_color_scheme=scheme) == []


def test_the_matrix_has_every_count_and_the_neighbours_stand_together(driver, page):
    path, truth, predicted, sets = page
    show(driver, path)
    table = elements(driver, ".matrix")[0]
    buttons = table.find_elements("css selector", "td button")
    counts = {(int(b.get_attribute("data-true")), int(b.get_attribute("data-predicted"))): int(b.text) for b in buttons}
    expected = confusion_matrix(truth[sets == 0], predicted[sets == 0], CLASSES)
    assert counts == {(int(t), int(p)): int(expected[t, p]) for t, p in np.argwhere(expected)}
    order = [NAMES.index(e.text) for e in table.find_elements("css selector", "tbody th .class")]
    confused = [c for c in range(0, CLASSES, 2) if expected[c, c + 1] or expected[c + 1, c]]
    assert confused
    assert all(abs(order.index(c) - order.index(c + 1)) == 1 for c in confused)


def test_errors_are_cards_of_scenes_and_a_key_goes_through_all_their_images(driver, page):
    from selenium.webdriver.common.keys import Keys

    path, truth, predicted, _ = page
    show(driver, path)
    wrong = np.flatnonzero(truth != predicted)
    cards = elements(driver, "[data-gallery=errors] .card")
    assert len(cards) == min(60, len(wrong) // BURST)
    assert [card.is_displayed() for card in cards[:13]] == [True] * 12 + [False]
    members = cards[0].find_element("css selector", ".enlarge").get_attribute("data-members").split(",")
    assert len(members) == BURST
    assert {truth[int(i)] for i in members} == {truth[int(members[0])]}
    image = cards[0].find_element("css selector", ".enlarge")
    driver.execute_script("arguments[0].focus()", image)
    image.send_keys(Keys.ENTER)
    for i in members[1:]:
        driver.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
        assert f"{int(i):04}.jpg" in element(driver, "#viewer-text").text
    driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    click(driver, elements(driver, "#errors .reveal")[0])
    cards = elements(driver, "[data-gallery=errors] .card")
    assert sum(card.is_displayed() for card in cards) == 24


def test_many_found_images_come_in_parts(driver, page):
    path, truth, predicted, _ = page
    show(driver, path)
    click(driver, element(driver, "#filter-errors"))
    count = int((truth != predicted).sum())
    assert element(driver, "#find-count").text == f"{count:,} of {COUNT:,} images found."
    assert len(elements(driver, "#found .card")) == 24
    click(driver, element(driver, "#find-more"))
    assert len(elements(driver, "#found .card")) == 48
