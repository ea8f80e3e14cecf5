"""The page of ``headstart studio`` in Chromium, before a server that keeps labels in memory."""

from __future__ import annotations

import json
import time
import urllib.request

import pytest
from helpers.browser import click, element, elements, run_axe
from helpers.driving import drop, paste, set_media, wait_for
from helpers.servers import serving
from helpers.stub_studio import PAGES, TOKEN, StubStudio, filled, picture

pytestmark = pytest.mark.slow
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def studio():
    return filled(24, wrong=(3, 8))


@pytest.fixture
def page(quiet, studio):
    """The page at desktop size, with its images."""
    set_media(quiet)
    with serving(studio.handler()) as address:
        open_page(quiet, address)
        yield quiet
        quiet.get("about:blank")


def open_page(driver, address):
    driver.get("about:blank")
    driver.get(f"{address}/#token={TOKEN}")
    wait_for(lambda: element(driver, "#project").text == "photos")


def keys(driver, *what):
    from selenium.webdriver import ActionChains

    ActionChains(driver).send_keys(*what).perform()


def click_with(driver, key, target):
    from selenium.webdriver import ActionChains

    ActionChains(driver).key_down(key).click(target).key_up(key).perform()


def tile(driver, position):
    return wait_for(lambda: element(driver, f"#tile-{position}"))


def selected(driver):
    tiles = elements(driver, '.tile[aria-selected="true"]')
    return sorted(int(found.get_attribute("data-position")) for found in tiles)


def heard(driver):
    return element(driver, "#live").get_attribute("textContent")


def labels_are(studio, **expected):
    """Whether images, by the number in their names, have these labels."""
    found = {name.split("/")[1].removesuffix(".jpg"): label for name, label in studio.labels().items()}
    return all(found[f"{int(number[1:]):05}"] == label for number, label in expected.items())


def test_an_empty_project_says_what_to_do(quiet, tmp_path):
    studio = StubStudio()
    set_media(quiet)
    with serving(studio.handler()) as address:
        open_page(quiet, address)
        text = wait_for(lambda: element(quiet, "#start").text)
        for part in ("Name the classes", "Add images to each", "It learns by itself", "Nothing leaves this machine"):
            assert part in text
        assert not element(quiet, "#grid").is_displayed()
        for name in ("ants", "bees"):
            element(quiet, "#start-class").send_keys(f"{name}\n")
            wait_for(lambda name=name: name in studio.classes and name in element(quiet, "#start").text)
        for truth, name in enumerate(studio.classes):
            paths = []
            for i in range(3):
                paths.append(tmp_path / f"{name}-{i}.jpg")
                paths[-1].write_bytes(picture(truth, 100 * truth + i))
            drop(quiet, paths, f'#class-list [data-class="{name}"]')
            wait_for(lambda n=3 * truth + 3: len(studio.pictures) == n)
        wait_for(lambda: len(elements(quiet, ".tile")) == 6)
        assert not element(quiet, "#start").is_displayed()
        assert [p.label for p in studio.pictures.values()] == [0, 0, 0, 1, 1, 1]
        wait_for(lambda: element(quiet, "#accuracy .figure").text == "100.0%")
        quiet.get("about:blank")


