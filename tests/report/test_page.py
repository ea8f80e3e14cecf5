"""The page against hostile names, damaged runs and very many pictures."""

import copy
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.report import thumbnails as pictures
from headstart.report.data import MAX_SHOWN, Picture, Report
from headstart.report.page import render

HOSTILE = (
    "<script>alert(1)</script>", '"onerror=alert(1) x="', "</script><b>", "\N{RIGHT-TO-LEFT OVERRIDE}gnp", "a\nb",
    "مرحبا", "x" * 300, "{{ 7 * 7 }}", "</style>", "' onload='", "\\u003c", "&lt;",
)  # fmt: skip


class Seen(HTMLParser):
    """What a browser would make of a page: its elements, attributes and texts."""

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


def named(made, names):
    """The report with every name that came from the data replaced by a hostile one."""
    names = list(names)
    pick = lambda i: names[i % len(names)]  # noqa: E731
    value = copy.copy(made)
    told = tuple(
        type(f)(f.kind, tuple(pick(i) for i in range(len(f.files))), f.pictures, f.confidence, pick(n), pick(n + 1))
        for n, f in enumerate(made.findings)
    )
    shown = tuple(Picture(f"{pick(i)}/{pick(i + 1)}", *list(vars(p).values())[1:]) for i, p in enumerate(made.pictures))
    fields = {**vars(value), "classes": tuple(names[:2]), "pictures": shown, "findings": told, "no_evidence": ""}
    return Report(**fields)


@pytest.mark.parametrize("first", range(len(HOSTILE)))
def test_hostile_names_stay_text(made, fitted, first):
    names = HOSTILE[first:] + HOSTILE[:first]
    run = copy.deepcopy(fitted.run_)
    run["backbone"] = dict.fromkeys(("id", "sha256", "licence"), names[0])
    run["versions"] = {names[0]: names[1]}
    run["cut"], run["data"]["uri"] = [names[0]], names[1]
    run["candidates"] = [{"taps": [names[0]], "kind": names[1], names[2]: names[3], "log_loss": 1.0, "accuracy": 0.5}]
    plain = Seen(render(made, fitted.run_, "title"))
    page = render(named(made, names), run, names[0])
    seen = Seen(page)
    assert set(seen.tags) == set(plain.tags)
    assert seen.tags.count("script") == plain.tags.count("script") == 2
    assert {(tag, name) for tag, name, _ in seen.attributes} <= {(t, n) for t, n, _ in plain.attributes} | {
        ("tr", "class")
    }
    assert not [a for a in seen.attributes if a[1].startswith("on") or a[1] == "style"]
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in page
    told = json.loads(next(text for tag, text in seen.texts if tag == "script"))
    assert len(told["path"]) == 40
    assert len(told["classes"]) == 2
    assert "49" not in told["classes"]


def test_the_page_asks_for_nothing(made, fitted):
    page = render(made, fitted.run_, "title")
    seen = Seen(page)
    assert {v.split(":")[0] for _, n, v in seen.attributes if n in ("src", "poster", "data", "action")} == {"data"}
    assert all(v.startswith("#") for _, n, v in seen.attributes if n == "href")
    assert "@import" not in page
    assert "url(" not in page
    policy = next(v for _, n, v in seen.attributes if n == "content" and v.startswith("default-src"))
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_policy_allows_the_style_and_script_that_are_there(made, fitted):
    import base64
    import hashlib

    page = render(made, fitted.run_, "title")
    for tag, kind in (("style", "style-src"), ("script", "script-src")):
        inner = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.S)[1]
        wanted = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        assert f"{kind} 'sha256-{wanted}'" in page


GARBAGE = [None, [], {}, "x", -1, 10**400, float("nan"), float("inf"), True, [[]], {"a": {}}, "<b>"]


def leaves(value, path=()):
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from leaves(value[key], (*path, key))
    elif isinstance(value, list):
        for i in range(min(2, len(value))):
            yield from leaves(value[i], (*path, i))


