"""The retrieval task around the metric: captions per image, folds, sums."""

from pathlib import Path

import numpy as np
import pytest
import torch
from benchmark_toys import PaletteEncoder, colour_model
from PIL import Image
from toys import WordEncoder, photo

from lateen import evaluate
from lateen.errors import DataError, UsageError
from lateen.evaluation import retrieval_result
from lateen.features import encode, pair
from lateen.metrics import retrieval, rsum


def test_the_sum_is_that_of_six_recalls(album: Path) -> None:
    result = evaluate(colour_model(), "retrieval", captions=album / "train.jsonl",
                      images=album / "images")  # fmt: skip
    recalls = [
        result[way][f"R@{k}"] for way in ("text_to_image", "image_to_text") for k in (1, 5, 10)
    ]
    assert result["rsum"] == pytest.approx(sum(recalls))
    assert rsum({way: dict.fromkeys(("R@1", "R@5", "R@10"), 100.0)
                 for way in ("text_to_image", "image_to_text")}) == 600  # fmt: skip


def test_folds_have_pools_of_their_own_and_are_averaged(album: Path) -> None:
    model = colour_model()
    pairs = pair(
        encode(album / "images", PaletteEncoder(), album / "i"),
        encode(album / "train.jsonl", WordEncoder(), album / "t"),
    )
    result = retrieval_result(model, pairs, folds=3)
    parts = [retrieval_result(model, pairs.take(np.arange(i, i + 8))) for i in (0, 8, 16)]
    for way in ("text_to_image", "image_to_text"):
        for key in ("R@1", "R@5", "R@10", "median_rank"):
            mean = sum(part[way][key] for part in parts) / 3
            assert result["folds"][way][key] == pytest.approx(mean)
    assert result["folds"]["rsum"] == pytest.approx(sum(part["rsum"] for part in parts) / 3)
    with pytest.raises(DataError, match="24 images cannot make 25 folds"):
        retrieval_result(model, pairs, folds=25)


def test_only_the_first_captions_of_each_image_count(album: Path) -> None:
    model = colour_model()
    options = {"captions": album / "train.jsonl", "images": album / "images"}
    one = evaluate(model, "retrieval", per_image=1, **options)
    assert (one["images"], one["captions"]) == (24, 24)
    pairs = pair(
        encode(album / "images", PaletteEncoder(), album / "i"),
        encode(album / "train.jsonl", WordEncoder(), album / "t"),
    ).with_captions("caption#0")
    expected = retrieval_result(model, pairs)
    assert one["image_to_text"] == expected["image_to_text"]
    many = evaluate(model, "retrieval", per_image=9, **options)
    assert many["captions"] == 48
    with pytest.raises(UsageError, match="per-image is 0"):
        evaluate(model, "retrieval", per_image=0, **options)


def test_columns_one_by_one_and_as_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The second captions are all wrong: together, half of the texts find their image."""
    colours = ["red", "green", "blue"]
    rows = ["image,caption,caption_2"]
    for index, colour in enumerate(colours):
        photo(tmp_path / "images" / f"{index}.png", colour)
        rows.append(f"{index}.png,{colour},{colours[index - 1]}")
    (tmp_path / "c.csv").write_text("\n".join(rows))
    options = {"captions": tmp_path / "c.csv", "images": tmp_path / "images"}
    each = evaluate(colour_model(), "retrieval", columns="each", **options)
    ranks = {name: part["text_to_image"]["R@1"] for name, part in each["by_column"].items()}
    assert ranks == {"caption": 100, "caption_2": 0}
    assert (each["column"], each["text_to_image"]["R@1"]) == ("caption", 100)
    union = evaluate(colour_model(), "retrieval", columns="union", **options)
    assert (union["column"], union["captions"], union["n"]) == ("caption + caption_2", 6, 3)
    assert union["text_to_image"]["R@1"] == 50
    assert not caplog.messages or "judged on" not in caplog.text
    evaluate(colour_model(), "retrieval", **options)
    assert "judged on the captions caption (also there: caption_2" in caplog.text
    with pytest.raises(UsageError, match="two choices"):
        evaluate(colour_model(), "retrieval", columns="each", column="caption_2", **options)
    with pytest.raises(UsageError, match="columns cannot be 'al'"):
        evaluate(colour_model(), "retrieval", columns="al", **options)


def test_folds_of_the_metric_on_embeddings_worked_by_hand() -> None:
    """Image 1's caption finds image 2 among all four, and its own among its half."""
    image = torch.eye(4)
    text = torch.tensor([[1, 0, 0, 0], [0, 0.6, 0.8, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    whole = retrieval(image, text, torch.arange(4))
    halves = [retrieval(image[i : i + 2], text[i : i + 2], torch.arange(2)) for i in (0, 2)]
    assert whole["text_to_image"]["R@1"] == 75
    assert [half["text_to_image"]["R@1"] for half in halves] == [100, 100]


def test_copies_among_the_images_are_counted_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, colour in {"a": "red", "b": "red", "c": "blue", "d": "red"}.items():
        Image.new("RGB", (16, 16), colour).save(tmp_path / f"{name}.png")
    rows = ["image,caption", *(f"{name}.png,text {name}" for name in "abcd")]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    result = evaluate(colour_model(), "retrieval", captions=tmp_path / "t.csv")
    assert (result["images"], result["copies"]) == (4, 2)
    assert "2 of 4 images have the very features of another" in caplog.text