def test_images_are_labelled_accepted_and_undone_by_keys(page, studio):
    from selenium.webdriver.common.keys import Keys

    click(page, tile(page, 0))
    keys(page, "2")  # the class bees, and on to the next image
    wait_for(lambda: labels_are(studio, n0="bees"))
    wait_for(lambda: selected(page) == [1])
    assert heard(page) == "1 image is now bees."
    keys(page, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    wait_for(lambda: selected(page) == [3])
    assert "Label" not in heard(page)
    before = sum(p.accepted for p in studio.pictures.values())
    keys(page, Keys.ENTER)  # number 3 has a wrong label: accepted as it is
    wait_for(lambda: sum(p.accepted for p in studio.pictures.values()) == before + 1)
    keys(page, "u")
    wait_for(lambda: sum(p.accepted for p in studio.pictures.values()) == before)
    keys(page, "u")
    wait_for(lambda: labels_are(studio, n0="ants"))
    assert studio.undos == []


def test_nothing_is_accepted_of_an_image_without_a_class(page, studio):
    from selenium.webdriver.common.keys import Keys

    first = next(iter(studio.pictures.values()))
    first.label = first.folder_label = -1
    page.refresh()
    wait_for(lambda: element(page, "#tile-0 .caption").text == "no class")
    click(page, tile(page, 0))
    keys(page, Keys.ENTER)
    wait_for(lambda: heard(page) == "Nothing accepted: 1 image is not labelled yet. Give a class first.")
    assert selected(page) == [0]  # it stays: there is a class to give
    assert not any(p.accepted for p in studio.pictures.values())
    click_with(page, Keys.SHIFT, tile(page, 2))
    keys(page, Keys.ENTER)
    wait_for(lambda: heard(page) == "Accepted: the labels of 2 images are right. 1 image is not labelled yet.")
    assert [p.accepted for p in studio.pictures.values()][:4] == [False, True, True, False]


FAILED_CHANGE = """
    const [id, done] = arguments;
    const isBroken = () => { throw new Error("This body cannot be made."); };
    import("./page/store.js").then(async ({ change }) => {
      const answers = await Promise.all([change("api/accept", isBroken), change("api/accept", { ids: [id] })]);
      done(answers.map((answer) => answer && answer.changed));
    });
"""


def test_a_change_that_cannot_be_made_is_told_and_holds_up_no_other(page, studio):
    assert page.execute_async_script(FAILED_CHANGE, next(iter(studio.pictures))) == [None, 1]
    assert "This body cannot be made." in element(page, "#message").text
    click(page, tile(page, 1))
    keys(page, "1")
    wait_for(lambda: labels_are(studio, n1="ants"))


def test_a_change_is_undone_before_the_page_has_read_anew(page, studio):
    click(page, tile(page, 0))
    keys(page, "2", "u")
    wait_for(lambda: heard(page).startswith("Undone"))
    assert labels_are(studio, n0="ants")
    assert studio.undos == []


def test_ranges_and_single_images_are_selected_and_labelled_at_once(page, studio):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    click(page, tile(page, 1))
    click_with(page, Keys.SHIFT, tile(page, 5))
    wait_for(lambda: selected(page) == [1, 2, 3, 4, 5])
    click_with(page, Keys.CONTROL, tile(page, 3))
    wait_for(lambda: selected(page) == [1, 2, 4, 5])
    click_with(page, Keys.CONTROL, tile(page, 7))
    wait_for(lambda: selected(page) == [1, 2, 4, 5, 7])
    assert "5 selected" in element(page, "#selection").text
    keys(page, "1")
    wait_for(lambda: labels_are(studio, n1="ants", n2="ants", n4="ants", n5="ants", n7="ants"))
    assert len(studio.undos) == 1  # one change
    keys(page, Keys.ESCAPE)
    wait_for(lambda: selected(page) == [])
    page.execute_script("document.activeElement.blur()")
    click_with(page, Keys.CONTROL, tile(page, 0))
    ActionChains(page).key_down(Keys.SHIFT).send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT).key_up(Keys.SHIFT).perform()
    wait_for(lambda: selected(page) == [0, 1, 2])


def test_every_key_that_the_page_names_is_explained(page):
    keys(page, "?")
    text = wait_for(lambda: element(page, "dialog").text)
    for part in ("1 to 9", "Enter", "U", "Shift and click", "Space", "accept: the label is right"):
        assert part in text
    keys(page, "\ue00c")
    wait_for(lambda: elements(page, "dialog") == [])


def test_a_planted_wrong_label_is_found_and_mended(page, studio):
    from selenium.webdriver.support.ui import Select

    wait_for(lambda: element(page, "#accuracy .figure").text == "91.7%")
    text = wait_for(lambda: element(page, "#issues-body").text)
    assert "Labelled ants, looks like bees" in text
    assert "Likely wrong: predicted with probability 95.0%." in text
    Select(element(page, "#filter-show")).select_by_value("issues")
    wait_for(lambda: len(elements(page, ".tile")) == 2)
    assert {e.text for e in elements(page, ".tile .hint")} == {"ants?", "bees?"}
    page.execute_script("document.activeElement.blur()")
    keys(page, "s")  # what is suggested
    wait_for(lambda: labels_are(studio, n3="bees"))
    wait_for(lambda: len(elements(page, ".tile")) == 1)
    keys(page, "s")
    wait_for(lambda: labels_are(studio, n3="bees", n8="ants"))
    wait_for(lambda: element(page, "#accuracy .figure").text == "100.0%")
    assert wait_for(lambda: "None: no label looks wrong" in element(page, "#issues-body").text)
    assert element(page, "#nothing").text == "No label issues: no label looks wrong."


