"""The page of ``headstart serve`` in Chromium, before a server whose answers the tests choose."""

from __future__ import annotations

import json

import pytest
from helpers.browser import click, element, elements, run_axe
from helpers.driving import drop, paste, set_media, wait_for
from helpers.servers import serving
from helpers.stub_serve import PAGE, StubModel, StubServer
from PIL import Image

pytestmark = pytest.mark.slow
ALARM = {"images": 480, "rejected": 93, "expected": 0.05, "p_value": 1e-9, "is_alarm": True}
SECOND = StubModel("second", ("a", "b"), (0.2, 0.8), ("b",))
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def stub():
    return StubServer()


@pytest.fixture
def page(quiet, stub):
    """The page at desktop size, ready."""
    set_media(quiet)
    with serving(stub.handler()) as address:
        open_page(quiet, address)
        yield quiet
        quiet.get("about:blank")


def open_page(driver, address):
    driver.get(f"{address}/")
    driver.execute_script("sessionStorage.clear()")
    wait_for(lambda: "ready" in element(driver, "#health").text or elements(driver, "#token"))


@pytest.fixture
def image(photos):
    return sorted((photos / "validation" / "disc").glob("*.jpg"))[0]


def answered(driver, count=1):
    return wait_for(lambda: element(driver, "#status").text == f"{count} of {count} image{'s' * (count > 1)} answered.")


def verdict(driver):
    return element(driver, "#answer .verdict").text


def test_a_chosen_file_is_answered_with_bars_set_and_map(page, stub, image):
    element(page, "#file").send_keys(str(image))
    assert answered(page)
    assert verdict(page) == "horses"
    assert [e.text for e in elements(page, "#answer .percent")] == ["97.3%", "2.7%"]
    (width, rail) = page.execute_script(
        "return ['.rail > span', '.rail'].map(s => document.querySelector(s).getBoundingClientRect().width)"
    )
    assert width / rail == pytest.approx(0.973, abs=0.005)
    assert element(page, "#answer .set").text == (
        "Prediction set: horses alone. In 95% of cases the true class is in the set."
    )
    assert stub.requests == [("/predict?full=1&explain=1", image.stat().st_size)]
    assert element(page, "#live").get_attribute("textContent") == f"{image.name}: horses, 97.3%."


def test_the_map_covers_what_the_network_saw_and_can_be_hidden(page, image):
    element(page, "#file").send_keys(str(image))
    assert answered(page)
    boxes = page.execute_script(
        """
        const boxes = ["#media img", "#media canvas"].map((s) => document.querySelector(s).getBoundingClientRect());
        return boxes.map((box) => [box.x, box.y, box.width, box.height]);
        """
    )
    (x, y, width, height), found = boxes
    assert found == pytest.approx([x + 0.1 * width, y + 0.05 * height, 0.8 * width, 0.9 * height], abs=1)
    centre, corner = page.execute_script(
        """
        const context = document.querySelector("#media canvas").getContext("2d");
        return [[3, 2], [0, 0]].map(([x, y]) => [...context.getImageData(x, y, 1, 1).data]);
        """
    )
    assert (centre[2] > centre[0], centre[3]) == (True, 153)  # blue: the largest contribution, at 60% opacity
    assert corner[0] > corner[2]  # orange: it speaks for the other class
    toggle = element(page, "#media button")
    assert toggle.get_attribute("aria-pressed") == "true"
    click(page, toggle)
    assert not element(page, "#media canvas").is_displayed()
    assert toggle.get_attribute("aria-pressed") == "false"


def test_dropped_images_are_all_answered_and_kept_as_earlier_ones(page, stub, photos):
    paths = sorted((photos / "validation").rglob("*.jpg"))
    drop(page, paths)
    assert answered(page, len(paths))
    assert len(stub.requests) == len(paths)
    assert len(elements(page, "#history li")) == len(paths) - 1
    click(page, elements(page, "#history button")[0])
    assert element(page, "#answer .file").text == paths[1].name
    assert "over" not in element(page, "body").get_attribute("class")


def test_a_pasted_image_is_answered(page, stub, image):
    paste(page, image)
    assert answered(page)
    assert stub.requests[0][1] == image.stat().st_size


