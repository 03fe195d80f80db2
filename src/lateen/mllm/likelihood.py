"""How likely captions are under images: what a projector has learned before a model answers.

A model whose projector alone was trained describes images and answers hardly any question. Of its
captions two things are compared instead. Of a photograph's caption: whether it is likelier under
that photograph than under another. Of a thing ("A dog"): whether it is likelier as the caption of a
photograph that has it than of one that has it not. Chance is half in both.

A caption stands behind its image as in training (:func:`~lateen.mllm.conversations.plain_caption`).
Its own tokens count, and not the one that ends it: few captions end behind "A dog". Several are
scored at once, and each image is encoded once, so that the last digits depend on what else is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL.Image import Image

from lateen.data import decode_image
from lateen.data.samples import ImageSource
from lateen.encoders.weights import quiet_transformers
from lateen.errors import DataError, ImageError, ModelError, UsageError
from lateen.evaluation.questions import FINE_PARTS
from lateen.mllm.asking import MultimodalModel
from lateen.mllm.benchmarks.questions import Question, QuestionSet, numbered, other_images, units
from lateen.mllm.benchmarks.questions import without as without_faulty
from lateen.mllm.benchmarks.scoring import measured, set_facts
from lateen.mllm.conversations import plain_caption
from lateen.progress import bar

_MOST_TOKENS = 4096  # in one forward pass, padding among them
_THING = re.compile(r"Is there (?P<thing>.+) in the image\?")
_MEASURES = {
    "caption": "share of photographs under which their own caption is likelier",
    "yes-no": "share of pairs in which the thing is likelier where it is",
}


@dataclass(frozen=True)
class Likelihood:
    """How likely a caption is under an image.

    Attributes:
        total: log probability of all of its tokens, in nats.
        tokens: how many these are.
    """

    total: float
    tokens: int

    @property
    def loss(self) -> float:
        """Mean negative log likelihood of a token, in nats."""
        return -self.total / self.tokens


def caption_likelihoods(
    mllm: MultimodalModel, pairs: Sequence[tuple[ImageSource | Image, str]]
) -> list[Likelihood]:
    """The likelihood of each caption under its image.

    Args:
        mllm: a Llava.
        pairs: images and captions; the same image may come again.

    Raises:
        ImageError: an image cannot be read.
        DataError: a caption is empty, or has a place for another image.
        ModelError: it is no Llava, or a caption with its image is beyond its context.
    """
    found = _scored(mllm, pairs)
    for each in found:
        if isinstance(each, ImageError):
            raise each
    return [each for each in found if isinstance(each, Likelihood)]


def by_likelihood(
    mllm: MultimodalModel, questions: QuestionSet, *, control: bool = True
) -> tuple[QuestionSet, dict[str, Any]]:
    """What likelihoods of captions say of a set: of captions, or of things that are there or not.

    Args:
        mllm: a Llava.
        questions: that ask for a caption, or ``Is there a dog in the image?``.
        control: whether captions are also scored under another's image. Of a set of captions this
            is what their own is compared with.

    Returns:
        The questions whose images could be read; and numbers with intervals, over images drawn
        anew, as :func:`~lateen.mllm.benchmarks.score` gives those of answers. Of captions
        ``own_likelier``, in percent, with ``loss`` and ``control.loss``, in nats for each token; of
        things ``pairwise``: of all pairs of a photograph with a thing and one without.

    Raises:
        UsageError: the questions are of another kind.
        DataError: nothing is left to compare.
    """
    captions = _captions(questions)
    own = _losses(mllm, questions, captions)
    faults = {name: each.message for name, each in own.items() if isinstance(each, ImageError)}
    asked = without_faulty(questions, faults) if faults else questions
    other = _losses(mllm, other_images(asked), captions) if control else {}
    images, unit = units(asked.questions)
    arrays: dict[str, Any] = {"unit": unit}
    if asked.kind == "caption":
        metric = "own_likelier" if control else "loss"
        arrays |= {f"{p}loss": _parts(each, asked) for p, each in _under(own, other)}
    else:
        metric = "pairwise"
        arrays["is_yes"] = [int(each.answers[0] == "yes") for each in asked.questions]
        arrays["thing"] = numbered([captions[each.id] for each in asked.questions])[1]
        arrays |= {f"{p}likelihood": _ranks(each, asked) for p, each in _under(own, other)}
        _check_pairs(asked, arrays)
    facts = set_facts(asked) | {
        "measure": _MEASURES[asked.kind], "metric": metric, "chance": {metric: 50.0},
        "prior": None, "unread": 0, "groups": {}, "ending": "",
    }  # fmt: skip
    if metric == "loss":
        facts["chance"] = {}
    return asked, measured(facts, arrays, images)


_Found = Mapping[str, Likelihood | ImageError]


def _under(own: _Found, other: _Found) -> Iterator[tuple[str, _Found]]:
    yield "", own
    if other:
        yield "other_", other


def _captions(questions: QuestionSet) -> dict[str, str]:
    """What is scored for each question: its first caption; a thing with its article."""
    if questions.kind == "caption" and questions.has_answers:
        return {each.id: each.answers[0] for each in questions.questions}
    things = {each.id: _thing(each) for each in questions.questions}
    if questions.kind != "yes-no" or not questions.has_answers or not all(things.values()):
        raise UsageError(
            f"the questions of {questions.name} ask neither for a caption nor whether there is a "
            "thing in the image, so that likelihoods of captions do not tell them",
            "Take captions-of or pope-of-captions, or have them answered.",
        )
    return things


def _thing(question: Question) -> str:
    """``A dog`` of ``Is there a dog in the image?``; empty where it asks something else."""
    found = _THING.fullmatch(question.text.strip())
    return "" if found is None else found["thing"][0].upper() + found["thing"][1:]


def _losses(
    mllm: MultimodalModel, questions: QuestionSet, captions: Mapping[str, str]
) -> dict[str, Likelihood | ImageError]:
    asked = questions.questions
    if any(len(each.images) != 1 for each in asked):
        raise UsageError(
            f"the questions of {questions.name} are about several images", "Have them answered."
        )
    found = _scored(mllm, [(each.images[0], captions[each.id]) for each in asked])
    return dict(zip((each.id for each in asked), found, strict=True))


def _known(found: _Found, asked: QuestionSet) -> list[Likelihood]:
    some = (found[each.id] for each in asked.questions)
    return [each for each in some if isinstance(each, Likelihood)]


def _parts(found: _Found, asked: QuestionSet) -> list[int]:
    return [round(FINE_PARTS * each.loss) for each in _known(found, asked)]


def _ranks(found: _Found, asked: QuestionSet) -> list[int]:
    totals = [each.total for each in _known(found, asked)]
    ranks: list[int] = np.unique(totals, return_inverse=True)[1].tolist()
    return ranks


def _check_pairs(asked: QuestionSet, arrays: Mapping[str, Any]) -> None:
    kinds = set(zip(arrays["thing"], arrays["is_yes"], strict=True))
    if not any((thing, 0) in kinds and (thing, 1) in kinds for thing in set(arrays["thing"])):
        raise DataError(
            f"of no thing that {asked.name} asks for there are images with and without it",
            "Ask more questions.",
        )


def _scored(
    mllm: MultimodalModel, pairs: Sequence[tuple[ImageSource | Image, str]]
) -> list[Likelihood | ImageError]:
    """Of each pair, in order; in place of one whose image cannot be read why."""
    if not hasattr(getattr(mllm.model, "model", None), "language_model"):
        raise ModelError(
            "likelihoods are scored of a Llava, and this is another model", "Have it answer."
        )
    keys = [id(image) if isinstance(image, Image) else image.name for image, _ in pairs]
    order = sorted(range(len(pairs)), key=lambda at: str(keys[at]))
    begin = _ids(mllm, plain_caption(mllm.processor, None))
    found: list[Likelihood | ImageError] = [ImageError("not scored")] * len(pairs)
    features: dict[Any, torch.Tensor | ImageError] = {}
    batch: list[tuple[int, _Row]] = []
    with bar(len(pairs), "captions", "caption") as progress, quiet_transformers():
        for at in order:
            image, caption = pairs[at]
            if keys[at] not in features:
                features[keys[at]] = _features(mllm, image)
            feature = features[keys[at]]
            if isinstance(feature, ImageError):
                found[at] = feature
                continue
            row = _row(mllm, feature, caption, begin)
            longest = max([len(row.ids), *(len(each.ids) for _, each in batch)])
            if batch and longest * (len(batch) + 1) > _MOST_TOKENS:
                _flush(mllm, batch, found)
                features = {keys[at]: feature}
                batch = []
            batch.append((at, row))
            progress.update()
        if batch:
            _flush(mllm, batch, found)
    return found


@dataclass(frozen=True)
class _Row:
    """Token ids of an image and a caption, the image's features, and where the caption begins."""

    ids: list[int]
    feature: torch.Tensor
    start: int


