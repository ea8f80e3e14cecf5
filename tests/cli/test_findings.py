"""Findings in the terminal: a few of each kind, how many more there are, and how to see them."""

import csv
import shlex
import shutil

import pytest

from headstart.check.finding import Finding
from headstart.cli.terminal import print_findings


def findings(kind, count):
    return [Finding(kind, (f"{kind}-{i}.jpg",), "likely", 0.5, "review", "it is so") for i in range(count)]


@pytest.mark.parametrize(("count", "listed"), [(1, 1), (5, 5), (6, 6), (7, 5), (40, 5)])
def test_hidden_findings_are_counted_and_the_way_to_them_is_named(count, listed, capsys):
    print_findings([*findings("dark", count), *findings("grey", 8)], 100)
    lines = capsys.readouterr().out.splitlines()
    assert sum("dark-" in line for line in lines) == listed
    assert (f"            and {count - listed} more" in lines) == (count > listed)
    assert "            and 3 more" in lines  # of those of the other kind
    assert lines[-1] == (
        f"{count - listed + 3} findings not listed: --report check.html shows all with their images, --json names all"
    )


def test_a_command_that_is_printed_can_be_pasted(run, photos, tmp_path, monkeypatch):
    """Also where a folder has a blank or a bracket in its name."""
    shutil.copytree(photos, tmp_path / "my photos (2026)")
    monkeypatch.chdir(tmp_path)
    table = "my photos (2026)/it's fixed.csv"
    err = run("check", "my photos (2026)", "--backbone", "headstart-s", "--fix-list", table)[2]
    assert err.startswith(f"{table} lists 40 images; edit it, then: headstart fit ")
    command = shlex.split(err.partition("then: ")[2])
    assert command == ["headstart", "fit", table]
    assert run(*command[1:], "--dry-run")[0] == 0
    err = run("predict", "my model", table)[2]
    assert shlex.split(err.partition("with: ")[2]) == ["headstart", "fit", "DATA", "-o", "my model"]


def test_check_groups_by_the_rules_of_fit(run, photos, tmp_path):
    shutil.copytree(photos / "train", tmp_path / "images")
    files = sorted((tmp_path / "images").rglob("*.jpg"))
    named = [file.rename(file.with_name(f"{file.parent.name}{i // 4}-{i % 4}.jpg")) for i, file in enumerate(files)]
    named[-1] = named[-1].rename(named[-1].with_name("other.jpg"))
    check = ("check", tmp_path / "images", "--backbone", "headstart-s", "--fix-list", tmp_path / "fixed.csv")
    status, _, err = run(*check, "--group-by", "name:{*}-#")
    assert status == 0
    note = "images do not fit the pattern; they are kept together only with their copies and scenes."
    assert f"note: 1 of {len(files)} {note}" in err.splitlines()
    with (tmp_path / "fixed.csv").open() as stream:
        groups = {row["path"]: row["group"] for row in csv.DictReader(stream)}
    for file in named[:-1]:
        assert groups[file.relative_to(tmp_path).as_posix()] == file.stem.split("-")[0]
    assert run(*check, "--group-by", "specimen")[0] == 2  # no table, which alone has columns


def test_nothing_is_said_of_hidden_findings_where_there_are_none(capsys):
    print_findings(findings("dark", 6), 1)
    out = capsys.readouterr().out
    assert out.startswith("1 image checked, 6 findings\ndark: 6\n")
    assert "not listed" not in out


def test_a_corrected_table_that_leaves_columns_out_says_how_groups_are_kept(run, photos, tmp_path):
    """The specimen of each image would be forgotten, and the fit to the corrected table be too sure."""
    shutil.copytree(photos / "train", tmp_path / "images")
    files = sorted((tmp_path / "images").rglob("*.jpg"))
    copy = shutil.copy(files[0], files[0].with_name("copy.jpg"))
    rows = [
        f"{file.relative_to(tmp_path)},{file.parent.name},{i // 2},north" for i, file in enumerate([files[0], *files])
    ]
    rows[0] = f"{copy.relative_to(tmp_path)},{copy.parent.name},0,north"
    table, fixed = tmp_path / "labels.csv", tmp_path / "fixed.csv"
    check = ("check", table, "--backbone", "headstart-s")
    table.write_text("\n".join(["path,label,specimen,site", *rows]))
    assert "columns specimen, site" not in run(*check)[2]  # there is no table
    for option, name in ((("--report", tmp_path / "a.html"), "The table that"), (("--fix-list", fixed), str(fixed))):
        err = run(*check, *option)[2]
        assert f"note: {name}" in err
        assert "leaves out the columns specimen, site of" in err
        assert "give --group-by with its name: its groups are kept" in err
    fixed.unlink()
    _, out, err = run(*check, "--fix-list", fixed, "--group-by", "specimen")  # what the note says
    assert f"note: {fixed} leaves out the column site of {table}.\n" in err
    assert "keep only one, or leave them in their group" in out
    with fixed.open() as stream:
        groups = {row["path"]: row["group"] for row in csv.DictReader(stream)}
    assert groups == {row.split(",")[0]: row.split(",")[2] for row in rows}
    assert "leaves out" not in run("check", fixed, "--fix-list", tmp_path / "again.csv")[2]  # our own columns
