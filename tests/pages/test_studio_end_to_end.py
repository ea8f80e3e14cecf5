"""``headstart studio`` as a user starts it, from an empty folder to a saved model, in Chromium."""

from __future__ import annotations

import csv
import shutil
import zipfile
from contextlib import contextmanager

import pytest
from helpers.browser import click, element, elements
from helpers.driving import command, drop, set_media, wait_for
from helpers.photos import write_photos

from headstart import Predictor

pytestmark = pytest.mark.slow
MINUTES = 180  # seconds, on a busy machine


@pytest.fixture
def sources(tmp_path):
    """Images of two classes that a user might have."""
    return write_photos(tmp_path / "sources", 14)


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


@contextmanager
def started(driver, project):
    """The studio of a folder, opened; the page is left before the server ends."""
    with command("studio", project, "--no-open", "--port", "0", "--backbone", "headstart-s") as address:
        try:
            driver.get("about:blank")
            driver.get(address)
            yield
        finally:
            driver.get("about:blank")


def press(driver, *keys):
    from selenium.webdriver import ActionChains

    driver.execute_script("document.activeElement.blur()")
    ActionChains(driver).send_keys(*keys).perform()


def add_class(driver, name):
    """Make a class by the field that is in sight."""
    field = next(e for e in elements(driver, "#start-class, #new-class-name") if e.is_displayed())
    field.send_keys(f"{name}\n")
    wait_for(lambda: element(driver, f'#class-list [data-class="{name}"]'))


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".jpeg"))


def record(driver, name, times):
    """Hold the button of the camera some times."""
    from selenium.webdriver import ActionChains

    click(driver, element(driver, f'#class-list [data-class="{name}"] .plus'))
    click(driver, wait_for(lambda: element(driver, "#add-camera")))
    for _ in range(times):
        hold = wait_for(lambda: element(driver, "#record"))
        driver.execute_script("for (const id of ['recorded', 'message']) document.getElementById(id).textContent = ''")
        ActionChains(driver).click_and_hold(hold).perform()
        wait_for(lambda: int((element(driver, "#recorded").text or "0").split()[0]) >= 3)
        ActionChains(driver).release().perform()
        wait_for(lambda: f"added to {name}" in element(driver, "#message").text)
    click(driver, element(driver, "#add .plain"))


def test_from_an_empty_folder_to_a_saved_model(quiet, sources, project):
    set_media(quiet)
    with started(quiet, project):
        wait_for(lambda: element(quiet, "#start").is_displayed())
        for name in ("disc", "stripes"):
            add_class(quiet, name)
        for name in ("disc", "stripes"):
            drop(quiet, files(sources / name)[:12], f'#class-list [data-class="{name}"]')
            wait_for(lambda name=name: f"12 images added to {name}." in element(quiet, "#message").text)
        planted = files(sources / "stripes")[12]
        drop(quiet, [planted], '#class-list [data-class="disc"]')  # a wrong label
        wait_for(lambda: not element(quiet, "#start").is_displayed())
        add_class(quiet, "camera")
        record(quiet, "camera", 3)
        recorded = len(files(project / "camera"))
        assert recorded >= 9
        assert len(files(project)) == 25 + recorded

        wait_for(lambda: element(quiet, "#accuracy .badge").text == "full", MINUTES)
        figure = element(quiet, "#accuracy .figure").text
        assert figure != "100.0%"  # the wrong label is counted as an error
        element(quiet, '#filter-show option[value="issues"]').click()
        hints = wait_for(lambda: [e.text for e in elements(quiet, ".tile .hint") if e.text])
        assert "stripes?" in hints
        position = next(i for i, e in enumerate(elements(quiet, ".tile")) if "stripes?" in e.text)
        click(quiet, elements(quiet, ".tile")[position])
        press(quiet, "2")  # the second class, stripes
        wait_for(lambda: "is now stripes" in element(quiet, "#message").text)
        wait_for(lambda: element(quiet, "#accuracy .figure").text != figure)
        wait_for(lambda: element(quiet, "#accuracy .badge").text == "full", MINUTES)

        click(quiet, element(quiet, "#tab-try"))
        element(quiet, "#try-file").send_keys(str(files(sources / "disc")[13]))
        wait_for(lambda: element(quiet, "#try .verdict").text in ("disc", "None of these"), MINUTES)
        assert elements(quiet, "#try .percent")
        click(quiet, element(quiet, "#try-camera"))
        wait_for(lambda: element(quiet, "#try .verdict").text in ("camera", "None of these"), MINUTES)
        click(quiet, element(quiet, "#try-camera"))

        click(quiet, element(quiet, "#tab-model"))
        click(quiet, element(quiet, "#apply"))
        click(quiet, wait_for(lambda: element(quiet, "dialog .primary")))
        wait_for(lambda: len(files(project / "stripes")) == 13 and len(files(project / "disc")) == 12)
        click(quiet, element(quiet, "#save"))
        wait_for(lambda: "Saved in" in element(quiet, "#message").text, MINUTES)
        saved = element(quiet, "#message span").text.split("Saved in ")[1].split(". Use it")[0]
        predictions = Predictor.load(saved).predict([str(files(sources / name)[13]) for name in ("disc", "stripes")])
        assert [str(predictions.classes[i]) for i in predictions.predicted] == ["disc", "stripes"]
        click(quiet, element(quiet, "#model-report"))
        wait_for(lambda: element(quiet, "#jobs a"), MINUTES)


