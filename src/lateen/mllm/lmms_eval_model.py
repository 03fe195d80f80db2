"""A multimodal model for lmms-eval, which finds it by the entry point ``lmms_eval.models``.

``python -m lmms_eval --model lateen --model_args pretrained=FOLDER --tasks …``. Importing this
module tells transformers of lateen's towers, and nothing of lateen imports it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest

from lateen.errors import UsageError
from lateen.mllm.asking import MOST_TOKENS, MultimodalModel
from lateen.progress import bar, log

MANIFEST = ModelManifest(
    model_id="lateen", chat_class_path="lateen.mllm.lmms_eval_model.LmmsEvalModel"
)
_MOST_LISTED = 5


class LmmsEvalModel(lmms):  # type: ignore[misc]
    """What lmms-eval asks, answered one at a time; the likeliest token each time.

    Args:
        pretrained: folder of a multimodal model, or the hub id of a Llava.
        device: ``auto``, ``cpu``, ``cuda``, ….
        batch_size: of lmms-eval; more than 1 changes nothing.
        max_batch_size: likewise.
        system: what the model is told of its task.

    Raises:
        ModelError: there is no such model, or it is not whole.
    """

    is_simple = False

    def __init__(
        self, pretrained: str, device: str = "auto", batch_size: int | str = 1,
        max_batch_size: int | None = None, system: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        del max_batch_size
        if str(batch_size) != "1":
            log.warning("lateen answers one question at a time, and not %s", batch_size)
        self.mllm = MultimodalModel.from_pretrained(pretrained, device=device)
        self._system = system

    @property
    def device(self) -> Any:
        """Where it runs."""
        return self.mllm.model.device

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answers to lmms-eval's requests, in their order; how many a limit cut is logged.

        Args:
            requests: of type ``generate_until``, of tasks whose documents become messages.

        Raises:
            DataError: as :meth:`~lateen.mllm.asking.MultimodalModel.answer`.
            UsageError: a video or a sound is asked about.
        """
        answers, cut = [], []
        with bar(len(requests), "answers", "question") as progress:
            for request in requests:
                _, messages_of, settings, doc, task, split = request.args
                messages = messages_of(self.task_dict[task][split][doc])
                text, was_cut = self._answer(messages, settings)
                answers.append(text)
                cut += [f"{task} {doc}"] if was_cut else []
                progress.update()
        if cut:
            log.warning(
                "%d of %d answers are cut by their limit of tokens (%s)",
                len(cut), len(answers), ", ".join(cut[:_MOST_LISTED]),
            )  # fmt: skip
        _warn_of_sampling([request.args[2] for request in requests])
        return answers

    def _answer(
        self, messages: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
    ) -> tuple[str, bool]:
        """An answer up to the first of the texts that end it, and whether the limit cut it."""
        turns, images = _turns(messages)
        if self._system is not None:
            turns = [{"role": "system", "content": self._system}, *turns]
        most = int(settings.get("max_new_tokens", MOST_TOKENS))
        answer = self.mllm.answer(turns, images, max_tokens=most)
        until = settings.get("until") or []
        ends = [until] if isinstance(until, str) else until
        places = [answer.text.find(end) for end in ends if end and end in answer.text]
        return answer.text[: min(places, default=None)], answer.cut and not places

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Not there: lmms-eval hands chat models tasks of generation alone.

        Raises:
            UsageError: always.
        """
        del requests
        raise UsageError(
            "lateen's model generates answers, and gives lmms-eval no likelihoods",
            "Take a task whose output_type is generate_until.",
        )

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not there.

        Raises:
            UsageError: always.
        """
        del requests
        raise UsageError(
            "lateen's model answers no tasks of several rounds",
            "Take a task whose output_type is generate_until.",
        )


def _turns(messages: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[Any]]:
    """Messages of lmms-eval as a conversation of lateen, and the images in it."""
    turns, images = [], []
    for message in messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if other := {part["type"] for part in parts} - {"text", "image"}:
            raise UsageError(
                f"a task asks about {' and '.join(sorted(other))}", "Take one of images or text."
            )
        images += [part["url"] for part in parts if part["type"] == "image"]
        known = [part if part["type"] == "text" else {"type": "image"} for part in parts]
        turns.append({"role": message["role"], "content": known})
    return turns, images


def _warn_of_sampling(settings: Sequence[Mapping[str, Any]]) -> None:
    drawn = [
        each for each in settings
        if each.get("do_sample") or (each.get("temperature") or 0) > 0
        or (each.get("num_beams") or 1) > 1
    ]  # fmt: skip
    if drawn:
        log.warning(
            "%d questions are to be answered by sampling or beams; the likeliest token was taken "
            "each time", len(drawn),
        )  # fmt: skip
