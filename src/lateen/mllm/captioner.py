"""What makes a caption of one image: a vision-language model behind a server, or in a folder."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from PIL import Image

from lateen.data import ImageSource, decode_image
from lateen.data.captions import caption_fault
from lateen.encoders.openai_server import Refused, check_address, is_server, parse_address
from lateen.errors import UsageError
from lateen.mllm.asking import MultimodalModel
from lateen.mllm.chat_api import ChatApi, Said
from lateen.mllm.evaluation import model_key
from lateen.progress import log

CAPTION_REQUEST = (
    "Describe this image in one detailed paragraph: what is in it, how it looks, and where. Say "
    "only what can be seen."
)
"""What is asked where nobody says otherwise."""
JPEG_QUALITY = 90
_REFUSED_IN_A_ROW = 8  # after which it is seen whether the server takes any picture
Finish = Literal["stop", "length", "refused", "empty", "unreadable"]


@dataclass(frozen=True)
class Asked:
    """How captions are asked for; with the model, all that they depend on beside the image.

    Attributes:
        prompt: what is asked of each image.
        system: what the model is told of its task, if anything.
        max_side: pixels of the longer side of an image as it is shown; smaller ones stay.
        max_tokens: of a caption at most.
        temperature: 0 for the likeliest token each time.
        seed: of chance, where the temperature is above 0; ``None`` leaves it to the server.
    """

    prompt: str = CAPTION_REQUEST
    system: str | None = None
    max_side: int = 1024
    max_tokens: int = 256
    temperature: float = 0.0
    seed: int | None = None

    def check(self) -> None:
        """See that it can be asked so.

        Raises:
            UsageError: an empty prompt, or a number out of its bounds.
        """
        if not self.prompt.strip():
            raise UsageError("the prompt is empty", "Say what is to be described.")
        for name, least in (("max_side", 16), ("max_tokens", 1), ("temperature", 0)):
            if not getattr(self, name) >= least:
                raise UsageError(
                    f"{name} is {getattr(self, name)}", f"It must be at least {least}."
                )

    def identity(self, captioner: Captioner) -> dict[str, Any]:
        """JSON-ready: another one, other captions."""
        return {"model": captioner.key, **asdict(self), "jpeg_quality": JPEG_QUALITY}


@dataclass(frozen=True)
class Captioned:
    """What a model made of an image.

    Attributes:
        caption: ``None`` where it made none.
        finish: ``stop``, ``length`` (the caption is cut by the limit), ``refused``, ``empty``, or
            ``unreadable`` (no model was asked).
        reason: why there is no caption.
        model: that answered, in its own or its server's words.
        prompt_tokens: of what it was given, the image's among them, where that is known.
        answer_tokens: of what it gave.
    """

    caption: str | None
    finish: Finish
    reason: str | None
    model: str | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None

    @classmethod
    def of(cls, said: Said, max_tokens: int) -> Captioned:
        """What an answer is worth. A caption that the limit cuts is kept as it is, and marked."""
        about = (said.model, said.prompt_tokens, said.answer_tokens)
        if said.refusal or said.finish == "content_filter":
            why = said.refusal or "its content filter ended the answer"
            return cls(None, "refused", f"the model refused ({why})", *about)
        cut = said.finish == "length"
        if fault := caption_fault(said.text):
            spent = f", and the limit of {max_tokens} tokens is spent" if cut else ""
            return cls(None, "empty", f"{fault}{spent}", *about)
        return cls(said.text, "length" if cut else "stop", None, *about)


class Captioner(Protocol):
    """Makes captions.

    Attributes:
        name: as the user called it.
        key: what is the same wherever the same model is.
        at_once: images that may be given to it at the same time, from as many threads.
    """

    name: str
    key: str
    at_once: int

    def caption(self, picture: Image.Image) -> Captioned:
        """The caption of an RGB image.

        Raises:
            ModelError: the model or its server fails.
        """


class ServedCaptioner:
    """A model behind a server that speaks OpenAI's chat completions.

    Its ``key`` is its name there, without the address: what else it depends on, only the server
    knows.

    Args:
        name: ``openai+http://HOST:PORT/v1#MODEL``.
        asked: how captions are asked for.
        at_once: requests in flight.
        timeout: seconds that an answer may take.

    Raises:
        UsageError: the name has another form, or no model.
        ModelError: the server cannot be reached.
        MissingExtraError: the client is not installed.
    """

    def __init__(self, name: str, asked: Asked, at_once: int, timeout: float) -> None:
        check_address(name, "the model")
        self.name, self.at_once = name, at_once
        self._asked = asked
        self._api = ChatApi(parse_address(name), timeout)
        self.key = self._api.address.model
        self._taken, self._refused = False, 0  # whether any picture was; how many since one was
        self._served = self._api.models()

    def caption(self, picture: Image.Image) -> Captioned:
        """As :class:`Captioner` has it; an image that the server refuses is ``refused``."""
        try:
            said = self._describe(picture)
        except Refused as error:
            self._look_into(error)
            reason = f"the server refused the image ({error})"
            return Captioned(None, "refused", reason, self.key)
        first, self._taken, self._refused = not self._taken, True, 0
        if first:
            self._api.warn_unlisted(self._served)
        return Captioned.of(said, self._asked.max_tokens)

    def _look_into(self, error: Refused) -> None:
        """See that it is the image which is refused.

        Raises:
            ModelError: there is no such model, or it takes no image at all.
        """
        if error.status == 404:
            raise self._api.unknown_model("caption", str(error)) from error
        self._refused += 1  # about: threads may count at the same time
        if self._taken and self._refused % _REFUSED_IN_A_ROW:
            return
        try:
            self._describe(Image.new("RGB", (64, 64), (90, 140, 200)))
        except Refused as again:
            raise self._api.unknown_model("caption", str(again)) from again
        self._taken = True

    def _describe(self, picture: Image.Image) -> Said:
        asked = self._asked
        return self._api.describe(
            as_jpeg(picture), asked.prompt, system=asked.system, max_tokens=asked.max_tokens,
            temperature=asked.temperature, seed=asked.seed,
        )  # fmt: skip


class LocalCaptioner:
    """A multimodal language model of a folder or the hub, the likeliest token each time.

    Args:
        name: its folder or hub id.
        asked: how captions are asked for.
        device: ``auto``, ``cpu``, ``cuda``, ….

    Raises:
        ModelError: it is not there, or not whole.
        UsageError: a temperature or a seed.
    """

    at_once = 1

    def __init__(self, name: str, asked: Asked, device: str) -> None:
        if asked.temperature or asked.seed is not None:
            raise UsageError(
                "a model that runs here takes the likeliest token each time",
                "Leave the temperature and the seed out.",
            )
        self.name = name
        self._asked = asked
        self._mllm = MultimodalModel.from_pretrained(name, device=device)
        self.key = model_key(self._mllm)
        self._told: set[str] = set()

    def caption(self, picture: Image.Image) -> Captioned:
        """As :class:`Captioner` has it."""
        asked = self._asked
        answer = self._mllm.answer(
            asked.prompt, picture, max_tokens=asked.max_tokens, system=asked.system
        )
        for note in answer.notes[answer.cut :]:  # the first is that it is cut
            if note not in self._told:
                self._told.add(note)
                log.warning("%s", note)
        said = Said(
            answer.text, "length" if answer.cut else "stop", "", self.name, answer.prompt_tokens,
            answer.tokens,
        )  # fmt: skip
        return Captioned.of(said, asked.max_tokens)


def open_captioner(
    model: str | Path | Captioner, asked: Asked, *, at_once: int = 8, timeout: float = 120.0,
    device: str = "auto",
) -> Captioner:  # fmt: skip
    """The model of a name; one that is open already is given back.

    Args:
        model: ``openai+http://HOST/v1#MODEL``, a folder or a hub id; or what makes captions.
        asked: how captions are asked for.
        at_once: requests in flight, of a server.
        timeout: seconds that an answer may take, of a server.
        device: where a model runs that is in no server.

    Raises:
        UsageError: what is asked does not fit the model.
        ModelError: it cannot be had.
    """
    if not isinstance(model, str | Path):
        return model
    asked.check()
    name = str(model)
    if is_server(name):
        return ServedCaptioner(name, asked, at_once, timeout)
    return LocalCaptioner(name, asked, device)


def picture_of(source: ImageSource, max_side: int) -> Image.Image:
    """An image as it is shown to a model: RGB, upright, no side longer than this many pixels.

    Raises:
        ImageError: it cannot be decoded.
    """
    picture = decode_image(source, short_side=max_side)
    picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return picture


def as_jpeg(picture: Image.Image) -> bytes:
    """An RGB image as the bytes of a JPEG file, without what its own file says beside pixels."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
