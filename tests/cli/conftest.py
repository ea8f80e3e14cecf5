"""The fixture of the tests of commands."""

import sys

import pytest

from headstart.cli import main


@pytest.fixture
def run(monkeypatch, capsys):
    """Run ``headstart ARGS`` in this process; return status, standard output and standard error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["headstart", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            main()
        out, err = capsys.readouterr()
        return exit_info.value.code or 0, out, err

    return call
