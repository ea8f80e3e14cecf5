"""The page of a check in a browser: hostile names stay text, and the saved table is what was ticked."""

from __future__ import annotations

import csv
import io
import shutil
import time

import pytest
from helpers.browser import accessibility_violations, click, element, elements, show, start
from helpers.labels import write_labelled
from helpers.photos import write_photos

from headstart.check import check_dataset, write_table
from headstart.data import ReadOptions, open_dataset
from headstart.features import Compute
from headstart.files import table_row
from headstart.report import check_page
from headstart.report.check_page import write_check_page

pytestmark = pytest.mark.slow
LABELS = ("</script><script>document.title='hacked'</script>", '=1+1,"quoted"', "مرحبا\u202e")
FILES = (
    "<img src=x onerror=document.title='hacked'>.jpg",
    "=2+2.jpg",
    'a "b", c.jpg',
    "line\nbreak.jpg",
    "{{ 7 * 7 }}.jpg",
)


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """A table of images with hostile names and labels: copies of five images, all under other labels or names."""
    folder = tmp_path_factory.mktemp("check-page")
    photos = write_photos(folder / "photos", 8, ("disc", "stripes", "dots"))
    rows = [("path", "label")]
    for label, kind in zip(LABELS, ("disc", "stripes", "dots"), strict=True):
        for path in sorted((photos / kind).iterdir()):
            rows.append((path.relative_to(folder).as_posix(), label))
    for number, name in enumerate(FILES):
        (photos / name).write_bytes((photos / "disc" / f"{number:03}.jpg").read_bytes())
        rows.append((f"./photos/{name}", LABELS[number % 2]))
    table = folder / "labels.csv"
    table.write_text("".join(table_row(row) for row in rows), "utf-8")
    dataset = open_dataset(table)
    result = check_dataset(dataset, Compute("onnxruntime"), backbone="headstart-s")
    return dataset, result, write_check_page(dataset, result, folder / "page.html")


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def driver(tmp_path_factory, downloads):
    browser = start(tmp_path_factory.mktemp("browser-profile"), downloads)
    yield browser
    browser.quit()


@pytest.fixture
def browser(driver, checked):
    show(driver, checked[2])
    yield driver
    assert [entry["message"] for entry in driver.get_log("browser") if "beforeunload" not in entry["message"]] == []


def saved_table(browser, downloads):
    for file in downloads.iterdir():
        file.unlink()
    click(browser, element(browser, "#save"))
    until = time.monotonic() + 30
    while not (downloads / "corrections.csv").exists() and time.monotonic() < until:
        time.sleep(0.05)
    return (downloads / "corrections.csv").read_bytes()


def cards_of(browser, name):
    cards = elements(browser, ".card[data-card]")
    return [card for card in cards if name in card.find_element("css selector", ".path").get_attribute("textContent")]


def test_names_are_text(browser, checked):
    assert browser.title == "labels.csv: Headstart check"
    assert browser.execute_script("return document.querySelectorAll('script').length") == 2
    options = {e.get_attribute("textContent") for e in elements(browser, ".class-choice option")}
    assert {LABELS[0], LABELS[1]} <= options
    assert not any("\u202e" in option for option in options)
    paths = {e.get_attribute("textContent") for e in elements(browser, ".card .path")}
    assert {f"photos/{FILES[0]}", f"photos/{FILES[4]}"} <= {path.removeprefix("./") for path in paths}
    broken = "return [...document.images].filter((i) => !i.complete || !i.naturalWidth).length"
    assert browser.execute_script(broken) == 0


def test_an_unchanged_table_is_that_of_the_fix_list(browser, checked, downloads):
    dataset, result, page = checked
    fixed = page.with_name("fixed.csv")
    if not fixed.exists():
        write_table(dataset, result.findings, result.groups, fixed)
    assert saved_table(browser, downloads) == fixed.read_bytes()


