"""``headstart serve`` as a user starts it, and its page in Chromium: the answers are those of ``Predictor``."""

from __future__ import annotations

import json

import pytest
from helpers.browser import click, element, elements
from helpers.driving import command, drop, set_media, wait_for

from headstart import Predictor

pytestmark = pytest.mark.slow
TOKEN = "a-token-of-the-test"


@pytest.fixture(scope="module")
def address(model_folder):
    with command("serve", model_folder, "--port", "0") as found:
        yield found


def ready(driver, address):
    driver.get(address)
    driver.execute_script("sessionStorage.clear()")
    wait_for(lambda: element(driver, "#file").is_enabled() and "ready" in element(driver, "#health").text)


def test_files_and_camera_are_answered_as_by_predict(quiet, address, model_folder, photos):
    set_media(quiet)
    quiet.get_log("performance")
    ready(quiet, address)
    paths = sorted((photos / "validation").rglob("*.jpg"))[:6]
    expected = Predictor.load(model_folder).predict([str(path) for path in paths])
    for i, path in enumerate(paths):
        element(quiet, "#file").send_keys(str(path))
        wait_for(lambda: element(quiet, "#status").text == "1 of 1 image answered.")
        first = "None of these" if expected.is_rejected[i] else expected.classes[expected.predicted[i]]
        wait_for(lambda first=first: element(quiet, "#answer .verdict").text == first)
        shown = float(elements(quiet, "#answer .percent")[0].text.rstrip("%")) / 100
        assert shown == pytest.approx(expected.confidence[i], abs=0.026)
        for name in expected.prediction_set(i):
            assert str(name) in element(quiet, "#answer .set").text
        assert len(elements(quiet, "#media canvas")) == 1  # where it looked
    drop(quiet, paths)
    wait_for(lambda: element(quiet, "#status").text == "6 of 6 images answered.")
    click(quiet, element(quiet, "#camera"))
    wait_for(lambda: "Live" in element(quiet, "#status").text)
    # Read in one step: with the camera on, the page draws its answer anew several times a second.
    verdict = quiet.execute_script("return document.querySelector('#answer .verdict').textContent")
    assert verdict in (*map(str, expected.classes), "None of these")
    click(quiet, element(quiet, "#camera"))
    wait_for(lambda: "none of these" in element(quiet, "#health").text)  # the drift line counts what was asked
    events = [json.loads(entry["message"])["message"] for entry in quiet.get_log("performance")]
    urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    outside = [url for url in urls if not url.startswith((address, "blob:", "about:", "chrome"))]
    assert outside == []


def test_labels_are_answered_as_by_predict(quiet, label_model_folder, labelled):
    set_media(quiet)
    paths = sorted(labelled.parent.glob("validation_*.png"))[:6]
    expected = Predictor.load(label_model_folder).predict([str(path) for path in paths])
    with command("serve", label_model_folder, "--port", "0") as found:
        ready(quiet, found)
        for i, path in enumerate(paths):
            element(quiet, "#file").send_keys(str(path))
            wait_for(lambda: element(quiet, "#status").text == "1 of 1 image answered.")
            wait_for(lambda path=path: path.name in element(quiet, "#answer .file").text)
            assert [chip.text for chip in elements(quiet, "#answer .chips li")] == expected.names(i)
            assert expected.names(i) or "No label" in element(quiet, "#answer").text
            assert [button.text for button in elements(quiet, "#media .row button")] == expected.names(i)
            shown = [float(cell.text.rstrip("%")) / 100 for cell in elements(quiet, "#answer .percent")]
            assert shown == pytest.approx([expected.probabilities[i, c] for c in expected.ranking(i)], abs=0.026)
            assert len(elements(quiet, "#media canvas")) == bool(expected.names(i))


def test_a_server_with_a_token_is_opened_with_it(quiet, model_folder, photos):
    with command("serve", model_folder, "--port", "0", "--token", TOKEN) as address:
        # The browser asks for name and password; a test gives them by the address, and opens the page after that.
        quiet.get(address.replace("http://", f"http://x:{TOKEN}@") + "/openapi.json")
        quiet.get_log("browser")
        quiet.get(address)
        wait_for(lambda: element(quiet, "#file").is_enabled())
        element(quiet, "#file").send_keys(str(next((photos / "validation").rglob("*.jpg"))))
        wait_for(lambda: element(quiet, "#answer .verdict").text)
        assert elements(quiet, "dialog") == []
