"""What a generated answer is worth: VQA accuracy, exact match, yes or no, letters, counts.

All are functions of texts alone, one question at a time.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from string import ascii_uppercase

from lateen.errors import DataError

Normalise = Callable[[str], str]

_PUNCTUATION = ';/[]"{}()=+\\_->@<`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")
_ARTICLES = ("a", "an", "the")
_NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_DIGITS = {"none": "0", **{word: str(number) for number, word in enumerate(_NUMBERS)}}
# Their apostrophes are put back where an answer lacks one; as they are in the VQA code.
_CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
might've mustn't must've needn't not've o'clock oughtn't shan't she'd've should've shouldn't
shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's
something'd something'd've something'll that's there'd there'd've there're there's they'd they'd've
they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
_ODD_CONTRACTIONS = {
    "somebody'd": "somebodyd",
    "ow's'at": "'ow's'at",
    "'ows'at": "'ow's'at",
    "'ow'sat": "'ow's'at",
}
# "The answer is a dog" names no letter: one that may be a word must end what is said.
_STATED = re.compile(
    r"\b(?i:answer|option|choice)\b(?:\s+is)?\s*:?\s*"
    r"(?:\(([A-Za-z])\)|([B-HJ-Z])\b(?!')|([A-Za-z])(?=[.,:;)]|\s*$))"
)
_LEADING = re.compile(r"\(?([A-Za-z])(?:\)|[.:,](?:\s|$)|$)")
# A and I before another word are words, but for "A or B".
_ALONE = re.compile(r"\(([A-Z])\)|\b([B-HJ-Z]|[AI](?!\s+(?!(?:or|and)\b)\w))\b(?!')")


def _without_one_apostrophe() -> dict[str, str]:
    """Each contraction under its spellings that lack one apostrophe."""
    table = dict(_ODD_CONTRACTIONS)
    for word in _CONTRACTIONS.split():
        for at, letter in enumerate(word):
            if letter == "'":
                table[word[:at] + word[at + 1 :]] = word
    return table


_CONTRACTED = _without_one_apostrophe()


@functools.lru_cache(maxsize=1 << 17)  # people's answers come again and again
def normalise_vqa(answer: str) -> str:
    """An answer as VQA's evaluation compares it.

    Lower case; punctuation away, or a space where it joins two words; full stops away unless within
    a number; number words up to ten as digits; articles away; apostrophes of contractions put back.
    After the code at https://github.com/GT-Vision-Lab/VQA (``vqaEval.py``), step by step.

    >>> normalise_vqa("The two dogs."), normalise_vqa("dont"), normalise_vqa("1,000")
    ('2 dogs', "don't", '1000')
    """
    text = answer.replace("\n", " ").replace("\t", " ").strip()
    has_number = bool(_COMMA_IN_NUMBER.search(text))
    cleaned = text
    for mark in _PUNCTUATION:
        stands_apart = f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if stands_apart or has_number else " ")
    words = (_DIGITS.get(word, word) for word in _FULL_STOP.sub("", cleaned).lower().split())
    return " ".join(_CONTRACTED.get(word, word) for word in words if word not in _ARTICLES)


@functools.lru_cache(maxsize=1 << 17)
def normalise_textvqa(answer: str) -> str:
    """An answer as TextVQA's and VizWiz's evaluation compares it.

    :func:`normalise_vqa` after commas and question marks are taken away and a genitive is a word of
    its own: ``EvalAIAnswerProcessor`` of Pythia, which LLaVA-1.5 also applies before an upload.

    >>> normalise_textvqa("The dog's bowl")
    "dog 's bowl"
    """
    text = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return normalise_vqa(text.strip())


def normalise_plain(answer: str) -> str:
    """Lower case without the full stop at the end, which is all that LLaVA-1.5 does for GQA.

    >>> normalise_plain(" Yes. ")
    'yes'
    """
    return answer.strip().rstrip(".").strip().lower()


def vqa_accuracy(answer: str, human: Sequence[str], normalise: Normalise = normalise_vqa) -> float:
    """VQA accuracy of an answer, from 0 to 1: the mean of min(1, matches / 3) over all but one.

    Each person in turn is left out, and the answer compared with the others (arXiv:1505.00468).
    Both sides are normalised always. The published code leaves people's answers as they are where
    all of them agree, and their articles and number words in any case; that only marks right
    answers as wrong.

    Args:
        answer: of the model.
        human: usually ten.
        normalise: what is done to both sides.

    Raises:
        DataError: there are fewer than two human answers.
    """
    if len(human) < 2:
        raise DataError(
            f"VQA accuracy needs several human answers, not {len(human)}", "Use exact match."
        )
    given = normalise(answer)
    same = [normalise(each) == given for each in human]
    matches = sum(same)
    return sum(min(1.0, (matches - own) / 3) for own in same) / len(same)


def exact_match(
    answer: str, accepted: Sequence[str], normalise: Normalise = normalise_vqa
) -> float:
    """1 if the answer is one of those accepted, both sides normalised; else 0.

    An answer of which nothing is left matches nothing.
    """
    given = normalise(answer)
    return float(bool(given) and given in {normalise(each) for each in accepted})


def says_yes(answer: str) -> bool:
    """Whether an answer means yes, by POPE's rule: it does unless its first sentence has no or not.

    POPE's ``evaluate.py`` (https://github.com/AoiDragon/POPE); here letter case and punctuation do
    not matter. An answer that says neither, also an empty one, is a yes: see :func:`says_neither`.

    >>> says_yes("Yes."), says_yes("No, there is not."), says_yes("There is a dog. It is not mine.")
    (True, False, True)
    """
    return not {"no", "not"} & _first_words(answer)


def says_neither(answer: str) -> bool:
    """Whether an answer has none of the words yes, no and not in its first sentence."""
    return not {"yes", "no", "not"} & _first_words(answer)


def chosen_letter(answer: str, choices: Sequence[str]) -> str | None:
    """The letter of the choice that an answer names; ``None`` where it names none, or several.

    The first of these that fits: the text of one choice; a letter, alone or before a mark; "the
    answer is B"; the only letter that stands alone as a capital (``A`` and ``I`` before
    another word are words); the only choice whose text the answer has in it.

    >>> chosen_letter("(B) a cat", ["a dog", "a cat"]), chosen_letter("A dog.", ["cat", "dog"])
    ('B', 'B')

    Args:
        answer: of the model.
        choices: their texts, A first.
    """
    letters = ascii_uppercase[: len(choices)]
    text = answer.strip()
    texts = [normalise_vqa(choice) for choice in choices]
    given = normalise_vqa(text)
    if given and texts.count(given) == 1 and len(text) > 1:  # one letter is a letter
        return letters[texts.index(given)]
    for match in filter(None, (_LEADING.match(text), _STATED.search(text))):
        letter = str(match[match.lastindex or 0]).upper()
        if letter in letters:
            return letter
    alone = {str(match[1] or match[2]) for match in _ALONE.finditer(text)}
    if len(alone) == 1 and alone <= set(letters):
        return alone.pop()
    within = [at for at, choice in enumerate(texts) if choice and f" {choice} " in f" {given} "]
    return letters[within[0]] if len(within) == 1 else None


def count_in(answer: str) -> int | None:
    """The number that an answer says, in digits or as a word up to ten; ``None`` if it says none.

    Of several it is the first. "None" is 0.

    >>> count_in("There are two dogs."), count_in("12"), count_in("many")
    (2, 12, None)
    """
    return next((int(word) for word in normalise_vqa(answer).split() if word.isdecimal()), None)


def _first_words(answer: str) -> set[str]:
    """The words of an answer's first sentence, in lower case."""
    return set(re.findall(r"[a-z']+", answer.partition(".")[0].lower()))
