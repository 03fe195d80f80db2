"""Tasks of mteb, run as it runs them on a model of ours, give the numbers that lateen gives."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import toys
from commands import call
from PIL import Image
from torch.nn.functional import normalize
from torch.utils.data import DataLoader

from integrations.conftest import small_model
from lateen.encoders import FusedEncoder
from lateen.errors import MissingExtraError, UsageError
from lateen.evaluation import evaluate
from lateen.integrations.harnesses.mteb import MtebModel, mteb_model
from lateen.metrics import classification, retrieval
from lateen.metrics.choice import pair_hits, pair_scores
from lateen.model import AlignedModel
from lateen.model.query_bank import QUERY_BANK

mteb = pytest.importorskip("mteb", reason="mteb is not installed: pip install 'lateen[mteb]'")
mteb_tasks = pytest.importorskip("integrations.harnesses.mteb_tasks")

WORDS = ["a red dog", "the blue dog runs", "a big cat on grass", "the small beach", "red on blue",
         "a dog on the beach", "the big red number", "grass on grass", "a small blue dog runs on",
         "the cat", "big big big", "a number 7 on the beach"]  # fmt: skip
SHADES = [(230, 20, 30), (10, 60, 200), (30, 160, 40), (240, 230, 200), (120, 10, 120),
          (20, 20, 20), (200, 120, 10), (90, 90, 90), (10, 200, 200), (250, 250, 250),
          (130, 60, 20), (60, 10, 240)]  # fmt: skip
Pairs = list[tuple[Path, list[str]]]


@pytest.fixture
def wrapped(small: AlignedModel) -> MtebModel:
    return mteb_model(small, name="tests/small")


@pytest.fixture
def pairs(tmp_path: Path) -> Pairs:
    """Twelve pictures with two captions each, and the table of them."""
    made = []
    for i, shade in enumerate(SHADES):
        path = toys.painted(tmp_path / "images" / f"{i:02d}.png", shade, seed=i)
        made.append((path, [WORDS[i], f"{WORDS[i - 1]} {i}"]))
    rows = [json.dumps({"image": path.name, "caption": captions}) for path, captions in made]
    (tmp_path / "pairs.jsonl").write_text("\n".join(rows))
    return made


def scores(model: Any, task: Any) -> dict[str, Any]:
    found = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False)
    [numbers] = found.task_results[0].scores["test"]
    return dict(numbers)


def loader(*columns: str, **batch: Any) -> Any:
    """As mteb's loaders are: one batch here, and a dataset that names its columns."""

    class Loader(list[dict[str, Any]]):
        dataset = SimpleNamespace(features=dict.fromkeys(columns or batch))

    return Loader([batch])


def encoded(model: MtebModel, rows: Any, **options: Any) -> torch.Tensor:
    task = SimpleNamespace(name="Some")
    return model.encode(rows, task_metadata=task, hf_split="test", hf_subset="default", **options)


def test_retrieval_both_ways(wrapped: MtebModel, pairs: Pairs, tmp_path: Path) -> None:
    ours = evaluate(
        wrapped.model, "retrieval", captions=tmp_path / "pairs.jsonl", images=tmp_path / "images"
    )
    by_text = scores(wrapped, mteb_tasks.text_to_image(pairs))
    by_image = scores(wrapped, mteb_tasks.image_to_text(pairs))
    image = wrapped.model.encode_image([path for path, _ in pairs])
    text = wrapped.model.encode_text([each for _, captions in pairs for each in captions])
    again = retrieval(image, text, torch.arange(len(pairs)).repeat_interleave(2))
    for k in (1, 5, 10):
        # mteb rounds to five places. To recall a caption's one picture is to hit.
        theirs = {
            "text_to_image": by_text[f"recall_at_{k}"],
            "image_to_text": by_image[f"hit_rate_at_{k}"],
        }
        for way, share in theirs.items():
            assert 100 * share == pytest.approx(ours[way][f"R@{k}"], abs=1e-3)
            assert 100 * share == pytest.approx(again[way][f"R@{k}"], abs=1e-3)
    assert 0 < by_text["recall_at_1"] < by_text["recall_at_5"] < by_text["recall_at_10"] < 1


