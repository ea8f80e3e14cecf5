"""Findings in the terminal: a few of each kind, how many more there are, and how to see them."""

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


def test_nothing_is_said_of_hidden_findings_where_there_are_none(capsys):
    print_findings(findings("dark", 6), 1)
    out = capsys.readouterr().out
    assert out.startswith("1 image checked, 6 findings\ndark: 6\n")
    assert "not listed" not in out
