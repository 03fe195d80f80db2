"""Runs one encoder in a Python environment that lateen is not installed in.

:mod:`lateen.encoders.other_python` starts this file with that environment's Python, 3.9 or later,
and asks over stdin and stdout. It needs what is there (torch, transformers 4 or 5, and
sentence-transformers for models that run in it) and nothing of lateen: what
:mod:`lateen.encoders.text` and :mod:`~lateen.encoders.vision` do with a network is done here again.

A message is the length of its header (four bytes, the lowest first), the header (JSON), and the
arrays whose shapes the header lists, as raw float32. Arrow would need pyarrow on both sides and
could say no more. Requests are answered in turn.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import inspect
import json
import math
import os
import platform
import queue
import signal
import string
import sys
import threading

if __name__ == "__main__":  # lateen's modules beside this file have names of their own
    sys.path[:] = [place for place in sys.path if place != os.path.dirname(__file__)]  # noqa: PTH120

from collections.abc import Iterator, Sequence
from typing import IO, Any

LACKS = ""
try:
    import numpy as np
    import torch
except ImportError as error:  # which is said when it is asked
    LACKS = str(error)

MAGIC = b"lateen-worker 1\n"  # before the first message, after whatever the environment prints
PACKAGES = ("torch", "transformers", "tokenizers", "sentence-transformers")
_LONGEST_HEADER = 1 << 28  # bytes
_LONGEST = 8192  # tokens, where a model states no limit


def write_message(stream: IO[bytes], header: dict[str, Any], arrays: Sequence[Any] = ()) -> None:
    """Send a header and NumPy arrays, which become float32."""
    flat = [np.ascontiguousarray(array, "<f4") for array in arrays]
    text = json.dumps({**header, "arrays": [list(array.shape) for array in flat]}).encode()
    stream.write(len(text).to_bytes(4, "little") + text)
    for array in flat:
        stream.write(array.reshape(-1).view("u1").data)
    stream.flush()


def read_message(stream: IO[bytes]) -> tuple[dict[str, Any], list[Any]]:
    """What :func:`write_message` sent.

    Raises:
        EOFError: the other side is gone.
        ValueError: it sent something else.
    """
    size = int.from_bytes(_read(stream, 4), "little")
    if size > _LONGEST_HEADER:
        raise ValueError("it is no message")
    header = json.loads(_read(stream, size))
    arrays = []
    for shape in header.pop("arrays"):
        data = _read(stream, 4 * math.prod(shape))
        arrays.append(np.frombuffer(data, "<f4").reshape(shape))
    return header, arrays


def _read(stream: IO[bytes], size: int) -> bytearray:
    data = bytearray(size)
    view, done = memoryview(data), 0
    while done < size:
        count = stream.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        done += count
    return data


class Refused(Exception):
    """What was asked cannot be had: what is wrong, and what to do about it."""


def begin(device: str) -> dict[str, Any]:
    """Load torch and choose a device: what the environment has, for the record.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ….
    """
    if LACKS:
        raise Refused(f"has no torch that can be imported ({LACKS})", "torch transformers")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise Refused(f"has a torch ({torch.__version__}) without {device!r}", "") from error
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    if "transformers" not in versions:
        raise Refused("has no transformers", "transformers")
    kind = torch.device(device).type
    half = torch.cuda.is_bf16_supported() if kind == "cuda" else None if kind == "cpu" else False
    return {"device": device, "versions": versions, "bfloat16": half}


def read_config(folder: str, remote: bool, names: Sequence[str]) -> dict[str, Any]:
    """Those of the attributes ``names`` that a model's configuration has; of those that are
    configurations themselves, that they are there."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=remote)
    values = {name: getattr(config, name) for name in names if hasattr(config, name)}
    plain = (str, int, float, bool, type(None))
    return {name: value if isinstance(value, plain) else True for name, value in values.items()}


