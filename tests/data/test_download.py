"""Downloads against a server that serves well, stalls, cuts off, lies and serves wrong bytes."""

import hashlib
import http.server
import io
import socket
import ssl
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from helpers.servers import serving

from headstart.data import download as module
from headstart.data.download import SETS, File, PublicSet, download
from headstart.errors import DownloadError, OptionError


def zip_of(names):
    stream = io.BytesIO()
    noise = np.random.default_rng(0).bytes(60_000)
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, name.encode() + noise)
    return stream.getvalue()


GOOD = zip_of(["wrap/train/ants/1.jpg", "wrap/train/bees/2.jpg", "wrap/val/ants/3.jpg", "wrap/.DS_Store"])


@dataclass
class Server:
    """What it serves, how it misbehaves, and which ranges it was asked for."""

    data: bytes = GOOD
    tag: str = '"one"'
    ranges: bool = True
    cut_after: list[int] = field(default_factory=list)  # bytes sent on each of the first connections
    stall: int = 0  # connections that say nothing after some bytes
    length: int | str | None = None  # told instead of the truth
    status: list[int] = field(default_factory=list)
    redirect: str = ""
    change_after: int = 0  # connections after which the file is another one
    wrong_range: bool = False
    careless: bool = False  # ignores If-Range
    asked: list[str | None] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def server(monkeypatch):
    state = Server()
    monkeypatch.setattr(module, "CHUNK", 4096)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            self.close_connection = True
            asked = self.headers.get("Range")
            state.asked.append(asked)
            if state.status:
                self.send_response(state.status.pop(0))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if state.redirect:
                self.send_response(302)
                self.send_header("Location", state.redirect)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if state.change_after and len(state.asked) > state.change_after:
                state.tag, state.data = '"two"', zip_of(["wrap/train/new/9.jpg"])
            start = 0
            if asked and state.ranges and (state.careless or self.headers.get("If-Range") == state.tag):
                start = int(asked.removeprefix("bytes=").rstrip("-"))
            body = state.data[start:]
            self.send_response(206 if start else 200)
            if start:
                said = start + 7 if state.wrong_range else start
                self.send_header("Content-Range", f"bytes {said}-{len(state.data) - 1}/{len(state.data)}")
            self.send_header("ETag", state.tag)
            self.send_header("Content-Length", str(len(body) if state.length is None else state.length))
            self.end_headers()
            if state.cut_after:
                body = body[: state.cut_after.pop(0)]
            try:
                if state.stall:
                    state.stall -= 1
                    self.wfile.write(body[:5000])
                    self.wfile.flush()
                    time.sleep(1.0)
                    return
                self.wfile.write(body)
            except OSError:  # the client has had enough
                pass

    with serving(Handler) as address:
        state.url = f"{address}/data.zip"
        yield state


def sets(server, data=GOOD, **changes):
    file = File(server.url, len(data), hashlib.sha256(data).hexdigest(), wrapped="wrap")
    return {"set": PublicSet((replace(file, **changes),), "CC BY 2.0", "https://example.org")}


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def get(server, tmp_path, timeout=0.3, **changes):
    return download("set", tmp_path / "out" / "set", sets=sets(server, **changes), timeout=timeout)


EXPECTED = ["SOURCE.md", "train/ants/1.jpg", "train/bees/2.jpg", "val/ants/3.jpg"]


def check(tmp_path):
    assert files(tmp_path / "out") == [f"set/{name}" for name in EXPECTED]
    content = (tmp_path / "out" / "set" / "train" / "ants" / "1.jpg").read_bytes()
    assert content.startswith(b"wrap/train/ants/1.jpg")


def test_a_good_server(server, tmp_path):
    seen = []
    file = sets(server)["set"].files[0]
    found = download("set", tmp_path / "out" / "set", sets=sets(server), progress=lambda *a: seen.append(a))
    assert found == {server.url: file.sha256}
    check(tmp_path)
    assert seen[-1] == (len(GOOD), len(GOOD))
    text = (tmp_path / "out" / "set" / "SOURCE.md").read_text()
    assert "CC BY 2.0" in text
    assert file.sha256 in text


def test_cut_off_again_and_again_it_goes_on_where_it_stopped(server, tmp_path):
    server.cut_after = [50_000, 60_000, 10_000]
    get(server, tmp_path)
    check(tmp_path)
    assert server.asked == [None, "bytes=50000-", "bytes=110000-", "bytes=120000-"]


def test_a_later_call_goes_on_too(server, tmp_path):
    server.cut_after = [50_000]
    with pytest.raises(DownloadError, match="run the command again"):
        download("set", tmp_path / "out" / "set", sets=sets(server), attempts=1)
    assert not (tmp_path / "out" / "set").exists()
    get(server, tmp_path)
    check(tmp_path)
    assert server.asked == [None, "bytes=50000-"]


def test_a_stall_is_cut_short_and_gone_on_from(server, tmp_path):
    server.stall = 2
    get(server, tmp_path)
    check(tmp_path)
    assert server.asked[0] is None
    assert server.asked[1].startswith("bytes=")


