"""The files of a saved model besides its config and card: weights, encoders if asked for."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from lateen.encoders import Encoder
from lateen.encoders.openai_server import is_server
from lateen.encoders.own import is_factory
from lateen.encoders.resolve import gguf_file, resolve
from lateen.encoders.sentence import MODULES, read_layout
from lateen.encoders.specs import find_spec
from lateen.encoders.weights import quiet_transformers
from lateen.errors import ModelError, UsageError, choices
from lateen.files import atomic_folder, atomic_path, read_json, write_json
from lateen.objects.hub import hub_snapshot

WEIGHTS = "model.safetensors"
_OPTIONS = ("revision", "vision_encoder", "text_encoder")
_AUTO_OPTIONS = {"config", "trust_remote_code", "adapter_kwargs", "_from_auto"}
_COPIED = (
    "*.json",
    "*.txt",
    "*.model",
    "*.py",
    "*.safetensors",
    "README.md",
    "LICENSE*",
    "NOTICE*",
)
_WEIGHTS = (".safetensors", ".index.json")


def find_folder(path: str | Path, revision: str | None = None) -> Path:
    """The folder of a saved model; one of the hub's is downloaded first.

    Args:
        path: a folder, or a hub id.
        revision: hub branch, tag or commit.

    Raises:
        ModelError: it is on neither.
    """
    folder = Path(path).expanduser()
    if folder.exists() or str(path).count("/") != 1 or str(path).startswith("."):
        return folder
    try:
        return hub_snapshot(str(path), revision=revision)
    except FileNotFoundError as error:
        at = f" at revision {revision}" if revision else ""
        raise ModelError(
            f"there is no folder {path}, and the hub has no such model{at} that could be reached",
            "Check the path, or the connection.",
        ) from error


def check_auto_options(given: Iterable[str]) -> None:
    """See that the other options of ``from_pretrained`` are those that ``AutoModel`` hands on.

    Raises:
        UsageError: one is not.
    """
    for option in set(given) - _AUTO_OPTIONS:
        raise UsageError(f"from_pretrained has no option {option!r}", choices(option, _OPTIONS))


def check_weights(folder: Path, expected: Mapping[str, Tensor]) -> None:
    """See that a folder's weights are what its config calls for.

    Raises:
        ModelError: they are absent or damaged, or keys or shapes differ.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise ModelError(f"{folder} has no {WEIGHTS}", "Copy the whole model folder.")
    try:
        with safe_open(path, framework="pt") as file:
            stored = {key: list(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is damaged or truncated ({error})", "Copy the file again."
        ) from error
    shapes = {key: list(tensor.shape) for key, tensor in expected.items()}
    for key in shapes.keys() - stored.keys():
        raise ModelError(f"{path} lacks the tensor {key!r}", "Copy the whole model folder.")
    for key in stored.keys() - shapes.keys():
        raise ModelError(f"{path} has the unknown tensor {key!r}", choices(key, sorted(shapes)))
    for key, shape in shapes.items():
        if stored[key] != shape:
            raise ModelError(
                f"{path}: {key!r} has shape {stored[key]}, its config asks for {shape}",
                "The config and the weights are of different models; copy both again.",
            )


def copy_encoder(source: Path, target: Path) -> None:
    """Copy what an encoder is loaded from, and no weights in other frameworks' formats.

    Args:
        source: the encoder's folder, or its GGUF file.
        target: where to, a folder; nothing is done if that is where it lies.
    """
    gguf = gguf_file(source)
    if gguf is not None:
        source = gguf.parent
    if target.resolve() == source.resolve():
        return
    # All names are known before the first copy, which may lie below the source itself.
    files = [gguf] if gguf else _files(source)
    if gguf is None and not any(file.suffix == ".safetensors" for file in files):
        files += source.rglob("*.bin")
    for file in files:
        with atomic_path(target / file.relative_to(source)) as temporary:
            shutil.copyfile(file, temporary)


def save_trained_encoder(
    model: Any, original: Encoder, folder: Path, *, without: tuple[str, ...] = ()
) -> None:
    """Write an encoder whose weights were trained, in the layout of the original's files.

    Args:
        model: the trained transformers model.
        original: the encoder that it began as.
        folder: where to; what is there is replaced.
        without: what the names of tensors begin with that are left out, as the original lacks them.

    Raises:
        EncoderError: the original's files are not where they were.
    """
    load = original.info.load
    source = resolve(str(load["name"]), load.get("revision")).folder
    inside = read_layout(source).transformer if (source / MODULES).is_file() else source
    with atomic_folder(folder) as made:
        copy_all_but_weights(source, made)
        with quiet_transformers():
            state = {n: t for n, t in model.state_dict().items() if not n.startswith(without)}
            model.save_pretrained(made / inside.relative_to(source), state_dict=state)


def copy_all_but_weights(source: Path, target: Path) -> None:
    """Copy what an encoder is loaded from beside its weights: config, tokenizer, image processor,
    code, card and licence."""
    for file in _files(source):
        if not file.name.endswith(_WEIGHTS):
            copied = target / file.relative_to(source)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copied)