def _ids(mllm: MultimodalModel, text: str) -> list[int]:
    return list(mllm.processor.tokenizer(text, add_special_tokens=False)["input_ids"])


def _row(mllm: MultimodalModel, feature: torch.Tensor, caption: str, begin: list[int]) -> _Row:
    whole = _ids(mllm, plain_caption(mllm.processor, caption))
    if whole and whole[-1] == mllm.processor.tokenizer.eos_token_id:
        whole = whole[:-1]
    # A tokenizer may join a caption's first letters to what stands before.
    same = (one == other for one, other in zip(begin, whole, strict=False))
    start = next((at for at, each in enumerate(same) if not each), min(len(begin), len(whole)))
    if start == len(whole):
        raise DataError("a caption is empty", "Leave it out.")
    place = whole.index(mllm.model.config.image_token_index)
    more = len(feature) - 1
    ids = [*whole[:place], *[whole[place]] * (more + 1), *whole[place + 1 :]]
    mllm.limit(len(ids) - 1, 1)
    return _Row(ids, feature, start + more)


@torch.no_grad()
def _features(mllm: MultimodalModel, image: ImageSource | Image) -> torch.Tensor | ImageError:
    """``[tokens, width]`` behind the projector."""
    try:
        picture = image if isinstance(image, Image) else decode_image(image)
    except ImageError as error:
        return error
    config = mllm.model.config
    pixels = mllm.processor.image_processor(images=[picture], return_tensors="pt")["pixel_values"]
    output = mllm.model.get_image_features(
        pixel_values=pixels.to(mllm.model.device, mllm.model.dtype),
        vision_feature_layer=config.vision_feature_layer,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
    )
    feature: torch.Tensor = output.pooler_output[0]
    return feature


