"""Shards as tools that know nothing of samples write them."""

import json
from pathlib import Path

import pytest
from builders import samples, write_tar
from commands import call
from labelled_toys import picture
from toys import COLOURS

from lateen.data import open_dataset

COUNT = 12
COLOUR = [list(COLOURS)[number % len(COLOURS)] for number in range(COUNT)]
PICTURES = [(f"{n:06d}.png", picture(colour, n)) for n, colour in enumerate(COLOUR)]
TEXTS = [(f"{n:06d}.txt", f"{colour}, the {n}th".encode()) for n, colour in enumerate(COLOUR)]
TOGETHER = [file for pair in zip(PICTURES, TEXTS, strict=True) for file in pair]


@pytest.mark.parametrize(
    "files",
    [PICTURES + TEXTS, TOGETHER[:16] + PICTURES[8:] + TEXTS[8:], TEXTS[::-1] + PICTURES, TOGETHER],
    ids=["pictures before texts", "the last apart", "texts before pictures", "together"],
)
def test_the_files_of_a_sample_may_stand_apart(
    files: list[tuple[str, bytes]], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = write_tar(tmp_path / "apart.tar", files)
    code, out, err = call(
        capsys, "evaluate", model, "--task", "retrieval", "--captions", shard, "--json"
    )
    result = json.loads(out)
    assert (code, err) == (0, "")
    assert (result["images"], result["captions"], result["skipped"]) == (COUNT, COUNT, 0)
    read = {sample.id: sample for sample in samples(open_dataset(shard))}
    for (name, image), (_, text) in zip(PICTURES, TEXTS, strict=True):
        sample = read[name.removesuffix(".png")]
        assert sample.image is not None
        assert sample.image.read() == image
        assert sample.captions == {"caption": (text.decode(),)}