def test_a_label_issue_is_mended_in_the_results(page, studio):
    buttons = wait_for(lambda: elements(page, "#issues .issue-line button:not(.thumbnail)"))
    assert [b.text for b in buttons[:2]] == ["It is bees", "The label is right"]
    click(page, buttons[0])
    wait_for(lambda: labels_are(studio, n3="bees"))
    click(page, wait_for(lambda: elements(page, "#issues .issue-line:only-child button")[2]))
    wait_for(lambda: sum(p.accepted for p in studio.pictures.values()) == 1)


def test_no_image_moves_under_the_pointer_when_a_change_is_told(page, studio):
    before = tile(page, 5).rect["y"]
    click(page, tile(page, 0))
    keys(page, "2")
    wait_for(lambda: element(page, "#message").is_displayed())
    assert tile(page, 5).rect["y"] == before


def test_a_share_is_not_rounded_to_all_or_nothing(page):
    shares = (1, 0.99996, 0.9994, 0.5, 0.0004, 0)
    found = page.execute_async_script(
        "const [shares, done] = arguments; import('./shared/dom.js').then(({ rate }) => done(shares.map(rate)));",
        shares,
    )
    assert found == ["100.0%", "over 99.9%", "99.9%", "50.0%", "under 0.1%", "0.0%"]


def test_images_without_a_class_are_given_the_one_that_is_predicted(page, studio):
    from selenium.webdriver.support.ui import Select

    ant, bee = (next(p for p in studio.pictures.values() if p.truth == truth) for truth in (0, 1))
    ant.label = bee.label = -1
    page.refresh()
    wait_for(lambda: element(page, "#tile-0 .caption").text == "no class")
    Select(element(page, "#filter-show")).select_by_value("unlabelled")
    wait_for(lambda: len(elements(page, ".tile")) == 2)
    assert [e.text for e in elements(page, ".tile .hint")] == ["ants?", "bees?"]
    assert "predicted ants" in tile(page, 0).get_attribute("textContent")
    page.execute_script("document.activeElement.blur()")
    keys(page, "s")
    wait_for(lambda: (ant.label, bee.label) == (0, -1))
    wait_for(lambda: [e.text for e in elements(page, ".tile .hint")] == ["bees?"])
    keys(page, "s")
    wait_for(lambda: bee.label == 1)


def test_a_class_is_renamed_by_enter_and_shown_until_undo(page, studio):
    from selenium.webdriver.common.keys import Keys

    for found in list(studio.pictures.values())[:2]:
        found.label = -1
    page.refresh()
    click(page, wait_for(lambda: element(page, '[data-focus="c0"]')))
    click(page, wait_for(lambda: element(page, '[aria-label="Rename ants"]')))
    field = wait_for(lambda: element(page, "#rename-to"))
    field.clear()
    field.send_keys(Keys.ENTER)  # no name: nothing happens
    assert element(page, "dialog").is_displayed()
    field.send_keys("emmets", Keys.ENTER)
    wait_for(lambda: studio.classes == ["emmets", "bees"])
    wait_for(lambda: heard(page) == "ants is called emmets now.")
    assert element(page, '.class-row[aria-pressed="true"] .name').text == "emmets"
    wait_for(lambda: {e.text for e in elements(page, ".tile .caption")} == {"emmets"})
    assert page.execute_script("return document.activeElement.getAttribute('aria-label')") == "Rename emmets"
    keys(page, "u")
    wait_for(lambda: studio.classes == ["ants", "bees"])
    wait_for(lambda: element(page, "#filter-count").text == "24 images")  # not the two that have no class
    assert element(page, '.class-row[aria-pressed="true"] .name').text == "All images"
    time.sleep(0.5)  # what is asked for after a change has been answered
    assert "There is no class" not in element(page, "#message").get_attribute("textContent")


def test_a_dialog_is_left_without_a_name_by_its_second_button(page, studio):
    click(page, element(page, '[data-focus="c0"]'))
    click(page, wait_for(lambda: element(page, '[aria-label="Rename ants"]')))
    wait_for(lambda: element(page, "#rename-to")).clear()
    click(page, element(page, "dialog button:not(.primary)"))
    wait_for(lambda: not elements(page, "dialog"))
    assert studio.classes == ["ants", "bees"]


