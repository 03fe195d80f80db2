"""Adding a task is adding a file."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
import toys
from commands import saved_model

from lateen.evaluation import TASKS, evaluate, tasks
from lateen.evaluation.task import task_summaries

SPREAD = '''"""How far apart the images lie: mean cosine of neighbours in a folder.

Near 1, the model takes all of them for alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lateen.data import open_dataset
from lateen.evaluation.features import (
    JudgedImages, conditions, find_trained_on, side_features
)
from lateen.evaluation.task import Result, Task
from lateen.model import AlignedModel
from lateen.report.tables import Column, TableData


def evaluate_spread(model: AlignedModel, *, images: str | Path, step: int = 1) -> dict[str, Any]:
    """Mean cosine of each image with the one that many places behind it.

    Args:
        model: an aligned model.
        images: folder of images.
        step: how many places.
    """
    dataset = open_dataset(images)
    store = side_features(model, "vision", dataset)
    embeddings = model.project_image(store[:])
    cosine = (embeddings[step:] * embeddings[:-step]).sum(1).mean()
    return {
        "cosine": cosine.item(), "images": len(embeddings),
        "trained_on": find_trained_on(model, JudgedImages.of(store)),
        "conditions": conditions(model, dataset.fingerprint),
    }


def spread_tables(result: Result) -> Iterator[TableData]:
    """The one number."""
    yield TableData("Spread", [Column("images", 0), Column("mean cosine", 3)],
                    [[result["images"], result["cosine"]]])


TASK = Task(evaluate_spread, {"mean cosine": "cosine"}, spread_tables)
'''


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return saved_model(tmp_path / "model")


def lateen_with(folder: Path, *words: object) -> str:
    """What the command line prints in a process that finds tasks in one more folder."""
    code = (
        "import sys; from lateen.evaluation import tasks; "
        f"tasks.__path__.append({str(folder)!r}); "
        "from lateen.cli import main; main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_file_in_the_folder_is_a_task(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "spread.py").write_text(SPREAD)
    (folder / "toys.py").symlink_to(Path(toys.__file__))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    album = toys.album(tmp_path / "album", count=4)
    listed = lateen_with(folder, "evaluate", "--help")
    assert "spread" in listed
    assert "How far apart the images lie" in listed
    assert "--step INT" in lateen_with(folder, "evaluate", "spread", "--help")
    words = ("evaluate", "spread", model, "--images", album / "images", "--step", 2)
    assert "mean cosine" in lateen_with(folder, *words)
    result = json.loads(lateen_with(folder, *words, "--json"))
    assert (result["task"], result["images"], result["options"]["step"]) == ("spread", 4, 2)
    old = ("evaluate", model, "--task", "spread", "--images", album / "images", "--step", 2)
    assert json.loads(lateen_with(folder, *old, "--json")) == result


def test_every_task_is_named_after_its_file_and_says_what_it_is() -> None:
    summaries = task_summaries()
    files = {p.stem for p in Path(tasks.__file__).parent.glob("[!_]*.py")}
    assert set(TASKS) == set(summaries) == {name.replace("_", "-") for name in files}
    for name, task in TASKS.items():
        assert (task.name, task.summary) == (name, summaries[name])
        assert len(summaries[name]) > 10


@pytest.mark.parametrize("name", TASKS)
def test_the_help_of_a_task_has_all_its_options(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lateen.cli.app import app

    monkeypatch.setenv("COLUMNS", "200")
    app(["evaluate", name, "--help"], result_action="return_value")
    shown = capsys.readouterr().out
    for option in TASKS[name].options:
        assert f"--{option.replace('_', '-')}" in shown
    for common in ("--json", "--out", "--vision.encoder", "--text.encoder"):
        assert common in shown
    assert "METHODS" not in shown
    assert ":func:" not in shown


def test_listing_the_tasks_loads_no_torch() -> None:
    code = (
        "import sys; from lateen.cli.app import app; "
        "app(['evaluate', '--help'], result_action='return_value'); "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0


def test_the_public_function_takes_the_options_of_the_task(model: Path, tmp_path: Path) -> None:
    album = toys.album(tmp_path / "album", count=6)
    result = evaluate(model, "retrieval", captions=album / "train.jsonl", images=album / "images")
    assert result["images"] == 6
    parameters = list(inspect.signature(evaluate).parameters)
    assert parameters == ["model", "task", "place", "out", "options"]
