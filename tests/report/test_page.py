"""The page with hostile names, damaged runs and very many images."""

import base64
import copy
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.report import thumbnails
from headstart.report.data import MAX_IMAGES, ImageResult
from headstart.report.page import render

HOSTILE = (
    "<script>alert(1)</script>",
    '"onerror=alert(1) x="',
    "</script><b>",
    "\N{RIGHT-TO-LEFT OVERRIDE}gnp",
    "a\nb",
    "مرحبا",
    "x" * 300,
    "{{ 7 * 7 }}",
    "</style>",
    "' onload='",
    "\\u003c",
    "&lt;",
)


class ParsedPage(HTMLParser):
    """Elements, attributes and texts of a page."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.texts, self.open = [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))


def with_names(report, names):
    """The report with every name that came from the data replaced by one of ``names``."""

    def name(index):
        return names[index % len(names)]

    findings = tuple(
        dataclasses.replace(
            finding, files=tuple(name(i) for i in range(len(finding.files))), action=name(number), why=name(number + 1)
        )
        for number, finding in enumerate(report.findings)
    )
    images = tuple(dataclasses.replace(image, path=f"{name(i)}/{name(i + 1)}") for i, image in enumerate(report.images))
    return dataclasses.replace(report, classes=tuple(names[:2]), images=images, findings=findings, maps_unavailable="")


@pytest.mark.parametrize("first", range(len(HOSTILE)))
def test_hostile_names_remain_text(fit_report, fitted, first):
    names = HOSTILE[first:] + HOSTILE[:first]
    run = copy.deepcopy(fitted.model.run)
    run["backbone"] = dict.fromkeys(("id", "sha256", "licence"), names[0])
    run["versions"] = {names[0]: names[1]}
    run["cut"], run["data"]["uri"] = [names[0]], names[1]
    run["candidates"] = [{"taps": [names[0]], "kind": names[1], names[2]: names[3], "log_loss": 1.0, "accuracy": 0.5}]
    original = ParsedPage(render(fit_report, fitted.model.run, "title"))
    page = render(with_names(fit_report, names), run, names[0])
    parsed = ParsedPage(page)
    assert set(parsed.tags) == set(original.tags)
    assert parsed.tags.count("script") == original.tags.count("script") == 2
    expected_attributes = {(tag, name) for tag, name, _ in original.attributes} | {("tr", "class")}
    assert {(tag, name) for tag, name, _ in parsed.attributes} <= expected_attributes
    assert not [name for _, name, _ in parsed.attributes if name.startswith("on") or name == "style"]
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in page
    data = json.loads(next(text for tag, text in parsed.texts if tag == "script"))
    assert len(data["paths"]) == 40
    assert len(data["classNames"]) == 2
    assert "49" not in data["classNames"]


def test_the_page_loads_nothing(fit_report, fitted):
    page = render(fit_report, fitted.model.run, "title")
    parsed = ParsedPage(page)
    sources = {v.split(":")[0] for _, name, v in parsed.attributes if name in ("src", "poster", "data", "action")}
    assert sources == {"data"}
    assert all(value.startswith("#") for _, name, value in parsed.attributes if name == "href")
    assert "@import" not in page
    assert "url(" not in page
    policy = next(v for _, name, v in parsed.attributes if name == "content" and v.startswith("default-src"))
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_policy_allows_the_style_and_the_script_of_the_page(fit_report, fitted):
    page = render(fit_report, fitted.model.run, "title")
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        content = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.S)[1]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in page


GARBAGE = [None, [], {}, "x", -1, 10**400, float("nan"), float("inf"), True, [[]], {"a": {}}, "<b>"]


def key_paths(value, path=()):
    """Paths of keys to every value in a JSON value; of a list to its first two."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from key_paths(value[key], (*path, key))
    elif isinstance(value, list):
        for i in range(min(2, len(value))):
            yield from key_paths(value[i], (*path, i))


