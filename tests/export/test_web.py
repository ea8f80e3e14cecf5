"""``--to web``: the page is proven in headless Chromium, answers like predict in a real one, and works offline."""

import json
import shutil
from contextlib import ExitStack
from http.client import HTTPConnection
from http.server import ThreadingHTTPServer
from threading import Event, Thread

import numpy as np
import pytest
from helpers.browser import start
from helpers.servers import serving_folder
from typer.testing import CliRunner

from headstart import Compute, Predictor
from headstart.cli import app
from headstart.errors import DownloadError, ModelError, OptionError
from headstart.export import ExportOptions, export_model, verify_export, web_runtime
from headstart.export.browser import find_chromium
from headstart.export.web_server import serve_page
from headstart.model.folder import read_model


@pytest.fixture(scope="session")
def page(model_folder, photos, runtime_folder, tmp_path_factory):
    """The folder of a page, proven in Chromium. Read only."""
    try:
        find_chromium()
    except ImportError:
        pytest.skip("needs a browser: apt-get install chromium")
    folder = tmp_path_factory.mktemp("web") / "page"
    export_model(read_model(model_folder), "web", folder, ExportOptions(runtime_folder=runtime_folder))
    return folder


@pytest.mark.slow
def test_the_page_is_proven_on_pixels_files_and_data(page):
    parity = json.loads((page / "parity.json").read_text("utf-8"))
    golden, low_margin, files = parity["proof"]["comparisons"]
    for part in (golden, low_margin):
        assert (part["images"], part["changed"]) == (8, 0)
        assert part["score"] < 1e-3
    assert files["images"] == 19
    assert list(files["unread"]) == ["grey_16_bits.tif"]
    assert (files["changed"], parity["data"]["changed"], parity["data"]["images"]) == (0, 0, 12)
    assert parity["runtime"] == {"name": "onnxruntime-web in Chromium", "version": "1.30.0"}


@pytest.mark.slow
def test_the_folder_holds_no_image_of_anybody_and_asks_nobody(page):
    assert not {"golden.npz", "report.html", "training_images.bin"} & {path.name for path in page.rglob("*")}
    for name in ("index.html", "app.js", "model.js", "preprocess.js", "sw.js", "style.css"):
        assert "://" not in (page / name).read_text("utf-8"), name


@pytest.mark.slow
def test_the_proof_is_replayed_and_a_changed_page_is_not_run(page, tmp_path, monkeypatch):
    folder = shutil.copytree(page, tmp_path / "page")
    assert verify_export(folder).problems == ()
    (folder / "preprocess.js").write_text("throw new Error('it ran')")
    problems = verify_export(folder).problems
    assert "preprocess.js is not the one that Headstart writes; it was not run" in problems
    assert not any("it ran" in problem for problem in problems)
    (folder / "ort.wasm.bundle.min.mjs").write_text("export const env = {}")
    with pytest.raises(ModelError, match=r"is not of onnxruntime-web 1\.30\.0; it was not run"):
        verify_export(folder)


@pytest.mark.slow
def test_without_a_browser_nothing_is_proven(page, monkeypatch):
    monkeypatch.setattr("headstart.export.browser.shutil.which", lambda name: None)
    result = CliRunner().invoke(app, ["verify", str(page)])
    assert (result.exit_code, "Not proven here: Chromium is not installed" in result.stdout) == (0, True)
    assert CliRunner().invoke(app, ["verify", str(page), "--strict"]).exit_code == 1