def test_the_saved_table_is_what_was_ticked(browser, checked, downloads):
    from selenium.webdriver.support.ui import Select

    dataset, _, page = checked
    before = list(csv.DictReader(io.StringIO(saved_table(browser, downloads).decode())))
    by_path = {row["path"]: row for row in before}

    def row_of(name):
        (path,) = [path for path in by_path if path.endswith(name)]
        return path

    dropped, relabelled = cards_of(browser, FILES[0])[0], cards_of(browser, FILES[2])[0]
    click(browser, dropped.find_element("css selector", ".drop"))
    Select(relabelled.find_element("css selector", ".class-choice")).select_by_visible_text(LABELS[1])
    if not relabelled.find_element("css selector", ".relabel").is_selected():  # it was the first choice already
        click(browser, relabelled.find_element("css selector", ".relabel"))
    together = FILES[1], FILES[4]
    for name in together:
        click(browser, cards_of(browser, name)[0].find_element("css selector", ".group"))
    assert element(browser, "#summary").text.startswith("1 dropped, 1 relabelled, 2 grouped")
    # An image of several findings shows its boxes alike.
    assert all(card.find_element("css selector", ".drop").is_selected() for card in cards_of(browser, FILES[0]))

    after = list(csv.DictReader(io.StringIO(saved_table(browser, downloads).decode())))
    expected = [dict(row) for row in before if row["path"] != row_of(FILES[0])]
    joined = {by_path[row_of(name)]["group"] for name in together}
    assert len(joined) == 2
    for row in expected:
        if row["path"] == row_of(FILES[2]):
            row["label"] = "'" + LABELS[1]  # marked for spreadsheets, as in the table of --fix-list
        if row["group"] in joined:
            row["group"] = by_path[row_of(together[0])]["group"]
    assert len({row["group"] for row in after if row["path"] in map(row_of, together)}) == 1
    assert [{**row, "group": None} for row in after] == [{**row, "group": None} for row in expected]
    assert [row["group"] in joined for row in after] == [row["group"] in joined for row in expected]
    # The table is read as the dataset that was meant.
    copy = page.with_name("corrections.csv")
    copy.write_bytes((downloads / "corrections.csv").read_bytes())
    labels = {item.path.removeprefix("./"): item.label for item in open_dataset(copy).items}
    assert len(labels) == len(dataset) - 1
    assert labels[f"photos/{FILES[2]}"] == LABELS[1]


def test_findings_are_filtered_by_text_kind_and_what_was_ticked(browser, checked):
    from selenium.webdriver.support.ui import Select

    _, result, _ = checked
    shown = lambda: element(browser, "#find-count").text  # noqa: E731
    assert shown() == f"{len(result.findings)} findings"
    kind = result.findings[0].kind
    Select(element(browser, "#filter-kind")).select_by_value(kind)
    count = sum(finding.kind == kind for finding in result.findings)
    assert shown() == f"{count} finding{'s' * (count != 1)}"
    Select(element(browser, "#filter-kind")).select_by_value("")
    element(browser, "#filter-text").send_keys("7 * 7")
    count = sum(any("7 * 7" in file for file in finding.files) for finding in result.findings)
    assert 0 < count < len(result.findings)
    assert shown() == f"{count} finding{'s' * (count != 1)}"


def test_findings_are_found_by_the_classes_of_their_images(browser, checked):
    dataset, result, _ = checked
    label_of = {item.path: item.label for item in dataset.items}
    by_reason = [LABELS[0] in finding.why for finding in result.findings]
    by_class = [any(label_of.get(file) == LABELS[0] for file in finding.files) for finding in result.findings]
    assert any(label and not reason for reason, label in zip(by_reason, by_class, strict=True))
    element(browser, "#filter-text").send_keys(LABELS[0])
    count = sum(reason or label for reason, label in zip(by_reason, by_class, strict=True))
    assert element(browser, "#find-count").text.startswith(f"{count} finding{'s' * (count != 1)}")


def test_all_but_the_first_are_dropped_and_the_keyboard_does_it(browser, checked):
    from selenium.webdriver.common.keys import Keys

    (button, *_) = [e for e in elements(browser, ".check-finding button") if e.text == "Drop all but the first"]
    browser.execute_script("arguments[0].focus()", button)
    button.send_keys(Keys.ENTER)
    finding = button.find_element("xpath", "..")
    ticked = [box.is_selected() for box in finding.find_elements("css selector", ".drop")]
    assert ticked == [False] + [True] * (len(ticked) - 1)
    box = finding.find_elements("css selector", ".drop")[1]
    browser.execute_script("arguments[0].focus()", box)
    box.send_keys(Keys.SPACE)
    assert not box.is_selected()
    image = finding.find_elements("css selector", ".enlarge")[0]
    browser.execute_script("arguments[0].focus()", image)
    image.send_keys(Keys.ENTER)
    first = element(browser, "#viewer-text").text
    browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert element(browser, "#viewer-text").text != first
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert browser.switch_to.active_element == image


