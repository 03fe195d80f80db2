from __future__ import annotations

import itertools

import pytest

from lateen.errors import DataError
from lateen.metrics.answers import (
    chosen_letter,
    count_in,
    exact_match,
    normalise_plain,
    normalise_textvqa,
    normalise_vqa,
    says_neither,
    says_yes,
    vqa_accuracy,
)


@pytest.mark.parametrize(
    ("answer", "normalised"),
    [
        ("Yes.", "yes"),
        ("two", "2"),
        ("None", "0"),
        ("The dog and a cat", "dog and cat"),
        ("dont", "don't"),
        ("couldntve", "couldntve"),  # both marks missing is no spelling of the table
        ("couldn'tve", "couldn't've"),
        ("twas", "'twas"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("e.g. this", "eg this"),
        ("x-ray", "x ray"),  # a mark that joins words becomes a space
        ("well - no", "well no"),  # one that stands apart goes, everywhere
        ("a/b - c", "b c"),
        ("black\nwhite", "black white"),
        ("dog's", "dog's"),
        ("", ""),
        ("?!", ""),
    ],
)
def test_vqa_normalisation(answer: str, normalised: str) -> None:
    assert normalise_vqa(answer) == normalised


def test_textvqa_takes_commas_and_genitives_apart_first() -> None:
    assert normalise_textvqa("The dog's bowl, red?") == "dog 's bowl red"
    assert normalise_vqa("red,blue") == "red blue"
    assert normalise_textvqa("red,blue") == "redblue"


def test_plain_normalisation_leaves_words_alone() -> None:
    assert normalise_plain(" The two Dogs. ") == "the two dogs"


# Of ten answers m are the same: m subsets of nine lack one of them.
@pytest.mark.parametrize(
    ("matches", "accuracy"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)]
)
def test_vqa_accuracy_of_ten_people(matches: int, accuracy: float) -> None:
    human = ["2"] * matches + ["3"] * (10 - matches)
    assert vqa_accuracy("two", human) == pytest.approx(accuracy)


def test_vqa_accuracy_is_the_mean_over_all_nine_of_ten() -> None:
    human = ["a dog", "dog", "Dog.", "puppy", "cat", "cat", "no", "no", "no", "dogs"]
    for answer in ("dog", "the cat", "puppy", "none"):
        nine = [list(each) for each in itertools.combinations(human, 9)]
        counts = [sum(normalise_vqa(h) == normalise_vqa(answer) for h in each) for each in nine]
        expected = sum(min(count / 3, 1) for count in counts) / 10
        assert vqa_accuracy(answer, human) == pytest.approx(expected)


def test_vqa_accuracy_of_an_empty_answer_is_nothing_and_one_person_is_too_few() -> None:
    assert vqa_accuracy("", ["yes"] * 10) == 0
    with pytest.raises(DataError, match="needs several human answers"):
        vqa_accuracy("yes", ["yes"])


def test_agreement_is_no_reason_to_leave_answers_as_they_are() -> None:
    assert vqa_accuracy("Yes.", ["yes"] * 10) == 1
    assert vqa_accuracy("one", ["one"] * 10) == 1


def test_exact_match() -> None:
    assert exact_match("Two.", ["2"]) == 1
    assert exact_match("the circle", ["circle"]) == 1
    assert exact_match("a red circle", ["circle"]) == 0
    assert exact_match("two", ["2"], normalise_plain) == 0
    assert exact_match("", ["the"]) == 0  # nothing is left on either side


@pytest.mark.parametrize(
    ("answer", "yes"),
    [
        ("Yes.", True),
        ("yes", True),
        ("No", False),
        ("NO!", False),
        ("There is not a dog.", False),
        ("There is a dog. It is not mine.", True),
        ("No, there is none.", False),
        ("I know", True),  # no is not a word of its own
        ("", True),
    ],
)
def test_yes_or_no_by_the_rule_of_pope(answer: str, yes: bool) -> None:
    assert says_yes(answer) == yes


def test_answers_that_say_neither_yes_nor_no_are_known() -> None:
    assert [says_neither(each) for each in ("", "a dog", "Yes.", "it is not")] == [
        True, True, False, False,
    ]  # fmt: skip


CHOICES = ["a red car", "A dog", "two", "None of these"]


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("B.", "B"),
        ("(B)", "B"),
        ("B. A dog", "B"),
        ("B: because it barks", "B"),
        ("A dog", "B"),  # the text of a choice, not the letter
        ("2", "C"),
        ("The answer is C.", "C"),
        ("Answer: (d)", "D"),
        ("The correct option is B because A is a car", "B"),
        ("I think that D fits", "D"),
        ("It must be (A)", "A"),
        ("It shows a dog in the grass", "B"),
        ("A car and a dog", "B"),
        ("It must be A", "A"),
        ("The answer is a dog", "B"),
        ("the answer is b.", "B"),
        ("Answer: A", "A"),
        ("The answer is A bird", None),
        ("A - the car", "A"),
        ("B or C", None),
        ("It is A or C", None),
        ("I see a bird", None),
        ("E", None),  # there is no such choice
        ("I am not sure", None),
        ("", None),
    ],
)
def test_the_letter_that_an_answer_names(answer: str, letter: str | None) -> None:
    assert chosen_letter(answer, CHOICES) == letter


def test_a_letter_is_a_letter_where_choices_are_letters_too() -> None:
    assert chosen_letter("A", ["C", "D", "A", "B"]) == "A"


def test_counts() -> None:
    answers = ("two", "2", "There are 12 of them.", "none", "many", "")
    assert [count_in(each) for each in answers] == [2, 2, 12, 0, None, None]