# mteb's own precision is of no class that is never said.
@pytest.mark.filterwarnings("ignore:Precision is ill-defined")
def test_zero_shot_classification(wrapped: MtebModel, pairs: Pairs, tmp_path: Path) -> None:
    names = ["a dog", "the beach", "grass"]
    labels = [index % 3 for index in range(len(pairs))]
    for (path, _), label in zip(pairs, labels, strict=True):
        target = tmp_path / "classes" / names[label] / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    theirs = scores(wrapped, mteb_tasks.zero_shot([path for path, _ in pairs], labels, names))
    ours = evaluate(wrapped.model, "classification", images=tmp_path / "classes",
                    templates=["a photo of a {}."])  # fmt: skip
    assert 100 * theirs["accuracy"] == pytest.approx(ours["top1"])
    assert 100 * theirs["recall"] == pytest.approx(ours["mean_per_class"])
    again = classification(
        wrapped.model.encode_image([path for path, _ in pairs]),
        wrapped.model.encode_text([f"a photo of a {name}." for name in names]),
        torch.tensor(labels), names,
    )  # fmt: skip
    assert 100 * theirs["accuracy"] == pytest.approx(again["top1"])
    assert 0 < theirs["accuracy"] < 1


def test_compositionality(wrapped: MtebModel, pairs: Pairs, tmp_path: Path) -> None:
    paths, texts = [path for path, _ in pairs], [captions[0] for _, captions in pairs]
    cases = [(paths[i], paths[j], texts[i], texts[j]) for i in range(12) for j in range(i)]
    theirs = scores(wrapped, mteb_tasks.pairs_of_pairs(cases))
    rows = [
        {"id": index, "image_0": first.name, "image_1": second.name, "caption_0": one,
         "caption_1": other}
        for index, (first, second, one, other) in enumerate(cases)
    ]  # fmt: skip
    (tmp_path / "examples.jsonl").write_text("\n".join(map(json.dumps, rows)))
    ours = evaluate(wrapped.model, "winoground", data=tmp_path)
    image, text = wrapped.model.encode_image(paths), wrapped.model.encode_text(texts)
    picked = torch.tensor([(i, j) for i in range(12) for j in range(i)])
    again = pair_scores(pair_hits(image[picked] @ text[picked].transpose(1, 2)))
    named = {"text": "text_acc", "image": "image_acc", "group": "accuracy"}
    for score, name in named.items():
        assert 100 * theirs[name] == pytest.approx(ours[score], abs=1e-4)
        assert 100 * theirs[name] == pytest.approx(again[score], abs=1e-4)
        assert 0 < theirs[name] < 1


