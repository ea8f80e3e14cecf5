"""``headstart studio`` with several labels an image, as a user starts it, in Chromium."""

from __future__ import annotations

import csv
from contextlib import contextmanager

import pytest
from helpers.browser import click, element, elements, run_axe
from helpers.driving import command, drop, set_media, wait_for
from helpers.labels import write_labelled

from headstart import Predictor, ReadOptions, open_dataset

pytestmark = pytest.mark.slow
MINUTES = 180  # seconds, on a busy machine
CHOSEN = '.tile[aria-selected="true"]'
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def project(tmp_path):
    """Forty images with their labels in a table beside them, two labels wrong, and six that nobody has labelled."""
    folder = tmp_path / "project"
    rows = [row.rsplit(",", 1)[0].split(",") for row in write_labelled(folder, 40)]
    write_labelled(folder, 6, seed=5, split="unlabelled")
    rows = [(name, set(filter(None, labels.split(";")))) for name, labels in rows]
    for number, label in ((3, "disc"), (12, "square")):
        rows[number][1].symmetric_difference_update({label})
    lines = [f"project/{name},{';'.join(sorted(labels))}" for name, labels in rows]
    (tmp_path / "project-labels.csv").write_text("\n".join(["path,labels", *lines]), "utf-8")
    return folder


@contextmanager
def started(driver, folder, *options):
    """The studio of a folder, opened; the page is left before the server ends."""
    with command("studio", folder, "--no-open", "--port", "0", "--backbone", "headstart-s", *options) as address:
        try:
            driver.get("about:blank")
            driver.get(address)
            wait_for(lambda: element(driver, "#project").text == folder.name)
            yield
        finally:
            driver.get("about:blank")


def press(driver, *keys):
    from selenium.webdriver import ActionChains

    ActionChains(driver).send_keys(*keys).perform()


def click_with(driver, key, target):
    from selenium.webdriver import ActionChains

    ActionChains(driver).key_down(key).click(target).key_up(key).perform()


def double_click(driver, target):
    from selenium.webdriver import ActionChains

    ActionChains(driver).double_click(target).perform()


def image(driver, number):
    """The picture of a tile, which a click selects; a click on a chip would change a label."""
    return wait_for(lambda: element(driver, f"#tile-{number} img"))


def chips(driver, number):
    return [chip.text for chip in elements(driver, f"#tile-{number} .chip")]


def caption(driver, number):
    return element(driver, f"#tile-{number} .caption [aria-hidden]").text


def click_first(driver, selector):
    """Click what may be drawn anew meanwhile."""
    wait_for(lambda: click(driver, elements(driver, selector)[0]) or True)


def cells(folder):
    """The cells of the table by the number in the name of the image."""
    with (folder.parent / f"{folder.name}-labels.csv").open(newline="") as table:
        return {
            row["path"].split("/")[-1].removesuffix(".png"): row.get("label", row.get("labels"))
            for row in csv.DictReader(table)
        }


def are(folder, **expected):
    found = cells(folder)
    return all(found[name] == text for name, text in expected.items())


def full(driver):
    return wait_for(lambda: element(driver, "#accuracy .badge").text == "full", MINUTES)