def test_none_of_these_is_the_answer_where_the_image_is_unlike_all(page, stub, image):
    stub.models[0] = StubModel(none_of_these=True, scores=(0.6, 0.4), set=("horses", "humans"))
    element(page, "#file").send_keys(str(image))
    assert answered(page)
    assert verdict(page) == "None of these"
    assert "nearest is horses" in element(page, "#answer .doubt").text
    assert "all classes: the model cannot tell" in element(page, "#answer .set").text
    assert "None of these" in element(page, "#live").get_attribute("textContent")


def test_the_camera_is_asked_about_live_and_stops(page, stub):
    click(page, element(page, "#camera"))
    wait_for(lambda: len(stub.requests) >= 3 and verdict(page) == "horses")
    assert min(size for _, size in stub.requests) > 1000  # frames, not empty files
    assert element(page, "video").is_displayed()
    assert wait_for(lambda: element(page, "#live").get_attribute("textContent") == "horses, 97.3%.")
    click(page, element(page, "#camera"))
    assert elements(page, "video") == [] or not element(page, "video").is_displayed()
    assert element(page, "#camera").text == "Use the camera"


def test_a_camera_that_a_browser_refuses_says_why(page):
    page.execute_script("Object.defineProperty(window, 'isSecureContext', { value: false })")
    click(page, element(page, "#camera"))
    text = element(page, "#camera-note").text
    assert "https addresses and on this machine alone" in text
    assert "ssh -L" in text
    assert element(page, "#live").get_attribute("textContent").startswith("Browsers let a page")


@pytest.mark.parametrize(
    "stub", [StubServer(models=[StubModel(), StubModel("second", ("a", "b"), (0.2, 0.8), ("b",))])]
)
def test_of_several_models_one_is_chosen(page, stub, image):
    from selenium.webdriver.support.ui import Select

    Select(element(page, "#model")).select_by_visible_text("second")
    assert "a, b" in element(page, "#classes").text
    element(page, "#file").send_keys(str(image))
    assert answered(page)
    assert verdict(page) == "b"
    assert stub.requests[0][0] == "/predict/second?full=1&explain=1"
    assert "/predict/second" in element(page, "#curl").get_attribute("textContent")


@pytest.mark.parametrize(
    "stub", [StubServer(models=[StubModel(HOSTILE, (HOSTILE, "</script>"), (0.9, 0.1), (HOSTILE,)), StubModel()])]
)
def test_names_from_data_are_text(page, image):
    element(page, "#file").send_keys(str(image))
    assert answered(page)
    assert verdict(page) == HOSTILE
    assert elements(page, "img[src=x]") == []
    assert elements(page, "#model option")[0].text == HOSTILE


@pytest.mark.parametrize("stub", [StubServer(models=[StubModel(drift=ALARM)])])
def test_images_unlike_the_training_images_raise_an_alarm(page):
    wait_for(lambda: element(page, "#drift").is_displayed())
    text = element(page, "#drift").text
    assert "not like those that the model learned from" in text
    assert "19.4% of the last 480 images were none of these; 5.0% are expected" in text


@pytest.mark.parametrize("stub", [StubServer(models=[StubModel(error="model.onnx does not predict the same here.")])])
def test_a_model_that_is_not_ready_says_why(page, stub):
    wait_for(lambda: "not ready" in element(page, "#health").text)
    assert "model.onnx does not predict the same here." in element(page, "#health").text
    assert element(page, "#classes").text == "The model is not ready yet."
    assert element(page, "#status").text == ""
    assert not element(page, "#file").is_enabled()
    stub.models[0].error = ""
    wait_for(lambda: element(page, "#file").is_enabled())
    assert element(page, "#classes").text == "This model distinguishes 2 classes: horses, humans."


@pytest.mark.parametrize("stub", [StubServer(models=[StubModel(drift={**ALARM, "images": 1, "rejected": 0})])])
def test_one_image_is_counted_in_the_singular(page):
    wait_for(lambda: "of the last 1 image was none of these" in element(page, "#health").text)


def test_a_busy_server_is_asked_again(page, stub, image):
    stub.busy = 2
    element(page, "#file").send_keys(str(image))
    assert answered(page)
    assert len(stub.requests) == 3
    assert "503" in page.get_log("browser")[0]["message"]  # what browsers log of any such answer