def test_keys_of_the_grid_are_not_taken_from_the_panel(page, studio):
    from selenium.webdriver.common.keys import Keys

    click(page, tile(page, 3))
    page.execute_script("document.getElementById('results').focus()")
    keys(page, " ", Keys.ENTER)  # Space scrolls what is read there
    time.sleep(0.3)
    assert not elements(page, "dialog")
    assert not any(p.accepted for p in studio.pictures.values())


def test_images_are_found_by_name_class_and_confusion(page):
    element(page, "#filter-text").send_keys("/0001")
    wait_for(lambda: len(elements(page, ".tile")) == 10)
    assert element(page, "#filter-count").text == "10 of 24 images"
    click(page, element(page, "#filter-clear"))
    wait_for(lambda: len(elements(page, ".tile")) == 24)
    click(page, element(page, '[data-focus="c1"]'))
    wait_for(lambda: {e.text for e in elements(page, ".tile .caption")} == {"bees"})
    click(page, wait_for(lambda: elements(page, "#confusion .shade3")[0]))
    wait_for(lambda: len(elements(page, ".tile")) == 1)
    assert element(page, ".tile .caption").text == "ants"
    assert "predicted bees" in element(page, "#filter-clear").text


def test_after_a_change_of_the_filter_the_first_image_in_sight_is_the_one_that_keys_change(quiet):
    studio = filled(300)
    set_media(quiet)
    with serving(studio.handler()) as address:
        open_page(quiet, address)
        element(quiet, "#filter-text").send_keys("00251")
        wait_for(lambda: element(quiet, "#filter-count").text == "1 of 300 images")
        click(quiet, element(quiet, "#filter-clear"))
        wait_for(lambda: element(quiet, "#filter-count").text == "300 images")
        quiet.execute_script("document.activeElement.blur()")
        assert element(quiet, ".tile.cursor").get_attribute("id") == "tile-0"
        keys(quiet, "2")
        wait_for(lambda: len(studio.undos) == 1)
        assert labels_are(studio, n0="bees")
        quiet.get("about:blank")


def test_the_learning_curve_is_shown_with_its_check(page):
    text = wait_for(lambda: element(page, "#curve .lead").text)
    assert text == "+3.0 points"
    assert "Checked: without 20 images" in element(page, "#curve").text
    assert len(elements(page, "#curve circle")) == 3


def test_ten_thousand_images_scroll_as_few_elements(quiet):
    studio = filled(40)
    sources = list(studio.pictures.values())
    for i in range(40, 10_000):
        data = sources[i % 40].data
        id = f"{i:024x}"
        studio.pictures[id] = type(sources[0])(id, i % 2, i % 2, None, i % 2, f"many/{i:05}.jpg", data)
    set_media(quiet)
    with serving(studio.handler()) as address:
        open_page(quiet, address)
        wait_for(lambda: element(quiet, "#filter-count").text == "10,000 images")
        most = quiet.execute_async_script(
            """
            const done = arguments[0], grid = document.getElementById("grid");
            let most = 0, steps = 0;
            const step = () => {
              most = Math.max(most, document.querySelectorAll(".tile").length);
              grid.scrollTop += grid.scrollHeight / 60;
              if (++steps < 70) requestAnimationFrame(step); else done(most);
            };
            step();
            """
        )
        assert most < 120
        last = wait_for(lambda: element(quiet, "#tile-9999"))
        assert last.get_attribute("aria-posinset") == "10000"
        assert last.get_attribute("textContent") == "bees, many/09999.jpg"
        click(quiet, last)
        wait_for(lambda: selected(quiet) == [9999])
        assert element(quiet, "#grid").get_attribute("aria-activedescendant") == "tile-9999"
        wait_for(lambda: quiet.execute_script("return document.querySelector('#tile-9999 img').complete"))
        quiet.get("about:blank")


def in_sight(driver, position):
    """Whether the middle of a tile is shown; one that is far away is no element."""
    return driver.execute_script(
        """
        const tile = document.getElementById(arguments[0]), grid = document.getElementById("grid");
        if (!tile) return false;
        const [a, b] = [tile.getBoundingClientRect(), grid.getBoundingClientRect()], middle = (a.top + a.bottom) / 2;
        return middle > b.top && middle < b.bottom;
        """,
        f"tile-{position}",
    )