def test_a_server_that_stalls_for_ever_ends_in_one_line(server, tmp_path):
    server.stall, server.ranges = 99, False
    with pytest.raises(DownloadError, match="did not arrive in 5 attempts"):
        get(server, tmp_path, timeout=0.1)


def test_without_ranges_it_begins_anew(server, tmp_path):
    server.ranges, server.cut_after = False, [50_000]
    get(server, tmp_path)
    check(tmp_path)


def test_a_file_that_changed_in_between_is_not_glued_together(server, tmp_path):
    server.cut_after, server.change_after = [50_000], 1
    new = zip_of(["wrap/train/new/9.jpg"])
    get(server, tmp_path, size=None, sha256=hashlib.sha256(new).hexdigest())
    assert files(tmp_path / "out" / "set") == ["SOURCE.md", "train/new/9.jpg"]


def test_a_changed_file_is_not_glued_even_by_a_server_that_ignores_if_range(server, tmp_path):
    server.cut_after, server.change_after, server.careless = [500], 1, True
    new = zip_of(["wrap/train/new/9.jpg"])
    get(server, tmp_path, size=None, sha256=hashlib.sha256(new).hexdigest())
    assert files(tmp_path / "out" / "set") == ["SOURCE.md", "train/new/9.jpg"]
    assert server.asked == [None, "bytes=500-", None]


def test_a_kill_between_new_note_and_new_bytes_leaves_no_old_bytes(server, tmp_path, monkeypatch):
    server.cut_after = [50_000]
    with pytest.raises(DownloadError):
        download("set", tmp_path / "out" / "set", sets=sets(server), attempts=1)
    server.tag = '"two"'

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module.Path, "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        get(server, tmp_path)
    assert not list((tmp_path / "out").glob("*.part"))
    assert not (tmp_path / "out" / "set").exists()


def test_a_length_of_thousands_of_digits_is_no_length(server, tmp_path):
    server.length = "9" * 5000
    get(server, tmp_path, timeout=0.1)
    check(tmp_path)


def test_a_fault_of_the_way_is_not_called_a_fault_of_the_disk(server, tmp_path, monkeypatch):
    def broken(*_):
        raise ssl.SSLError(1, "bad record mac")

    monkeypatch.setattr(module.http.client.HTTPResponse, "read1", broken)
    with pytest.raises(DownloadError, match=r"did not arrive in 5 attempts \(bad record mac\)"):
        get(server, tmp_path)


def test_a_certificate_that_is_not_valid_is_not_called_offline(server, tmp_path, monkeypatch):
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "self-signed certificate"

    def refused(*_, **__):
        raise urllib.error.URLError(error)

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", refused)
    with pytest.raises(DownloadError, match="certificate that is not valid here"):
        get(server, tmp_path)


def test_certificates_and_host_names_are_verified():
    https = [h for h in module._opener().handlers if isinstance(h, urllib.request.HTTPSHandler)]
    context = https[0]._context or ssl.create_default_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


@pytest.mark.parametrize(("limit", "value"), [("MAX_MEMBERS", 3), ("MAX_UNPACKED", 100_000)])
def test_bombs_are_refused(server, tmp_path, monkeypatch, limit, value):
    monkeypatch.setattr(module, limit, value)
    with pytest.raises(DownloadError, match=f"more than {value:,}"):
        get(server, tmp_path)
    assert files(tmp_path) == []


@pytest.mark.parametrize("name", ["../up.jpg", "/abs.jpg", "wrap/../../up.jpg", "C:\\x.jpg", "wrap/C:/x.jpg"])
def test_zips_that_leave_their_folder_are_refused(server, tmp_path, name):
    server.data = zip_of(["wrap/train/a/1.jpg", name])
    with pytest.raises(DownloadError, match=r"(?i)refused"):
        get(server, tmp_path, data=server.data)
    assert files(tmp_path) == []


