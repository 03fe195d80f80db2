"""How likely captions are under images: what a projector has learned before a model answers.

A model whose projector alone was trained describes images and answers hardly any question. Of its
captions two things are compared instead. Of a photograph's caption: whether it is likelier under
that photograph than under another. Of a thing ("A dog"): whether it is likelier as the caption of a
photograph that has it than of one that has it not. Chance is half in both.

A caption stands behind its image as in training (:func:`~lateen.mllm.conversations.plain_caption`).
Its own tokens count, and not the one that ends it: few captions end behind "A dog". Several are
scored at once; an image is encoded, and read by the language model, once for all of its captions.
The last digits depend on what is scored together.
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

    Returns:
        One for each pair, in their order.

    Raises:
        ImageError: an image cannot be read.
        DataError: a caption is empty, or has a place for another image.
        ModelError: it is no Llava, or a caption with its image is beyond its context.
    """
    if not hasattr(getattr(mllm.model, "model", None), "language_model"):
        raise ModelError(
            "likelihoods are scored of a Llava, and this is another model", "Have it answer."
        )
    keys = [id(image) if isinstance(image, Image) else image.name for image, _ in pairs]
    order = sorted(range(len(pairs)), key=lambda at: str(keys[at]))
    begin = _ids(mllm, plain_caption(mllm.processor, None, mllm.caption_prompt))
    found: dict[int, Likelihood] = {}
    feature, encoded = torch.empty(0), None
    batch: list[tuple[int, _Row]] = []
    with bar(len(pairs), "captions", "caption") as progress, quiet_transformers():
        for at in order:
            image, caption = pairs[at]
            if keys[at] != encoded:
                feature, encoded = _features(mllm, image), keys[at]
            row = _row(mllm, feature, caption, begin)
            if batch and not _fits([each for _, each in batch], row):
                found |= _scored(mllm, batch)
                batch = []
            batch.append((at, row))
            progress.update()
        found |= _scored(mllm, batch) if batch else {}
    return [found[at] for at in range(len(pairs))]


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
    faults = _unreadable(questions)
    asked = without_faulty(questions, faults) if faults else questions
    own, other = _losses(mllm, asked, captions, control=control)
    images, unit = units(asked.questions)
    arrays: dict[str, Any] = {"unit": unit}
    if asked.kind == "caption":
        metric = "own_likelier" if control else "loss"
        arrays |= {f"{p}loss": _parts(each) for p, each in _under(own, other)}
    else:
        metric = "pairwise"
        arrays["is_yes"] = [int(each.answers[0] == "yes") for each in asked.questions]
        arrays["thing"] = numbered([captions[each.id] for each in asked.questions])[1]
        arrays |= {f"{p}likelihood": _ranks(each) for p, each in _under(own, other)}
        _check_pairs(asked, arrays)
    facts = set_facts(asked) | {
        "measure": _MEASURES[asked.kind], "metric": metric, "chance": {metric: 50.0},
        "prior": None, "unread": 0, "groups": {}, "ending": "",
    }  # fmt: skip
    if metric == "loss":
        facts |= {"chance": {}, "measure": "loss of captions"}
    return asked, measured(facts, arrays, images)


def _under(
    own: list[Likelihood], other: list[Likelihood]
) -> Iterator[tuple[str, list[Likelihood]]]:
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


def _unreadable(questions: QuestionSet) -> dict[str, str]:
    """Why a question's image cannot be read, by the id of the question."""
    if any(len(each.images) != 1 for each in questions.questions):
        raise UsageError(
            f"the questions of {questions.name} are about several images", "Have them answered."
        )
    known: dict[str, str] = {}
    faults = {}
    for each in questions.questions:
        [image] = each.images
        if image.name not in known:
            known[image.name] = ""
            try:
                decode_image(image)
            except ImageError as error:
                known[image.name] = error.message
        if known[image.name]:
            faults[each.id] = known[image.name]
    return faults


def _losses(
    mllm: MultimodalModel, asked: QuestionSet, captions: Mapping[str, str], *, control: bool
) -> tuple[list[Likelihood], list[Likelihood]]:
    """Under the own image, and under another's: together, as both need the same images."""
    sets = [asked, *([other_images(asked)] if control else [])]
    pairs = [(each.images[0], captions[each.id]) for some in sets for each in some.questions]
    found = caption_likelihoods(mllm, pairs)
    count = len(asked.questions)
    return found[:count], found[count:]


def _parts(found: Sequence[Likelihood]) -> list[int]:
    return [round(FINE_PARTS * each.loss) for each in found]