class _Network:
    """A transformers model, of which a view takes a pooling and a layer.

    Args:
        asked: ``folder``, ``remote``, ``device``, ``precision``, ``config`` (values in place of
            the configuration's own) and ``tower``: whether it is one of two.
        side: the tower's attribute in a model with two.
    """

    def __init__(self, asked: dict[str, Any], side: str) -> None:
        self.name = asked["name"]
        self.device = torch.device(asked["device"])
        self.half = asked["precision"] == "bfloat16"
        whole, self.pooler_trained = _pretrained(asked, _weights_dtype(self.device, self.half))
        whole = whole.to(self.device)
        self.dual = whole if asked["tower"] else None
        self.model = getattr(whole, side) if asked["tower"] else whole

    def check(self, view: dict[str, Any], valid: list[str], layers: int | None, first: str) -> None:
        """See that there is such a view.

        Args:
            view: its ``pooling`` and ``layer``.
            valid: the poolings that there are.
            layers: the number of the last hidden layer; ``None`` if they are not asked for.
            first: what hidden layer 0 is.
        """
        pooling, layer = view["pooling"], view["layer"]
        valid = [*valid, "projection"] if self.dual is not None else valid
        if pooling not in valid:
            raise Refused(f"has no pooling {pooling!r}", f"Choose one of: {', '.join(valid)}.")
        if layer is None:
            return
        if pooling in ("pooler", "projection"):
            tokens = [name for name in valid if name not in ("pooler", "projection")]
            raise Refused(
                f"takes pooling {pooling!r} on the last layer, not on layer {layer}",
                f"Use pooling {' or '.join(tokens)} with a layer.",
            )
        if layers is not None and not -layers - 1 <= layer <= layers:
            raise Refused(
                f"has hidden layers 0 ({first}) to {layers}, not {layer}",
                "Choose a layer in that range.",
            )

    def forward(self) -> contextlib.AbstractContextManager[None]:
        """Around a forward pass: no gradients, and the precision."""
        return _forward(self.device, self.half)


class Texts(_Network):
    """A text model and its tokenizer; see :class:`~lateen.encoders.text.TextEncoder`."""

    def __init__(self, asked: dict[str, Any]) -> None:
        from transformers import AutoTokenizer

        super().__init__(asked, "text_model")
        self.tokenizer = AutoTokenizer.from_pretrained(
            asked["folder"], trust_remote_code=asked["remote"]
        )
        self.tokenizer.padding_side = "right"
        self.settings: dict[str, Any] = {}

    def facts(self) -> dict[str, Any]:
        """What the settings are chosen by."""
        upper, lower = self.tokenizer([string.ascii_uppercase, string.ascii_lowercase])["input_ids"]
        end = self.tokenizer.eos_token_id
        whole = getattr(self.dual, "config", None)
        return {
            "model_type": self.model.config.model_type,
            "positions": self._positions(),
            "longest": int(self.tokenizer.model_max_length),
            "keeps_case": upper != lower,
            "lacks_end": end is not None and lower[-1:] != [end],
            "tower_tokens": getattr(
                getattr(whole, "text_config", None), "max_position_embeddings", None
            ),
        }

    def _positions(self) -> int:
        table = getattr(getattr(self.model, "embeddings", None), "position_embeddings", None)
        if isinstance(table, torch.nn.Embedding) and table.padding_idx is not None:
            return table.num_embeddings - table.padding_idx - 1
        return getattr(self.model.config, "max_position_embeddings", None) or _LONGEST

    def dim(self, view: dict[str, Any]) -> int:
        """Length of a view's features, if there is such a view."""
        poolings = ["mean", "first", "last", *(["pooler"] if self.pooler_trained else [])]
        self.check(view, poolings, None, "")
        if view["layer"] is not None:
            self.check(view, poolings, len(self._run(["probe"])[0].hidden_states) - 1, "embeddings")
        return int(self.features([view], texts=["probe"])[0].shape[1])

    def layers(self) -> list[int]:
        """The hidden layers, but for a last one that is the output."""
        return _hidden_layers(self._run(["probe"])[0])

    def features(self, views: Sequence[dict[str, Any]], texts: Sequence[str]) -> list[Any]:
        """Features ``[n, dim]`` of every view, in one forward pass."""
        together = [view for view in views if view["pooling"] != "projection"]
        hidden = any(view["layer"] is not None for view in views)
        output, mask = self._run(texts, hidden) if together else (None, None)
        return [self._features(view, texts, output, mask) for view in views]

    def _features(self, view: dict[str, Any], texts: Sequence[str], output: Any, mask: Any) -> Any:
        if view["pooling"] == "projection":
            features = self._run(texts, projected=True)[0]
        elif view["pooling"] == "pooler":
            features = getattr(output, "pooler_output", None)
            if features is None:
                raise Refused("has no trained pooler", "Use pooling mean, first or last.")
        else:
            tokens = _hidden(output, view["layer"]).float()
            features = _pooled_tokens(tokens, mask, view["pooling"])
        features = features.float()
        if view["normalize"]:
            features = torch.nn.functional.normalize(features, dim=-1)
        return features.cpu()

    def _run(self, texts: Sequence[str], hidden: bool = True, projected: bool = False) -> Any:
        """The model's output (or a dual model's embeddings) and the mask."""
        ids, mask = self._padded(self._tokens(texts))
        fixed = self.settings.get("pad_to") is not None
        needed = None if fixed or bool(mask.all()) else mask
        with self.forward():
            if projected:
                made = self.dual.get_text_features(input_ids=ids, attention_mask=needed)  # type: ignore[union-attr]
                return getattr(made, "pooler_output", made), mask
            return self.model(
                input_ids=ids, attention_mask=needed, output_hidden_states=hidden
            ), mask

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        prompt = self.settings.get("prompt") or ""
        end = [self.tokenizer.eos_token_id] if self.settings.get("append_eos") else []
        room = self.settings.get("max_tokens", _LONGEST) - len(end)
        if "{}" in prompt:
            rows = [self._around(prompt, text, room) for text in texts]
        else:
            whole = [self._cased(prompt + text) for text in texts]
            rows = self.tokenizer(whole, truncation=True, max_length=room)["input_ids"]
        return [[*row, *end] or [self._special()[0]] for row in rows]

    def _around(self, prompt: str, text: str, room: int) -> list[int]:
        while True:
            row: list[int]
            [row] = self.tokenizer([self._cased(prompt.replace("{}", text))])["input_ids"]
            over = len(row) - room
            if over <= 0:
                return row
            if not text:
                raise Refused(
                    f"has a prompt of {len(row)} tokens by itself, and max_tokens is {room}",
                    "Give a shorter prompt, or more max_tokens.",
                )
            text = text[:-over]  # a token is one character or more

    def _cased(self, text: str) -> str:
        return text.lower() if self.settings.get("lower") else text

    def _special(self) -> list[int]:
        """Tokens that may stand for no text, the best first; the last is the padding."""
        own = self.tokenizer
        pad = own.pad_token_id if own.pad_token_id is not None else 0
        return [token for token in (own.bos_token_id, own.eos_token_id, pad) if token is not None]

    def _padded(self, rows: Sequence[list[int]]) -> tuple[Any, Any]:
        """Ids and mask ``[n, length]``, padded on the right."""
        length = self.settings.get("pad_to") or max(map(len, rows))
        ids = torch.full((len(rows), length), self._special()[-1], dtype=torch.long)
        mask = torch.zeros(len(rows), length, dtype=torch.long)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row)
            mask[number, : len(row)] = 1
        return ids.to(self.device), mask.to(self.device)