def wheel(driver, pixels):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    origin = ScrollOrigin.from_element(element(driver, "#grid"))
    ActionChains(driver).scroll_from_origin(origin, 0, pixels).perform()


@pytest.fixture
def many(quiet):
    """The page of more images than are in sight, ants and bees in turn."""
    studio = filled(200)
    set_media(quiet)
    with serving(studio.handler()) as address:
        open_page(quiet, address)
        wait_for(lambda: element(quiet, "#filter-count").text == "200 images")
        yield quiet, studio
        quiet.get("about:blank")


@pytest.mark.parametrize("key", ["2", "Delete", "Enter", "button"])
def test_a_key_for_an_image_out_of_sight_first_brings_it_back(many, key):
    from selenium.webdriver.common.keys import Keys

    page, studio = many

    def act():
        if key == "button":
            click(page, element(page, '#selection [title="Label as bees"]'))
        else:
            keys(page, {"Delete": Keys.DELETE, "Enter": Keys.ENTER}.get(key, key))

    click(page, tile(page, 2))
    wheel(page, 2000)
    wait_for(lambda: not in_sight(page, 2))
    before, version = studio.labels(), studio.version
    act()
    wait_for(lambda: "The image was out of sight. Do it again" in element(page, "#message").text)
    assert in_sight(page, 2)
    assert (studio.labels(), studio.version, selected(page)) == (before, version, [2])
    act()
    wait_for(lambda: studio.version == version + 1)
    changed = {"Delete": {}, "Enter": {"ants/00002.jpg": "ants"}}.get(key, {"ants/00002.jpg": "bees"})
    assert studio.labels() == {**{name: label for name, label in before.items() if name != "ants/00002.jpg"}, **changed}


def test_a_cursor_without_a_selection_is_brought_back_too_and_what_is_seen_is_labelled_at_once(many):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    page, studio = many
    click(page, tile(page, 0))
    keys(page, Keys.ESCAPE)
    wheel(page, 2000)
    wait_for(lambda: not in_sight(page, 0))
    before, version = studio.labels(), studio.version
    keys(page, "2")
    wait_for(lambda: in_sight(page, 0))
    assert (studio.labels(), studio.version) == (before, version)
    keys(page, "2")
    wait_for(lambda: labels_are(studio, n0="bees", n2="ants"))
    wait_for(lambda: selected(page) == [1])
    wheel(page, 20)  # a part of the next image is out of sight, and most of it is not
    wait_for(lambda: page.execute_script("return document.getElementById('grid').scrollTop") == 20)
    keys(page, "1")
    wait_for(lambda: labels_are(studio, n1="ants"))
    wait_for(lambda: selected(page) == [2])  # the page has the answer, and has gone on
    ActionChains(page).key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL).perform()
    wheel(page, 1500)
    keys(page, "2")  # of many that are selected some are in sight, wherever the grid is
    wait_for(lambda: set(studio.labels().values()) == {"bees"})


def test_a_recording_of_the_camera_is_one_group(page, studio):
    from selenium.webdriver import ActionChains

    click(page, element(page, '#class-list [data-class="ants"] .plus'))
    click(page, wait_for(lambda: element(page, "#add-camera")))
    hold = wait_for(lambda: element(page, "#record"))
    groups = set()
    for n in (1, 2):
        ActionChains(page).click_and_hold(hold).perform()
        wait_for(lambda: int((element(page, "#recorded").text or "0").split()[0]) >= 4)
        ActionChains(page).release().perform()
        wait_for(lambda: heard(page).endswith("added to ants."))
        recorded = [p for p in studio.pictures.values() if p.group]
        groups = {p.group for p in recorded}
        assert len(groups) == n
        assert all(p.label == 0 for p in recorded)
        page.execute_script(
            "document.getElementById('live').textContent = document.getElementById('recorded').textContent = ''"
        )
    count = len(studio.pictures)
    time.sleep(0.5)
    assert len(studio.pictures) == count  # it has stopped
    page.execute_script("arguments[0].focus()", hold)
    ActionChains(page).key_down(" ").pause(0.7).key_up(" ").perform()
    wait_for(lambda: len({p.group for p in studio.pictures.values() if p.group}) == 3)
    wait_for(lambda: "added to ants" in heard(page))
    click(page, element(page, "#add .plain"))
    assert not element(page, "#add").is_displayed()