def test_a_page_is_made_of_any_run(made, fitted):
    run = {
        **fitted.run_,
        "learning_curve": {
            "points": [{"pictures": c, "accuracy": 0.8, "interval": [0.7, 0.9]} for c in (10, 20)],
            "expectation": {"more": 20, "pictures": 40, "accuracy": 0.9},
        },
    }
    for number, path in enumerate(leaves(run)):
        changed = copy.deepcopy(run)
        garbage = GARBAGE[number % len(GARBAGE)]
        if not path:
            changed = {}
        else:
            inner = changed
            for name in path[:-1]:
                inner = inner[name]
            inner[path[-1]] = garbage
        seen = Seen(render(made, changed, "title"))
        assert seen.tags.count("script") == 2, path
        assert seen.tags.count("section") >= 8, path


def test_a_learning_curve_is_drawn_where_there_is_one(made, fitted):
    assert "Would more pictures help?" not in render(made, {**fitted.run_, "learning_curve": None}, "m")
    points = [{"pictures": c, "accuracy": a, "interval": [a - 0.1, a + 0.02]} for c, a in ((50, 0.7), (100, 0.8))]
    run = {**fitted.run_, "learning_curve": {"points": points, "expectation": {"pictures": 400, "accuracy": 0.9}}}
    seen = Seen(render(made, run, "m"))
    cells = [text for tag, text in seen.texts if tag in ("th", "td")]
    assert cells[cells.index("50") : cells.index("50") + 4] == ["50", "70.0%", "60.0% to 72.0%", "measured"]
    assert cells[cells.index("400") : cells.index("400") + 4] == ["400", "90.0%", "90.0% to 90.0%", "expected"]


def test_many_classes_and_pictures_stay_small(made, fitted):
    rng = np.random.default_rng(0)
    classes = tuple(f"{'名' * 190}{i}" for i in range(5_000))
    shown = tuple(
        Picture(
            f"{'名' * 380}/{i}.jpg",
            i % 2,
            int(rng.integers(5_000)),
            int(rng.integers(5_000)),
            int(rng.integers(5_000)),
            0.6,
            0.3,
            0.1,
        )
        for i in range(MAX_SHOWN)
    )
    noise = (rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(MAX_SHOWN))
    sheet = pictures.sprite(enumerate(noise), 32, 50, MAX_SHOWN)
    thumbnail = pictures.jpeg(Image.fromarray(rng.integers(0, 256, (144, 144, 3), np.uint8)))
    count = pictures.THUMBNAILS_BYTES // len(thumbnail)
    paper = tuple(int(v) for v in rng.integers(0, 1001, MAX_SHOWN))
    layouts = tuple(type(each)(each.name, each.about, paper, paper) for each in made.layouts)
    measured = tuple(
        type(m)(m.name, tuple((p.truth, p.answer, 1) for p in shown if p.measured == i), m.reliability, m.risk)
        for i, m in enumerate(made.measured)
    )
    large = Report(
        **{
            **vars(made), "classes": classes, "known": 5_000, "total": 10**6, "pictures": shown, "layouts": layouts,
            "measured": measured, "side": 32, "sprite": sheet, "thumbnails": dict.fromkeys(range(count), thumbnail),
        }
    )  # fmt: skip
    page = render(large, fitted.run_, "m")
    assert len(page.encode()) < 15e6
    assert page.count("<tr") < 500
    assert page.count("<figure") < 200


def test_any_names_can_be_shown(made, fitted):
    @settings(max_examples=20, deadline=None)
    @given(st.lists(st.text(max_size=20), min_size=2, max_size=6, unique=True))
    def shown(names):
        seen = Seen(render(named(made, names), fitted.run_, names[0]))
        assert seen.tags.count("script") == 2
        assert "main" in seen.tags

    shown()
