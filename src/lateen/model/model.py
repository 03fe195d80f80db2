"""AlignedModel: two frozen encoders and the heads between them, used like any CLIP."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from PIL.Image import Image
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from lateen.data import FileImage, decode_image, upright_rgb
from lateen.encoders import SIDES, Encoder
from lateen.encoders.weights import quiet_transformers
from lateen.errors import ImageError, ModelError
from lateen.features import Store, token_batches
from lateen.features.passes import batch_of
from lateen.files import content_key
from lateen.model.card import CardForm, CardResult, write_card
from lateen.model.config import AlignedConfig, encoder_identity, read_config
from lateen.model.encoder_pair import EncoderPair, describe_encoder
from lateen.model.query_bank import QUERY_BANK, QueryBank
from lateen.model.sail import read_sail_checkpoint, write_sail_checkpoint
from lateen.model.saving import (
    check_auto_options,
    check_weights,
    find_folder,
    share_files,
    without_paths,
)
from lateen.model.trained_on import TRAINED_ON, TrainedOn
from lateen.progress import log
from lateen.training.heads import AlignmentHeads

_ROWS = 8192  # features projected at a time


@dataclass
class AlignedOutput(ModelOutput):  # type: ignore[misc]
    """What a forward pass gives, named as in transformers' CLIP.

    Attributes:
        logits_per_image: ``[images, texts]``, t · cosine + b.
        logits_per_text: its transpose.
        image_embeds: ``[images, dim]``, L2-normalised.
        text_embeds: ``[texts, dim]``, L2-normalised.
    """

    logits_per_image: Tensor | None = None
    logits_per_text: Tensor | None = None
    image_embeds: Tensor | None = None
    text_embeds: Tensor | None = None


def as_image(item: Image | str | Path) -> Image:
    """A path or an opened image as the encoders see files: RGB, upright, on white.

    Raises:
        ImageError: a file that cannot be decoded, named.
    """
    if isinstance(item, Image):
        return upright_rgb(item)
    try:
        return decode_image(FileImage(Path(item)))
    except ImageError as error:
        raise ImageError(f"{item}: {error.message}") from error


def check_feature_shape(features: Tensor, dim: int, modality: Literal["image", "text"]) -> None:
    """See that features are ``[n, dim]``.

    Raises:
        ModelError: they are not.
    """
    if features.ndim != 2 or features.shape[1] != dim:
        raise ModelError(
            f"{modality} features of shape {list(features.shape)} do not fit this model, "
            f"whose {modality} encoder gives [n, {dim}]",
            "Use features of the encoder that the model was trained with.",
        )


class AlignedModel(PreTrainedModel):  # type: ignore[misc]
    """A CLIP made of two frozen encoders.

    The encoders are loaded when first needed; projecting features that were computed before needs
    neither. Save with :meth:`save_pretrained`, load with :meth:`from_pretrained`.

    Args:
        config: names the encoders and the heads' shape.
    """

    config_class = AlignedConfig
    main_input_name = "pixel_values"
    base_model_prefix = ""

    def __init__(self, config: AlignedConfig) -> None:
        super().__init__(config)
        self.heads = AlignmentHeads(config.head_settings, config.image_dim, config.text_dim)
        self._encoder_pair = EncoderPair(config)
        # Of a path, read when first asked for.
        self._trained_on: TrainedOn | Path | None = None
        self._query_bank: QueryBank | Path | None = None
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """The heads initialise themselves; transformers has nothing to add."""

    @classmethod
    def build(
        cls, heads: AlignmentHeads, vision: dict[str, Any], text: dict[str, Any],
        head: dict[str, Any], training: dict[str, Any] | None = None,
        trained_on: TrainedOn | None = None,
    ) -> AlignedModel:  # fmt: skip
        """A model around trained heads.

        Args:
            heads: the trained heads.
            vision: the vision encoder's info as a dict.
            text: the text encoder's info as a dict.
            head: the heads' settings as a dict.
            training: conditions to keep with the model.
            trained_on: hashes of the images that it was trained on.
        """
        head = {**head, "dim": heads.settings.dim}  # which the settings may leave to the heads
        model = cls(AlignedConfig(vision=vision, text=text, head=head, training=training))
        model.heads.load_state_dict(heads.state_dict())
        model._trained_on = trained_on
        return cast("AlignedModel", model.eval())

    def find_records(self, folder: Path) -> None:
        """Take what lies beside weights: what they were trained on, and a query bank. Each is read
        when it is first asked for."""
        if (folder / TRAINED_ON).is_file():
            self._trained_on = folder / TRAINED_ON
        if (folder / QUERY_BANK).is_file():
            self._query_bank = folder / QUERY_BANK

    @property
    def trained_on(self) -> TrainedOn | None:
        """Hashes of the images that it was trained on and chosen on; ``None`` if not recorded.

        Raises:
            ModelError: the record is damaged.
        """
        if isinstance(self._trained_on, Path):
            self._trained_on = TrainedOn.load(self._trained_on)
        return self._trained_on

    @property
    def query_bank(self) -> QueryBank | None:
        """Known queries, by which hubs are told; ``None`` if it has none.

        Raises:
            ModelError: the bank is damaged, or of another model.
        """
        if isinstance(self._query_bank, Path):
            self._query_bank = QueryBank.load(self._query_bank, self)
        return self._query_bank

    @query_bank.setter
    def query_bank(self, bank: QueryBank | None) -> None:
        if bank is not None:
            bank.check_model(self)
        self._query_bank = bank

    @property
    def carries_bank(self) -> bool:
        """Whether it has a query bank, which need not be read for that."""
        return self._query_bank is not None

    def _bank_to_save(self) -> QueryBank | None:
        """The query bank, unless the heads were changed since it was made, which is told."""
        bank = self._query_bank
        if isinstance(bank, Path):
            bank = QueryBank.load(bank)
        if bank is not None and not bank.fits(self):
            log.warning("the query bank is left out, as the heads were changed since it was made "
                        "(lateen bank makes one)")  # fmt: skip
            return None
        return bank

    @property
    def content_key(self) -> str:
        """Content key (64 hex digits) of the heads and of what the encoders are."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)  # NumPy has no bfloat16
            digest.update(flat.view(torch.uint8).numpy().tobytes())
        sides = [encoder_identity(getattr(self.config, side)) for side in SIDES]
        return content_key([digest.hexdigest(), *sides])

    # -- encoders ---------------------------------------------------------------------------------

    @property
    def vision_encoder(self) -> Encoder:
        """The frozen vision encoder, loaded when first asked for."""
        return self._encoder_pair.get("vision")

    @property
    def text_encoder(self) -> Encoder:
        """The frozen text encoder, loaded when first asked for."""
        return self._encoder_pair.get("text")

    @property
    def folder(self) -> Path | None:
        """Where the model was loaded from, or saved last; ``None`` if neither."""
        return self._encoder_pair.folder

    def set_encoders(
        self, vision: str | Encoder | None = None, text: str | Encoder | None = None
    ) -> None:
        """Use these encoders instead of those that the config's names lead to.

        Args:
            vision: a ready encoder, or the folder or hub id where the same weights now are.
            text: the same for the text encoder.

        Raises:
            ModelError: dim, weights, pooling or preprocessing differ from those trained with, as
                far as they were recorded: of imported features only the dim is.
        """
        if vision is not None:
            self._encoder_pair.use("vision", vision)
        if text is not None:
            self._encoder_pair.use("text", text)

    # -- embeddings -------------------------------------------------------------------------------

    @torch.no_grad()
    def encode_image(
        self,
        images: Image | str | Path | Sequence[Image | str | Path],
        *,
        normalize: bool = True,
        batch_size: int = 16,
    ) -> Tensor:
        """Images to embeddings ``[n, dim]``, float32, on the CPU; one image gives ``[1, dim]``.

        Args:
            images: PIL images or paths.
            normalize: L2-normalise.
            batch_size: images per forward pass.

        Raises:
            ImageError: an image cannot be read.
        """
        items = [images] if isinstance(images, Image | str | Path) else list(images)
        out = torch.empty(len(items), self.config.head_settings.dim)
        for start in range(0, len(items), batch_size):
            batch = [as_image(item) for item in items[start : start + batch_size]]
            features = self.vision_encoder.encode(self.vision_encoder.prepare(batch))
            out[start : start + batch_size] = self.project_image(features, normalize=normalize)
        return out

    @torch.no_grad()
    def encode_text(self, texts: str | Sequence[str], *, normalize: bool = True) -> Tensor:
        """Texts to embeddings ``[n, dim]``, float32, on the CPU; one text gives ``[1, dim]``.

        Args:
            texts: one text or several.
            normalize: L2-normalise.
        """
        items = [texts] if isinstance(texts, str) else list(texts)
        prepared = self.text_encoder.prepare(items) if items else []
        out = torch.empty(len(items), self.config.head_settings.dim)
        budget = batch_of(self.text_encoder) * 1024
        for batch in token_batches([len(tokens) for tokens in prepared], budget):
            features = self.text_encoder.encode([prepared[i] for i in batch])
            out[batch] = self.project_text(features, normalize=normalize).to(out)
        return out

    def project_image(self, features: Tensor, *, normalize: bool = True) -> Tensor:
        """Image features ``[n, image_dim]`` of the vision encoder to embeddings ``[n, dim]``,
        on the model's device.

        Raises:
            ModelError: the features have another dim.
        """
        check_feature_shape(features, self.config.image_dim, "image")
        head = self.heads.embed_image if normalize else self.heads.vision
        return cast(Tensor, head(features.to(self.logit_scale.device, self.dtype)))

    def project_text(self, features: Tensor, *, normalize: bool = True) -> Tensor:
        """Text features ``[n, text_dim]`` of the text encoder to embeddings ``[n, dim]``,
        on the model's device.

        Raises:
            ModelError: the features have another dim.
        """
        check_feature_shape(features, self.config.text_dim, "text")
        head = self.heads.embed_text if normalize else self.heads.text
        return cast(Tensor, head(features.to(self.logit_scale.device, self.dtype)))

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """Preprocessed pixels ``[n, 3, H, W]`` to embeddings ``[n, dim]``, not normalised."""
        features = self.vision_encoder.encode(list(pixel_values))
        return self.project_image(features, normalize=False)

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Token ids ``[n, length]`` to embeddings ``[n, dim]``, not normalised.

        Args:
            input_ids: right-padded token ids of the text encoder's tokenizer.
            attention_mask: 1 on tokens, 0 on padding; all tokens if not given.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        prepared = [row[keep.bool()].tolist() for row, keep in zip(input_ids, mask, strict=True)]
        return self.project_text(self.text_encoder.encode(prepared), normalize=False)

    def forward(
        self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> AlignedOutput:
        """Logits of every image against every text: z = t · x·y + b (METHODS §1.3)."""
        image = nn.functional.normalize(self.get_image_features(pixel_values), dim=-1)
        text = nn.functional.normalize(self.get_text_features(input_ids, attention_mask), dim=-1)
        logits = self.heads.scale * image @ text.T + self.logit_bias
        return AlignedOutput(logits, logits.T, image, text)

    @property
    def logit_scale(self) -> Tensor:
        """log t, as CLIP keeps it."""
        return self.heads.logit_scale

    @property
    def logit_bias(self) -> Tensor:
        """b."""
        return self.heads.logit_bias

    # -- saving and loading -----------------------------------------------------------------------

    def save_pretrained(
        self, save_directory: str | Path, *, encoders: bool = False, trained_on: bool = True,
        query_bank: bool = True, local_paths: bool = True, results: Sequence[CardResult] = (),
        **options: Any,
    ) -> None:  # fmt: skip
        """Write config, heads, card and, where there are, the record of training and a query bank.

        Args:
            save_directory: the folder.
            encoders: also copy both encoders into it, so that it works where they are not; one that
                was trained is always copied.
            trained_on: False leaves out the hashes of the images that it was trained on, and those
                of the bank's images: with them, whoever has an image can find out whether it was
                among those.
            query_bank: False leaves out its query bank.
            local_paths: remember the folders of this machine that encoders were loaded from, so
                that the model finds them here; for other machines, leave them out.
            results: for the card.
            options: passed on to transformers.

        Raises:
            ModelError: an encoder cannot be copied (a hand-written one), or the only copy of one is
                in the folder that this model was loaded from and ``encoders`` is not set.
            EncoderError: an encoder to be copied is not where it was.
        """
        folder = Path(save_directory)
        record = self.trained_on if trained_on else None
        bank = self._bank_to_save() if query_bank else None
        if not encoders:
            self._encoder_pair.check_originals()
        self._encoder_pair.copy_to(folder, both=encoders)
        before = {side: getattr(self.config, side) for side in SIDES}
        embedded_before = self.config.embedded_encoders
        self.config.embedded_encoders = encoders
        sources = self._encoder_pair.card_sources(folder)
        try:
            if not local_paths:
                for side in SIDES:
                    setattr(self.config, side, without_paths(before[side]))
            with quiet_transformers():
                super().save_pretrained(folder, **options)
            known = None if bank is None else str(bank)
            write_card(self.config, folder, sources, results, known)
            share_files(folder)
            if record is not None:
                record.save(folder / TRAINED_ON)
            else:  # of the model that was in this folder before
                (folder / TRAINED_ON).unlink(missing_ok=True)
            if bank is not None:
                (bank if trained_on else bank.without_source()).save(folder / QUERY_BANK)
            else:
                (folder / QUERY_BANK).unlink(missing_ok=True)
        except BaseException:
            self.config.embedded_encoders = embedded_before
            raise
        finally:
            for side in SIDES:
                setattr(self.config, side, before[side])
        self._encoder_pair.folder = folder

    def write_card(
        self, folder: str | Path, form: CardForm, results: Sequence[CardResult] = ()
    ) -> None:
        """Write the card of this model in another form, which another tool loads.

        Args:
            folder: of that form.
            form: what the card says of it.
            results: for the card.
        """
        sources = self._encoder_pair.card_sources(Path(folder))
        write_card(self.config, Path(folder), sources, results, form=form)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        revision: str | None = None,
        vision_encoder: str | Encoder | None = None,
        text_encoder: str | Encoder | None = None,
        **auto: Any,
    ) -> AlignedModel:
        """Load a saved model, strictly.

        Args:
            path: a folder, or a hub id.
            revision: hub branch, tag or commit.
            vision_encoder: where the vision encoder is now, if not where the config says.
            text_encoder: the same for the text encoder.
            auto: what ``AutoModel`` hands on; not used, as the folder's own config is what counts.

        Raises:
            ModelError: unknown or missing keys or tensors, wrong shapes, or other encoders.
            UsageError: any other option.
        """
        check_auto_options(auto)
        folder = find_folder(path, revision)
        config = read_config(folder)
        check_weights(folder, cls(config).state_dict())
        with quiet_transformers():
            model = super().from_pretrained(folder, config=config)
        model._encoder_pair.folder = folder
        model.find_records(folder)
        model.set_encoders(vision_encoder, text_encoder)
        return cast("AlignedModel", model.eval())

    @classmethod
    def from_sail_checkpoint(
        cls, path: str | Path, *, vision_encoder: str | Encoder | None = None,
        text_encoder: str | Encoder | None = None,
    ) -> AlignedModel:  # fmt: skip
        """A model around the heads of a checkpoint of SAIL's released code (METHODS §1.8).

        Args:
            path: the torch file, which does not say which encoders it was trained with.
            vision_encoder: the vision encoder, or where to load it from; without it, features of
                images can be projected but images not be encoded.
            text_encoder: the same for the text encoder.

        Raises:
            ModelError: no such file, or an unsafe one; an encoder whose features do not fit.
            EncoderError: an encoder cannot be loaded.
        """
        checkpoint = read_sail_checkpoint(path)
        vision, images = describe_encoder("vision", vision_encoder, checkpoint.image_dim)
        text, texts = describe_encoder("text", text_encoder, checkpoint.text_dim)
        model = cls(checkpoint.config(vision, text))
        model.heads.load_state_dict(checkpoint.state)
        model.set_encoders(images, texts)
        return cast("AlignedModel", model.eval())

    def save_sail_checkpoint(self, path: str | Path) -> None:
        """Write the heads, and no encoders, in the format of SAIL's released code.

        Raises:
            ModelError: the format has no place for such heads.
        """
        write_sail_checkpoint(path, self.heads, self.config.training or {})


@torch.no_grad()
def project_rows(
    project: Callable[[Tensor], Tensor], features: Store | Tensor, rows: Sequence[int] | Any
) -> Tensor:
    """Embeddings ``[len(rows), dim]`` of these rows on the CPU, a few thousand at a time.

    Args:
        project: ``project_image`` or ``project_text`` of a model.
        features: a store, or features ``[n, feature dim]``.
        rows: which of them, in order.
    """
    parts = [project(features[rows[i : i + _ROWS]]).cpu() for i in range(0, len(rows), _ROWS)]
    return torch.cat(parts)