def test_a_file_that_is_no_image_says_so(page, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    drop(page, [tmp_path / "notes.txt"])
    assert answered(page)
    assert element(page, "#answer .problem").text == "the body is no image that can be read"
    assert wait_for(lambda: element(page, "#media .no-preview"))
    page.get_log("browser")


@pytest.mark.parametrize("stub", [StubServer(body_limit=1000)])
def test_a_file_that_is_too_large_is_not_sent(page, stub, tmp_path):
    Image.effect_noise((200, 200), 90).save(tmp_path / "large.png")
    element(page, "#file").send_keys(str(tmp_path / "large.png"))
    assert answered(page)
    assert "larger than" in element(page, "#answer .problem").text
    assert stub.requests == []


def test_a_token_of_another_server_is_not_in_the_command(page):
    address = page.current_url
    page.get("about:blank")
    page.get(f"{address}#token=secret-token")
    curl = wait_for(lambda: element(page, "#curl").get_attribute("textContent"))
    assert "/predict" in curl
    assert "HEADSTART_TOKEN" not in curl


@pytest.mark.parametrize("stub", [StubServer(token="secret-token")])
def test_a_token_is_asked_for_once_and_kept(page, image):
    field = wait_for(lambda: element(page, "#token"))
    field.send_keys("wrong")
    click(page, element(page, "dialog .primary"))
    wait_for(lambda: "not accepted" in element(page, "dialog").text)
    element(page, "#token").send_keys("secret-token\n")
    wait_for(lambda: element(page, "#file").is_enabled())
    element(page, "#file").send_keys(str(image))
    assert answered(page)
    page.refresh()
    wait_for(lambda: element(page, "#file").is_enabled())
    assert elements(page, "dialog") == []
    assert "HEADSTART_TOKEN" in element(page, "#curl").get_attribute("textContent")
    page.get_log("browser")  # the 401 answers
    address = page.current_url
    page.get("about:blank")
    page.get(f"{address}#token=secret-token")
    wait_for(lambda: element(page, "#file").is_enabled())
    assert page.current_url == address


def test_a_server_that_stops_is_named(quiet, stub, image):
    with serving(stub.handler()) as address:
        open_page(quiet, address)
    element(quiet, "#file").send_keys(str(image))
    wait_for(lambda: element(quiet, "#answer .problem"))
    assert element(quiet, "#answer .problem").text == "The server does not answer. Is it still running?"
    quiet.get_log("browser")


def test_everything_works_by_keyboard(page, image):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    element(page, "#file").send_keys(str(image))
    assert answered(page)
    page.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
    reached = []
    for _ in range(20):
        ActionChains(page).send_keys(Keys.TAB).perform()  # a file field takes keys as names of files
        active = page.switch_to.active_element
        if active.tag_name == "body":
            break
        shown = "const s = getComputedStyle(arguments[0].closest('label') || arguments[0]); return s.outlineStyle"
        assert page.execute_script(shown, active) != "none", active.get_attribute("outerHTML")
        reached.append(active.get_attribute("id") or active.text or active.tag_name)
    assert reached == ["Skip to the answer", "file", "camera", "Where it looked", "Ask from a program"]


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(driver, stub, image, width, scheme):
    stub.models[0].drift = ALARM
    check_with_axe(driver, stub, image, width, scheme)


def check_with_axe(driver, stub, image, width, scheme):
    set_media(driver, width, 844, scheme)
    driver.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
    try:
        with serving(stub.handler()) as address:
            open_page(driver, address)
            assert run_axe(driver) == []
            drop(driver, [image, image])
            assert answered(driver, 2)
            driver.execute_script("document.querySelector('details').open = true")
            assert run_axe(driver) == []
            assert driver.execute_script("return document.documentElement.scrollWidth") <= width
            driver.get("about:blank")
    finally:
        driver.execute_cdp_cmd("Page.setBypassCSP", {"enabled": False})


LABELS = ("beach", "sunset", "people", "dog", "boat", "snow")
SEVERAL = StubModel(
    "scenes",
    LABELS,
    (0.93, 0.41, 0.32, 0.05, 0.02, 0.01),
    LABELS[:3],
    thresholds=(0.5, 0.35, 0.5, 0.5, 0.5, 0.5),
    could_have=("people",),
)


def chips(driver):
    return [chip.text for chip in elements(driver, "#answer .chips li")]


@pytest.mark.parametrize("stub", [StubServer(models=[SEVERAL])])
def test_labels_are_chips_with_bars_thresholds_and_a_map_for_each(page, image):
    assert element(page, "h1").text == "Which labels does it have?"
    assert "which of 6 labels an image has, any number or none: beach, sunset" in element(page, "#classes").text
    assert element(page, "#labels-seen").is_displayed()
    assert not element(page, "#classes-seen").is_displayed()
    element(page, "#file").send_keys(str(image))
    assert answered(page)
    assert chips(page) == ["beach", "sunset"]
    assert elements(page, "#answer .verdict") == []
    assert [e.text for e in elements(page, "#answer .percent")] == ["93.0%", "41.0%", "32.0%", "5.0%", "2.0%"]
    places = page.execute_script(
        """
        const share = (li) => {
          const [rail, from] = [".rail", ".from"].map((s) => li.querySelector(s).getBoundingClientRect());
          return (from.x + from.width / 2 - rail.x) / rail.width;
        };
        return [...document.querySelectorAll("#answer .bars li")].map(share);
        """
    )
    assert places == pytest.approx([0.5, 0.35, 0.5, 0.5, 0.5], abs=0.005)
    assert element(page, "#answer .set").text == (
        "It could also have: people. Of the labels that images have, 95% hold or are named here."
    )
    assert element(page, "#live").get_attribute("textContent") == f"{image.name}: beach, 93.0%; sunset, 41.0%."
    click(page, element(page, "#answer .plain"))
    assert len(elements(page, "#answer .bars li")) == 6

    def pressed():
        return [b.get_attribute("aria-pressed") for b in elements(page, "#media .row button")]

    assert pressed() == ["true", "false"]
    assert "speaks for beach, against it" in " ".join(element(page, "#media .row").text.split())
    click(page, elements(page, "#media .row button")[1])
    assert pressed() == ["false", "true"]
    assert len(elements(page, "#media canvas")) == 1
    element(page, "#file").send_keys(str(image))  # the label chosen last stays
    assert answered(page)
    assert wait_for(lambda: pressed() == ["false", "true"])
    click(page, elements(page, "#media .row button")[1])
    assert pressed() == ["false", "false"]
    assert elements(page, "#media canvas") == []
    assert element(page, "#history strong").text == "beach, sunset"


@pytest.mark.parametrize(
    "stub", [StubServer(models=[StubModel("none", LABELS[:2], (0.1, 0.2), thresholds=(0.5, 0.5)), SECOND])]
)
def test_an_image_without_a_label_and_one_unlike_the_training_images(page, stub, image):
    element(page, "#file").send_keys(str(image))
    assert answered(page)
    assert verdict(page) == "No label"
    assert elements(page, "#media canvas") == []
    assert elements(page, "#answer .set") == []
    stub.models[0].none_of_these = True
    element(page, "#file").send_keys(str(image))
    assert answered(page)
    wait_for(lambda: verdict(page) == "Unlike the training images")
    assert "No label" in element(page, "#answer").text
    page.execute_script(
        "const s = document.querySelector('#model'); s.value = '1'; s.dispatchEvent(new Event('change'))"
    )
    assert wait_for(lambda: verdict(page) == "b")  # a model of one class an image beside it
    assert element(page, "h1").text == "Which class is it?"
    assert element(page, "#classes-seen").get_attribute("hidden") is None


@pytest.mark.parametrize(
    "stub", [StubServer(models=[StubModel("hostile", (HOSTILE, "</script>"), (0.9, 0.8), thresholds=(0.5, 0.5))])]
)
def test_names_of_labels_are_text(page, image):
    element(page, "#file").send_keys(str(image))
    assert answered(page)
    assert chips(page) == [HOSTILE, "</script>"]
    assert [b.text for b in elements(page, "#media .row button")] == [HOSTILE, "</script>"]
    assert elements(page, "#answer img") == []


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("stub", [StubServer(models=[SEVERAL])])
def test_axe_finds_nothing_serious_about_labels(driver, stub, image, width, scheme):
    check_with_axe(driver, stub, image, width, scheme)


def test_nothing_is_asked_of_anybody_else(page, image):
    page.get_log("performance")  # what the browser itself has asked for
    page.refresh()
    wait_for(lambda: element(page, "#file").is_enabled())
    element(page, "#file").send_keys(str(image))
    assert answered(page)
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert urls
    assert [url for url in urls if not url.startswith(("http://127.0.0.1:", "blob:", "about:"))] == []


def test_the_page_holds_no_inline_code_and_names_no_other_host():
    for path in PAGE.iterdir():
        text = path.read_text("utf-8")
        assert len(text.splitlines()) <= 400, path
        assert "innerHTML" not in text
        if path.suffix == ".html":
            assert " style=" not in text
            assert "<style" not in text
        if path.suffix != ".svg":
            assert "https://" not in text