def test_labels_are_toggled_marked_accepted_undone_and_saved(quiet, project):
    from selenium.webdriver.common.keys import Keys

    set_media(quiet, 1280, 900)
    with started(quiet, project):
        full(quiet)
        assert element(quiet, "#h-classes").text == "Labels"
        assert "mAP" in element(quiet, "#accuracy").text
        new = element(quiet, '#filter-show option[value="unlabelled"]')
        new.click()
        wait_for(lambda: len(elements(quiet, ".tile")) == 6)
        assert caption(quiet, 0) == "not labelled"
        click(quiet, image(quiet, 0))
        press(quiet, Keys.ENTER)
        wait_for(lambda: "Nothing accepted: 1 image is not labelled yet." in element(quiet, "#message").text)
        assert titles(quiet, CHOSEN) == ["unlabelled_000"]  # it does not go on
        press(quiet, "1", "2", "3", "3")  # disc, square and stripes, which are taken again
        assert wait_for(lambda: are(project, unlabelled_000="disc;square"))
        press(quiet, Keys.ENTER)
        wait_for(lambda: "Accepted: the labels are right." in element(quiet, "#message").text)
        wait_for(lambda: len(elements(quiet, ".tile")) == 5)  # it is labelled now
        assert titles(quiet, CHOSEN) == ["unlabelled_001"]
        wait_for(lambda: element(quiet, "#accuracy .badge").text in ("live", "full"))

        element(quiet, '#filter-show option[value="all"]').click()
        wait_for(lambda: element(quiet, "#filter-count").text == "46 images")
        quiet.execute_script("document.activeElement.blur()")
        names = ("train_000", "train_001", "train_002")
        before = {name: cells(project)[name] for name in names}
        click(quiet, image(quiet, 0))
        click_with(quiet, Keys.SHIFT, image(quiet, 2))
        press(quiet, "2")
        wait_for(lambda: all("square" in cells(project)[name] for name in names))  # on where any lacked it
        press(quiet, "2")
        wait_for(lambda: not any("square" in cells(project)[name] for name in names))  # off where all had it
        press(quiet, "x", "2")
        wait_for(lambda: all(cells(project)[name].endswith("?square") for name in names))
        wait_for(lambda: "square ?" in chips(quiet, 0))
        bar = element(quiet, "#selection .state-unknown")
        assert bar.text.split() == ["2", "square", "?"]
        set_media(quiet, height=420)
        quiet.execute_script("const grid = document.getElementById('grid'); grid.scrollTop = grid.scrollHeight")
        before_key = [cells(project)[name] for name in names]
        press(quiet, "x", "1")
        wait_for(lambda: "The selected images were out of sight" in element(quiet, "#message").text)
        assert [cells(project)[name] for name in names] == before_key
        press(quiet, "1")  # still the number behind the X
        wait_for(lambda: all(cells(project)[name].endswith("?disc;?square") for name in names))
        press(quiet, "u")
        wait_for(lambda: [cells(project)[name] for name in names] == before_key)
        set_media(quiet)
        press(quiet, "0")
        wait_for(lambda: are(project, **dict.fromkeys(names, "")))
        wait_for(lambda: caption(quiet, 1) == "none")
        for _ in range(4):
            press(quiet, "u")
        wait_for(lambda: "Undone: square present" in element(quiet, "#message").text)  # the first of the four
        wait_for(lambda: are(project, **before))
        press(quiet, Keys.ESCAPE)

        wait_for(lambda: chips(quiet, 0) == before["train_000"].split(";"))
        label = chips(quiet, 0)[0]
        click_first(quiet, "#tile-0 .chip")
        wait_for(lambda: label not in cells(project)["train_000"])
        press(quiet, "u")
        wait_for(lambda: are(project, train_000=before["train_000"]))

        full(quiet)
        click(quiet, element(quiet, "#tab-model"))
        assert not element(quiet, "#apply").is_displayed()
        assert "has no one folder" in element(quiet, "#changes").text
        options = [option.get_attribute("value") for option in elements(quiet, "#export-to option")]
        assert "onnx" in options
        assert "hub" not in options
        click(quiet, element(quiet, "#save"))
        wait_for(lambda: "Saved in" in element(quiet, "#message").text, MINUTES)
    model = Predictor.load(project.parent / "project-model").model
    assert list(model.classes) == ["disc", "square", "stripes"]
    dataset = open_dataset(project.parent / "project-labels.csv", ReadOptions(multi_label=True))
    assert len(dataset) == 41  # of the images of which something is known


def titles(driver, selector=".tile"):
    """The names of the images in the grid, in its order."""
    tiles = sorted(elements(driver, selector), key=lambda tile: int(tile.get_attribute("data-position")))
    return [tile.get_attribute("title").removesuffix(".png") for tile in tiles]