class Images(_Network):
    """A vision model; see :class:`~lateen.encoders.vision.VisionEncoder`."""

    def __init__(self, asked: dict[str, Any]) -> None:
        super().__init__(asked, "vision_model")
        self.model.to(memory_format=torch.channels_last)
        self.size = tuple(asked["size"])
        options = inspect.signature(self.model.forward).parameters
        self._interpolates = "interpolate_pos_encoding" in options
        output = self._probe(hidden=True)
        tokens = output.last_hidden_state
        self.spatial = tokens.ndim == 4
        self.prefix = 0 if self.spatial else self._prefix(tokens.shape[1])
        self.pooler_trained &= getattr(output, "pooler_output", None) is not None

    def _prefix(self, tokens: int) -> int:
        """How many tokens stand before those of patches."""
        patch = getattr(self.model.config, "patch_size", None)
        if patch is None:
            return 0
        height, width = (patch, patch) if isinstance(patch, int) else tuple(patch)
        patches = (self.size[0] // height) * (self.size[1] // width)
        return int(max(0, tokens - patches))

    def facts(self) -> dict[str, Any]:
        """What the views are chosen by."""
        return {"spatial": self.spatial}

    def dim(self, view: dict[str, Any]) -> int:
        """Length of a view's features, if there is such a view."""
        poolings = ["cls", "mean", "cls+mean"] if self.prefix else ["mean"]
        poolings += ["pooler"] if self.pooler_trained else []
        self.check(view, poolings, None, "")
        if view["layer"] is not None:
            first = "the first map" if self.spatial else "embeddings"
            self.check(view, poolings, len(self._probe(hidden=True).hidden_states) - 1, first)
        return int(self.features([view], [self._black()])[0].shape[1])

    def layers(self) -> list[int]:
        """The hidden layers, but for a last one that is the output."""
        return _hidden_layers(self._probe(hidden=True))

    def features(self, views: Sequence[dict[str, Any]], pixels: Sequence[Any]) -> list[Any]:
        """Features ``[n, dim]`` of every view, in one forward pass.

        Args:
            views: pooling and layer of each.
            pixels: one array ``[n, 3, H, W]``.
        """
        values = torch.as_tensor(pixels[0]).to(self.device, memory_format=torch.channels_last)
        together = [view for view in views if view["pooling"] != "projection"]
        hidden = any(view["layer"] is not None for view in views)
        output = self._run(values, hidden) if together else None
        with self.forward():
            return [self._features(view, values, output).float().cpu() for view in views]

    def _features(self, view: dict[str, Any], values: Any, output: Any) -> Any:
        if view["pooling"] == "projection":
            made = self.dual.get_image_features(pixel_values=values)  # type: ignore[union-attr]
            return getattr(made, "pooler_output", made)
        if view["pooling"] == "pooler":
            return output.pooler_output.flatten(1)
        tokens = _hidden(output, view["layer"])
        tokens = (tokens.flatten(2).transpose(1, 2) if tokens.ndim == 4 else tokens).float()
        mean, cls = tokens[:, self.prefix :].mean(1), tokens[:, 0]
        return {"mean": mean, "cls": cls}.get(view["pooling"], torch.cat([cls, mean], dim=1))

    def _black(self) -> Any:
        return torch.zeros(1, 3, *self.size)

    def _probe(self, hidden: bool) -> Any:
        black = self._black().to(self.device, memory_format=torch.channels_last)
        return self._run(black, hidden)

    def _run(self, values: Any, hidden: bool) -> Any:
        options: dict[str, Any] = {}
        if self._interpolates and tuple(values.shape[2:]) != self.size:
            options["interpolate_pos_encoding"] = True
        if self.model.config.model_type == "vit_mae":  # nothing masked, patches in order
            edge = self.model.config.patch_size
            patches = (values.shape[2] // edge) * (values.shape[3] // edge)
            options["noise"] = torch.arange(patches, device=self.device).expand(len(values), -1)
        with self.forward():
            return self.model(pixel_values=values, output_hidden_states=hidden, **options)


class Library:
    """A model that runs inside sentence-transformers; see
    :class:`~lateen.encoders.sentence.SentenceEncoder`."""

    def __init__(self, asked: dict[str, Any]) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise Refused(
                f"runs inside sentence-transformers, which the other environment lacks ({error})",
                "Install it there: PYTHON -m pip install sentence-transformers.",
            ) from error
        self.device = torch.device(asked["device"])
        self.half = asked["precision"] == "bfloat16"
        dtype = _weights_dtype(self.device, self.half)
        known = "model_kwargs" in inspect.signature(SentenceTransformer.__init__).parameters
        self.model = SentenceTransformer(
            asked["folder"], device=asked["device"], trust_remote_code=asked["remote"],
            **({"model_kwargs": {_dtype_option(): dtype}} if known else {}),
        ).eval()  # fmt: skip
        if not known:  # before sentence-transformers 3
            self.model.to(dtype)
        _drop_cache(self.model)
        settings = asked["settings"]
        if settings["max_tokens"] is not None:
            self.model.max_seq_length = settings["max_tokens"]
        if settings["padding_side"] is not None:
            self.model.tokenizer.padding_side = settings["padding_side"]
        self.after = self.model.tokenizer.eos_token if settings["append_eos"] else ""
        self.prompt = settings["prompt"]

    def facts(self) -> dict[str, Any]:
        """Nothing is left to be chosen."""
        return {}

    def dim(self, view: dict[str, Any]) -> int:
        """Length of the features."""
        return int(self.features([view], texts=["probe"])[0].shape[1])

    def features(self, views: Sequence[dict[str, Any]], texts: Sequence[str]) -> list[Any]:
        """Features ``[n, dim]``, for the one view that there is."""
        with _forward(self.device, self.half):
            made = self.model.encode(
                [text + self.after for text in texts], batch_size=len(texts),
                convert_to_tensor=True, show_progress_bar=False, prompt=self.prompt,
            )  # fmt: skip
        return [made.float().cpu() for _ in views]


def _pretrained(asked: dict[str, Any], dtype: Any) -> tuple[Any, bool]:
    """A model for evaluation, and whether its pooler's weights were in its files."""
    from transformers import AutoModel

    model, report = AutoModel.from_pretrained(
        asked["folder"], trust_remote_code=asked["remote"], output_loading_info=True,
        **{_dtype_option(): dtype}, **asked["config"],
    )  # fmt: skip
    missing = set(report["missing_keys"])
    if model.config.is_encoder_decoder and model.main_input_name == "input_ids":
        model = model.get_encoder()
        missing = {key for key in missing if not key.startswith("decoder.")}
    pooler = {key for key in missing if "pooler" in key.split(".")}
    if missing - pooler:
        raise Refused(
            f"lacks {len(missing - pooler)} weights (first {min(missing - pooler)!r}) there and "
            "would be partly random",
            "Download the model again, or pass trust_remote_code for the checkpoint's own class.",
        )
    _drop_cache(model)
    return model.eval().requires_grad_(False), not pooler


def _dtype_option() -> str:
    """How ``from_pretrained`` calls the number format of weights."""
    release = importlib.metadata.version("transformers").partition(".")[0]
    return "torch_dtype" if int(release) < 5 else "dtype"


def _weights_dtype(device: Any, half: bool) -> Any:
    return torch.bfloat16 if half and device.type == "cuda" else torch.float32


@contextlib.contextmanager
def _forward(device: Any, half: bool) -> Iterator[None]:
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=half):
        yield


def _drop_cache(model: Any) -> None:
    """Keep decoders from building a key-value cache."""
    for module in model.modules():
        config = getattr(module, "config", None)
        if getattr(config, "use_cache", False):
            config.use_cache = False  # type: ignore[union-attr]


def _hidden(output: Any, layer: int | None) -> Any:
    return output.last_hidden_state if layer is None else output.hidden_states[layer]


def _hidden_layers(output: Any) -> list[int]:
    hidden = getattr(output, "hidden_states", None) or ()
    if not hidden:
        return []
    last, final = hidden[-1], output.last_hidden_state
    return list(range(len(hidden) - (last.shape == final.shape and last.equal(final))))


def _pooled_tokens(tokens: Any, mask: Any, pooling: str) -> Any:
    """Token features ``[n, length, dim]`` to ``[n, dim]``."""
    if pooling == "first":
        return tokens[:, 0]
    if pooling == "last":
        return tokens[range(len(tokens)), mask.sum(1) - 1]
    weights = mask[..., None].to(tokens.dtype)
    return (tokens * weights).sum(1) / weights.sum(1)


_KINDS = {"texts": Texts, "images": Images, "library": Library}


class _Worker:
    """Answers requests; one encoder is loaded at a time."""

    encoder: Any = None

    def answer(self, asked: dict[str, Any], arrays: list[Any]) -> tuple[dict[str, Any], list[Any]]:
        """The header and the arrays that answer a request."""
        task = asked["op"]
        if task == "begin":
            return begin(asked["device"]), []
        if task == "config":
            return read_config(asked["folder"], asked["remote"], asked["names"]), []
        if task == "load":
            self.encoder = _KINDS[asked["kind"]](asked)
            return self.encoder.facts(), []
        if task == "view":
            if "settings" in asked:
                self.encoder.settings = asked["settings"]
            return {"dim": self.encoder.dim(asked["view"])}, []
        if task == "layers":
            return {"layers": self.encoder.layers()}, []
        features = self.encoder.features(asked["views"], asked.get("texts", arrays))
        return {}, [each.numpy() for each in features]


def main() -> None:
    """Answer what is asked until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for lateen, which ends this
    requests, answers = _own_streams()
    inbox: queue.Queue[tuple[dict[str, Any], list[Any]]] = queue.Queue()
    answers.write(MAGIC)
    answers.flush()
    threading.Thread(target=_receive, args=(requests, inbox), daemon=True).start()
    worker = _Worker()
    while True:
        asked, arrays = inbox.get()
        try:
            header, given = worker.answer(asked, arrays)
        except Refused as refusal:
            header, given = {"refused": list(refusal.args)}, []
        except Exception as error:  # noqa: BLE001  it is said on the other side
            header, given = _failure(error), []
        try:
            write_message(answers, header, given)
        except BrokenPipeError:
            os._exit(0)


def _own_streams() -> tuple[IO[bytes], IO[bytes]]:
    """What was stdin and stdout, for messages alone: who reads finds nothing, and who prints does
    so on stderr, also in code that is not Python."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, answers


def _receive(requests: IO[bytes], inbox: queue.Queue[tuple[dict[str, Any], list[Any]]]) -> None:
    """Take requests; end at once, also in the middle of a forward pass, if lateen is gone."""
    try:
        while True:
            inbox.put(read_message(requests))
    finally:
        os._exit(0)


def _failure(error: Exception) -> dict[str, Any]:
    """What failed: the first line that says something."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if isinstance(error, MemoryError):
        return {"failed": "out of memory"}
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return {"failed": ": ".join([type(error).__name__, *lines[:1]])}


if __name__ == "__main__":
    main()
