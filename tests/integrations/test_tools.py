"""A tool is a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from lateen import integrations
from lateen.cli.app import app
from lateen.integrations import tool, tools


def test_every_file_is_a_tool_that_exports() -> None:
    files = {p.stem for p in Path(integrations.__file__).parent.glob("[!_]*.py")}
    assert set(tools()) == {name.replace("_", "-") for name in files}
    for name, summary in tools().items():
        assert callable(tool(name).export)
        assert len(summary) > 10


def test_the_command_offers_every_tool(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    app(["export", "--help"], result_action="return_value")
    shown = capsys.readouterr().out
    for name in tools():
        assert name in shown
