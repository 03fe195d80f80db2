"""The module that sentence-transformers loads of a folder of ours: texts and images, one space.

Its name is in the ``modules.json`` of exported folders, so that it stays where it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from sentence_transformers.base.modules import InputModule

from lateen.model import AlignedModel
from lateen.model.model import as_image
from lateen.objects.hub import hub_snapshot

_TEXT, _IMAGE, _EMBEDDING = "text", "image", "sentence_embedding"
_PREPARED = {_TEXT: "prepared_texts", _IMAGE: "prepared_images"}  # as each encoder has them


class LateenModule(InputModule):  # type: ignore[misc]
    """A whole model as the one module of a SentenceTransformer.

    Args:
        model: an aligned model, with its encoders.
    """

    save_in_root = True

    def __init__(self, model: AlignedModel) -> None:
        super().__init__()
        self.model = model
        encoder = model.text_encoder
        self.max_seq_length = encoder.info.preprocessing.get("max_tokens")

    @property
    def modalities(self) -> list[str]:
        """What it takes."""
        return [_TEXT, _IMAGE]

    def preprocess(
        self, inputs: Sequence[str | Path | Image], prompt: str | None = None, **_: Any
    ) -> dict[str, Any]:
        """Texts, or images, opened or by path, as the model's encoders prepare them.

        The model's own prompt goes before texts by itself.

        Args:
            inputs: texts alone, or images alone.
            prompt: a further one, before each text.
        """
        if _are_images(inputs):
            images = [as_image(each) for each in inputs]
            return {_PREPARED[_IMAGE]: self.model.vision_encoder.prepare(images)}
        texts = [f"{prompt or ''}{text}" for text in inputs]
        return {_PREPARED[_TEXT]: self.model.text_encoder.prepare(texts)}

    @torch.no_grad()
    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Adds ``sentence_embedding`` ``[n, dim]``, L2-normalised."""
        model = self.model
        if _PREPARED[_IMAGE] in features:
            found = model.project_image(model.vision_encoder.encode(features[_PREPARED[_IMAGE]]))
        else:
            found = model.project_text(model.text_encoder.encode(features[_PREPARED[_TEXT]]))
        features[_EMBEDDING] = found
        return features

    def get_embedding_dimension(self) -> int:
        """Length of an embedding."""
        return int(self.model.config.head_settings.dim)

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Write the model with its encoders."""
        self.model.save_pretrained(output_path, encoders=True, local_paths=False)

    @classmethod
    def load(
        cls, model_name_or_path: str, subfolder: str = "", revision: str | None = None, **_: Any
    ) -> LateenModule:
        """Read a folder, or a repository of the hub.

        Args:
            model_name_or_path: which.
            subfolder: in it.
            revision: hub branch, tag or commit.
        """
        folder = Path(model_name_or_path)
        if not folder.is_dir():
            folder = hub_snapshot(model_name_or_path, revision=revision)
        return cls(AlignedModel.from_pretrained(folder / subfolder))


def _are_images(inputs: Sequence[Any]) -> bool:
    """Whether inputs are images: opened, or by the path of a file that ends like one."""
    from lateen.data.images import IMAGE_SUFFIXES

    first = inputs[0]
    if isinstance(first, Image | Path):
        return True
    path = Path(str(first))
    return path.suffix.lower() in IMAGE_SUFFIXES and len(str(first)) < 4096 and path.is_file()
