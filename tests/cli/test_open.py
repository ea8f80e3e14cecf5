"""``headstart open`` and ``fit --open``: the report in a browser, where there is one."""

import pytest

from headstart.cli.open_report import has_screen


@pytest.fixture
def shown(monkeypatch):
    """The addresses of the pages that a browser was asked for, on a machine with a screen."""
    pages = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("webbrowser.open", lambda address: pages.append(address) or True)
    return pages


@pytest.fixture
def reported(run, photos, tmp_path):
    model = tmp_path / "my model"
    assert run("fit", photos, "-o", model, "--backbone", "headstart-s")[0] == 0
    return model


def test_the_report_is_shown_and_its_path_printed(run, reported, shown):
    page = reported / "report.html"
    assert run("open", reported) == (0, f"{page}\n", "")
    assert shown == [page.as_uri()]
    assert "my%20model" in shown[0]


def test_without_a_screen_no_browser_is_asked_for_and_the_address_is_said(run, reported, shown, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert not has_screen()
    page = reported / "report.html"
    assert run("open", reported) == (0, f"{page}\n", f"There is no browser here; open {page.as_uri()}\n")
    assert shown == []


def test_a_browser_that_does_not_start_is_no_error(run, reported, shown, monkeypatch):
    monkeypatch.setattr("webbrowser.open", lambda _: False)
    status, _, err = run("open", reported)
    assert (status, err.count("\n")) == (0, 1)


def test_fit_opens_the_report_that_it_wrote(run, photos, tmp_path, shown):
    arguments = ("fit", photos, "-o", tmp_path / "m", "--backbone", "headstart-s", "--open")
    assert run(*arguments)[0] == 0
    assert shown == [(tmp_path / "m" / "report.html").as_uri()]
    status, out, err = run(*arguments, "--no-report")
    assert (status, out) == (2, "")
    assert "There is no report to open with --no-report" in err


def test_what_cannot_be_opened_is_said(run, model_folder, reported, tmp_path, shown):
    status, _, err = run("open", model_folder)  # which Python saved, without what a report is written from
    assert status == 2
    assert "headstart report" not in err
    assert "has no report.html: the report is made as a model is fitted to its images" in err
    assert "has no report.json: the report is made as a model is fitted" in run("report", model_folder)[2]
    (reported / "report.html").unlink()
    assert "has no report.html; write it with: headstart report" in run("open", reported)[2]
    assert run("report", reported)[0] == 0
    assert (reported / "report.html").is_file()
    assert "There is no model folder" in run("open", tmp_path / "nowhere")[2]
    (tmp_path / "secret").write_text("x")
    (reported / "report.html").unlink()
    (reported / "report.html").symlink_to(tmp_path / "secret")
    assert run("open", reported)[0] == 2
    assert shown == []
