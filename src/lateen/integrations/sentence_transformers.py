"""A folder that SentenceTransformer loads where lateen is installed: texts and images, one space.

It is lateen's own, with the encoders, and says to sentence-transformers which module reads it.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lateen.model import AlignedModel

_MODULES, _CONFIG = "modules.json", "config_sentence_transformers.json"
_CODE = "lateen_module.py"
_MODULE = "lateen_module.LateenModule"
MARKS = (_MODULES,)
BESIDE = ("model.safetensors", "vision_encoder", "text_encoder", _CONFIG, _CODE)


def export(model: AlignedModel, out: Path) -> None:
    """Write the model's folder with both encoders, and what sentence-transformers looks for.

    ``SentenceTransformer(out, trust_remote_code=True).encode`` then takes texts, and PIL images or
    paths of image files; ``similarity`` is the cosine. The folder's own code is one import of
    lateen, which has to be installed; where it is not, the error says so.

    Args:
        model: an aligned model, or a plain CLIP as one.
        out: the folder.

    Raises:
        ModelError: an encoder cannot be copied, as it is code, or nothing says where it is.
        EncoderError: its files are not where they were.
    """
    from lateen.files import write_json
    from lateen.integrations.lateen import export as export_whole

    (out / _MODULES).unlink(missing_ok=True)
    export_whole(model, out, encoders=True)
    write_json(
        out / _CONFIG,
        {
            "__version__": {"lateen": importlib.metadata.version("lateen")}, "prompts": {},
            "default_prompt_name": None, "similarity_fn_name": "cosine",
            "model_type": "SentenceTransformer",
        },
    )  # fmt: skip
    (out / _CODE).write_text(_IMPORT, encoding="utf-8")
    with (out / "README.md").open("a", encoding="utf-8") as card:
        card.write(_USE)
    # Last, as it marks the folder as whole.
    write_json(out / _MODULES, [{"idx": 0, "name": "0", "path": "", "type": _MODULE}])


_IMPORT = """from lateen.integrations._sentence_module import LateenModule  # pip install lateen

__all__ = ["LateenModule"]
"""
_USE = """
## With sentence-transformers

```python
from PIL import Image
from sentence_transformers import SentenceTransformer  # and: pip install lateen

model = SentenceTransformer("path/to/this/folder", trust_remote_code=True)
texts = model.encode(["a dog on a beach", "a cat"])
images = model.encode([Image.open("photo.jpg")])
print(model.similarity(images, texts))
```
"""
