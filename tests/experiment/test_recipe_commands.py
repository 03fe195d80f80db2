"""The commands that the paper's recipes carry work, on what img2dataset leaves, in miniature."""

from __future__ import annotations

import io
import json
import re
import shlex
import tarfile
from pathlib import Path

import pytest
from commands import call
from toys import COLOURS, photo

from lateen.config import find_recipe
from lateen.features import Store
from lateen.model import AlignedModel

PAPERS = ["sail-dinov2-l-nv2-23m", "sail-dinov2-l-nv2-cc3m", "sail-dinov2-b-gte-b-cc3m"]
# What stands for the encoders of the paper, and for as many jobs as a cluster has.
SMALL = [
    (r"facebook/dinov2-\w+", "toys:colour_encoder"),
    (r"(nvidia|Alibaba-NLP)/\S+ --trust-remote-code --python \S+", "toys:word_encoder"),
    (r"/(64|16)\b", "/2"),
    (r"--preset sail", "--preset small --train.epochs 2 --train.batch 8"),
    (r"--holdout \S+", "--holdout 0.25"),
    (r"torchrun --nproc-per-node \d+ -m lateen", "lateen"),  # test_hosts.py, test_shared_run.py
    (r"runs/sail", "$RUN"),
]  # fmt: skip


def commands(recipe: str) -> list[str]:
    text = find_recipe(Path(recipe)).read_text()
    return re.findall(r"^#   \$ (.*)$", text, re.MULTILINE)


def downloaded(folder: Path, columns: list[str], first: int) -> None:
    """A set as img2dataset writes it: shards from 00000 on with keys that other sets have, too, a
    sample's caption columns in its .json, and a table and counts beside each shard."""
    for shard in range(2):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{shard:05}.parquet").write_bytes(b"not read")
        (folder / f"{shard:05}_stats.json").write_text("{}")
        with tarfile.open(folder / f"{shard:05}.tar", "w") as tar:
            for index in range(6):
                key = f"{shard:05}{index:04}"
                colour = list(COLOURS)[(first + index) % len(COLOURS)]
                picture = photo(folder / "one.png", colour, seed=100 * first + 10 * shard + index)
                fields: dict[str, object] = {name: f"a {colour} one, {name}" for name in columns}
                fields |= {"url": f"http://x/{key}.jpg", "key": key, "status": "success",
                           "error_message": None, "width": 16, "height": 12, "exif": "{}",
                           "sha256": "0" * 64}  # fmt: skip
                files = {".json": json.dumps(fields).encode(), ".png": picture.read_bytes()}
                for suffix, data in files.items():
                    info = tarfile.TarInfo(key + suffix)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    (folder / "one.png").unlink()


@pytest.mark.parametrize("recipe", PAPERS)
def test_from_what_was_downloaded_to_the_model(
    recipe: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    names = {"DATA": tmp_path / "data", "STORES": tmp_path / "stores", "RUN": tmp_path / "run"}
    asked = commands(recipe)
    assert [line.split()[0] for line in asked].count("torchrun") == 1
    sets = [line for line in asked if line.startswith("img2dataset")]
    for number, line in enumerate(sets):
        words = shlex.split(line)
        columns = json.loads(words[words.index("--save_additional_columns") + 1])
        folder = words[words.index("--output_folder") + 1]
        downloaded(Path(folder.replace("$DATA", str(names["DATA"]))), columns, number)
    for line in asked[len(sets) : -1]:  # the last is an evaluation on ImageNet
        for pattern, small in SMALL:
            line = re.sub(pattern, small, line)
        for name, path in names.items():
            line = line.replace(f"${name}", str(path))
        for job in (1, 2) if "$SLICE" in line else (1,):
            words = shlex.split(line.replace("$SLICE", str(job)))
            assert words[0] == "lateen"
            code, _, error = call(capsys, *words[1:])
            assert code == 0, error
    stores = [Store.open(names["STORES"] / name) for name in ("images", *columns)]
    # Keys that sets share are told apart, and every sample has its captions.
    assert [len(set(store.ids)) for store in stores] == [12 * len(sets)] * 3
    assert AlignedModel.from_pretrained(names["RUN"] / "model").config.training["pairs"] == (
        9 * len(sets)
    )
    assert asked[-1].startswith("lateen evaluate classification runs/sail/model")