def test_labels_stay_after_the_studio_is_started_again(quiet, sources, project, tmp_path):
    write_photos(project, 6)
    set_media(quiet)
    for is_first in (True, False):
        with started(quiet, project):
            wait_for(lambda: len(elements(quiet, ".tile")) == 12)
            captions = [e.text for e in elements(quiet, ".tile .caption")]
            if is_first:
                assert captions == ["disc"] * 6 + ["stripes"] * 6
                click(quiet, elements(quiet, ".tile")[0])
                press(quiet, "2")
                wait_for(lambda: elements(quiet, ".tile .caption")[0].text == "stripes")
            else:
                assert captions == ["stripes"] + ["disc"] * 5 + ["stripes"] * 6
    assert len(files(project / "disc")) == 6  # no file was moved
    with (tmp_path / "project-labels.csv").open(newline="") as table:
        rows = [row for row in csv.reader(table) if row[0].endswith("000.jpg")]
    assert "stripes" in rows[0]


def test_dropped_folders_become_classes(quiet, sources, project):
    """By the browser's own drop, which a test of events alone would not have."""
    set_media(quiet)
    with started(quiet, project):
        wait_for(lambda: element(quiet, "#start").is_displayed())
        (sources / "disc" / "notes.txt").write_text("no image")
        (sources / "disc" / ".DS_Store").write_bytes(b"of the Finder")
        shutil.move(files(sources / "stripes")[0], sources / "loose.jpg")
        dropped = [str(sources / name) for name in ("disc", "loose.jpg", "stripes")]
        data = {"items": [], "files": dropped, "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            quiet.execute_cdp_cmd("Input.dispatchDragEvent", {"type": kind, "x": 600, "y": 500, "data": data})
        wait_for(lambda: element(quiet, "#choose-class")).send_keys("stripes\n")  # of the image beside the folders
        wait_for(lambda: len(elements(quiet, ".tile")) == 28)
        assert {name: len(files(project / name)) for name in ("disc", "stripes")} == {"disc": 14, "stripes": 14}
        wait_for(lambda: "28 images added to disc, stripes." in element(quiet, "#message").text)
        assert "Not added: disc/notes.txt: is no image" in element(quiet, "#message").text


def test_archives_are_imported_and_one_without_folders_asks_for_its_class(quiet, sources, project, tmp_path):
    shutil.make_archive(str(tmp_path / "classes"), "zip", sources)
    with zipfile.ZipFile(tmp_path / "samples.zip", "w") as archive:
        for i, path in enumerate(files(write_photos(tmp_path / "more", 3, ("dots",), seed=5))):
            archive.write(path, f"{i}.jpg")
    set_media(quiet)
    with started(quiet, project):
        wait_for(lambda: element(quiet, "#start").is_displayed())
        element(quiet, "#import").send_keys(str(tmp_path / "classes.zip"))
        wait_for(lambda: "28 images from classes.zip: disc, stripes." in element(quiet, "#message").text)
        element(quiet, "#import").send_keys(str(tmp_path / "samples.zip"))
        wait_for(lambda: element(quiet, "#choose-class")).send_keys("dots")
        click(quiet, element(quiet, "dialog .primary"))
        wait_for(lambda: "3 images from samples.zip: dots." in element(quiet, "#message").text)
        assert len(files(project / "dots")) == 3
        for name in ("first", "second"):  # in one drop: what became of each is told
            with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
                archive.writestr("dots/broken.jpg", f"no image, {name}")
                archive.write(files(sources / "disc")[0], "disc/again.jpg")
        drop(quiet, [tmp_path / "first.zip", tmp_path / "second.zip"])
        wait_for(lambda: "2 files could not be added." in element(quiet, "#message").text)
        assert "0 images from first.zip: disc. 1 image there already." in element(quiet, "#message").text
        click(quiet, element(quiet, "#message summary"))
        for name in ("first", "second"):
            assert f"{name}.zip, dots/broken.jpg: " in element(quiet, "#message").text