@pytest.mark.parametrize("width", [390, 1280])
def test_what_has_the_focus_is_not_behind_the_bar(driver, checked, width):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    show(driver, checked[2], width=width, height=700, prefers_reduced_motion="reduce")
    tops, seen = [], 0
    for _ in range(40):
        ActionChains(driver).send_keys(Keys.TAB).perform()
        inside, bottom, bar = driver.execute_script(
            """
            const [focus, bar] = [document.activeElement, document.querySelector(".save-bar")];
            return [!bar.contains(focus), focus.getBoundingClientRect().bottom, bar.getBoundingClientRect().top];
            """
        )
        seen += inside
        tops += [(bottom, bar)] if inside and bottom > bar else []
    assert seen > 30
    assert tops == []


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_the_page_fits_the_screen(driver, checked, width):
    show(driver, checked[2], width=width, height=800)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(driver, checked, scheme):
    assert accessibility_violations(driver, checked[2], width=1280, prefers_color_scheme=scheme) == []


def test_images_without_findings_are_found_and_corrected(browser, checked, downloads):
    from selenium.webdriver.support.ui import Select

    dataset, result, _ = checked
    in_findings = {file for finding in result.findings for file in finding.files}
    others = [item.path for item in dataset.items if item.path not in in_findings]
    assert len(others) >= 4
    section = "#other-images"
    assert element(browser, f"{section} .count").text == str(len(others))
    assert elements(browser, f"{section} .card") == []
    before = list(csv.DictReader(io.StringIO(saved_table(browser, downloads).decode())))
    name = others[0].removeprefix("./")
    search = element(browser, "#filter-text")
    search.send_keys(name)
    assert element(browser, "#find-count").text == "0 findings, 1 other image"
    (card,) = elements(browser, f"{section} .card")
    click(browser, card.find_element("css selector", ".drop"))
    assert element(browser, "#summary").text.startswith("1 dropped")
    kind = "/".join(others[1].removeprefix("./").split("/")[:2])
    search.clear()
    search.send_keys(kind)
    cards = {
        card.find_element("css selector", ".path").get_attribute("textContent").removeprefix("./"): card
        for card in elements(browser, f"{section} .card")
    }
    assert set(cards) == {path.removeprefix("./") for path in others if kind in path}
    if name in cards:  # the box of an image that is shown anew is still ticked
        assert cards[name].find_element("css selector", ".drop").is_selected()
    first, second = [path for path in cards if path != name][:2]
    choice = Select(cards[first].find_element("css selector", ".class-choice"))
    new = choice.options[0].get_attribute("textContent")
    click(browser, cards[first].find_element("css selector", ".relabel"))
    for path in (first, second):
        click(browser, cards[path].find_element("css selector", ".group"))
    assert element(browser, "#summary").text.startswith("1 dropped, 1 relabelled, 2 grouped")
    click(browser, element(browser, "#filter-changed"))
    search.clear()
    search.send_keys(" ")
    assert element(browser, "#find-count").text == "0 findings, 3 other images"
    after = {row["path"]: row for row in csv.DictReader(io.StringIO(saved_table(browser, downloads).decode()))}
    path_of = {row["path"].removeprefix("./"): row["path"] for row in before}
    assert set(after) == {row["path"] for row in before} - {path_of[name]}
    assert after[path_of[first]]["label"].lstrip("'") == new
    assert after[path_of[first]]["group"] == after[path_of[second]]["group"]
    unchanged = [row for row in before if row["path"] not in (path_of[name], path_of[first])]
    assert [after[row["path"]]["label"] for row in unchanged] == [row["label"] for row in unchanged]


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A page of images with several labels, two of which have hostile names."""
    folder = tmp_path_factory.mktemp("several")
    rows = [row.split(",") for row in write_labelled(folder, 40)]
    names = {"disc": LABELS[0].replace(",", " "), "square": "=1+1", "stripes": "stripes"}
    lines = [(path, ";".join(names[n] for n in cell.split(";") if n), split) for path, cell, split in rows]
    lines[3] = (lines[3][0], "?=1+1;stripes", "train")
    lines[4] = (lines[4][0], "stripes;?", "train")
    for i in (3, 4):  # copies with other labels, so that their cards stand side by side
        shutil.copy(folder / lines[i][0], folder / f"copy_{i}.png")
        lines.append((f"copy_{i}.png", "=1+1", "train"))
    text = "".join(table_row(row) for row in [("path", "labels", "split"), *lines])
    (folder / "labels.csv").write_text(text, "utf-8")
    dataset = open_dataset(folder / "labels.csv", ReadOptions(multi_label=True))
    result = check_dataset(dataset, Compute("onnxruntime"), backbone="headstart-s")
    return dataset, result, write_check_page(dataset, result, folder / "page.html")


def test_labels_are_added_and_removed_one_by_one(driver, several, downloads):
    from selenium.webdriver.support.ui import Select

    dataset, _, page = several
    show(driver, page)
    before = saved_table(driver, downloads)
    copy = page.with_name("before.csv")
    copy.write_bytes(before)
    items = {item.path: item for item in dataset.items}
    read = ReadOptions(multi_label=True)
    assert {item.path: set(item.labels) for item in open_dataset(copy, read).items} == {
        path: set(item.labels) for path, item in items.items()
    }
    assert driver.title == "labels.csv: Headstart check"
    for name in ("train_003", "train_004", "train_006"):
        (card, *_) = cards_of(driver, name)
        for c, label in enumerate(dataset.label_names):
            Select(card.find_element("css selector", ".class-choice")).select_by_value(str(c))
            box = card.find_element("css selector", ".relabel")
            assert not box.is_selected()
            if label != "stripes":
                click(driver, box)
    assert element(driver, "#summary").text.startswith("0 dropped, 6 labels of 3 images changed, 0 grouped")
    copy.write_bytes(saved_table(driver, downloads))
    after = {item.path: item for item in open_dataset(copy, read).items}
    for path, item in items.items():
        is_turned = path[:9] in ("train_003", "train_004", "train_006")
        turned = set(dataset.label_names) - {"stripes"} if is_turned else set()
        assert set(after[path].labels) == set(item.labels) ^ turned, path
        assert set(after[path].unknown) == set(item.unknown) - turned
        assert after[path].is_rest_unknown == item.is_rest_unknown
    assert [e["message"] for e in driver.get_log("browser") if "beforeunload" not in e["message"]] == []


def test_no_table_is_saved_with_a_cell_that_no_reader_takes(driver, several, downloads, monkeypatch):
    from selenium.webdriver.support.ui import Select

    dataset, result, page = several
    monkeypatch.setattr(check_page, "MAX_CELL", 60)  # the labels of this card have 62 characters with all three
    show(driver, write_check_page(dataset, result, page.with_name("short.html")))
    for file in downloads.iterdir():
        file.unlink()
    (card, *_) = cards_of(driver, "copy_3")  # labelled =1+1
    boxes = []
    for c, label in enumerate(dataset.label_names):
        if label != "=1+1":
            Select(card.find_element("css selector", ".class-choice")).select_by_value(str(c))
            boxes.append(card.find_element("css selector", ".relabel"))
            click(driver, boxes[-1])
    click(driver, element(driver, "#save"))
    assert element(driver, "#summary").text.startswith(
        "Nothing was saved: the labels of copy_3.png have more than the 60"
    )
    click(driver, boxes[-1])  # without the last one
    assert element(driver, "#summary").text.startswith("0 dropped, 1 label of 1 image changed")
    assert b"copy_3.png" in saved_table(driver, downloads)


@pytest.mark.parametrize("width", [390, 1280])
def test_the_choice_of_a_label_is_wide_enough_to_be_read(driver, several, width):
    show(driver, several[2], width=width, height=800)
    (card, *_) = cards_of(driver, "copy_3")
    assert card.size["width"] < 160  # one of two, side by side
    widths = [choice.size["width"] for choice in elements(driver, ".class-choice")]
    assert min(widths) >= 115
    assert all(choice.size["width"] <= card.size["width"] for choice in card.find_elements("css selector", "select"))


def test_labels_that_are_not_known_are_named(driver, several):
    show(driver, several[2])
    (one, *_), (rest, *_), (copy, *_) = (cards_of(driver, name) for name in ("train_003", "train_004", "copy_3"))
    assert "stripes; not known: =1+1, train" in one.text
    assert "stripes; not known: all others, train" in rest.text
    assert "not known" not in copy.text.partition("drop")[0]
    options = [[e.text for e in card.find_elements("css selector", ".class-choice option")] for card in (one, rest)]
    assert [text.endswith(" (not known)") for text in options[0]] == [False, True, False]
    assert [text.endswith(" (not known)") for text in options[1]] == [True, True, False]
    assert options[0][1] == "+ =1+1 (not known)"