@torch.no_grad()
def _flush(
    mllm: MultimodalModel, batch: Sequence[tuple[int, _Row]], found: list[Likelihood | ImageError]
) -> None:
    """Score a batch in one forward pass; logits are taken at the captions' places alone."""
    model, device = mllm.model, mllm.model.device
    lengths = [len(row.ids) for _, row in batch]
    ids = torch.zeros(len(batch), max(lengths), dtype=torch.long)
    seen = torch.zeros_like(ids)
    for at, (_, row) in enumerate(batch):
        ids[at, : len(row.ids)] = torch.tensor(row.ids)
        seen[at, : len(row.ids)] = 1
    ids, seen = ids.to(device), seen.to(device)
    embedded = model.get_input_embeddings()(ids)
    place = (ids == model.config.image_token_index) & seen.bool()
    embedded[place] = torch.cat([row.feature for _, row in batch]).to(embedded.dtype)
    hidden = model.model.language_model(
        inputs_embeds=embedded, attention_mask=seen, use_cache=False
    ).last_hidden_state
    for at, (position, row) in enumerate(batch):
        logits = model.lm_head(hidden[at, row.start - 1 : lengths[at] - 1]).float()
        said = ids[at, row.start : lengths[at]]
        total = logits.log_softmax(-1).gather(1, said[:, None]).sum()
        found[position] = Likelihood(float(total), len(said))
