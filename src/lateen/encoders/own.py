"""Encoders of your own, named as ``package.module:function``, and what goes wrong inside them."""

from __future__ import annotations

import contextlib
import functools
import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lateen.encoders.base import Encoder, EncoderInfo
from lateen.encoders.faults import explained
from lateen.errors import EncoderError, UsageError

_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_IMPORTABLE = "It must be package.module:function, importable from here."
_TRACE = "Its trace is shown with --debug."


def is_factory(name: str) -> bool:
    """Whether ``name`` is written as ``package.module:function``, and is no folder."""
    return bool(_FACTORY.fullmatch(name)) and not Path(name).exists()


def no_factory(name: str) -> EncoderError:
    """The error that no module has the function ``name``."""
    return EncoderError(
        f"cannot find the encoder factory {name!r}: there is no module of that name",
        _IMPORTABLE,
    )


def from_factory(name: str, options: Mapping[str, Any]) -> Encoder:
    """The encoder that the function ``name`` returns; what fails inside it is said to be its own.

    Args:
        name: ``package.module:function``; it is called without arguments.
        options: what the user asked for, ``None`` where nothing.

    Raises:
        UsageError: an option was given, which no factory would see.
        EncoderError: there is no such function, it failed, or it returned something else.
    """
    given = [option for option, value in options.items() if value is not None]
    if given:
        raise UsageError(
            f"{name} is your own encoder and takes no options ({', '.join(given)})",
            "Set them in its factory.",
        )
    module, _, function = name.partition(":")
    with explained(f"cannot find the encoder factory {name!r}", _IMPORTABLE, kind=True):
        factory = getattr(importlib.import_module(module), function)
    with explained(f"the encoder factory {name} failed", _TRACE, kind=True):
        encoder = factory()
    if not isinstance(encoder, Encoder) or not isinstance(encoder.info, EncoderInfo):
        raise EncoderError(
            f"{name} returned a {type(encoder).__name__}, which is not an encoder",
            "It needs `info`, `prepare` and `encode`: see lateen.encoders.base.Encoder.",
        )
    _guard(encoder, name)
    if not encoder.info.load:
        encoder.info = replace(encoder.info, load={"name": name})
    return encoder


def _guard(encoder: Encoder, name: str) -> None:
    """Have what your own encoder raises, or gives in a wrong shape, said with its class and method.

    The object stays what it is, with its own attributes. What ``prepare`` raises for an image is
    left alone: it is recorded as the reason why that image is left out.

    Args:
        encoder: the methods of which are replaced.
        name: of the factory that made it.
    """
    dim, text = encoder.info.dim, encoder.info.modality == "text"
    checks: dict[str, Callable[[Any, int], str]] = {
        "prepare": _unprepared,
        "encode": functools.partial(_misshapen, wanted=[dim]),
        "encode_patches": functools.partial(_misshapen, wanted=[None, dim]),
    }
    for method, wrong in checks.items():
        call = getattr(encoder, method, None)
        if call is None or getattr(call, "guards", False):
            continue
        where = f"{name} failed in {type(encoder).__name__}.{method}"
        # A class with __slots__ has no place for it, and goes without.
        with contextlib.suppress(AttributeError):
            setattr(encoder, method, _guarded(call, where, wrong, text or method != "prepare"))


def _guarded(
    call: Callable[..., Any], where: str, wrong: Callable[[Any, int], str], explain: bool
) -> Callable[..., Any]:
    @functools.wraps(call)
    def guarded(items: Any, *rest: Any, **options: Any) -> Any:
        own = explained(where, _TRACE, kind=True)
        with own if explain else contextlib.nullcontext():
            given = call(items, *rest, **options)
        if problem := wrong(given, len(items)):
            raise EncoderError(
                f"{where}: it gave {problem}",
                "What each method gives is said by lateen.encoders.base.Encoder.",
            )
        return given

    guarded.guards = True  # type: ignore[attr-defined]
    return guarded


def _unprepared(given: Any, items: int) -> str:
    count = len(given) if hasattr(given, "__len__") else None
    return "" if count == items else f"{_described(given)} for {items} items, not one for each"


def _misshapen(given: Any, items: int, *, wanted: list[int | None]) -> str:
    """What is wrong with features that are to be ``[items, *wanted]``; ``None`` is any number."""
    import torch

    shape = [items, *wanted]
    has = list(given.shape) if isinstance(given, torch.Tensor) else []
    if len(has) == len(shape) and all(w in (None, n) for w, n in zip(shape, has, strict=True)):
        return ""
    named = ", ".join("patches" if size is None else str(size) for size in shape)
    return f"{_described(given)} where [{named}] is due"


def _described(given: Any) -> str:
    import torch

    if isinstance(given, torch.Tensor):
        return f"features {list(given.shape)}"
    counted = f" of {len(given)}" if hasattr(given, "__len__") else ""
    return f"a {type(given).__name__}{counted}"