def test_a_camera_over_plain_http_says_why_it_cannot(page):
    page.execute_script("Object.defineProperty(window, 'isSecureContext', { value: false })")
    click(page, element(page, '#class-list [data-class="ants"] .plus'))
    click(page, wait_for(lambda: element(page, "#add-camera")))
    assert "https addresses and on this machine alone" in wait_for(lambda: element(page, "#add-stage .note").text)
    click(page, element(page, "#tab-try"))
    click(page, element(page, "#try-camera"))
    assert "ssh -L" in wait_for(lambda: element(page, "#try-note").text)


def test_what_could_not_be_added_is_named(page, studio, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "new.jpg").write_bytes(picture(0, 999))
    (tmp_path / "old.jpg").write_bytes(next(iter(studio.pictures.values())).data)
    drop(page, sorted(tmp_path.iterdir()), '#class-list [data-class="ants"]')
    wait_for(lambda: "1 image added to ants." in element(page, "#message").text)
    click(page, element(page, "#message summary"))
    text = element(page, "#message").text
    assert "2 files could not be added" in text
    assert "broken.jpg: The bytes are no image that can be read." in text
    assert "notes.txt: is no image" in text
    assert "old.jpg: is in ants" in text
    errors = [entry["message"] for entry in page.get_log("browser") if entry["level"] == "SEVERE"]
    assert len(errors) == 1  # the answer to broken.jpg


