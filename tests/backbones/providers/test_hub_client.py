"""What is asked of the Hugging Face Hub: refusals, broken downloads, and bytes that are not the announced ones."""

import pytest
from helpers.hub_server import LATER_COMMIT, PINNED
from huggingface_hub import constants
from huggingface_hub.utils import are_progress_bars_disabled

from headstart import backbones
from headstart.backbones import InputOptions
from headstart.backbones.providers import hub, hub_client
from headstart.errors import BackboneError, OptionError
from headstart.machine import cache_folder


def test_a_token_is_sent_to_the_hub(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    backbones.load("hf:org/net")
    assert {token for *_, token in server.requests} == {"Bearer hf_secret"}


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (404, "RepoNotFound", "has no repository 'org/net'"),
        (404, "RevisionNotFound", "has no revision 'main'; expected a branch, a tag"),
        (401, "", r"refuses hf:org/net \(status 401\).*HF_TOKEN"),
        (403, "", r"refuses hf:org/net \(status 403\).*HF_TOKEN"),
        (403, "GatedRepo", "is gated: accept its terms"),
        (418, "", "answered 418"),
    ],
)
def test_refusals_of_the_hub_are_one_line(server, status, code, message):
    server.status, server.code = status, code
    with pytest.raises(BackboneError, match=message) as caught:
        backbones.load("hf:org/net")
    assert "\n" not in str(caught.value)


def test_a_hub_that_does_not_answer(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(BackboneError, match="cannot be reached for hf:org/net"):
        backbones.load("hf:org/net")


@pytest.mark.parametrize(("name", "revision"), [("hf:org/net", ""), ("hf:org/net@v1", "@v1")])
def test_offline_the_error_says_what_to_do(server, monkeypatch, name, revision):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    message = f"{name} is not on this machine and HF_HUB_OFFLINE is set; run .headstart backbones pull {name}. once"
    with pytest.raises(BackboneError, match=message):
        backbones.load(name)
    assert server.requests == []


def test_a_broken_download_goes_on_where_it_stopped(server):
    server.cut_after = [500]
    progress = []
    backbone = hub.load_hub("org/net", InputOptions(), (), progress=lambda *counts: progress.append(counts))
    ranges = [byte_range for path, byte_range, _ in server.requests if path.endswith("model.onnx")]
    assert ranges == [None, "bytes=500-"]
    size = len(server.files["onnx/model.onnx"])
    assert progress[-1] == (size, size)
    assert backbone.id == PINNED


def test_a_killed_download_goes_on_in_the_next_run(server):
    server.cut_after = [500] + [0] * 9
    with pytest.raises(BackboneError, match="run the command again"):
        backbones.load("hf:org/net")
    server.cut_after = []
    backbones.load("hf:org/net")
    assert server.requests[-1][1] == "bytes=500-"


def test_progress_bars_of_the_process_stay_as_they_were(server, capsys):
    backbones.load("hf:org/net")
    assert not are_progress_bars_disabled()
    assert capsys.readouterr() == ("", "")


def test_a_server_that_stalls(server, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    server.cut_after, server.stall = [500] + [0] * 9, 1
    with pytest.raises(BackboneError, match="timed out"):
        backbones.load("hf:org/net")


@pytest.mark.parametrize("part", ["listing", "file"])
def test_a_server_that_sends_byte_by_byte_is_given_up(server, monkeypatch, part):
    monkeypatch.setattr(hub_client, "MAX_SECONDS", 0.3)
    monkeypatch.setattr(hub_client, "MIN_RATE", 1e9)
    server.drips = part
    with pytest.raises(
        BackboneError, match=r"sends hf:org/net too slowly: it is not there after \d+ seconds"
    ) as caught:
        backbones.load("hf:org/net")
    assert "\n" not in str(caught.value)


def test_a_listing_without_an_end_is_not_kept_in_memory(server, monkeypatch):
    monkeypatch.setattr(hub_client, "MAX_LISTING", 10_000)
    server.changes["tags"] = ["x" * 20_000]
    with pytest.raises(BackboneError, match="more than 10,000 bytes"):
        backbones.load("hf:org/net")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cardData": "apache-2.0"}, ""),
        ({"cardData": ["apache-2.0"]}, ""),
        ({"cardData": {"license": ["mit"]}}, ""),
        ({"siblings": "all"}, "holds no ONNX file"),
        ({"siblings": [1, None, {"rfilename": 3}, {"rfilename": "model.onnx", "lfs": "x", "size": 5}]}, "no ONNX file"),
        ({"siblings": [{"rfilename": "model.onnx", "size": -5, "blobId": "a" * 40}]}, "no ONNX file"),
        ({"siblings": [{"rfilename": "model.onnx", "lfs": {"size": -5, "sha256": "a" * 64}}]}, "no ONNX file"),
        ({"siblings": [{"rfilename": "model.onnx", "lfs": {"size": 1e300, "sha256": "a" * 64}}]}, "no ONNX file"),
        ({"siblings": [{"rfilename": "model.onnx", "size": 10**400, "blobId": "a" * 40}]}, "more than the limit"),
        ({"sha": None}, "answers for hf:org/net with commit 'None'"),
    ],
)
def test_a_listing_of_other_values_than_expected(server, changes, message):
    server.changes = changes
    if not message:
        assert backbones.load("hf:org/net").licence == (
            "['mit']" if isinstance(changes["cardData"], dict) else "unknown"
        )
        return
    with pytest.raises(BackboneError, match=message) as caught:
        backbones.load("hf:org/net")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["onnx/model.onnx", "preprocessor_config.json"])
def test_bytes_other_than_the_announced_ones_are_never_used(server, name):
    content = server.files[name]
    server.announced[name] = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(BackboneError, match=r"another hash than the [0-9a-f]{12}\.\.\. announced"):
        backbones.load("hf:org/net")
    assert not [p for p in cache_folder().rglob("*") if p.is_file() and p.name.startswith(name.split("/")[-1])]
    server.announced.clear()
    assert backbones.load("hf:org/net").id == PINNED


@pytest.mark.parametrize("change", [b"", b"longer"])
def test_another_length_than_announced_is_refused(server, change):
    name = "onnx/model.onnx"
    server.announced[name] = server.files[name] + b"x" if not change else server.files[name][:-6]
    with pytest.raises(BackboneError, match=r"run the command again|sends more than"):
        backbones.load("hf:org/net")


@pytest.mark.parametrize(
    "name", ["../out.onnx", "/etc/out.onnx", "a/../../out.onnx", "C:\\out.onnx", "a\\..\\out.onnx"]
)
def test_files_whose_names_leave_the_folder_are_ignored(server, name, tmp_path):
    server.files[name] = server.files.pop("onnx/model.onnx")
    del server.files["onnx/model_quantized.onnx"]
    with pytest.raises(BackboneError, match="holds no ONNX file"):
        backbones.load("hf:org/net")
    assert not list(tmp_path.rglob("out.onnx"))


@pytest.mark.parametrize("rest", ["", "net", "a/b/c", "../b", "a/..", "a/b@", "a/b@../c", "a/b?file=../x", "a/b?x=1"])
def test_ids_that_do_not_name_a_repository_are_refused(rest):
    with pytest.raises(OptionError, match="does not name a repository"):
        backbones.load(f"hf:{rest}")


def test_a_commit_other_than_the_requested_one_is_refused(server):
    with pytest.raises(BackboneError, match=r"expected b{40}"):
        backbones.load(f"hf:org/net@{LATER_COMMIT}")
