"""A folder that SentenceTransformer loads: texts and images into one space.

Where transformers can load both encoders, it is a folder for transformers
(:mod:`lateen.integrations.transformers`) with what sentence-transformers looks for beside it, and
needs no lateen. Else it is lateen's own, whose code is one import of lateen.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lateen.errors import ModelError
from lateen.files import staged_files, write_json
from lateen.progress import log

if TYPE_CHECKING:
    from lateen.model import AlignedModel, CardResult

_MODULES, _CONFIG = "modules.json", "config_sentence_transformers.json"
_TRANSFORMER = "sentence_bert_config.json"
_CODE = "lateen_module.py"
_MODULE = "lateen_module.LateenModule"
MARKS = (_MODULES,)
BESIDE = ("*.safetensors", "vision_encoder", "text_encoder", "*.json", "*_lateen.py", "README.md",
          _CODE)  # fmt: skip


def export(model: AlignedModel, out: Path, *, results: Sequence[CardResult] = ()) -> None:
    """Write the model, and what sentence-transformers looks for.

    ``SentenceTransformer(out, trust_remote_code=True).encode`` then takes texts, and PIL images or
    paths of image files; ``similarity`` is the cosine.

    Args:
        model: an aligned model, or a plain CLIP as one.
        out: the folder.
        results: for the card.

    Raises:
        ModelError: an encoder cannot be copied, as it is code, or nothing says where it is.
        EncoderError: its files are not where they were.
    """
    from lateen.integrations import transformers as hub
    from lateen.model.card import CardForm, title_of

    try:
        made = hub.hub_model(model)
    except ModelError as error:
        log.warning("the folder needs lateen where it is loaded: %s", error.message)
        _export_with_lateen(model, out, results)
        return
    with staged_files(out, last=_MODULES) as folder:
        form = CardForm("sentence-transformers", _USE, whole=True, title=title_of(out))
        hub.write_hub_model(model, made, folder, form, results)
        write_json(folder / _TRANSFORMER, {
            "transformer_task": "feature-extraction",
            "modality_config": {
                "text": _method("get_text_features"), "image": _method("get_image_features"),
            },
            "module_output_name": "sentence_embedding",
        })  # fmt: skip
        modules = "sentence_transformers.models"
        _write_modules(
            folder, ("", f"{modules}.Transformer"), ("1_Normalize", f"{modules}.Normalize")
        )


def _export_with_lateen(model: AlignedModel, out: Path, results: Sequence[CardResult]) -> None:
    from lateen.integrations.lateen import export as export_whole

    (out / _MODULES).unlink(missing_ok=True)
    export_whole(model, out, encoders=True, results=results)
    (out / _CODE).write_text(_IMPORT, encoding="utf-8")
    with (out / "README.md").open("a", encoding="utf-8") as card:
        card.write(f"\n## With sentence-transformers, and lateen\n\n```python\n{_USE}\n```\n")
    _write_modules(out, ("", _MODULE))


def _method(name: str) -> dict[str, str]:
    return {"method": name, "method_output_name": "pooler_output"}


def _write_modules(folder: Path, *modules: tuple[str, str]) -> None:
    """Write what sentence-transformers reads first: paths and classes of its modules, in order."""
    write_json(folder / _CONFIG, {
        "__version__": {"lateen": importlib.metadata.version("lateen")}, "prompts": {},
        "default_prompt_name": None, "similarity_fn_name": "cosine",
        "model_type": "SentenceTransformer",
    })  # fmt: skip
    # Last, as it marks the folder as whole.
    write_json(folder / _MODULES, [
        {"idx": i, "name": str(i), "path": path, "type": kind}
        for i, (path, kind) in enumerate(modules)
    ])  # fmt: skip


_IMPORT = """from lateen.integrations._sentence_module import LateenModule  # pip install lateen

__all__ = ["LateenModule"]
"""
_USE = """from PIL import Image
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/to/this/folder", trust_remote_code=True)
texts = model.encode(["a dog on a beach", "a cat"])
images = model.encode([Image.open("photo.jpg").convert("RGB")])
print(model.similarity(images, texts))"""
