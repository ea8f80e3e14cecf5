"""Downloads from a server that works, stalls, closes connections, announces wrong values and sends wrong bytes."""

import hashlib
import socket
import ssl
import urllib.error
import urllib.request

import pytest
from helpers.downloads import GOOD, assert_complete, datasets, fetch, files, zip_of

from headstart.data import download as module
from headstart.data import paced
from headstart.data.download import download
from headstart.data.public_datasets import PUBLIC_DATASETS, Archive, PublicDataset
from headstart.errors import DownloadError, OptionError


def test_a_working_server(faulty_server, tmp_path):
    progress = []
    public = datasets(faulty_server)
    sha256 = public["set"].archives[0].sha256
    hashes = download("set", tmp_path / "out" / "set", datasets=public, progress=lambda *args: progress.append(args))
    assert hashes == {faulty_server.url: sha256}
    assert_complete(tmp_path)
    assert progress[-1] == (len(GOOD), len(GOOD))
    text = (tmp_path / "out" / "set" / "SOURCE.md").read_text()
    assert "CC BY 2.0" in text
    assert sha256 in text


def test_connections_closed_early_are_resumed(faulty_server, tmp_path):
    faulty_server.close_after = [50_000, 60_000, 10_000]
    fetch(faulty_server, tmp_path)
    assert_complete(tmp_path)
    assert faulty_server.requested_ranges == [None, "bytes=50000-", "bytes=110000-", "bytes=120000-"]


def test_a_later_call_resumes_too(faulty_server, tmp_path):
    faulty_server.close_after = [50_000]
    with pytest.raises(DownloadError, match="run the command again"):
        download("set", tmp_path / "out" / "set", datasets=datasets(faulty_server), attempts=1)
    assert not (tmp_path / "out" / "set").exists()
    fetch(faulty_server, tmp_path)
    assert_complete(tmp_path)
    assert faulty_server.requested_ranges == [None, "bytes=50000-"]


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b"{}", b"\xff", b"[" * 100_000])
def test_a_part_whose_note_is_damaged_is_downloaded_anew(faulty_server, tmp_path, note):
    faulty_server.close_after = [50_000]
    with pytest.raises(DownloadError):
        download("set", tmp_path / "out" / "set", datasets=datasets(faulty_server), attempts=1)
    next((tmp_path / "out").glob(".*.json")).write_bytes(note)
    fetch(faulty_server, tmp_path)
    assert_complete(tmp_path)
    assert faulty_server.requested_ranges == [None, None]


def test_a_stalled_connection_times_out_and_is_resumed(faulty_server, tmp_path):
    faulty_server.stalls = 2
    fetch(faulty_server, tmp_path)
    assert_complete(tmp_path)
    assert faulty_server.requested_ranges[0] is None
    assert faulty_server.requested_ranges[1].startswith("bytes=")


@pytest.mark.parametrize("part", ["body", "headers"])
def test_a_server_that_sends_byte_by_byte_ends_in_one_line(faulty_server, tmp_path, part):
    faulty_server.drips = part
    with pytest.raises(
        DownloadError, match=r"in 5 attempts \(the server sends less than 1,024 bytes a second\)"
    ) as caught:
        fetch(faulty_server, tmp_path, timeout=0.1)
    assert "\n" not in str(caught.value)
    assert len(faulty_server.requested_ranges) == 5


def test_a_slow_server_is_waited_for(faulty_server, tmp_path, monkeypatch):
    monkeypatch.setattr(paced, "MIN_RATE", 1)
    faulty_server.close_after = [100_000]
    fetch(faulty_server, tmp_path, timeout=0.3)
    assert_complete(tmp_path)


def test_a_server_that_always_stalls_ends_in_one_line(faulty_server, tmp_path):
    faulty_server.stalls, faulty_server.supports_ranges = 99, False
    with pytest.raises(DownloadError, match="could not be downloaded in 5 attempts"):
        fetch(faulty_server, tmp_path, timeout=0.1)


def test_without_ranges_the_download_starts_anew(faulty_server, tmp_path):
    faulty_server.supports_ranges, faulty_server.close_after = False, [50_000]
    fetch(faulty_server, tmp_path)
    assert_complete(tmp_path)


