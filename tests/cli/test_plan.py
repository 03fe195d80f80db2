import json
import re
import shlex
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


PAPER = [
    "plan", "sail-dinov2-l-nv2-23m", "--image-count", "23000000", "--image-dim", "2048",
    "--text-dim", "4096", "--gpu-images-per-second", "830", "--gpu-texts-per-second", "170,25",
    "--training-hours", "5", "--gpus", "64",
]  # fmt: skip
SPOT = ["--price-per-gpu-hour", "2", "--hours-to-failure", "24"]


def test_plan_says_what_data_that_are_not_here_cost_on_a_cluster(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = call(capsys, *PAPER, *SPOT)
    assert (code, err) == (0, "")
    rows = {line.split("  ")[0].strip(): line.split() for line in out.splitlines()}
    assert rows["encode hq"][2:] == ["23,000,000", "25.0/s", "4", "h", "28", "min", "268", "11.2",
                                     "1.9", "536.25", "188.4", "GB"]  # fmt: skip
    assert rows["total"][-2:] == ["471.0", "GB"]
    terms = "64 GPUs at 2 $ an hour each; each fails after 24 h on average and is back 10 min"
    for shown in (terms, "assumed: GPUs are equally fast", "not included: waiting for machines"):
        assert shown in out
    assert "What this recipe costs here" not in out


def test_the_guide_shows_what_plan_prints(capsys: pytest.CaptureFixture[str]) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")
    [(command, shown)] = re.findall(
        r"```bash\n(lateen plan [^`]*--gpus[^`]*)```\n```text\n(.*?)```", guide, flags=re.DOTALL
    )
    words = shlex.split(command.replace("\\\n", " "))[1:]
    assert words == [*PAPER, *SPOT, "--restart-minutes", "10"]
    code, out, _ = call(capsys, *words)
    assert code == 0
    assert [line.rstrip() for line in out.splitlines()][: shown.count("\n")] == shown.splitlines()


def test_plan_leaves_out_what_is_not_stated_of_a_cluster(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = call(capsys, *PAPER)
    assert code == 0
    assert "$" not in out
    assert "lost" not in out
    code, out, _ = call(capsys, *PAPER, *SPOT, "--on", "ray", "--restart-minutes", "5", "--json")
    result = json.loads(out)
    assert code == 0
    assert result["cluster"]["terms"] == {
        "gpus": 64, "price": 2.0, "hours_to_failure": 24.0, "restart_minutes": 5.0, "on": "ray"
    }  # fmt: skip
    assert result["recipe"]["data"]["captions"] == ["raw", "hq"]


def test_plan_of_data_that_are_here_says_what_a_cluster_costs_besides(
    planned: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, *planned, "--gpus", "2", "--restart-minutes", "0")
    assert (code, err) == (0, "")
    assert "What this recipe costs here" in out
    assert "What this recipe costs on a cluster" in out
    assert "rates that are not given are those of this machine" in out


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
    (["r.yaml", "--gpu-texts-per-second", "fast"], 2, "--gpu-texts-per-second cannot be 'fast'"),
    (["r.yaml", "--gpu-texts-per-second", "1,2"], 2, "--gpu-texts-per-second has 2 numbers"),
    (["r.yaml", "--hours-to-failure", "3"], 2, "--hours-to-failure goes with --gpus"),
    (["r.yaml", "--image-dim", "3"], 2, "--image-dim goes with --image-count"),
    ([*PAPER[1:-2], "--gpus", "0"], 2, "gpus is 0"),
    ([*PAPER[1:], "--price-per-gpu-hour", "-2"], 2, "price_per_gpu_hour is -2"),
    ([*PAPER[1:], "--hours-to-failure", "0.1"], 2, "encode images never finishes"),
    ([*PAPER[1:], "--captions-per-image", "1,1,1"], 2, "3 numbers for 2 caption columns"),
    ([*PAPER[1:], "--out", "runs"], 2, "--out is of this machine"),
    ([PAPER[1], "--image-count", "9", "--gpus", "1"], 2, "--image-dim is not given"),
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