def _files(source: Path) -> list[Path]:
    return [file for pattern in _COPIED for file in source.rglob(pattern)]


def share_files(folder: Path) -> None:
    """Let everyone read the weights, also of a trained encoder inside, who may read the card:
    safetensors writes them for their owner alone."""
    mode = (folder / "README.md").stat().st_mode
    for pattern in ("*.safetensors", "*_encoder/**/*.safetensors"):
        for weights in folder.glob(pattern):
            weights.chmod(mode)


def without_paths(side: Mapping[str, Any]) -> dict[str, Any]:
    """What a config remembers of an encoder, with folders of this machine by their last name alone,
    and without another Python environment of it.

    Its weights' hash stays, by which an encoder found elsewhere is known to be the same.
    """
    load, name = dict(side.get("load") or {}), str(side.get("id"))
    if "parts" in load:  # their names in the id have no folders
        load["parts"] = [_without_path(part) for part in load["parts"]]
    else:
        load = _without_path(load)
        own = load.get("name", "").startswith("./") and not side.get("trained")
        if own or name.startswith((".", "~")) or Path(name).is_absolute():
            name = Path(name).name
    return {**side, "id": name, **({"load": load} if "load" in side else {})}


def _without_path(load: Mapping[str, Any]) -> dict[str, Any]:
    name, kept = str(load.get("name", "")), {k: v for k, v in load.items() if k != "python"}
    elsewhere = is_factory(name) or is_server(name) or load.get("revision") or find_spec(name)
    return kept if not name or elsewhere else {**kept, "name": f"./{Path(name).name}"}


def forget_paths(folder: Path) -> list[str]:
    """Take folders of this machine out of what the encoders' own files say of where they came from.

    Returns:
        The files that name one elsewhere: they are a part of what an encoder is, and stay.
    """
    for path in folder.rglob("config.json"):
        config = read_json(path)
        origin = config.get("_name_or_path") if isinstance(config, dict) else None
        if isinstance(origin, str) and Path(origin).is_absolute():
            write_json(path, {**config, "_name_or_path": Path(origin).name})
    named = []
    for path in sorted(p for s in ("*.json", "*.txt", "*.md", "*.py") for p in folder.rglob(s)):
        text = path.read_text(encoding="utf-8", errors="replace")
        if any(private in text for private in _private()):
            named.append(str(path.relative_to(folder)))
    return named


def _private() -> list[str]:
    """The beginnings of paths that only this machine has."""
    deep = [Path.cwd()] if len(Path.cwd().parts) > 2 else []  # /data stands in many a text
    return [f"{folder}/" for folder in {Path.home(), *deep}]