def test_a_single_file_that_could_not_be_added_is_named_at_once(page, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    drop(page, [tmp_path / "notes.txt"])
    wait_for(lambda: heard(page) == "Not added: notes.txt: is no image")


def test_an_image_that_is_dropped_anywhere_asks_for_its_class(page, studio, tmp_path):
    (tmp_path / "new.jpg").write_bytes(picture(2, 5))
    paste(page, tmp_path / "new.jpg")
    field = wait_for(lambda: element(page, "#choose-class"))
    assert element(page, "dialog h2").text == "Which class is the image of?"
    field.send_keys("wasps\n")
    wait_for(lambda: len(studio.pictures) == 25)
    assert studio.classes == ["ants", "bees", "wasps"]
    assert list(studio.pictures.values())[-1].label == 2


def test_the_model_is_tried_and_a_wrong_answer_is_added(page, studio, tmp_path):
    (tmp_path / "new.jpg").write_bytes(picture(1, 77))
    click(page, element(page, "#tab-try"))
    element(page, "#try-file").send_keys(str(tmp_path / "new.jpg"))
    assert wait_for(lambda: element(page, "#try .verdict").text) == "bees"
    assert [e.text for e in elements(page, "#try .percent")] == ["91.0%", "9.0%"]
    assert "Prediction set: bees alone. In 90% of cases" in element(page, "#try .set").text
    assert element(page, "#try-media img").get_attribute("src").startswith("data:image/png")
    assert heard(page) == "bees, 91.0%."
    assert len(studio.pictures) == 24
    click(page, elements(page, "#try-wrong button")[0])
    wait_for(lambda: len(studio.pictures) == 25)
    assert list(studio.pictures.values())[-1].label == 0


def test_the_camera_is_tried_live(page, studio):
    studio.none_of_these = True
    click(page, element(page, "#tab-try"))
    click(page, element(page, "#try-camera"))
    assert wait_for(lambda: element(page, "#try .verdict").text) == "None of these"
    wait_for(lambda: len(studio.tried) >= 3)
    click(page, elements(page, "#try-media button")[0])  # where it looked
    wait_for(lambda: "data:image/png" in element(page, "#try-media img").get_attribute("src"))
    click(page, element(page, "#try-camera"))
    n = len(studio.tried)
    time.sleep(0.6)
    assert len(studio.tried) <= n + 1


def test_a_recording_stays_of_the_class_that_it_was_begun_for(page, studio, tmp_path):
    click(page, element(page, '#class-list [data-class="ants"] .plus'))
    click(page, wait_for(lambda: element(page, "#add-camera")))
    wait_for(lambda: element(page, "#record"))
    click(page, next(button for button in elements(page, "#add button") if button.text.startswith("Record 3")))
    wait_for(lambda: len([p for p in studio.pictures.values() if p.group]) >= 2)
    file = tmp_path / "bee.jpg"
    file.write_bytes(picture(1, 100))
    drop(page, [file], '#class-list [data-class="bees"]')
    page.execute_script("""document.querySelector('#class-list [data-class="bees"] .plus').click()""")
    wait_for(lambda: "images added to ants, bees." in element(page, "#message").text)
    assert {p.label for p in studio.pictures.values() if p.group} == {studio.classes.index("ants")}
    assert element(page, "#h-add").text == "Add images to bees"
    click(page, element(page, "#add-camera"))
    assert wait_for(lambda: element(page, "#record").is_enabled())  # it can record again


def test_a_full_choice_that_failed_says_why(quiet):
    studio = filled(4)
    studio.error = "Unknown backbone 'nonsense'."
    set_media(quiet)
    with serving(studio.handler()) as address:
        open_page(quiet, address)
        wait_for(lambda: "Unknown backbone 'nonsense'." in element(quiet, "#accuracy").text)
        assert "Unknown backbone 'nonsense'." in element(quiet, "#try-why").get_attribute("textContent")
        quiet.get("about:blank")


def test_two_tabs_tell_each_other_and_a_stale_change_is_not_made(page, studio):
    from selenium.webdriver.common.keys import Keys

    other = Other(page.current_url, studio)
    other.relabel(0, "bees")
    wait_for(lambda: "Changed elsewhere: Relabelled 1 image" in element(page, "#message").text)
    wait_for(
        lambda: element(page, '[data-focus="c1"] .soft').text == str(sum(p.label for p in studio.pictures.values()))
    )
    studio.streams.clear()  # now it is not told
    other.relabel(2, "bees")
    click(page, tile(page, 5))
    keys(page, "1")
    wait_for(lambda: "Somebody else changed the labels" in element(page, "#message").text)
    assert labels_are(studio, n5="bees", n2="bees")
    page.get_log("browser")  # the 409
    keys(page, Keys.ESCAPE)
    click(page, tile(page, 5))
    keys(page, "1")  # again, if it is still right
    wait_for(lambda: labels_are(studio, n5="ants"))


def test_a_class_is_made_while_images_of_this_page_arrive(page, studio, tmp_path, monkeypatch):
    """Each of them makes the labels newer than the page knows, which is no change by somebody else."""
    receive, paths = studio.receive, []

    def receive_slowly(*arguments):
        time.sleep(0.15)
        return receive(*arguments)

    monkeypatch.setattr(studio, "receive", receive_slowly)
    monkeypatch.setattr(studio, "tell", lambda *_: None)  # the page hears of its own images by their answers alone
    for i in range(12):
        paths.append(tmp_path / f"{i}.jpg")
        paths[-1].write_bytes(picture(0, 500 + i))
    drop(page, paths, '#class-list [data-class="ants"]')
    field = element(page, "#new-class-name")
    for name in ("wasps", "flies"):
        field.send_keys(f"{name}\n")
        wait_for(lambda: field.get_attribute("value") == "")
    assert studio.classes[-2:] == ["wasps", "flies"]
    wait_for(lambda: "12 images added to ants." in element(page, "#message").text)
    page.get_log("browser")  # the 409 of those that were repeated


class Other:
    """Another program that changes labels."""

    def __init__(self, address, studio):
        self.address, self.studio = address, studio

    def relabel(self, number, label):
        ids = [list(self.studio.pictures)[number]]
        body = json.dumps({"version": self.studio.version, "ids": ids, "label": label}).encode()
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(f"{self.address}api/relabel", body, headers)).read()


def test_an_image_is_seen_large_and_labelled_there(page, studio):
    click(page, tile(page, 2))
    keys(page, " ")
    assert wait_for(lambda: element(page, "#detail-name").text) == "ants/00002.jpg"
    assert wait_for(lambda: element(page, "#detail .verdict").text) == "ants"
    keys(page, "2")
    wait_for(lambda: labels_are(studio, n2="bees"))
    wait_for(lambda: "00003" in element(page, "#detail-name").text)
    keys(page, "\ue00c")
    wait_for(lambda: elements(page, "#detail") == [])
    assert page.switch_to.active_element.get_attribute("id") == "grid"