@pytest.mark.parametrize("ignores_if_range", [False, True])
def test_parts_of_two_versions_of_a_file_are_never_joined(faulty_server, tmp_path, ignores_if_range):
    new = zip_of(["wrap/train/new/9.jpg"])
    received = 500 if ignores_if_range else 50_000
    faulty_server.close_after, faulty_server.ignores_if_range = [received], ignores_if_range
    faulty_server.replace_after, faulty_server.replacement = 1, new
    fetch(faulty_server, tmp_path, size=None, sha256=hashlib.sha256(new).hexdigest())
    assert files(tmp_path / "out" / "set") == ["SOURCE.md", "train/new/9.jpg"]
    if ignores_if_range:
        assert faulty_server.requested_ranges == [None, "bytes=500-", None]


def test_a_kill_while_the_new_version_is_noted_leaves_no_old_bytes(faulty_server, tmp_path, monkeypatch):
    faulty_server.close_after = [50_000]
    with pytest.raises(DownloadError):
        download("set", tmp_path / "out" / "set", datasets=datasets(faulty_server), attempts=1)
    faulty_server.tag = '"two"'

    def kill(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_atomic", kill)
    with pytest.raises(KeyboardInterrupt):
        fetch(faulty_server, tmp_path)
    assert not list((tmp_path / "out").glob("*.part"))
    assert not (tmp_path / "out" / "set").exists()


def test_a_length_of_thousands_of_digits_is_ignored(faulty_server, tmp_path):
    faulty_server.length = "9" * 5000
    fetch(faulty_server, tmp_path, timeout=0.1)
    assert_complete(tmp_path)


def test_an_error_of_the_network_is_not_reported_as_one_of_the_disk(faulty_server, tmp_path, monkeypatch):
    def fail(*_):
        raise ssl.SSLError(1, "bad record mac")

    monkeypatch.setattr(module.http.client.HTTPResponse, "read1", fail)
    with pytest.raises(DownloadError, match=r"could not be downloaded in 5 attempts \(bad record mac\)"):
        fetch(faulty_server, tmp_path)


def test_an_invalid_certificate_is_not_reported_as_offline(faulty_server, tmp_path, monkeypatch):
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "self-signed certificate"

    def fail(*_, **__):
        raise urllib.error.URLError(error)

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", fail)
    with pytest.raises(DownloadError, match="certificate that is not valid on this machine"):
        fetch(faulty_server, tmp_path)


def test_certificates_and_host_names_are_verified():
    https = [h for h in module._opener().handlers if isinstance(h, urllib.request.HTTPSHandler)]
    context = https[0]._context or ssl.create_default_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_a_wrong_content_range_is_ignored(faulty_server, tmp_path):
    faulty_server.close_after, faulty_server.wrong_range = [50_000], True
    fetch(faulty_server, tmp_path)
    assert_complete(tmp_path)


@pytest.mark.parametrize("length", [len(GOOD) // 2, len(GOOD) + 1000])
@pytest.mark.parametrize("size", ["known", None])
def test_a_wrong_length_never_gives_a_wrong_dataset(faulty_server, tmp_path, length, size):
    faulty_server.length = length
    changes = {} if size else {"size": None}
    if length < len(GOOD) and not size:  # what arrived looks complete, but has another hash
        with pytest.raises(DownloadError, match="expected"):
            fetch(faulty_server, tmp_path, timeout=0.1, **changes)
        assert files(tmp_path) == []
    elif length < len(GOOD):  # the rest is requested
        fetch(faulty_server, tmp_path, timeout=0.1, **changes)
        assert_complete(tmp_path)
        assert faulty_server.requested_ranges[1] == f"bytes={length}-"
    else:
        try:
            fetch(faulty_server, tmp_path, timeout=0.1, **changes)
        except DownloadError:
            return
        assert_complete(tmp_path)


def test_wrong_bytes_are_refused_and_deleted(faulty_server, tmp_path):
    faulty_server.data = GOOD[:1000] + b"\0" + GOOD[1001:]
    with pytest.raises(DownloadError, match=r"has sha256 [0-9a-f]{64}, expected [0-9a-f]{64}"):
        fetch(faulty_server, tmp_path)
    assert files(tmp_path) == []


def test_more_bytes_than_recorded_are_refused(faulty_server, tmp_path):
    faulty_server.data = GOOD + b"\0" * 50_000
    with pytest.raises(DownloadError, match="more than the"):
        fetch(faulty_server, tmp_path)
    assert files(tmp_path) == []


def test_more_bytes_than_the_limit_are_refused_before_they_arrive(faulty_server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    with pytest.raises(DownloadError, match="limit"):
        fetch(faulty_server, tmp_path, size=None)


def test_server_errors_are_retried_and_missing_files_are_not(faulty_server, tmp_path):
    faulty_server.statuses = [500, 503]
    fetch(faulty_server, tmp_path)
    assert_complete(tmp_path)
    assert len(faulty_server.requested_ranges) == 3
    faulty_server.statuses, faulty_server.requested_ranges = [404], []
    with pytest.raises(DownloadError, match="404"):
        download("set", tmp_path / "other", datasets=datasets(faulty_server))
    assert len(faulty_server.requested_ranges) == 1


@pytest.mark.parametrize(
    "target",
    ["http://[::bad", "http://[", "http://a\x01b/", f"http://{'a' * 70}.b/", "//[::bad", "http://127.0.0.1:x/"],
)
def test_a_redirect_to_what_is_no_address_is_one_line(faulty_server, tmp_path, target):
    faulty_server.redirect = target
    with pytest.raises(DownloadError) as error_info:
        fetch(faulty_server, tmp_path, timeout=0.1)
    assert "\n" not in str(error_info.value)
    assert files(tmp_path) == []


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:text/plain,x", "javascript:1"])
def test_only_redirects_to_web_addresses_are_followed(faulty_server, tmp_path, target):
    faulty_server.redirect = target
    with pytest.raises(DownloadError, match="redirects to") as error_info:
        fetch(faulty_server, tmp_path)
    assert "\n" not in str(error_info.value)
    assert len(faulty_server.requested_ranges) == 1
    assert files(tmp_path) == []


def test_an_endless_redirect_ends(faulty_server, tmp_path):
    faulty_server.redirect = faulty_server.url
    with pytest.raises(DownloadError, match="at most 5 redirects") as error_info:
        fetch(faulty_server, tmp_path)
    assert "\n" not in str(error_info.value)
    assert len(faulty_server.requested_ranges) <= module.REDIRECTS + 1


def test_being_offline_is_an_error_of_one_line(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    offline = {"set": PublicDataset((Archive(f"http://127.0.0.1:{port}/x.zip", None, None),), "", "")}
    with pytest.raises(DownloadError, match="offline") as error_info:
        download("set", tmp_path / "set", datasets=offline, timeout=0.5)
    assert "\n" not in str(error_info.value)


def test_a_folder_in_use_is_left_alone(faulty_server, tmp_path):
    (tmp_path / "out" / "set").mkdir(parents=True)
    (tmp_path / "out" / "set" / "mine.txt").write_text("x")
    with pytest.raises(OptionError, match="not an empty folder"):
        fetch(faulty_server, tmp_path)
    with pytest.raises(OptionError, match="expected set"):
        download("mnist", tmp_path / "x", datasets=datasets(faulty_server))


def test_the_recorded_datasets_are_well_formed():
    assert set(PUBLIC_DATASETS) == {"horses-or-humans", "cats-and-dogs-filtered", "flower-photos", "ants-bees"}
    for dataset in PUBLIC_DATASETS.values():
        assert dataset.licence
        assert dataset.source.startswith("https://")
        for archive in dataset.archives:
            assert archive.url.startswith("https://")
            assert archive.size > 10**6
            assert archive.sha256 is None or (len(archive.sha256) == 64 and int(archive.sha256, 16))
    hashes = [archive.sha256 for dataset in PUBLIC_DATASETS.values() for archive in dataset.archives]
    assert hashes.count(None) == 1
