from __future__ import annotations

import re

import pytest

from lateen.data.labels import SETS, find_set
from lateen.data.labels.names import label_key
from lateen.data.prompts import TEMPLATES, class_prompts
from lateen.errors import UsageError

PER_CLASS = {"fgvc-aircraft", "pets", "caltech101", "flowers102"}


@pytest.mark.parametrize("name", SETS)
def test_every_set_names_as_many_classes_as_it_has_and_each_once(name: str) -> None:
    spec = SETS[name]
    assert len(spec.names) == (1000 if name == "imagenet-o" else spec.count)
    assert len({each.words for each in spec.names}) == len(spec.names)
    spellings = [{label_key(text) for text in (each.words, *each.spellings)} for each in spec.names]
    assert sum(map(len, spellings)) == len(set().union(*spellings)), "two classes share a spelling"
    assert all(each.words == each.words.strip() != "" for each in spec.names)


def test_a_label_loses_only_the_letter_that_it_is_filed_under() -> None:
    for label in ("/a/apartment_building/outdoor", "a/apartment_building/outdoor",
                  "apartment_building/outdoor", "apartment building outdoor"):  # fmt: skip
        assert label_key(label) == "apartmentbuildingoutdoor"
    assert label_key("ram c/v cargo van") == "ramcvcargovan"


@pytest.mark.parametrize("name", SETS)
def test_every_set_has_prompts_a_metric_and_a_place_on_the_hub(name: str) -> None:
    spec = SETS[name]
    prompts = class_prompts(spec.names[0].words, spec.templates)
    assert len(set(prompts)) == len(spec.templates) > 1
    assert spec.metric == ("mean_per_class" if name in PER_CLASS else "top1")
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+", place) for place in spec.hub)
    assert find_set(None, spec.hub[0]) is spec
    assert spec.licence


def test_pictures_of_a_kind_have_their_own_prompts() -> None:
    assert SETS["imagenet"].templates == TEMPLATES
    assert "a satellite photo of annual crop land." in class_prompts(
        SETS["eurosat"].names[0].words, SETS["eurosat"].templates
    )


def test_imagenet_is_in_the_order_of_its_wordnet_ids() -> None:
    names = SETS["imagenet"].names
    ids = [each.spellings[0] for each in names]
    assert all(re.fullmatch(r"n\d{8}", each) for each in ids)
    assert ids == sorted(ids)
    # Classes that many a model's documentation cites by number.
    known = {0: "tench", 207: "golden retriever", 281: "tabby cat", 340: "zebra",
             388: "giant panda", 497: "church", 574: "golf ball", 701: "parachute",
             817: "sports car", 948: "Granny Smith apple", 999: "toilet paper"}  # fmt: skip
    assert {index: names[index].words for index in known} == known


def test_words_with_two_meanings_are_told_apart() -> None:
    by_id = {each.spellings[0]: each.words for each in SETS["imagenet"].names}
    assert by_id["n02012849"] != by_id["n03126707"]  # cranes: the bird, the machine
    assert by_id["n03710637"] != by_id["n03710721"]  # maillots
    assert "bird" in by_id["n01608432"]  # kite


def test_an_unknown_set_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"'food-101'.*Did you mean 'food101'"):
        find_set("food-101")
    assert find_set(None, "someone/else") is None