def test_a_link_in_a_zip_is_refused(server, tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        link = zipfile.ZipInfo("wrap/train/a/1.jpg")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    server.data = stream.getvalue()
    with pytest.raises(DownloadError, match="It is a link"):
        get(server, tmp_path, data=server.data)
    assert files(tmp_path) == []


def test_a_damaged_zip_of_the_right_hash_is_refused(server, tmp_path):
    middle = len(GOOD) // 2
    server.data = GOOD[:middle] + b"\xff" * 10 + GOOD[middle + 10 :]
    with pytest.raises(DownloadError, match="damaged"):
        get(server, tmp_path, data=server.data)
    assert files(tmp_path) == []


def test_a_wrong_content_range_is_not_believed(server, tmp_path):
    server.cut_after, server.wrong_range = [50_000], True
    get(server, tmp_path)
    check(tmp_path)


@pytest.mark.parametrize("length", [len(GOOD) // 2, len(GOOD) + 1000])
@pytest.mark.parametrize("size", ["known", None])
def test_lies_about_the_length_never_give_a_wrong_set(server, tmp_path, length, size):
    server.length = length
    changes = {} if size else {"size": None}
    if length < len(GOOD) and not size:  # what came looks whole, but has another hash
        with pytest.raises(DownloadError, match="expected"):
            get(server, tmp_path, timeout=0.1, **changes)
        assert files(tmp_path) == []
    elif length < len(GOOD):  # the rest is asked for
        get(server, tmp_path, timeout=0.1, **changes)
        check(tmp_path)
        assert server.asked[1] == f"bytes={length}-"
    else:
        try:
            get(server, tmp_path, timeout=0.1, **changes)
        except DownloadError:
            return
        check(tmp_path)


def test_wrong_bytes_are_refused_and_deleted(server, tmp_path):
    server.data = GOOD[:1000] + b"\0" + GOOD[1001:]
    with pytest.raises(DownloadError, match=r"has sha256 [0-9a-f]{64}, expected [0-9a-f]{64}"):
        get(server, tmp_path)
    assert files(tmp_path) == []


def test_more_than_promised_is_refused(server, tmp_path):
    server.data = GOOD + b"\0" * 50_000
    with pytest.raises(DownloadError, match="more than the"):
        get(server, tmp_path)
    assert files(tmp_path) == []


def test_too_much_is_refused_before_it_comes(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    with pytest.raises(DownloadError, match="limit"):
        get(server, tmp_path, size=None)


def test_server_errors_are_tried_again_and_missing_files_are_not(server, tmp_path):
    server.status = [500, 503]
    get(server, tmp_path)
    check(tmp_path)
    assert len(server.asked) == 3
    server.status, server.asked = [404], []
    with pytest.raises(DownloadError, match="404"):
        download("set", tmp_path / "other", sets=sets(server))
    assert len(server.asked) == 1


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:text/plain,x", "javascript:1"])
def test_redirects_lead_to_web_addresses_alone(server, tmp_path, target):
    server.redirect = target
    with pytest.raises(DownloadError, match="redirects to") as caught:
        get(server, tmp_path)
    assert "\n" not in str(caught.value)
    assert len(server.asked) == 1
    assert files(tmp_path) == []


def test_an_endless_redirect_ends(server, tmp_path):
    server.redirect = server.url
    with pytest.raises(DownloadError, match="at most 5 redirects") as caught:
        get(server, tmp_path)
    assert "\n" not in str(caught.value)
    assert len(server.asked) <= module.REDIRECTS + 1


def test_offline_is_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    offline = {"set": PublicSet((File(f"http://127.0.0.1:{port}/x.zip", None, None),), "", "")}
    with pytest.raises(DownloadError, match="offline") as caught:
        download("set", tmp_path / "set", sets=offline, timeout=0.5)
    assert "\n" not in str(caught.value)


def hostile_tar(name, kind=tarfile.REGTYPE):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for member_name, member_kind in (("wrap/a/1.jpg", tarfile.REGTYPE), (name, kind)):
            member = tarfile.TarInfo(member_name)
            member.type, member.linkname = member_kind, "/etc/passwd"
            member.size = 4 if member_kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(b"evil"))
    return stream.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        hostile_tar("../up.jpg"), hostile_tar("/abs.jpg"), hostile_tar("wrap/../../up.jpg"), hostile_tar("C:\\x.jpg"),
        hostile_tar("wrap/link.jpg", tarfile.SYMTYPE), hostile_tar("wrap/dev.jpg", tarfile.CHRTYPE), b"no archive", b"",
    ],
)  # fmt: skip
def test_hostile_and_broken_archives_leave_nothing_behind(server, tmp_path, data):
    server.data = data
    server.url = server.url.replace(".zip", ".tgz")
    with pytest.raises(DownloadError):
        get(server, tmp_path, data=data)
    assert not (tmp_path / "out" / "set").exists()
    assert not list(tmp_path.rglob("*.jpg"))


def test_a_folder_in_use_is_left_alone(server, tmp_path):
    (tmp_path / "out" / "set").mkdir(parents=True)
    (tmp_path / "out" / "set" / "mine.txt").write_text("x")
    with pytest.raises(OptionError, match="not an empty folder"):
        get(server, tmp_path)
    with pytest.raises(OptionError, match="expected set"):
        download("mnist", tmp_path / "x", sets=sets(server))


def test_two_archives_fill_one_set(server, tmp_path):
    one = replace(sets(server)["set"].files[0], wrapped="wrap/train", into="train")
    two = replace(sets(server)["set"].files[0], wrapped="wrap/val", into="validation")
    download("set", tmp_path / "set", sets={"set": PublicSet((one, two), "", "")})
    assert files(tmp_path / "set") == ["SOURCE.md", "train/ants/1.jpg", "train/bees/2.jpg", "validation/ants/3.jpg"]


def test_what_is_recorded_is_well_formed():
    assert set(SETS) == {"horses-or-humans", "cats-and-dogs-filtered", "flower-photos", "ants-bees"}
    for public in SETS.values():
        assert public.licence
        assert public.source.startswith("https://")
        for file in public.files:
            assert file.url.startswith("https://")
            assert file.size > 10**6
            assert file.sha256 is None or (len(file.sha256) == 64 and int(file.sha256, 16))
    assert sum(file.sha256 is None for public in SETS.values() for file in public.files) == 1
