from __future__ import annotations

import pytest

from lateen.data.tables import find_id_column, find_image_column, guess_caption_columns


@pytest.mark.parametrize(
    "name",
    ["caption", "Captions", "caption_0", "text", "raw", "short", "longSV_captions", "short_llava",
     "raw_caption", "title", "sentence", "comment", "alt_text", " Text ", "Image Caption"],
)  # fmt: skip
def test_names_of_caption_columns(name: str) -> None:
    assert guess_caption_columns(["image", name, "width"], "t.csv") == (name,)


@pytest.mark.parametrize(
    "name",
    ["longitude", "caption_id", "text_url", "captionid", "context", "texts_path", "drawing",
     "comment_number", "text_embedding", "label", "entitled", "", "caption_model",
     "caption_language", "text_lang", "caption_source", "num_captions", "has_caption"],
)  # fmt: skip
def test_names_of_other_columns(name: str) -> None:
    assert guess_caption_columns(["image", name], "t.csv") == ()


def test_the_commonest_name_of_the_image_wins_whatever_the_order() -> None:
    assert find_image_column(["path", "Image Path", "filename"], None) == "Image Path"
    assert find_image_column(["path", "image"], "path") == "path"
    assert find_image_column(["image_id", "caption"], None) is None
    assert find_id_column(["caption", "Image-ID"]) == "Image-ID"
    assert find_id_column(["caption"]) is None


@pytest.mark.parametrize(
    ("names", "captions", "others"),
    [
        (["caption", "title", "caption_v2"], ("caption",), "title, caption_v2"),
        (["title", "description"], ("description",), "title"),
        (["alt_text", "title"], ("alt_text",), "title"),
        (["raw_caption", "short", "long_llava"], ("raw_caption", "short", "long_llava"), ""),
    ],
)
def test_only_what_is_surely_a_caption_is_taken_and_the_rest_is_told(
    names: list[str], captions: tuple[str, ...], others: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert guess_caption_columns(names, "t.csv") == captions
    told = f"captions of t.csv: {', '.join(captions)} (also there: {others};"
    assert told in caplog.text if others else not caplog.text