def test_an_image_keeps_its_place_until_the_user_moves_on(quiet, project):
    """Every key waits until the page shows what came of the last one: the next is for the same image all the same."""
    from selenium.webdriver.common.keys import Keys

    new = [f"unlabelled_00{i}" for i in range(6)]
    set_media(quiet, 1280, 900)
    with started(quiet, project):
        full(quiet)
        element(quiet, '#filter-show option[value="unlabelled"]').click()
        wait_for(lambda: titles(quiet) == new)
        click(quiet, image(quiet, 1))
        press(quiet, "1")
        wait_for(lambda: chips(quiet, 1) == ["disc"])
        full(quiet)
        press(quiet, "2")
        wait_for(lambda: chips(quiet, 1) == ["disc", "square"])
        assert (titles(quiet), titles(quiet, CHOSEN)) == (new, new[1:2])
        press(quiet, Keys.ARROW_RIGHT)
        wait_for(lambda: titles(quiet) == [*new[:1], *new[2:]])  # now it goes
        assert titles(quiet, CHOSEN) == new[2:3]

        press(quiet, " ")
        wait_for(lambda: element(quiet, "#detail-name").text == "unlabelled_002.png")
        for number in (0, 1):
            press(quiet, str(number + 1))
            give = f'#detail [data-focus="give-{number}"]'
            wait_for(lambda give=give: element(quiet, give).get_attribute("aria-pressed") == "true")
            full(quiet)
        assert element(quiet, "#detail-name").text == "unlabelled_002.png"
        press(quiet, Keys.ARROW_RIGHT)
        wait_for(lambda: element(quiet, "#detail-name").text == "unlabelled_003.png")
        press(quiet, Keys.ESCAPE)
        assert are(project, unlabelled_000="?", unlabelled_001="disc;square", unlabelled_002="disc;square")

        left = [*new[:1], *new[3:]]
        wait_for(lambda: titles(quiet) == left)
        click(quiet, image(quiet, 0))
        click_with(quiet, Keys.SHIFT, image(quiet, 1))
        press(quiet, "3")
        wait_for(lambda: chips(quiet, 0) == chips(quiet, 1) == ["stripes"])
        full(quiet)
        press(quiet, "x", "1")
        wait_for(lambda: chips(quiet, 0) == chips(quiet, 1) == ["stripes", "disc ?"])
        assert titles(quiet) == left
        double_click(quiet, image(quiet, 2))  # the others do not go between the clicks
        wait_for(lambda: element(quiet, "#detail-name").text == f"{left[2]}.png")
        press(quiet, Keys.ESCAPE)
        wait_for(lambda: titles(quiet) == left[2:])
        kept = cells(project)
        assert [kept[name] for name in left] == ["stripes;?disc", "stripes;?disc", "?", "?"]

        element(quiet, '#filter-show option[value="uncertain"]').click()
        wait_for(lambda: element(quiet, "#filter-count").text == "46 images")
        quiet.execute_script("document.activeElement.blur()")
        full(quiet)  # of the last change, which may sort the images anew
        first = titles(quiet)[0]
        click(quiet, image(quiet, 0))
        press(quiet, "0")
        wait_for(lambda: caption(quiet, 0) == "none")
        full(quiet)
        assert (titles(quiet)[0], titles(quiet, CHOSEN)) == (first, [first])  # though others are more uncertain now


def test_cells_that_look_wrong_are_mended_and_accepted(quiet, project):
    set_media(quiet, 1280, 900)
    with started(quiet, project):
        full(quiet)
        items = wait_for(lambda: elements(quiet, "#issues .issue-line"))
        texts = [item.text for item in items]
        assert any("square" in text and "here" in text for text in texts)
        rows = wait_for(lambda: elements(quiet, ".labels-table tbody tr"))
        assert {row.text.split()[0] for row in rows} == {"disc", "square", "stripes"}
        before = (project.parent / "project-labels.csv").read_bytes()
        click_first(quiet, "#issues .issue-line .row button")
        wait_for(lambda: (project.parent / "project-labels.csv").read_bytes() != before)
        full(quiet)
        click_first(quiet, "#issues .issue-line .row button:last-child")
        wait_for(lambda: b"accepted: " in (project.parent / "project-labels.csv").read_bytes())


