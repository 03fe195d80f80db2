from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from lateen.errors import LateenError
from lateen.training.log import MetricsLog


def test_rows_are_json_lines_with_six_digits(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "m", 0) as metrics:
        metrics.write({"step": 1, "loss": 1 / 3, "lr": 1.23456789e-5})
        metrics.write({"step": 1, "validation": {"text_to_image": {"R@1": 50.0}}})
    lines = (tmp_path / "m").read_text().splitlines()
    assert lines[0] == '{"step": 1, "loss": 0.333333, "lr": 1.23457e-05}'
    assert json.loads(lines[1])["validation"] == {"text_to_image": {"R@1": 50.0}}


def test_lines_after_the_step_and_cut_lines_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 2, "validation": {}}\n{"step": 3}\n{"ste')
    with MetricsLog(path, 2) as metrics:
        metrics.write({"step": 3})
    steps = '{"step": 1}\n{"step": 2}\n{"step": 2, "validation": {}}\n{"step": 3}\n'
    assert path.read_text() == steps


def test_a_cut_line_within_the_step_is_removed_too(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_text('{"step": 1}\n{"step": 2')
    with MetricsLog(path, 2):
        pass
    assert path.read_text() == '{"step": 1}\n'


def test_a_new_run_starts_an_empty_log(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_text("left over, not even JSON\n")
    with MetricsLog(path, 0):
        pass
    assert path.read_text() == ""


def test_a_lost_log_is_started_again(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "m", 5) as metrics:
        metrics.write({"step": 6})
    assert (tmp_path / "m").read_text() == '{"step": 6}\n'


def test_a_full_disk_is_explained_and_the_file_is_closed(tmp_path: Path) -> None:
    metrics = MetricsLog(tmp_path / "m", 0)
    metrics._file.close()
    full = Path("/dev/full").open("a", encoding="utf-8")  # noqa: SIM115
    metrics._file = full
    with (
        pytest.raises(LateenError, match=r"disk is full: could not write .*m\. Free some"),
        metrics,
    ):
        metrics.write({"step": 1})
    assert full.closed


def test_another_fault_of_the_disk_is_not_called_a_full_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: int) -> None:
        raise OSError(errno.EIO, "broken")

    metrics = MetricsLog(tmp_path / "m", 0)
    monkeypatch.setattr("os.fsync", broken)
    with metrics, pytest.raises(OSError, match="broken"):
        metrics.sync()
