"""What `lateen tune` says of bad input: one line, with what to do."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from commands import call
from PIL import Image
from safetensors.torch import load_file, save_file

from lateen.encoders import load_encoder
from lateen.model import AlignedModel
from lateen.training.config import HeadSection
from lateen.training.heads import AlignmentHeads

Capture = pytest.CaptureFixture[str]
Tune = Callable[..., tuple[int, str]]


@dataclass(frozen=True)
class Given:
    """What a command is given, by name."""

    places: dict[str, Path]

    def filled(self, words: str) -> list[str]:
        """Words with places filled in: ``{clip}``."""
        return [word.format_map(self.places) for word in words.split()]


def pictures(folder: Path, count: int, *, same: bool = False) -> Path:
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = random.integers(0, 255, (3, 3, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        picture = Image.new("RGB", (24, 24), (9, 99, 199)) if same else Image.fromarray(pixels)
        picture.save(folder / f"picture-{number}.png")
    return folder


def not_a_number(source: Path, folder: Path, tensor: str) -> Path:
    """A copy of a model with NaN in one of its tensors."""
    shutil.copytree(source, folder)
    weights = load_file(folder / "model.safetensors")
    weights[tensor][:] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def aligned(folder: Path, text: Path, vision: str, **options: object) -> Path:
    image = load_encoder(vision, "image", **options)  # type: ignore[arg-type]
    words = load_encoder(str(text), "text", pooling="mean")
    head = HeadSection(dim=4, dropout=0.0)
    heads = AlignmentHeads(head, image.info.dim, words.info.dim)
    model = AlignedModel.build(heads, image.info.as_dict(), words.info.as_dict(), head.model_dump())
    model.set_encoders(image, words)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def given(
    clip_folder: Path, siglip_folder: Path, vit_folder: Path, bert_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Given:  # fmt: skip
    place = tmp_path_factory.mktemp("given")
    many = pictures(place / "many", 12)
    (place / "tune.yaml").write_text(
        f"model: {clip_folder}\nimages: {many}\ntarget:\n  encoder: {vit_folder}\n"
        "  pooling: mean\ntune:\n  batch: 4\n  epochs: 1\n  warmup_steps: 1400\n"
    )
    (place / "run.yaml").write_text("preset: small\ndata:\n  train: x.csv\n")
    patch = next(n for n in load_file(vit_folder / "model.safetensors")
                 if "patch" in n and n.endswith("weight"))  # fmt: skip
    return Given({
        "clip": clip_folder, "siglip": siglip_folder, "vit": vit_folder, "bert": bert_folder,
        "many": many, "one": pictures(place / "one", 1),
        "same": pictures(place / "same", 8, same=True), "place": place,
        "nan_clip": not_a_number(clip_folder, place / "nan-clip", "visual_projection.weight"),
        "nan_vit": not_a_number(vit_folder, place / "nan-vit", patch),
        "own": aligned(place / "own", bert_folder, "toys:colour_encoder"),
        "layer": aligned(place / "layer", bert_folder, str(vit_folder), pooling="mean", layer=1),
    })  # fmt: skip


@pytest.fixture
def tune(given: Given, tmp_path: Path, capsys: Capture) -> Iterator[Tune]:
    def run(words: str) -> tuple[int, str]:
        code, out, err = call(capsys, "tune", *given.filled(words), "--out", tmp_path / "out")
        assert not out or not code
        return code, err

    yield run


ALL = "{clip} --target {vit} --target.pooling mean --images {many}"
FAULTS = [
    # what is not said
    ("--target {vit} --images {many}", r"nothing says which model.*Give MODEL, or a --recipe"),
    ("{clip} --images {many}", r"nothing says which target.*Give --target ENCODER, or a --recipe"),
    ("{clip} --images {many} --target.pooling mean", r"Give --target ENCODER, or a --recipe"),
    ("{clip} --target {vit}", r"nothing says which images.*Give --images DIR, or a --recipe"),
    # what is not there
    ("{clip} --target {place}/none --images {many}", r"there is no folder .*none"),
    ("{place}/none --target {vit} --images {many}", r"none is not a lateen model"),
    ("{clip} --target {vit} --images {place}/none", r"there is no .*none"),
    (f"{ALL} --eval.classes {{place}}/none", r"there is no .*none"),
    # models
    ("{vit} --target {vit} --images {many}", r"type 'vit', not.*a CLIP with both its towers"),
    ("{bert} --target {vit} --images {many}", r"type 'bert', not.*a CLIP with both its towers"),
    ("{own} --target {vit} --target.pooling mean --images {many}",
     r"colour_encoder cannot be tuned: it is code.*whose vision encoder is one transformers model"),
    ("{layer} --target {vit} --target.pooling mean --images {many}", r"hidden layer 1.*last layer"),
    # images
    ("{clip} --target {vit} --target.pooling mean --images {one}", r"can read 1\. Give more"),
    ("{clip} --target {vit} --target.pooling mean --images {same}",
     r"the same features for all \d+ images\. Give different images"),
    ("{nan_clip} --target {vit} --target.pooling mean --images {many}",
     r"12 items skipped; the first: the encoder gave NaN"),
    ("{clip} --target {nan_vit} --target.pooling mean --images {many}",
     r"12 items skipped; the first: the encoder gave NaN"),
    # settings
    (f"{ALL} --tune.parameters blocks --tune.blocks 99", r"has 2 blocks.*Give fewer"),
    ("{siglip} --target {vit} --target.pooling mean --images {many} --tune.parameters projection",
     r"leaves everything frozen.*Use whole, blocks or lora"),
    ("{siglip} --target {vit} --target.pooling mean --images {many} --tune.patches true",
     r"as SigLIP does.*Use a CLIP"),
    ("{clip} --target toys:colour_encoder --images {many} --tune.patches true",
     r"has no features per patch\. Leave tune\.patches out"),
    (f"{ALL} --tune.batch 1", r"'tune\.batch' cannot be 1"),
    (f"{ALL} --tune.wieght 2", r"unknown recipe key 'tune\.wieght'. Did you mean 'tune\.weight'"),
    (f"{ALL} --preset l15", r"unknown preset 'l15'. Did you mean 'l14'"),
    (f"{ALL} --stop.retrieval 1", r"stop\.retrieval is a limit on what is not measured.*eval\.cap"),
    (f"{ALL} --stop.zero_shot -1", r"'stop\.zero_shot' cannot be -1"),
    (f"{ALL} --tune.lr 1e30 --tune.clip_norm null --tune.weight 1e30",
     r"step \d has loss .*Lower tune\.lr or raise tune\.warmup"),
    # recipes
    ("--recipe {place}/run.yaml", r"is not a recipe of `lateen tune`"),
    ("--recipe {place}/none.yaml", r"none"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "said"), FAULTS)
def test_bad_input_is_one_line(
    tune: Tune, given: Given, tmp_path: Path, words: str, said: str
) -> None:
    code, err = tune(words)
    assert code in (1, 2)
    [line] = [line for line in err.splitlines() if line.startswith("error: ")]
    assert re.search(said, line)
    assert not (tmp_path / "out" / "results.json").exists()
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "words",
    [
        f"{ALL} --tune.parameters blocks --tune.blocks 99",
        "{siglip} --target {vit} --images {many} --tune.parameters projection",
    ],
)
def test_what_cannot_move_is_said_before_images_are_encoded(tune: Tune, words: str) -> None:
    _, err = tune(words)
    assert "encoding" not in err


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_recipe_of_tune_is_refused_by_others(
    given: Given, tmp_path: Path, capsys: Capture, command: str
) -> None:
    recipe = given.places["place"] / "tune.yaml"
    words = ["--out", tmp_path / "out"] if command == "run" else []
    code, _, err = call(capsys, command, recipe, *words)
    assert (code, err.count("\n")) == (2, 1)
    assert "it is a recipe of `lateen tune`" in err


def test_a_recipe_says_all_and_options_stand_above_it(tune: Tune, given: Given) -> None:
    code, err = tune("--recipe {place}/tune.yaml --tune.lr 2e-5 --tune.holdout 0.2")
    assert code == 0
    assert "a warm-up of 1400 steps is more than a tenth of 3: it takes 1" in err


def test_a_target_smaller_than_the_student_is_no_fault(tune: Tune, given: Given) -> None:
    code, _ = tune("{clip} --target toys:colour_encoder --images {many} --tune.batch 4 "
                   "--tune.epochs 1 --tune.augment crop")  # fmt: skip
    assert code == 0