def test_an_image_is_labelled_large(quiet, project):
    set_media(quiet, 1280, 900)
    with started(quiet, project):
        full(quiet)
        click(quiet, image(quiet, 5))
        press(quiet, " ")
        wait_for(lambda: element(quiet, "#detail .bars"))
        assert len(elements(quiet, "#detail .state-buttons")) == 3
        before = cells(project)["train_005"].split(";")
        give = element(quiet, '#detail [data-focus="give-0"]')
        assert give.get_attribute("aria-pressed") == str("disc" in before).lower()
        press(quiet, "1")
        wait_for(lambda: ("disc" in cells(project)["train_005"].split(";")) == ("disc" not in before))
        click_first(quiet, '#detail [data-focus="unknown-2"]')
        wait_for(lambda: "?stripes" in cells(project)["train_005"])
        press(quiet, "0")
        wait_for(lambda: are(project, train_005=""))
        wait_for(lambda: element(quiet, '#detail [data-focus="none"]').get_attribute("aria-pressed") == "true")
        assert element(quiet, "#detail-name").text == "train_005.png"  # it stays: there are more labels to give


UNPREDICTED = """
    const done = arguments[0];
    Promise.all([import("./page/labels.js"), import("./page/store.js")]).then(async ([labels, { store }]) => {
      const is = (unpredicted) => labels.isMistaken({ labels: [0, 1], unknown: [], predicted: [0, 2], unpredicted });
      const found = [is([]), is([1]), is([2]), is([1, 2])];
      const row = store.rows.find(({ name }) => name === "unlabelled_001.png");
      Object.assign(row, { predicted: [0], unpredicted: [1] });
      await labels.takeLabelSuggestions([row.id]);
      done(found);
    });
"""


def test_images_are_found_by_what_is_known_of_a_label_and_suggestions_are_taken(quiet, project):
    from selenium.webdriver.support.ui import Select

    set_media(quiet, 1280, 900)
    with started(quiet, project):
        full(quiet)
        has = [name for name, text in cells(project).items() if "square" in text]
        assert not element(quiet, "#filter-state").is_displayed()
        click(quiet, element(quiet, '[data-focus="c1"]'))
        wait_for(lambda: element(quiet, "#filter-count").text == f"{len(has)} of 46 images")
        Select(element(quiet, "#filter-state")).select_by_value("absent")
        wait_for(lambda: element(quiet, "#filter-count").text == f"{40 - len(has)} of 46 images")
        Select(element(quiet, "#filter-state")).select_by_value("unknown")
        wait_for(lambda: element(quiet, "#filter-count").text == "6 of 46 images")
        hint = element(quiet, "#tile-0 .hint").text
        assert hint.endswith("?")
        quiet.execute_script("document.activeElement.blur()")
        click(quiet, image(quiet, 0))
        press(quiet, "s")
        expected = hint.removesuffix("?").split(", ")
        wait_for(lambda: are(project, unlabelled_000=";".join(sorted(expected)) if expected != ["none"] else ""))

        # a label that is not predicted of an image is neither absent nor what its labels differ from
        assert quiet.execute_async_script(UNPREDICTED) == [True, True, True, False]
        wait_for(lambda: are(project, unlabelled_001="disc;?square"))