def test_a_damaged_run_still_has_a_page(fit_report, fitted):
    run = {
        **fitted.model.run,
        "learning_curve": {
            "points": [{"pictures": c, "accuracy": 0.8, "interval": [0.7, 0.9]} for c in (10, 20)],
            "expectation": {"more": 20, "pictures": 40, "accuracy": 0.9},
        },
    }
    for number, path in enumerate(key_paths(run)):
        damaged = copy.deepcopy(run)
        garbage = GARBAGE[number % len(GARBAGE)]
        if not path:
            damaged = {}
        else:
            parent = damaged
            for key in path[:-1]:
                parent = parent[key]
            parent[path[-1]] = garbage
        parsed = ParsedPage(render(fit_report, damaged, "title"))
        assert parsed.tags.count("script") == 2, path
        assert parsed.tags.count("section") >= 8, path


def test_the_learning_curve_is_drawn_if_the_run_has_one(fit_report, fitted):
    assert "Learning curve" not in render(fit_report, {**fitted.model.run, "learning_curve": None}, "m")
    points = [{"pictures": c, "accuracy": a, "interval": [a - 0.1, a + 0.02]} for c, a in ((50, 0.7), (100, 0.8))]
    run = {**fitted.model.run, "learning_curve": {"points": points, "expectation": {"pictures": 400, "accuracy": 0.9}}}
    parsed = ParsedPage(render(fit_report, run, "m"))
    cells = [text for tag, text in parsed.texts if tag in ("th", "td")]
    assert cells[cells.index("50") : cells.index("50") + 4] == ["50", "70.0%", "60.0% to 72.0%", "measured"]
    assert cells[cells.index("400") : cells.index("400") + 4] == ["400", "90.0%", "90.0% to 90.0%", "expected"]


def test_the_page_of_many_classes_and_images_stays_small(fit_report, fitted):
    rng = np.random.default_rng(0)
    classes = tuple(f"{'名' * 190}{i}" for i in range(5_000))
    predictions = rng.integers(5_000, size=(MAX_IMAGES, 3)).tolist()
    images = tuple(
        ImageResult(f"{'名' * 380}/{i}.jpg", i % 2, truth, predicted, second, 0.6, 0.3, 0.1)
        for i, (truth, predicted, second) in enumerate(predictions)
    )
    noise = (rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(MAX_IMAGES))
    sprite = thumbnails.sprite_sheet(enumerate(noise), 32, 50, MAX_IMAGES)
    thumbnail = thumbnails.encode_jpeg(Image.fromarray(rng.integers(0, 256, (144, 144, 3), np.uint8)))
    count = thumbnails.THUMBNAILS_BYTES // len(thumbnail)
    positions = tuple(rng.integers(0, 1001, MAX_IMAGES).tolist())
    evaluations = tuple(
        dataclasses.replace(
            summary,
            confusion=tuple((image.true_class, image.predicted_class, 1) for image in images if image.set_index == i),
        )
        for i, summary in enumerate(fit_report.evaluations)
    )
    large = dataclasses.replace(
        fit_report,
        classes=classes,
        known_classes=5_000,
        total_images=10**6,
        images=images,
        projections=tuple(dataclasses.replace(p, x=positions, y=positions) for p in fit_report.projections),
        evaluations=evaluations,
        sprite=sprite,
        thumbnails=dict.fromkeys(range(count), thumbnail),
    )
    page = render(large, fitted.model.run, "m")
    assert len(page.encode()) < 15e6
    assert page.count("<tr") < 500
    assert page.count("<figure") < 200


def test_any_names_can_be_shown(fit_report, fitted):
    @settings(max_examples=20, deadline=None)
    @given(st.lists(st.text(max_size=20), min_size=2, max_size=6, unique=True))
    def check(names):
        parsed = ParsedPage(render(with_names(fit_report, names), fitted.model.run, names[0]))
        assert parsed.tags.count("script") == 2
        assert "main" in parsed.tags

    check()
