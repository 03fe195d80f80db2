from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lateen.errors import UsageError
from lateen.report.confusion import confusion_plot
from lateen.report.plots import save_plot, svg


def pairs(*confused: tuple[str, str, int, float]) -> list[dict[str, Any]]:
    keys = ("class", "taken_for", "images", "percent")
    return [dict(zip(keys, each, strict=True)) for each in confused]


def test_few_classes_have_a_matrix_with_numbers() -> None:
    counts = np.array([[3, 1, 0], [0, 4, 0], [0, 2, 2]])
    figure = confusion_plot(["tench", "church", "harp"], counts, pairs(("harp", "church", 2, 50)))
    [axes] = figure.axes
    assert sorted(t.get_text() for t in axes.texts) == ["100", "25", "50", "50", "75"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["tench", "church", "harp"]
    assert "harp" in svg(figure)


def test_more_classes_have_the_matrix_and_a_table() -> None:
    names = [f"class {i}" for i in range(40)]
    figure = confusion_plot(names, np.eye(40) * 5, pairs(("class 3", "class 4", 12, 30.0)))
    matrix, table = figure.axes
    assert len(matrix.get_yticklabels()) == 40
    assert [label.get_text() for label in table.get_yticklabels()] == ["class 3 → class 4"]
    assert [t.get_text() for t in table.texts] == ["30 %  (12)"]


def test_many_classes_have_the_table_alone() -> None:
    names = [f"class {i}" for i in range(1000)]
    listed = [(f"class {i}", f"class {i + 1}", 5, 50.0 - i) for i in range(45)]
    [axes] = confusion_plot(names, np.eye(1000), pairs(*listed)).axes
    assert len(axes.get_yticklabels()) == 30


def test_nothing_confused_is_said() -> None:
    [axes] = confusion_plot([str(i) for i in range(70)], np.eye(70), []).axes
    assert "no two images" in axes.get_title(loc="left")


def test_pairs_of_a_single_image_are_not_in_the_table() -> None:
    names = [f"class {i}" for i in range(70)]
    listed = pairs(("class 3", "class 4", 1, 100.0), ("class 5", "class 6", 2, 4.0))
    [axes] = confusion_plot(names, np.eye(70), listed).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["class 5 → class 6"]


def test_it_is_written_as_a_picture(tmp_path: Path) -> None:
    figure = confusion_plot(["a", "b"], np.array([[1, 0], [0, 0]]), [])
    save_plot(figure, tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as image:
        assert min(image.size) > 500


def test_names_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(UsageError, match=r"2 names do not fit counts of shape \[3, 3\]"):
        confusion_plot(["a", "b"], np.eye(3), [])
    with pytest.raises(UsageError, match="0 names"):
        confusion_plot([], np.zeros((0, 0)), [])
