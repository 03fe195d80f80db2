"""Strict sections of settings: their keys, their values as text, and what is wrong with them.

Every config class is a :class:`Section` that lies beside its owner. What all of them share is here:
the list of keys that help and docs are made of, how text becomes a value, and the one translation
of pydantic's errors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Literal, NamedTuple, Self, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from lateen.errors import RecipeError, choices, nearest
from lateen.hardware import use_hardware

RECIPE_FILE = "lateen.yaml"
"""The recipe of a folder of data, as `lateen init` writes it: known by the folder's name alone."""

Precision = Literal["auto", "float32", "bfloat16"]

_TYPE_NAMES = {
    str: "text",
    Path: "path",
    int: "whole number",
    float: "number",
    bool: "true | false",
}


class Section(BaseModel):
    """Strict, frozen values: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class RecipeFile(Section):
    """A whole recipe: checked values, mostly of a YAML file.

    What every recipe has are keys of the machine it runs on; no result is found or named by them.
    """

    device: str = Field(
        "auto", description="where networks run: auto, cpu, cuda, cuda:1, mps, … (auto = the first "
        "CUDA GPU, else the CPU)"
    )  # fmt: skip
    batch_size: int | None = Field(
        None, gt=0, description="images, or thousands of text tokens, per forward pass of an "
        "encoder (CPU: 16 images, 1 k tokens; CUDA: 256, 64 k)"
    )  # fmt: skip
    workers: int | None = Field(
        None, gt=0, description="threads that decode and prepare (one per core, at most 8)"
    )
    precision: Precision = Field(
        "auto", description="of all encoders and of training, where their own precision is auto"
    )

    def on_hardware(self) -> AbstractContextManager[None]:
        """A block in which networks run where the recipe says. Its precision is with its encoders
        and its training already."""
        return use_hardware(self.device, self.batch_size, self.workers)

    @classmethod
    def build(cls, values: Mapping[str, Any]) -> Self:
        """Check ``values``."""
        raise NotImplementedError

    @classmethod
    def load(cls, path: Path, overrides: Mapping[str, Any] | None = None) -> Self:
        """Read a YAML file; ``overrides`` are by dotted key, values as YAML text."""
        raise NotImplementedError

    @classmethod
    def of(cls, recipe: Self | str | Path | Mapping[str, Any]) -> Self:
        """A recipe from itself, from the path of a YAML file, or from its values."""
        if isinstance(recipe, cls):
            return recipe
        return cls.build(recipe) if isinstance(recipe, Mapping) else cls.load(Path(str(recipe)))


class Key(NamedTuple):
    """One key of a config.

    Attributes:
        path: dotted, such as ``train.lr``.
        kind: what values it takes, in words.
        choices: its values, where they are few and known.
        default: as text; empty where there is none.
        meaning: one phrase.
    """

    path: str
    kind: str
    choices: tuple[str, ...]
    default: str
    meaning: str


class Fault(NamedTuple):
    """What is wrong with a config, in terms of its keys.

    Attributes:
        kind: ``unknown`` key, ``missing`` key or ``unfit`` value.
        path: of the key; whole numbers are positions in a list.
        value: what was given.
        rule: that it breaks, in lower case.
        choices: keys that are known there, or values that the key takes, where they are few.
    """

    kind: Literal["unknown", "missing", "unfit"]
    path: tuple[str | int, ...]
    value: Any
    rule: str
    choices: tuple[str, ...]

    @property
    def dotted(self) -> str:
        """The path with dots."""
        return ".".join(map(str, self.path))


def keys_of(section: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    """Every key of a section and of those in it; a list of sections is one key.

    Args:
        section: the class.
        prefix: what stands before all paths, such as ``train.``.
    """
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from keys_of(inner, f"{prefix}{name}.")
            continue
        if get_origin(inner) in (Union, UnionType):  # a section or nothing: as a whole or by key
            for option in _options(inner):
                if isinstance(option, type) and issubclass(option, BaseModel):
                    yield from keys_of(option, f"{prefix}{name}.")
        choices = tuple(field.examples or ()) or _literals(inner)
        kind = " | ".join(choices) if field.examples else _type_name(inner)
        yield Key(f"{prefix}{name}", kind, choices, _default(field), field.description or "")


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if field.is_required() or value is None or value == {}:
        return ""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _literals(annotation: Any) -> tuple[str, ...]:
    """The words that a key takes, if it takes nothing else."""
    options = _options(annotation)
    if get_origin(annotation) is Literal:
        return tuple(map(str, options))
    if get_origin(annotation) in (Union, UnionType) and len(options) == 1:
        return _literals(options[0])
    return ()


def _options(annotation: Any) -> list[Any]:
    return [option for option in get_args(annotation) if option is not type(None)]


def _type_name(annotation: Any) -> str:
    options, origin = _options(annotation), get_origin(annotation)
    if origin is Literal:
        return " | ".join(map(str, options))
    if origin in (Union, UnionType):
        return " | ".join(map(_type_name, options))
    if origin is tuple:
        return "list of " + _type_name(options[0])
    if hasattr(annotation, "__metadata__"):  # Annotated
        return _type_name(options[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"{{{', '.join(annotation.model_fields)}}}"
    return _TYPE_NAMES.get(annotation, "mapping")


def parse_value(text: str, kind: str) -> Any:
    """The value that ``text`` stands for; where a key takes text or a path, that is itself.

    Args:
        text: as given on the command line.
        kind: what the key takes, as :class:`Key` says it.
    """
    if kind in (_TYPE_NAMES[str], _TYPE_NAMES[Path]):
        return None if text in ("null", "none", "") else text
    if kind.startswith("list of") and text != "null" and not text.startswith(("[", "{")):
        return [word.strip() for word in text.split(",")]
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):  # YAML 1.1 reads 1e-4 as a word
        try:
            return float(value)
        except ValueError:
            return value
    return value


def assigned(
    values: Mapping[str, Any], settings: Mapping[str, Any], keys: Mapping[str, Key]
) -> dict[str, Any]:
    """Values with settings put above them.

    Args:
        values: nested, as in a YAML file.
        settings: by dotted path; text is read as :func:`parse_value` reads it.
        keys: the known ones, by path.

    Raises:
        RecipeError: a path leads through something that is no section.
    """
    result = dict(values)
    for path, setting in settings.items():
        kind = keys[path].kind if path in keys else ""
        value = str(setting) if isinstance(setting, Path) else setting
        value = parse_value(value, kind) if isinstance(value, str) else value
        for name in reversed(path.split(".")[1:]):
            value = {name: value}
        top = path.partition(".")[0]
        if "." in path and not isinstance(result.get(top) or {}, Mapping):
            raise RecipeError(f"unknown recipe key {path!r}", f"{top} is no section here.")
        result = merged(result, {top: value}) if "." in path else {**result, top: value}
    return result


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both, section by section; where both have a key, the one above counts."""
    result = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def with_preset(
    values: Mapping[str, Any], presets: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Values with those of the preset that they name (``small`` if none) beneath them.

    Raises:
        RecipeError: there is no such preset.
    """
    preset = values.get("preset", "small")
    if preset not in presets:
        raise RecipeError(f"unknown preset {preset!r}", choices(str(preset), presets))
    return merged(presets[preset], values)


def first_fault(error: ValidationError, root: type[BaseModel]) -> Fault:
    """What pydantic found first: an unknown key before all else, since it says most.

    Args:
        error: of checking values of ``root``.
        root: the class.
    """
    errors = error.errors()  # a misspelt key may also be missing
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    path, owner = _known_path(first["loc"], root)
    if first["type"] == "extra_forbidden":
        known = [field.alias or name for name, field in owner.model_fields.items()]
        return Fault("unknown", path, first["input"], "is not known", tuple(known))
    if first["type"] == "missing":
        return Fault("missing", path, first["input"], "field required", ())
    rule = first["msg"].lower().removeprefix("value error, ")
    if first["type"] in ("model_type", "model_attributes_type"):
        rule = "it has keys of its own"
    field = owner.model_fields.get(str(path[-1])) if path else None
    choices = _literals(field.annotation) if field else ()
    return Fault("unfit", path, first["input"], rule, choices)


def _known_path(
    loc: tuple[str | int, ...], root: type[BaseModel]
) -> tuple[tuple[str | int, ...], type[BaseModel]]:
    """The path of a key without what pydantic adds (which of several types it tried), and the
    section that the key is, or would be, in."""
    path: list[str | int] = []
    owner, at_value = root, False
    for index, part in enumerate(loc):
        last = index == len(loc) - 1
        fields = {field.alias or name: field for name, field in owner.model_fields.items()}
        if isinstance(part, int):
            path.append(part)
        elif at_value:
            continue  # the name of a type that was tried
        elif part in fields:
            path.append(part)
            inner = _section_in(fields[part].annotation)
            at_value = inner is None
            owner = inner if inner is not None and not last else owner
        elif last:
            path.append(part)  # an unknown key
    return tuple(path), owner


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section that an annotation is, or is a list of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := _section_in(each))), None)


class Shipped(NamedTuple):
    """A recipe that comes with lateen.

    Attributes:
        path: its file.
        kind: ``recipe`` (of `lateen run`), ``ladder``, ``assessment``, ``tuning`` or
            ``multimodal``.
        summary: the first sentence of its comment.
    """

    path: Path
    kind: str
    summary: str


def shipped_recipes() -> dict[str, Shipped]:
    """The recipes that come with lateen, by name."""
    recipes = {}
    for path in sorted((Path(__file__).parent / "recipes").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        comment = " ".join(line.strip("# ") for line in text.partition("\n#\n")[0].splitlines())
        recipes[path.stem] = Shipped(path, recipe_kind(yaml.safe_load(text)), comment)
    return recipes


def recipe_kind(values: Any) -> str:
    """Whose recipe the values of a file are: ``recipe``, ``ladder``, ``assessment``, ``tuning`` or
    ``multimodal``."""
    if isinstance(values, Mapping) and "target" in values:
        return "tuning"
    if isinstance(values, Mapping) and ("llm" in values or "stage" in values):
        return "multimodal"
    if isinstance(values, Mapping) and "rungs" in values:
        return "ladder"
    several = isinstance(values, Mapping) and isinstance(values.get("vision"), list)
    return "assessment" if several else "recipe"


def find_recipe(name: Path, kind: str = "recipe") -> Path:
    """The file that is meant: a path, a folder with a :data:`RECIPE_FILE`, or the name of a recipe
    that comes with lateen. What is in the working directory goes first.

    Args:
        name: as the user gave it.
        kind: what it should be, for the error of its absence.

    Raises:
        RecipeError: there is none.
    """
    beside = (name, name / RECIPE_FILE, name.with_name(f"{name.name}.yaml"))
    if file := next((path for path in beside if path.is_file()), None):
        return file
    shipped = shipped_recipes()
    if str(name) in shipped:
        return shipped[str(name)].path
    if name.is_dir():
        raise RecipeError(
            f"{name} is a folder without a {RECIPE_FILE}", f"Write one: lateen init {name}"
        )
    known = [each for each, recipe in shipped.items() if recipe.kind == kind]
    near = nearest(name.stem, known)
    hint = f"Did you mean {near!r}? " if near else ""
    raise RecipeError(
        f"there is no {'ladder' if kind == 'ladder' else 'recipe'} {name}",
        f"{hint}Give the path of a YAML file, or one that comes with lateen: {', '.join(known)}.",
    )


def read_yaml(path: Path, kind: str) -> Any:
    """The value in a YAML file, ``None`` if it is empty.

    Args:
        path: the file, as :func:`find_recipe` finds it.
        kind: what it should be, for the error of its absence.

    Raises:
        RecipeError: there is no such file, or it is not YAML.
    """
    path = find_recipe(path, kind)
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"{path} is not valid YAML: {' '.join(str(error).split())}", "Correct that line."
        ) from error


class LayeredRecipe(RecipeFile):
    """The recipe of one command, above which settings can be put."""

    kind: ClassVar[str]
    """Which it is, as :func:`recipe_kind` says."""
    command: ClassVar[str]
    """Whose recipe it is, as people type it."""
    shape: ClassVar[str]
    """What this kind has that others have not, in a sentence."""

    @classmethod
    @cache
    def known_keys(cls) -> dict[str, Key]:
        """Every key by its dotted path, for help and options."""
        return {key.path: key for key in keys_of(cls)}

    @classmethod
    def above(cls, recipe: Self | str | Path | None, settings: Mapping[str, Any]) -> Self:
        """A recipe with settings put above it, by dotted key.

        Raises:
            RecipeError: there is no such file, or it does not fit.
        """
        if recipe is None or isinstance(recipe, cls):
            values = {} if recipe is None else recipe.model_dump(mode="json")
            return cls.build(assigned(values, settings, cls.known_keys()))
        return cls.load(Path(str(recipe)), settings)

    @classmethod
    def load(cls, path: Path, overrides: Mapping[str, Any] | None = None) -> Self:
        """Read a YAML recipe; ``overrides`` are ``{"train.lr": "1e-4"}``, values as YAML text.

        Raises:
            RecipeError: there is no such file, it is of another kind, or does not fit.
        """
        values = read_yaml(find_recipe(path, cls.kind), cls.kind) or {}
        if not isinstance(values, dict) or recipe_kind(values) != cls.kind:
            raise RecipeError(f"{path} is not a recipe of `{cls.command}`", cls.shape)
        return cls.build(assigned(values, overrides or {}, cls.known_keys()))

    @classmethod
    def explained(cls, error: ValidationError) -> RecipeError:
        """What pydantic found, in terms of keys."""
        fault = first_fault(error, cls)
        if fault.kind == "unknown":
            return RecipeError(
                f"unknown recipe key {fault.dotted!r}", choices(fault.dotted, cls.known_keys())
            )
        return RecipeError(
            f"recipe key {fault.dotted!r} cannot be {fault.value!r}: {fault.rule}",
            f"See `{cls.command} --help` for every key, its type and its default.",
        )