def test_saving_compares_first_and_asks_before_a_worse_model(page, studio):
    studio.comparison = {
        "verdict": "worse",
        "saved": {},
        "images": 200,
        "new_accuracy": 0.9,
        "saved_accuracy": 0.95,
        "difference": -0.05,
        "interval": [-0.08, -0.02],
        "p": 0.01,
        "why": "By the images of both.",
    }
    click(page, element(page, "#save"))
    text = wait_for(lambda: element(page, "dialog").text)
    assert "Worse than the saved model, beyond chance." in text
    assert "The new model is worse than the saved one. Save it anyway?" in text
    assert "−5.0 points (95% interval −8.0 to −2.0)" in text
    assert studio.saved is None
    click(page, elements(page, "dialog button")[1])
    wait_for(lambda: studio.saved)
    wait_for(lambda: "Saved in /home/a/photos-model" in element(page, "#message").text)
    click(page, element(page, "#model-report"))
    link = wait_for(lambda: element(page, "#jobs a"))
    assert link.get_attribute("href").endswith("/report?key=stub-key")
    click(page, element(page, "#model-export"))
    wait_for(lambda: "12 of 12 answers are the same" in element(page, "#jobs").text)


def test_labels_are_applied_to_folders_only_when_asked(page, studio):
    click(page, element(page, "#tab-model"))
    assert not element(page, "#apply").is_enabled()
    click(page, tile(page, 0))
    keys(page, "2")
    wait_for(lambda: element(page, "#apply").is_enabled())
    assert "1 image has another label than its folder" in element(page, "#model").text
    click(page, element(page, "#apply"))
    click(page, wait_for(lambda: element(page, "dialog .primary")))
    wait_for(lambda: "1 file moved" in element(page, "#message").text)
    assert all(p.label == p.folder_label for p in studio.pictures.values())


def test_names_from_data_are_text(quiet):
    studio = filled(8, wrong=(3,), classes=(HOSTILE, "</script>"))
    set_media(quiet)
    with serving(studio.handler()) as address:
        open_page(quiet, address)
        wait_for(lambda: len(elements(quiet, ".tile")) == 8)
        wait_for(lambda: HOSTILE in element(quiet, "#issues").text)
        for name in ("try", "model", "results"):
            click(quiet, element(quiet, f"#tab-{name}"))
        assert elements(quiet, "img[src=x]") == []
        quiet.get("about:blank")


def test_a_page_without_the_token_asks_for_it(quiet, studio):
    set_media(quiet)
    with serving(studio.handler()) as address:
        quiet.get(f"{address}/")
        quiet.execute_script("sessionStorage.clear()")
        quiet.refresh()
        wait_for(lambda: element(quiet, "#token")).send_keys(f"{address}/#token={TOKEN}\n")  # pasted whole
        wait_for(lambda: len(elements(quiet, ".tile")) == 24)
        assert TOKEN not in quiet.current_url
        quiet.get_log("browser")  # the 401
        quiet.get("about:blank")


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(driver, studio, width, scheme):
    set_media(driver, width, 844, scheme)
    driver.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
    try:
        with serving(StubStudio(classes=["ants"]).handler()) as address:
            open_page(driver, address)
            assert run_axe(driver) == []
        with serving(studio.handler()) as address:
            open_page(driver, address)
            for name in ("images", "results", "try", "model"):
                if width < 960 or name != "images":
                    click(driver, element(driver, f"#tab-{name}"))
                if name == "results":
                    wait_for(lambda: element(driver, "#curve .lead").text)
                assert run_axe(driver) == [], name
                assert driver.execute_script("return document.documentElement.scrollWidth") <= width
            if width < 960:
                click(driver, element(driver, "#tab-images"))
            click(driver, tile(driver, 1))
            keys(driver, " ")
            wait_for(lambda: element(driver, "#detail .verdict").text)
            assert run_axe(driver) == []
            driver.get("about:blank")
    finally:
        driver.execute_cdp_cmd("Page.setBypassCSP", {"enabled": False})
        driver.get_log("browser")


def test_the_page_holds_no_inline_code_and_names_no_other_host():
    for path in PAGES["page"].iterdir():
        text = path.read_text("utf-8")
        assert len(text.splitlines()) <= 400, path
        assert "innerHTML" not in text
        assert "https://" not in text
        if path.suffix == ".html":
            assert " style=" not in text
            assert "<style" not in text
