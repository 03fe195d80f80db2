from __future__ import annotations

from collections import Counter

import pytest

from lateen.data.samples import ListDataset, MemoryImage, Sample
from lateen.errors import DataError, UsageError
from lateen.mllm.benchmarks import pope_from_captions, score
from lateen.mllm.benchmarks.nouns import NOUNS, Noun

TABLE = {
    "dog": Noun(("dog", "dogs"), ("animal",)),
    "snow": Noun(("snow",), (), ""),
    "kite": Noun(("kite",)),
}


def dataset(captions: dict[str, list[str]]) -> ListDataset:
    samples = [Sample(name, MemoryImage(name, name.encode()), {"caption": tuple(texts)})
               for name, texts in captions.items()]  # fmt: skip
    return ListDataset("album", samples, "0" * 64, ("caption",))


ALBUM = {
    "two": ["A dog runs.", "Dogs!", "It runs."],
    "once": ["A dog runs.", "It runs.", "Fast."],  # named by one of three: not asked
    "kin": ["An animal in snow.", "Snow.", "White."],  # may be a dog: not asked
    "none": ["A man.", "He waits.", "Outside."],
    "snow": ["The snow.", "snow", "A dogged man."],
    "single": ["A dog."],  # its only caption names it
}


def test_yes_and_no_by_what_captions_say() -> None:
    found = pope_from_captions(dataset(ALBUM), nouns=TABLE)
    told = {(each.groups["thing"], each.image_ids[0]): each.answers[0] for each in found.questions}
    assert told[("dog", "two")] == told[("dog", "single")] == "yes"
    assert told[("dog", "none")] == told[("dog", "snow")] == "no"
    assert {image for thing, image in told if thing == "dog"} == {"two", "single", "none", "snow"}
    assert {thing for thing, _ in told} == {"dog", "snow"}  # nothing has a kite


def test_the_question_has_an_article_where_the_thing_takes_one() -> None:
    found = pope_from_captions(dataset(ALBUM), nouns=TABLE)
    assert {each.text for each in found.questions} == {
        "Is there a dog in the image?", "Is there snow in the image?",
    }  # fmt: skip


def test_each_thing_has_as_many_yes_as_no_so_that_words_tell_nothing() -> None:
    album = {str(n): ["a dog and snow"] * 2 if n % 3 else ["nothing here"] * 2 for n in range(60)}
    found = pope_from_captions(dataset(album), nouns=TABLE, per_noun=15)
    counts = Counter((each.groups["thing"], each.answers[0]) for each in found.questions)
    assert set(counts.values()) == {15}
    by_word = {each.id: "yes" if "dog" in each.text else "no" for each in found.questions}
    assert score(found, by_word)["accuracy"] == 50
    everything = pope_from_captions(dataset(album), nouns=TABLE, per_noun=None)
    assert len(everything.questions) == 2 * 2 * 20


def test_the_same_captions_give_the_same_questions_in_any_order() -> None:
    album = {str(n): ["a dog"] if n % 2 else ["nothing"] for n in range(60)}
    turned = dict(reversed(album.items()))
    first = pope_from_captions(dataset(album), per_noun=5)
    assert pope_from_captions(dataset(turned), per_noun=5) == first
    assert pope_from_captions(dataset(album), per_noun=5, seed=1) != first


def test_the_things_with_most_questions_are_asked_for() -> None:
    album = {str(n): ["a dog in snow"] if n < 6 else ["a pizza"] if n < 8 else ["it"]
             for n in range(20)}  # fmt: skip
    found = pope_from_captions(dataset(album), nouns=2)
    assert {each.groups["thing"] for each in found.questions} == {"dog", "snow"}


def test_the_table_has_more_than_thirty_things_and_every_name_names_itself() -> None:
    assert len(NOUNS) > 30
    for name, noun in NOUNS.items():
        assert name in noun.named
        assert not set(noun.named) & {"a", "an", "the"}
        assert noun.article == ("" if noun.article == "" else "an" if name[0] in "aeiou" else "a")


def test_captions_that_name_nothing_are_an_error() -> None:
    with pytest.raises(DataError, match="name none of 3 things"):
        pope_from_captions(dataset({"a": ["it"], "b": ["that"]}), nouns=TABLE)
    with pytest.raises(DataError, match="has no captions"):
        pope_from_captions(dataset({"a": []}))
    with pytest.raises(UsageError, match="per_noun is 0"):
        pope_from_captions(dataset(ALBUM), per_noun=0)
