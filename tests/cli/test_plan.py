import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from commands import call
from test_cli import SMALL, TOYS

from lateen.cli.costs import duration, size


@pytest.fixture
def planned(album: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    (album / "recipe.yaml").write_text("data:\n  train: train.jsonl\n")
    return ["plan", album / "recipe.yaml", "--data.root", album, *TOYS, *SMALL]


def test_plan_prints_items_sums_and_what_is_largest(
    planned: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, *planned)
    assert (code, err) == (0, "")
    for shown in ("encode train images", "encode train captions", "train the heads", "total",
                  "checkpoints and model", "spread of the rates", "largest  ", "memory   ",
                  "disk     ", "not included: "):  # fmt: skip
        assert shown in out
    assert "GPU-hours" not in out
    assert "warning" not in out


def test_plan_states_gpu_hours_and_prints_json(
    planned: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    rates = ["--gpu-images-per-second", "0.01", "--gpu-texts-per-second", "0.02"]
    code, out, _ = call(capsys, *planned, *rates)
    assert code == 0
    assert "encoding takes 1.33 GPU-hours (images 0.667, texts 0.667)" in out
    code, out, _ = call(capsys, *planned, "--json", "--samples", "5")
    result = json.loads(out)
    assert code == 0
    assert result["rates"][0]["tried"] == 5
    assert result["gpu_hours"] is None


def test_plan_warns_of_damaged_images_a_full_disk_and_a_busy_machine(
    planned: list[object], album: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    free = shutil.disk_usage(album)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: free)
    monkeypatch.setattr("os.getloadavg", lambda: (99.5, 9.0, 9.0))
    (album / "images" / "003.png").write_bytes(b"damaged")
    code, out, _ = call(capsys, *planned, "--out", album / "run")
    assert code == 0
    assert "1 of 24 images of the sample cannot be decoded" in out
    assert "of 100 B that are free in" in out
    assert "that does not fit" in out
    assert "this machine is busy (load 99.5 on" in out
    assert not (album / "run").exists()


WRONG: list[tuple[Sequence[str], int, str]] = [
    (["absent.yaml"], 2, "there is no recipe absent.yaml"),
    (["r.yaml", "--train.lrr", "1"], 2, "Did you mean 'train.lr'?"),
    (["r.yaml", "stray"], 2, "unexpected argument 'stray'"),
    (["r.yaml", "--samples", "0"], 2, "samples is 0"),
    (["r.yaml", "--samples", "many"], 2, "many"),
    (["r.yaml", "--gpu-images-per-second", "-3"], 2, "gpu_images_per_second is -3"),
    (["r.yaml", *TOYS, "--data.root", "nowhere"], 1, "nowhere"),
]


@pytest.mark.parametrize(("words", "code", "message"), WRONG, ids=[" ".join(w[0]) for w in WRONG])
def test_wrong_plans_are_one_line_with_a_remedy(
    words: Sequence[str], code: int, message: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text("data:\n  train: train.jsonl\n")
    (tmp_path / "train.jsonl").touch()
    got, out, err = call(capsys, "plan", *words)
    assert message in err
    assert (got, out) == (code, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_durations_and_sizes_are_for_people() -> None:
    shown = {0.04: "0.0 s", 9.94: "9.9 s", 63: "63 s", 119.6: "2 min", 213: "3 min 33 s",
             725: "12 min", 3599: "1 h", 4800: "1 h 20 min", 36000: "10 h", 183600: "2 d 3 h",
             1e7: "115 d"}  # fmt: skip
    assert {seconds: duration(seconds) for seconds in shown} == shown
    shown = {0: "0 B", 999: "999 B", 3400: "3.4 kB", 15.5e6: "15.5 MB", 59e9: "59.0 GB",
             4.71e12: "4.7 TB"}  # fmt: skip
    assert {count: size(count) for count in shown} == shown