def test_an_empty_project_begins_with_labels_and_images_without_any(quiet, tmp_path):
    sources = tmp_path / "sources"
    write_labelled(sources, 4)
    folder = tmp_path / "new"
    set_media(quiet, 1280, 900)
    with started(quiet, folder, "--multi-label"):
        text = wait_for(lambda: element(quiet, "#start").text)
        assert "Name the labels" in text
        for name in ("beach", HOSTILE):
            element(quiet, "#start-class").send_keys(f"{name}\n")
            wait_for(
                lambda: element(quiet, "#start-class").get_attribute("value") == "" or element(quiet, "#message .plain")
            )
        assert "cannot be called" in element(quiet, "#message").text  # of the hostile name
        quiet.get_log("browser")  # the 400
        quiet.execute_script("document.getElementById('start-class').value = ''")
        element(quiet, "#start-class").send_keys("constructor\n")
        wait_for(lambda: len(elements(quiet, "#class-list [data-class]")) == 2)
        drop(quiet, sorted(sources.glob("*.png")))
        wait_for(lambda: "4 images added." in element(quiet, "#message").text)
        wait_for(lambda: len(elements(quiet, ".tile")) == 4)
        click(quiet, image(quiet, 1))
        press(quiet, "2")
        wait_for(lambda: chips(quiet, 1) == ["constructor"])
        press(quiet, "2", "1")
        wait_for(lambda: chips(quiet, 1) == ["beach"])
        assert sorted(cells(folder).values()) == ["?", "?", "?", "beach"]


def test_a_tried_image_is_added_with_corrected_labels(quiet, project, tmp_path):
    write_labelled(tmp_path / "more", 1, seed=31)
    set_media(quiet, 1280, 900)
    with started(quiet, project):
        full(quiet)
        click(quiet, element(quiet, "#tab-try"))
        element(quiet, "#try-file").send_keys(str(tmp_path / "more" / "train_000.png"))
        boxes = wait_for(lambda: elements(quiet, "#try-wrong input[type=checkbox]"), MINUTES)
        assert [box.get_attribute("value") for box in boxes] == ["disc", "square", "stripes"]
        said = {chip.text for chip in elements(quiet, "#try .chips li")}
        assert {box.get_attribute("value") for box in boxes if box.is_selected()} == said
        click(quiet, boxes[0])
        expected = sorted(said.symmetric_difference({"disc"}))
        click(quiet, element(quiet, "#try-wrong button"))
        wait_for(lambda: len(cells(project)) == 47)
        assert list(cells(project).values())[-1] == (";".join(expected) if expected else "?")


def test_names_of_labels_are_text_wherever_they_are_shown(quiet, project):
    table = project.parent / "project-labels.csv"
    table.write_text(table.read_text("utf-8").replace("square", HOSTILE), "utf-8")
    set_media(quiet, 1280, 900)
    with started(quiet, project):
        full(quiet)
        wait_for(lambda: HOSTILE in element(quiet, "#labels").text)
        click(quiet, image(quiet, 0))
        press(quiet, "1")
        press(quiet, "x", "1")
        press(quiet, " ")
        wait_for(lambda: elements(quiet, "#detail .bars"))
        press(quiet, "\ue00c")
        for name in ("try", "model", "results"):
            click(quiet, element(quiet, f"#tab-{name}"))
        assert elements(quiet, "img[src=x]") == []


@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing_serious(driver, project, width):
    set_media(driver, width, 844)
    driver.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
    try:
        with started(driver, project):
            for name in ("results", "images", "try", "model"):
                if width < 960 or name != "images":
                    click(driver, element(driver, f"#tab-{name}"))
                if name == "results":
                    full(driver)
                    wait_for(lambda: elements(driver, ".labels-table tbody tr"))
                assert run_axe(driver) == [], name
                assert driver.execute_script("return document.documentElement.scrollWidth") <= width
            if width < 960:
                click(driver, element(driver, "#tab-images"))
            click(driver, image(driver, 1))
            wait_for(lambda: element(driver, "#selection").is_displayed())
            assert run_axe(driver) == []
            press(driver, " ")
            wait_for(lambda: elements(driver, "#detail .bars"))
            assert run_axe(driver) == []
            press(driver, "\ue00c")
    finally:
        driver.execute_cdp_cmd("Page.setBypassCSP", {"enabled": False})
        driver.get_log("browser")
