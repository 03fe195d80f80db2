"""The files of a saved model besides its config: weights, a card, encoders if asked for."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from lateen.encoders import TextEncoder
from lateen.encoders.resolve import resolve
from lateen.encoders.sentence import MODULES, read_layout
from lateen.encoders.text import TextNetwork
from lateen.encoders.weights import quiet_transformers
from lateen.errors import ModelError, UsageError, choices
from lateen.files import atomic_path, write_text
from lateen.model.config import AlignedConfig

WEIGHTS = "model.safetensors"
_OPTIONS = ("revision", "vision_encoder", "text_encoder")
_AUTO_OPTIONS = {"config", "trust_remote_code", "adapter_kwargs", "_from_auto"}
_COPIED = ("*.json", "*.txt", "*.model", "*.py", "*.safetensors")
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
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(path), revision=revision))
    except Exception as error:  # the hub client raises many kinds; all mean "not here"
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
            found = {key: list(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is damaged or truncated ({error})", "Copy the file again."
        ) from error
    wanted = {key: list(tensor.shape) for key, tensor in expected.items()}
    for key in wanted.keys() - found.keys():
        raise ModelError(f"{path} lacks the tensor {key!r}", "Copy the whole model folder.")
    for key in found.keys() - wanted.keys():
        raise ModelError(f"{path} has the unknown tensor {key!r}", choices(key, sorted(wanted)))
    for key, shape in wanted.items():
        if found[key] != shape:
            raise ModelError(
                f"{path}: {key!r} has shape {found[key]}, its config asks for {shape}",
                "The config and the weights are of different models; copy both again.",
            )


def copy_encoder(source: Path, target: Path) -> None:
    """Copy what an encoder is loaded from, and no weights in other frameworks' formats.

    Args:
        source: the encoder's folder.
        target: where to; nothing is done if that is where it lies.
    """
    if target.resolve() == source.resolve():
        return
    # All names are known before the first copy, which may lie below the source itself.
    files = _files(source)
    if not any(file.suffix == ".safetensors" for file in files):
        files += source.rglob("*.bin")
    for file in files:
        with atomic_path(target / file.relative_to(source)) as temporary:
            shutil.copyfile(file, temporary)


def save_trained_encoder(network: TextNetwork, original: TextEncoder, folder: Path) -> None:
    """Write a text encoder whose weights were trained, in the layout of the original's files.

    Args:
        network: the trained network.
        original: the encoder that it began as.
        folder: where to; what is there is replaced.

    Raises:
        EncoderError: the original's files are not where they were.
    """
    load = original.info.load
    source = resolve(str(load["name"]), load.get("revision")).folder
    inside = read_layout(source).transformer if (source / MODULES).is_file() else source
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    for file in _files(source):
        if not file.name.endswith(_WEIGHTS):
            target = temporary / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    with quiet_transformers():
        network.model.save_pretrained(temporary / inside.relative_to(source))
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def _files(source: Path) -> list[Path]:
    return [file for pattern in _COPIED for file in source.rglob(pattern)]


def share_files(folder: Path) -> None:
    """Let everyone read the weights who may read the card: safetensors writes them for their owner
    alone."""
    mode = (folder / "README.md").stat().st_mode
    for weights in folder.glob("*.safetensors"):
        weights.chmod(mode)


def write_card(config: AlignedConfig, folder: Path) -> None:
    """Write README.md in the hub's model-card form, from the config alone."""
    from huggingface_hub import ModelCard, ModelCardData

    training = config.training or {}
    absent = dict.fromkeys(("pooling", "layer", "dim", "weights"))
    vision, text = {**absent, **(config.vision or {})}, {**absent, **(config.text or {})}
    heads = config.head_settings
    card = ModelCard.from_template(
        ModelCardData(
            library_name="lateen", tags=["clip", "vision-language", "zero-shot"],
            pipeline_tag="zero-shot-image-classification",
        ),
        template_path=str(Path(__file__).with_name("model_card.md.j2")),
        name=folder.resolve().parent.name if folder.name == "model" else folder.name,
        vision=vision, text=text, vision_name=_name(vision), text_name=_name(text),
        image_head=heads.image_name, text_head=heads.name, dim=(config.head or {}).get("dim"),
        validation=training.get("validation"),
        conditions={key: value for key, value in training.items() if key != "validation"},
    )  # fmt: skip
    write_text(folder / "README.md", f"{str(card).rstrip()}\n")


def _name(side: Mapping[str, Any]) -> str:
    name = str(side.get("id"))
    return Path(name).name if Path(name).exists() else name