def test_a_query_bank_changes_nothing(
    small: AlignedModel, pairs: Pairs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small.save_pretrained(tmp_path / "model")
    before = scores(mteb_model(tmp_path / "model"), mteb_tasks.text_to_image(pairs))
    made, source = tmp_path / "bank.npz", ["--captions", tmp_path / "pairs.jsonl"]
    code, _, err = call(capsys, "bank", tmp_path / "model", *source, "--images",
                        tmp_path / "images", "--out", made)  # fmt: skip
    assert code == 0, err
    shutil.copyfile(made, tmp_path / "model" / QUERY_BANK)
    model = mteb_model(tmp_path / "model")
    assert model.model.query_bank is not None
    assert scores(model, mteb_tasks.text_to_image(pairs)) == before


def test_batches_of_any_size_are_embedded_as_by_the_model(
    small: AlignedModel, odd_images: list[Path]
) -> None:
    model = mteb_model(small, name="tests/small")
    expected = small.encode_image(odd_images)
    with ExitStack() as open_files:
        pictures = [open_files.enter_context(Image.open(path)) for path in odd_images]
        for size in (1, 2, 10):
            rows = DataLoader(pictures, batch_size=size, collate_fn=lambda batch: {"image": batch})
            for batch_size in (None, 4):
                found = model.get_image_embeddings(rows, batch_size=batch_size)
                torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    texts = ["a dog", "", "the big red cat"]
    torch.testing.assert_close(encoded(model, loader(text=texts)), small.encode_text(texts))
    assert encoded(model, loader(text=[])).shape == (0, 8)
    assert encoded(model, loader(image=[])).shape == (0, 8)


def test_rows_of_a_text_and_an_image_are_the_sum_of_both(wrapped: MtebModel) -> None:
    texts, images = ["a dog", "a cat"], [Image.new("RGB", (9, 9), c) for c in ("red", "blue")]
    found = encoded(wrapped, loader(text=texts, image=images))
    both = wrapped.model.encode_text(texts) + wrapped.model.encode_image(images)
    torch.testing.assert_close(found, normalize(both, dim=-1), atol=1e-5, rtol=0)


def test_similarities_are_cosines_of_arrays_and_tensors(wrapped: MtebModel) -> None:
    one, other = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.cosine_similarity(one[:, None], other[None], dim=-1)
    torch.testing.assert_close(wrapped.similarity(one, other.numpy()), expected)
    torch.testing.assert_close(wrapped.similarity(one[0], other), expected[:1])
    torch.testing.assert_close(wrapped.similarity_pairwise(one.numpy(), other), expected.diag())


def test_what_mteb_keeps_of_a_model(small: AlignedModel, tmp_path: Path) -> None:
    small.save_pretrained(tmp_path / "my-run" / "model")
    meta = mteb_model(tmp_path / "my-run" / "model").mteb_model_meta
    assert meta.name == "lateen/my-run" and meta.revision == small.content_key
    assert meta.modalities == ["image", "text"] and meta.similarity_fn_name.value == "cosine"
    assert (meta.embed_dim, meta.max_tokens, meta.framework) == (8, 32, ["PyTorch"])
    networks = [small.vision_encoder.network, small.text_encoder.network, small]
    count = sum(each.numel() for network in networks for each in network.parameters())
    assert meta.n_parameters == count
    assert meta.memory_usage_mb == pytest.approx(4 * count / 2**20)
    assert str(tmp_path) not in json.dumps(meta.to_dict(), default=str)


def test_a_plain_clip_has_its_towers_once(clip_folder: Path) -> None:
    from transformers import CLIPModel

    meta = mteb_model(clip_folder).mteb_model_meta
    whole = sum(each.numel() for each in CLIPModel.from_pretrained(clip_folder).parameters())
    # Its scale is the model's own; the heads have one, and a bias, beside it.
    assert abs(meta.n_parameters - whole) <= 2
    assert (meta.embed_dim, meta.max_tokens) == (8, 16)


def test_fused_encoders_and_code(vit_folder: Path, bert_folder: Path) -> None:
    model = small_model(vit_folder, bert_folder)
    text = model.text_encoder
    fused = FusedEncoder([text, text.view(layer=1)])
    parts = SimpleNamespace(vision_encoder=model.vision_encoder, text_encoder=fused)
    from lateen.integrations.harnesses import mteb as door

    assert door._max_tokens(fused.info.preprocessing) == 32
    alone = SimpleNamespace(vision_encoder=model.vision_encoder, text_encoder=text)
    for each in (parts, alone):
        each.parameters = model.parameters
    assert len(door._weights(parts)) == len(door._weights(alone))  # a view shares its network
    alone.text_encoder = toys.word_encoder()
    assert door._weights(alone) is None


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        (loader(video=[1], text=["a"]), {}, "Some gives video to embed"),
        (loader("label", label=[1]), {}, "the columns label"),
        (loader(text=["a"]), {"precision": "int8"}, "and not in int8"),
    ],
)
def test_what_it_does_not_read_is_refused(
    wrapped: MtebModel, rows: Any, options: dict[str, str], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        encoded(wrapped, rows, **options)


def test_a_name_without_organization_is_refused(small: AlignedModel) -> None:
    with pytest.raises(UsageError, match=r"organization/name.*Say my/clip"):
        mteb_model(small, name="clip")


def test_without_mteb(small: AlignedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mteb.models", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lateen\[mteb\]'"):
        mteb_model(small)


def test_results_are_kept_by_the_models_content(
    wrapped: MtebModel, pairs: Pairs, tmp_path: Path
) -> None:
    cache = mteb.ResultCache(tmp_path / "results")
    mteb.evaluate(wrapped, mteb_tasks.text_to_image(pairs), cache=cache, co2_tracker=False)
    key = wrapped.model.content_key
    [file] = tmp_path.glob(f"results/**/{key}/Flickr30kT2IRetrieval.json")
    assert "tests__small" in str(file)
