import re

from lateen.demo.scene import (
    ALL,
    BACKGROUNDS,
    COLOURS,
    HELD_OUT,
    SEEN,
    SHAPES,
    Scene,
    Thing,
    random_scene,
)
from lateen.demo.wording import (
    COLOUR_PROMPTS,
    SENTENCES,
    SHAPE_PROMPTS,
    detailed_caption,
    short_captions,
)

_NAMED = re.compile(rf"\b({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})\b")


def _scenes(count, combinations=ALL):
    return [random_scene("a", (5, i), combinations) for i in range(count)]


def _pairs(text):
    return {(shape, colour) for colour, shape in _NAMED.findall(text)}


def test_the_detailed_caption_of_a_known_scene():
    star = Thing("star", "red", "big", 0.2, 0.5, 0.1, 0.0)
    ring = Thing("ring", "orange", "small", 0.8, 0.5, 0.1, 0.0)
    heart = Thing("heart", "blue", "small", 0.8, 0.8, 0.1, 0.0)
    assert detailed_caption(Scene("a", "night", (star,), (0,))) == "A big red star at night."
    assert detailed_caption(Scene("a", "sand", (star, ring, heart), (0,))) == (
        "A big red star, a small orange ring and a small blue heart on sand. "
        "The red star is to the left of the orange ring. "
        "The orange ring is above the blue heart."
    )


def test_a_detailed_caption_names_all_that_is_drawn_and_nothing_else():
    for scene in _scenes(100):
        assert _pairs(detailed_caption(scene)) == {(t.shape, t.colour) for t in scene.things}


def test_every_background_has_words_of_its_own():
    thing = Thing("star", "red", "big", 0.2, 0.5, 0.1, 0.0)
    texts = {detailed_caption(Scene("a", name, (thing,), (0,))) for name in BACKGROUNDS}
    assert len(texts) == len(BACKGROUNDS)


def test_short_captions_mostly_say_what_is_drawn():
    right = total = 0
    for scene in _scenes(300):
        drawn = {(t.shape, t.colour) for t in scene.things}
        for caption in short_captions(scene, 2):
            total += len(_pairs(caption))
            right += len(_pairs(caption) & drawn)
    assert total > 500
    assert 0.9 < right / total < 1  # a few name a wrong colour, as captions do


def test_short_captions_vary_leave_out_and_misspell():
    scenes = _scenes(300)
    captions = [short_captions(scene, 2) for scene in scenes]
    assert captions == [short_captions(scene, 2) for scene in scenes]
    assert sum(first != second for first, second in captions) > 200
    named = [len(_pairs(first)) for first, _ in captions]
    assert any(n < len(s.things) for n, s in zip(named, scenes, strict=True))
    words = {word for pair in captions for text in pair for word in text.split()}
    assert any(sorted(w) == sorted("triangle") and w != "triangle" for w in words)


def test_no_caption_of_seen_combinations_names_one_held_out():
    for scene in _scenes(500, SEEN):
        for caption in [detailed_caption(scene), *short_captions(scene, 2)]:
            assert not _pairs(caption) & HELD_OUT


def test_the_search_sentences_keep_their_promise():
    named = set().union(*map(_pairs, SENTENCES))
    assert {("heart", "turquoise"), ("ring", "purple")} == named & HELD_OUT
    captions = " ".join(text for scene in _scenes(300) for text in short_captions(scene, 2))
    assert "moon" not in captions
    assert "crescent" in captions


def test_prompts_take_one_class_name():
    for prompt in SHAPE_PROMPTS + COLOUR_PROMPTS:
        assert prompt.count("{}") == 1
