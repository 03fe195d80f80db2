"""Every key of a recipe as an option of a command: ``--train.lr 1e-3``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

from cyclopts import (
    CycloptsError,
    Group,
    MissingArgumentError,
    Parameter,
    UnknownOptionError,
    UnusedCliTokensError,
)

from lateen.config import Key
from lateen.errors import UsageError, nearest
from lateen.experiment.recipe import keys as recipe_keys
from lateen.hardware import use_hardware

_METAVARS = {
    "text": "TEXT",
    "path": "PATH",
    "whole number": "INT",
    "number": "NUMBER",
    "true | false": "true|false",
}


def takes_keys(keys: Iterable[Key]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for every key.

    The command has a parameter ``overrides``, which gets the text of those that were given, by
    dotted path. Text becomes a value where the recipe is checked, as a whole: that ``head.depth 2``
    fits depends on the ``head.name`` that its file has.

    Args:
        keys: of the recipe.
    """
    keys = list(keys)
    sections = {key.path.rpartition(".")[0] for key in keys}
    groups: dict[str, Group] = {}
    options: dict[str, inspect.Parameter] = {}
    paths: dict[str, str] = {}
    for key in keys:
        section = key.path.partition(".")[0] if "." in key.path else ""
        title = f"Keys of {section}" if section else "Keys of the recipe"
        group = groups.setdefault(section, Group(title, sort_key=len(groups) if section else -1))
        name = key.path.replace(".", "__")
        paths[name] = key.path
        options[name] = inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=None,
            annotation=Annotated[str | None, _option(key, group, show=key.path not in sections)],
        )  # fmt: skip

    def give(command: Callable[..., None]) -> Callable[..., None]:
        own = dict(inspect.signature(command, eval_str=True).parameters)
        del own["overrides"]

        @functools.wraps(command)
        def with_options(*args: Any, **given: Any) -> None:
            overrides = {paths[name]: given.pop(name) for name in paths if name in given}
            command(*args, overrides=overrides, **given)

        parameters = [*own.values(), *options.values()]
        with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_options.__annotations__ = {p.name: p.annotation for p in parameters}
        return with_options

    return give


_WHERE = Group("Where it runs", sort_key=1000)
_HARDWARE: dict[str, tuple[Any, str]] = {
    "device": (str, "auto, cpu, cuda, cuda:1, mps, …; auto is the first CUDA GPU, else the CPU"),
    "batch_size": (int, "images, or thousands of text tokens, per forward pass of an encoder (CPU: "
                   "16 images, 1 k tokens; CUDA: 256, 64 k)"),
    "workers": (int, "threads that decode and prepare (one per core, at most 8)"),
    "precision": (Literal["auto", "float32", "bfloat16"], "of encoders; auto is what was recorded "
                  "of the model's, else bfloat16 where the processor has it"),
}  # fmt: skip


def takes_hardware(
    *names: Literal["device", "batch_size", "workers", "precision"],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command options for where networks run, which hold while it runs.

    Args:
        names: of the options; all four if none is named.
    """
    options = {
        name: inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=None,
            annotation=Annotated[_HARDWARE[name][0] | None,
                                 Parameter(help=_HARDWARE[name][1], group=_WHERE)],
        )
        for name in names or _HARDWARE
    }  # fmt: skip

    def give(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def on_hardware(*args: Any, **given: Any) -> None:
            chosen = {name: given.pop(name) for name in options if name in given}
            with use_hardware(**{k: value for k, value in chosen.items() if value is not None}):
                command(*args, **given)

        own = inspect.signature(command, eval_str=True).parameters
        parameters = [*own.values(), *options.values()]
        on_hardware.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        on_hardware.__annotations__ = {p.name: p.annotation for p in parameters}
        return on_hardware

    return give


def read_seeds(text: str) -> list[int]:
    """The seeds that ``--seeds`` names, with commas between them.

    Raises:
        UsageError: they are no whole numbers.
    """
    try:
        return [int(seed) for seed in text.split(",")]
    except ValueError as error:
        raise UsageError(
            f"--seeds cannot be {text!r}", "Give whole numbers, as in --seeds 0,1,2."
        ) from error


def _option(key: Key, group: Group, *, show: bool) -> Parameter:
    """The option of a key; one that is a whole section is taken (null: none) and not listed."""
    words = ", ".join(key.choices)
    default = f" [default: {key.default}]" if key.default else ""
    several = "A,B" if key.kind.startswith("list of") else "VALUE"
    names = dict.fromkeys([f"--{key.path}", f"--{_dashed(key.path)}"])
    return Parameter(
        name=list(names), group=group, allow_leading_hyphen=True,
        metavar="CHOICE" if key.choices else _METAVARS.get(key.kind, several),
        help=f"{key.meaning}{f' [choices: {words}]' if words else ''}{default}",
        show_default=False, show=show,
    )  # fmt: skip


def _dashed(path: str) -> str:
    """A key without a section as other options are spelled: ``batch-size``."""
    return path if "." in path else path.replace("_", "-")


def wrong_words(error: CycloptsError) -> str | None:
    """What is wrong with the words of a command that takes keys, where that can be said better
    than the parser does."""
    if isinstance(error, UnusedCliTokensError):
        return f"unexpected argument {next(iter(error.unused_tokens or []), '')!r}"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        name = error.argument.name
        return f"{name} has no value" if name in (error.root_input_tokens or ()) else None
    if not isinstance(error, UnknownOptionError):
        return None
    path = str(error.token.keyword or error.token.value).removeprefix("--").partition("=")[0]
    names = [name for argument in error.argument_collection for name in argument.names]
    known = [name.removeprefix("--") for name in names if "." in name]
    plain = [name.removeprefix("--") for name in names if "." not in name]
    sections = list(dict.fromkeys(name.partition(".")[0] for name in known))
    if not known:
        return None
    if "." not in path:
        settings = " and ".join(f"--{section}.KEY" for section in sections)
        same = [name for name in known if name.rpartition(".")[2] == path.replace("-", "_")]
        alike = same or [each for each in [nearest(path, plain)] if each]
        if path == "train" and "preset" in plain and "train.cca" in known:
            alike = ["preset auto"]  # what `train: auto` of a file is short for
        meant = " or ".join(f"--{name}" for name in alike)
        hint = f"Did you mean {meant}? " if meant else ""
        return f"unknown option --{path}. {hint}Settings are {settings}"
    section, _, word = path.rpartition(".")
    within = [name for name in known if name.rpartition(".")[0] == section]
    near = nearest(path, known)
    if near is None and within:
        near = nearest(word, (name.rpartition(".")[2] for name in within))
    hint = f"Did you mean {near!r}? " if near else ""
    if path in recipe_keys():
        inside = next((name for name in known if name.endswith(f".{path}")), None)
        meant = f". Did you mean {inside!r}?" if inside else ""
        return (
            f"{path!r} is a key of `lateen run`, and none of this command, whose sections are "
            f"{', '.join(sections)}{meant}"
        )
    there = ", ".join(name.rpartition(".")[2] for name in within)
    rest = f"{section} has {there}" if within else f"The sections are {', '.join(sections)}"
    return f"unknown recipe key {path!r}. {hint}{rest}"
