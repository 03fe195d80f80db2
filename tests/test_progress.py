"""What is said where: bars on a terminal alone, a line per stage in a pipe, all in the log file."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import call, call_whole

from lateen.cli.app import app
from lateen.files import LOG, refuse_foreign
from lateen.progress import bar, log, log_file, log_to_stderr

LINE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} "


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    state = log.level, log.propagate, list(log.handlers)
    yield
    log.level, log.propagate, log.handlers = state
    log_to_stderr.__globals__["_Bar"].quiet = False


def say_all() -> None:
    with bar(3, "outer", "step") as outer:
        with bar(2, "inner", "row") as inner:
            inner.update(2)
        outer.update(3)
    with bar(2, "checking", "row", stage=False) as small:
        small.update(2)
    with bar(5, "done before", "step", initial=5):
        pass
    log.info("a note")
    log.warning("a warning")


def test_a_pipe_gets_a_line_for_each_stage_and_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr(logging.WARNING)
    say_all()
    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"· outer: 3 steps in \d+\.\d s", first)
    assert second == "· a warning"


def test_levels_add_notes_or_leave_all_but_errors(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr(logging.INFO)
    say_all()
    assert "· a note\n· a warning\n" in capsys.readouterr().err
    log_to_stderr(logging.ERROR, stages=False)
    say_all()
    assert capsys.readouterr().err == ""


def test_bars_are_for_terminals_that_are_not_told_to_be_quiet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    log_to_stderr(logging.INFO)
    with bar(2, "shown", "row") as shown:
        assert not shown.disable
    log_to_stderr(logging.ERROR, stages=False)
    with bar(2, "hidden", "row") as hidden:
        assert hidden.disable


def test_a_stage_that_fails_has_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr(logging.WARNING)
    with pytest.raises(ValueError, match="no"), bar(2, "failing", "row") as failing:
        failing.update(1)
        raise ValueError("no")
    assert capsys.readouterr().err == ""
    say_all()  # and it is no longer around others
    assert "outer: 3 steps" in capsys.readouterr().err


def test_a_log_file_has_all_with_the_time_and_is_appended_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log_to_stderr(logging.WARNING)
    with log_file(tmp_path / LOG):
        say_all()
    with pytest.raises(ValueError, match="it\n broke"), log_file(tmp_path / LOG):
        raise ValueError("it\n broke")
    log.warning("afterwards")
    lines = (tmp_path / LOG).read_text().splitlines()
    shown = [re.sub(LINE, "", line) for line in lines]
    assert all(re.match(LINE, line) for line in lines)
    assert re.match(r"INFO begin \(lateen \d.*, torch ", shown[0])
    assert [line.partition(" in ")[0] for line in shown[1:]] == [
        "INFO outer: 3 steps", "INFO a note", "WARNING a warning", "INFO end", shown[0],
        "ERROR it broke",
    ]  # fmt: skip
    assert "a note" not in capsys.readouterr().err


def test_a_log_file_shows_a_library_user_nothing_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log.handlers, log.propagate, log.level = [], True, logging.NOTSET
    with log_file(tmp_path / LOG):
        say_all()
    assert [record.getMessage() for record in caplog.records] == ["a warning"]
    assert log.propagate
    assert log.handlers == []


def test_a_log_makes_no_folder_foreign(tmp_path: Path) -> None:
    (tmp_path / LOG).write_text("of a run that was killed at once")
    refuse_foreign(tmp_path, "a run", ("results.json",))


def test_a_run_in_a_pipe(album: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (album / "recipe.yaml").write_text("{train: {epochs: 1}}")
    words = [
        "run", album / "recipe.yaml", "--data.root", album, "--data.train", "train.jsonl",
        "--vision.encoder", "toys:colour_encoder", "--text.encoder", "toys:word_encoder",
    ]  # fmt: skip
    code, out, err = call_whole(capsys, *words, "--out", album / "run")
    assert code == 0, err
    stages = [line for line in err.splitlines() if re.search(r" in \d+\.\d s$", line)]
    assert [line.split(":")[0] for line in stages] == [
        "· encoding images", "· encoding texts", "· training", "· closed form"
    ]  # fmt: skip
    once = (album / "run" / LOG).read_text()
    assert "train-vision-" in once
    code, out, err = call_whole(capsys, *words, "--out", album / "run", "--quiet")
    assert code == 0
    assert "model" in out
    assert err == ""
    again = (album / "run" / LOG).read_text()
    assert again.startswith(once)
    assert "already trained" in again[len(once) :]
    code, _, err = call(capsys, "keys", "--quiet", "--verbose")
    assert code == 2
    assert err.startswith("error: --quiet and --verbose")
    code, _, err = call(capsys, *words, "--out", album / "other", "--quiet", "--device", "cuda:97")
    assert code == 2
    assert err.startswith("error: there is no device")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_shells_can_complete_commands_and_options(shell: str) -> None:
    script = app.generate_completion(shell=shell)
    assert "evaluate" in script
    assert "batch-size" in script
