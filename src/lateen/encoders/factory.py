"""An encoder of one's own, by the dotted path of the function that makes it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lateen.encoders.base import Encoder
from lateen.errors import EncoderError, UsageError

_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_factory(name: str) -> bool:
    """Whether ``name`` is written as ``package.module:function``, and is no folder."""
    return bool(_FACTORY.fullmatch(name)) and not Path(name).exists()


def from_factory(name: str, options: Mapping[str, Any]) -> Encoder:
    """The encoder that the function ``name`` returns; errors inside it are its own.

    Args:
        name: ``package.module:function``; it is called without arguments.
        options: what the user asked for, ``None`` where nothing.

    Raises:
        UsageError: an option was given, which no factory would see.
        EncoderError: there is no such function, or it returned something else.
    """
    given = [option for option, value in options.items() if value is not None]
    if given:
        raise UsageError(
            f"{name} is your own encoder and takes no options ({', '.join(given)})",
            "Set them in its factory.",
        )
    module, _, function = name.partition(":")
    try:
        factory = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise EncoderError(
            f"cannot find the encoder factory {name!r} ({error})",
            "It must be package.module:function, importable from here.",
        ) from error
    encoder = factory()
    if not isinstance(encoder, Encoder):
        raise EncoderError(
            f"{name} returned a {type(encoder).__name__}, which is not an encoder",
            "It needs `info`, `prepare` and `encode`: see lateen.encoders.base.Encoder.",
        )
    if not encoder.info.load:
        encoder.info = replace(encoder.info, load={"name": name})
    return encoder
