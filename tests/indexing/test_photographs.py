"""Search among photographs: what is encoded, what is left out, what is refused."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from toys import ColourEncoder, photo

from lateen.errors import DataError, UsageError
from lateen.experiment import run
from lateen.indexing import search
from lateen.indexing.photographs import Photographs
from lateen.model import AlignedModel, open_model


@pytest.fixture
def model(album: Path) -> Path:
    """The folder of a model of the toy encoders, trained on the album."""
    recipe = {
        "data": {"root": str(album), "train": "train.jsonl", "holdout": 0.25},
        "vision": {"encoder": "toys:colour_encoder", "dtype": "float32"},
        "text": {"encoder": "toys:word_encoder"},
        "head": {"dim": 16, "dropout": 0.0},
        "train": {"batch": 6, "epochs": 100, "lr": 0.01},
    }
    run(recipe, album / "run")
    return album / "run" / "model"


def test_search_encodes_only_what_is_new(
    model: Path, album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    plain = ColourEncoder.encode

    def counting(self: ColourEncoder, prepared: list[torch.Tensor]) -> torch.Tensor:
        seen.append(len(prepared))
        return plain(self, prepared)

    monkeypatch.setattr(ColourEncoder, "encode", counting)
    album_copy = album / "photos"
    shutil.copytree(album / "images", album_copy)
    search(model, "red", album_copy)
    assert sum(seen) == 24
    photo(album_copy / "new" / "x.png", "red", seed=55)
    (album_copy / "000.png").rename(album_copy / "renamed.png")
    (album_copy / "bad.png").write_bytes(b"no picture")
    [hits] = search(model, "red", album_copy, k=5)
    assert sum(seen) == 25
    assert {"new/x.png", "renamed.png"} <= {hit.id for hit in hits}
    search(model, "red", album_copy)
    assert sum(seen) == 25
    assert hits == sorted(hits, key=lambda hit: -(hit.adjusted or hit.score))


def test_photographs_that_cannot_be_read_do_not_stop_later_searches(
    model: Path, album: Path
) -> None:
    search(model, "red", album / "images")
    (album / "images" / "bad.png").write_bytes(b"no picture")
    for _ in range(2):
        lost: list[dict[str, str]] = []
        [hits] = search(model, "red", album / "images", k=50, skipped=lost)
        assert len(hits) == 24
        assert [row["id"] for row in lost] == ["bad.png"]


def test_many_searches_at_once(model: Path, album: Path) -> None:
    loaded = AlignedModel.from_pretrained(model)
    loaded.set_encoders("toys:colour_encoder", "toys:word_encoder")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: search(loaded, "red", album / "images"), range(8)))
    assert all(hits == found[0] for hits in found)


def test_every_photograph_is_scored_by_its_own_embedding(model: Path, album: Path) -> None:
    loaded = AlignedModel.from_pretrained(model)
    search(loaded, "red", album / "images")
    for index in range(3):  # a second part of the cache, whose rows lie between those of the first
        photo(album / "images" / f"{index}-new.png", "green", seed=50 + index)
    photographs = Photographs.of(loaded, album / "images")
    paths = [album / "images" / sample.id for sample in photographs.samples]
    assert len(paths) == 27
    torch.testing.assert_close(
        photographs.embeddings, loaded.encode_image(paths), atol=1e-3, rtol=0
    )
    [hits] = search(loaded, "red", album / "images", k=27)
    cosines = loaded.encode_text("red") @ loaded.encode_image([hit.path for hit in hits]).T
    torch.testing.assert_close(
        torch.tensor([hit.score for hit in hits]), cosines[0], atol=1e-3, rtol=0
    )


def test_search_explains_wrong_input(model: Path, album: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        search(model, "red", tmp_path / "empty")
    with pytest.raises(UsageError, match="query is empty"):
        search(model, "  ", album / "images")
    with pytest.raises(UsageError, match="at least one hit"):
        search(model, "red", album / "images", k=0)


def test_an_image_is_a_query_and_no_hit_of_itself(model: Path, album: Path, tmp_path: Path) -> None:
    loaded = AlignedModel.from_pretrained(model)
    images = album / "images"
    shutil.copyfile(images / "000.png", images / "copy.png")
    same: list[str] = []
    [hits] = search(loaded, images / "000.png", images, k=4, same=same)
    assert same == ["000.png", "copy.png"]
    everything = loaded.encode_image(sorted(images.iterdir()))
    cosines = everything @ loaded.encode_image(images / "000.png")[0]
    others = [c for c, path in zip(cosines.tolist(), sorted(images.iterdir()), strict=True)
              if path.name not in same]  # fmt: skip
    assert [hit.score for hit in hits] == pytest.approx(sorted(others, reverse=True)[:4], abs=1e-3)
    query = photo(tmp_path / "query.png", "red", seed=99)
    same.clear()
    [hits] = search(loaded, query, images, k=3, same=same)
    assert not same and len(hits) == 3
    with pytest.raises(DataError, match="there is no image"):
        search(loaded, tmp_path / "none.png", images)


@pytest.mark.parametrize("name", ["clip_folder", "siglip_folder"])
def test_a_plain_clip_searches(name: str, album: Path, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name)
    [hits] = search(folder, "a red dog", album / "images", k=24)
    model = open_model(folder)
    cosines = model.encode_text("a red dog") @ model.encode_image([hit.path for hit in hits]).T
    torch.testing.assert_close(
        torch.tensor([hit.score for hit in hits]), cosines[0], atol=3e-3, rtol=0
    )


def test_an_index_of_another_format_in_the_cache_is_made_anew(
    model: Path, album: Path, tmp_path: Path
) -> None:
    from lateen.indexing.table import PhotoTable

    cache = tmp_path / "kept"
    [before] = search(model, "red", album / "images", cache=cache)
    [place] = (cache / "indexes").iterdir()
    PhotoTable(place).write_about('{"format": 0}')
    [again] = search(model, "red", album / "images", cache=cache)
    assert again == before