def _ranks(found: Sequence[Likelihood]) -> list[int]:
    ranks: list[int] = np.unique([each.total for each in found], return_inverse=True)[1].tolist()
    return ranks


def _check_pairs(asked: QuestionSet, arrays: Mapping[str, Any]) -> None:
    kinds = set(zip(arrays["thing"], arrays["is_yes"], strict=True))
    if not any((thing, 0) in kinds and (thing, 1) in kinds for thing in set(arrays["thing"])):
        raise DataError(
            f"of no thing that {asked.name} asks for there are images with and without it",
            "Ask more questions.",
        )


@dataclass(frozen=True)
class _Row:
    """An image and a caption.

    Attributes:
        feature: ``[tokens, width]`` of the image, the same object for all of its captions.
        before: token ids before the image.
        behind: token ids behind it.
        start: where the caption begins among these.
    """

    feature: torch.Tensor
    before: list[int]
    behind: list[int]
    start: int

    @property
    def length(self) -> int:
        """All tokens."""
        return len(self.before) + len(self.feature) + len(self.behind)


def _fits(batch: Sequence[_Row], row: _Row) -> bool:
    """Whether one more goes into a forward pass."""
    longest = max(each.length for each in (*batch, row))
    alike = len(row.feature) == len(batch[0].feature) and row.before == batch[0].before
    return alike and longest * (len(batch) + 1) <= _MOST_TOKENS


def _ids(mllm: MultimodalModel, text: str) -> list[int]:
    return list(mllm.processor.tokenizer(text, add_special_tokens=False)["input_ids"])


def _row(mllm: MultimodalModel, feature: torch.Tensor, caption: str, begin: list[int]) -> _Row:
    whole = _ids(mllm, plain_caption(mllm.processor, caption, mllm.caption_prompt))
    if whole and whole[-1] == mllm.processor.tokenizer.eos_token_id:
        whole = whole[:-1]
    # A tokenizer may join a caption's first letters to what stands before.
    same = (one == other for one, other in zip(begin, whole, strict=False))
    start = next((at for at, each in enumerate(same) if not each), min(len(begin), len(whole)))
    place = whole.index(mllm.model.config.image_token_index)
    row = _Row(feature, whole[:place], whole[place + 1 :], start - place - 1)
    mllm.limit(row.length - 1, 1)
    return row


@torch.no_grad()
def _features(mllm: MultimodalModel, image: ImageSource | Image) -> torch.Tensor:
    """``[tokens, width]`` behind the projector."""
    picture = image if isinstance(image, Image) else decode_image(image)
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
def _scored(mllm: MultimodalModel, batch: Sequence[tuple[int, _Row]]) -> dict[int, Likelihood]:
    """The likelihoods of a batch, by position.

    The language model reads what stands before and each image but its last token once; behind it
    that token and the captions, each with the keys and values of its image. Logits are taken at the
    captions' places alone.
    """
    model, rows = mllm.model, [row for _, row in batch]
    embed, device = model.get_input_embeddings(), model.device
    images = {id(row.feature): row.feature for row in rows}
    of_row = [list(images).index(id(row.feature)) for row in rows]
    shown = torch.stack(list(images.values()))  # [images, tokens, width]
    before = embed(torch.tensor([rows[0].before] * len(images), dtype=torch.long, device=device))
    shown = shown.to(before.dtype)
    shared = torch.cat([before, shown[:, :-1]], dim=1)
    cache = None
    if shared.shape[1]:
        read = model.model.language_model(inputs_embeds=shared, use_cache=True)
        cache = read.past_key_values
        cache.batch_select_indices(torch.tensor(of_row, device=device))
    longest = max(len(row.behind) for row in rows)
    ids = torch.tensor([row.behind + [0] * (longest - len(row.behind)) for row in rows])
    ids = ids.to(device)
    seen = torch.ones(len(rows), shared.shape[1] + 1 + longest, dtype=torch.long, device=device)
    for at, row in enumerate(rows):
        seen[at, shared.shape[1] + 1 + len(row.behind) :] = 0
    hidden = model.model.language_model(
        inputs_embeds=torch.cat([shown[of_row, -1:], embed(ids)], dim=1),
        attention_mask=seen, past_key_values=cache, use_cache=cache is not None,
    ).last_hidden_state  # fmt: skip
    found = {}
    for at, (position, row) in enumerate(batch):
        # Behind the image's last token stands the first of what is behind.
        logits = model.lm_head(hidden[at, row.start : len(row.behind)]).float()
        said = ids[at, row.start : len(row.behind)]
        total = logits.log_softmax(-1).gather(1, said[:, None]).sum()
        found[position] = Likelihood(float(total), len(said))
    return found
