"""A tool is a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import lateen
from lateen import integrations
from lateen.cli.app import app
from lateen.errors import UsageError
from lateen.integrations import tool, tools
from lateen.model import AlignedModel


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


def test_in_python_as_on_the_command_line(tmp_path: Path, small: AlignedModel) -> None:
    small.save_pretrained(tmp_path / "model")
    for given in (small, tmp_path / "model"):
        out = lateen.export(given, to="transformers", out=tmp_path / "out", overwrite=True)
        assert (out / "modeling_lateen.py").is_file()
    with pytest.raises(UsageError, match="already holds a model"):
        lateen.export(small, to="transformers", out=tmp_path / "out")
    with pytest.raises(UsageError, match=r"no tool .transformer.*transformers"):
        lateen.export(small, to="transformer", out=tmp_path / "other")
    with pytest.raises(UsageError, match="an export to immich has no int8"):
        lateen.export(small, to="immich", out=tmp_path / "other", int8=True)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.md").write_text("mine")
    with pytest.raises(UsageError, match=r"holds mine\.md"):
        lateen.export(small, to="onnx", out=tmp_path / "notes")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("first", ["lateen", "transformers"])
def test_transformers_knows_the_exported_types_once_lateen_is_imported(first: str) -> None:
    second = {"lateen": "transformers", "transformers": "lateen"}[first]
    code = (
        f"import {first}, {second}\n"
        "from transformers import AutoConfig\n"
        "print(type(AutoConfig.for_model('lateen_siglip')).__module__)\n"
        "from transformers import AutoModelForZeroShotImageClassification as Auto\n"
        "print({c.model_type for c in Auto._model_mapping._extra_content})\n"
        "from transformers.models.llava.configuration_llava import LlavaConfig\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    home, types = done.stdout.splitlines()
    assert home == "lateen.integrations._hub_code.configuration_lateen"
    assert "lateen_clip" in types and "lateen_siglip" in types