@pytest.mark.slow
def test_a_visitor_sees_the_answers_of_predict_also_offline(page, model_folder, photos, tmp_path):
    browser = start(tmp_path / "profile")
    from selenium.webdriver.support.ui import WebDriverWait

    paths = [str(path) for path in sorted((photos / "validation").rglob("*.jpg"))]
    expected = Predictor.load(model_folder, Compute("onnxruntime")).predict(paths)
    with browser, ExitStack() as stack:
        address = stack.enter_context(serving_folder(page))
        for is_online in (True, False):
            browser.get(address)
            wait = WebDriverWait(browser, 120)
            wait.until(lambda b: b.find_element("id", "file").is_enabled())
            browser.find_element("id", "file").send_keys("\n".join(paths))
            wait.until(lambda b: len(b.find_elements("css selector", "#results .answer")) == len(paths))
            cards = browser.find_elements("css selector", "#results > li")
            found = {card.find_element("class name", "name").text: card for card in cards}
            assert len(found) <= len(paths)  # files of both classes have the same names
            texts = [card.find_element("class name", "answer").text for card in reversed(cards)]
            for i, text in enumerate(texts):
                first = "none of these" if expected.is_rejected[i] else expected.classes[expected.predicted[i]]
                assert text.splitlines()[0] == first
                shown = float(text.split("%")[0].split()[-1]) / 100
                assert shown == pytest.approx(expected.confidence[i], abs=0.026)
            if is_online:
                wait.until(lambda b: b.execute_script("return navigator.serviceWorker.ready.then(() => true)"))
                stack.close()
        urls = {
            message["params"]["request"]["url"]
            for entry in browser.get_log("performance")
            for message in [json.loads(entry["message"])["message"]]
            if message["method"] == "Network.requestWillBeSent"
        }
        outside = [url for url in urls if not url.startswith((f"{address}/", "blob:"))]
        assert [url for url in outside if url.startswith("http")] == []
        assert [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_pages_of_one_host_leave_each_other_what_they_keep(page, photos, tmp_path):
    from selenium.webdriver.support.ui import WebDriverWait

    for name in ("first", "second"):
        shutil.copytree(page, tmp_path / "host" / name)
    worker = tmp_path / "host" / "second" / "sw.js"
    worker.write_text(worker.read_text().replace("headstart-", "headstart-other-"))  # as of another model
    (tmp_path / "notes.txt").write_text("no image")
    paths = [next(photos.rglob("*.jpg")), tmp_path / "notes.txt"]
    browser = start(tmp_path / "profile")
    with browser, ExitStack() as stack:
        address = stack.enter_context(serving_folder(tmp_path / "host"))
        wait = WebDriverWait(browser, 120)
        for name in ("first", "second"):
            browser.get(f"{address}/{name}/")
            wait.until(lambda b: b.execute_script("return navigator.serviceWorker.ready.then(() => true)"))
        wait.until(lambda b: b.execute_script("return caches.keys().then((names) => names.length)") == 2)
        stack.close()
        browser.get(f"{address}/first/")  # offline
        wait.until(lambda b: b.find_element("id", "file").is_enabled())
        browser.find_element("id", "file").send_keys("\n".join(map(str, paths)))
        text = "1 image answered on this device. 1 file could not be read."
        wait.until(lambda b: b.find_element("id", "status").text == text)


def test_another_runtime_is_an_error(model_folder, tmp_path):
    (tmp_path / "dist").mkdir()
    for name in web_runtime.FILES:
        (tmp_path / "dist" / name).write_bytes(b"other")
    with pytest.raises(OptionError, match=r"does not hold ort\.wasm\.bundle\.min\.mjs and"):
        web_runtime.runtime_files(tmp_path / "dist")


def test_a_download_that_fails_says_how_to_do_without(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("headstart.export.web_runtime.urllib.request.urlopen", refuse)
    with pytest.raises(DownloadError, match="no network; give --runtime-dir"):
        web_runtime.runtime_files()


def test_another_file_at_the_address_is_refused(monkeypatch):
    import io

    monkeypatch.setattr("headstart.export.web_runtime.urllib.request.urlopen", lambda *_, **__: io.BytesIO(b"other"))
    with pytest.raises(DownloadError, match="is not the file that was expected"):
        web_runtime.runtime_files()


def test_answers_of_the_wrong_length_are_an_error_and_unread_images_have_none():
    from headstart.export.to_web import _answer

    class Page:
        def __init__(self, row):
            self.row = row

        def answer(self, images, *, are_pixels):
            return [self.row for _ in images]

    with pytest.raises(ModelError, match="other than 2 probabilities"):
        _answer(Page({"probabilities": [0.1], "distance": 0.0}), 2, [b"x"], are_pixels=False)
    answers = _answer(Page({"error": "no"}), 2, [b"x"], are_pixels=False)
    assert (answers.unread, bool(np.isnan(answers.ood_scores[0]))) == ({0: "no"}, True)


def answers_of_the_server(folder, requests, monkeypatch):
    """Serve a folder, ask for each (path, host), a host of None being the right one, and return the responses."""
    found = []

    def show(address):
        def visit():
            own = address.removeprefix("http://").rstrip("/")
            connection = HTTPConnection(own)
            for path, host in requests:
                connection.request("GET", path, headers={"Host": host or own})
                response = connection.getresponse()
                found.append((response.status, response.headers["Content-Type"], response.read()))
            interrupted.set()

        Thread(target=visit, daemon=True).start()

    interrupted = Event()
    serve_forever = ThreadingHTTPServer.serve_forever

    def serve(server):
        Thread(target=serve_forever, args=[server], daemon=True).start()
        assert interrupted.wait(60)
        server.shutdown()
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", serve)
    serve_page(folder, show)
    return found


def test_the_page_is_served_to_this_machine_until_it_is_interrupted(tmp_path, monkeypatch):
    (tmp_path / "index.html").write_text("the page")
    found = answers_of_the_server(tmp_path, [("/", None), ("/", "example.org")], monkeypatch)
    assert [(status, b"the page" in body) for status, _, body in found] == [(200, True), (403, False)]


def test_the_types_of_files_are_not_those_of_the_system(tmp_path, monkeypatch):
    expected = {
        "index.html": "text/html",
        "app.js": "text/javascript",
        "ort.mjs": "text/javascript",
        "ort.wasm": "application/wasm",
        "about.json": "application/json",
        "style.css": "text/css",
        "icon.svg": "image/svg+xml",
        "manifest.webmanifest": "application/manifest+json",
    }
    for name in expected:
        (tmp_path / name).write_bytes(b"")
    for function in ("guess_type", "guess_file_type"):  # the second from Python 3.13
        monkeypatch.setattr(f"mimetypes.{function}", lambda *_, **__: ("text/plain", None), raising=False)
    found = answers_of_the_server(tmp_path, [(f"/{name}", None) for name in expected], monkeypatch)
    assert [kind for _, kind, _ in found] == list(expected.values())


def test_only_the_web_has_a_page_to_open(model_folder, tmp_path):
    result = CliRunner().invoke(app, ["export", str(model_folder), "--to", "onnx", "-o", str(tmp_path / "x"), "--open"])
    assert result.exit_code == 2
    assert "--to onnx has no page to open; leave --open out" in str(result.exception) + result.output
