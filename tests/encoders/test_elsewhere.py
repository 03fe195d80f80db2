"""Encoders of another Python environment: what they give, and each way in which one can fail."""

from __future__ import annotations

import ast
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from elsewhere_toys import WITHOUT_LATEEN, program, staged
from PIL import Image

import lateen.encoders._worker
import lateen.encoders.load
from lateen.encoders import Encoder, LayeredEncoder, RemoteEncoder, load_encoder, load_views
from lateen.encoders.elsewhere import ElsewhereEncoder
from lateen.encoders.other_python import OtherPython
from lateen.errors import EncoderError, LateenError, UsageError
from lateen.features.passes import ForwardPasses

if sys.platform == "win32":
    pytest.skip("the stand-ins are shell scripts", allow_module_level=True)

TEXTS = ["a dog", "", "the big red cat runs on the beach " * 9, "x"]
IMAGES = [Image.new("RGB", (50, 40), colour) for colour in ("red", "green", "navy")]


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtherPython]:
    """A real worker, isolated, which lateen cannot be imported in and which prints to stdout."""
    path = tmp_path_factory.mktemp("environment") / "python"
    process = OtherPython(program(path, WITHOUT_LATEEN, "-I"), "shared")
    yield process
    process.close()


@pytest.fixture
def shared(there: OtherPython, monkeypatch: pytest.MonkeyPatch) -> str:
    """The Python that is started once for all tests; it has the last encoder loaded."""
    monkeypatch.setattr(lateen.encoders.load, "OtherPython", lambda *_: there)
    return there.python


def encoded(encoder: Encoder, items: list[Any]) -> torch.Tensor:
    return encoder.encode(encoder.prepare(items))


def assert_same(name: Path, modality: Any, python: str, **options: Any) -> None:
    """An encoder there is the one here: by its key, and by its features."""
    options = {"precision": "float32", **options}
    here = load_encoder(str(name), modality, **options)
    there = load_encoder(str(name), modality, python=python, **options)
    assert isinstance(there, RemoteEncoder)
    assert there.info.key == here.info.key
    assert there.info.load == {**here.info.load, "python": python}
    items = TEXTS if here.info.modality == "text" else IMAGES
    torch.testing.assert_close(encoded(there, items), encoded(here, items), atol=1e-6, rtol=0)
    assert encoded(there, []).shape == (0, here.info.dim)


@pytest.mark.parametrize(
    "options",
    [
        {"pooling": "mean"},
        {"pooling": "first", "layer": 1},
        {"pooling": "last", "prompt": "a {} on grass", "max_tokens": 9},
        {"pooling": "pooler", "prompt": "the ", "max_tokens": 5},
        {"pooling": "mean", "precision": "bfloat16"},
    ],
    ids=str,
)
def test_texts_have_the_features_and_the_key_that_they_have_here(
    bert_folder: Path, shared: str, options: dict[str, Any]
) -> None:
    assert_same(bert_folder, "text", shared, **options)


def test_models_that_count_positions_their_own_way(offset_folder: Path, shared: str) -> None:
    assert_same(offset_folder, "text", shared, pooling="mean")


def test_an_encoder_decoder_gives_its_encoder(t5_folder: Path, shared: str) -> None:
    assert_same(t5_folder, "text", shared, pooling="mean")


def test_a_sentence_folder_is_pooled_and_normalised_as_it_says(
    sentence_folder: Path, shared: str
) -> None:
    assert_same(sentence_folder, "text", shared)


def test_images_have_the_features_and_the_key_that_they_have_here(
    vit_folder: Path, mae_folder: Path, resnet_folder: Path, shared: str
) -> None:
    assert_same(vit_folder, "image", shared, pooling="cls+mean", layer=1)
    assert_same(vit_folder, "image", shared, pooling="pooler")
    assert_same(mae_folder, "image", shared)
    assert_same(resnet_folder, "image", shared)


@pytest.mark.parametrize("modality", ["image", "text"])
@pytest.mark.parametrize("pooling", [None, "projection"])
def test_towers_of_models_with_two(
    clip_folder: Path, siglip_folder: Path, shared: str, modality: str, pooling: str | None
) -> None:
    for folder in (clip_folder, siglip_folder):
        assert_same(folder, modality, shared, pooling=pooling)


def test_layers_come_from_one_process_in_one_pass(
    bert_folder: Path, vit_folder: Path, resnet_folder: Path, shared: str
) -> None:
    for folder, modality, items, views in (
        (bert_folder, "text", TEXTS, [("mean", None), ("first", 1), ("last", 0)]),
        (vit_folder, "image", IMAGES, [("cls", None), ("cls+mean", 2), ("pooler", None)]),
        (resnet_folder, "image", IMAGES, [(None, None), (None, 1)]),
    ):
        here = load_views(str(folder), modality, views)  # type: ignore[arg-type]
        options = lateen.encoders.EncoderOptions(python=shared)
        made = load_views(str(folder), modality, views, options)  # type: ignore[arg-type]
        assert isinstance(made[0], LayeredEncoder)
        assert isinstance(here[0], LayeredEncoder)
        assert made[0].layers() == here[0].layers()
        together = made[0].encode_views(made[0].prepare(items), made)
        for view, other, features in zip(made, here, together, strict=True):
            assert view.info.key == other.info.key
            torch.testing.assert_close(features, encoded(other, items), atol=1e-6, rtol=0)


def test_what_is_asked_for_and_not_there_is_refused_with_the_choices(
    bert_folder: Path, vit_folder: Path, shared: str
) -> None:
    for folder, modality, options, said in (
        (bert_folder, "text", {"pooling": "last", "layer": 9}, "hidden layers 0 .* to 2, not 9"),
        (vit_folder, "image", {"pooling": "cls", "layer": 9}, "hidden layers 0 .* to 3, not 9"),
        (bert_folder, "text", {"pooling": "cls"}, "unknown pooling 'cls'"),
        (bert_folder, "text", {"pooling": "pooler", "layer": 1}, "'pooler' on the last layer"),
        (bert_folder, "text", {"pooling": "mean", "untrained": True}, "random weights"),
        ("toys:word_encoder", "text", {}, "is code of your own, and does not run in another"),
        ("openai+http://127.0.0.1:1/v1#m", "text", {}, "is behind a server, and does not run"),
    ):
        with pytest.raises(LateenError, match=said):
            load_encoder(str(folder), modality, python=shared, **options)  # type: ignore[arg-type]


def test_texts_are_batched_by_about_their_tokens(bert_folder: Path, shared: str) -> None:
    options = {"pooling": "mean", "prompt": "the big ", "max_tokens": 9}
    encoder = load_encoder(str(bert_folder), "text", python=shared, **options)  # type: ignore[arg-type]
    lengths = [len(each) for each in encoder.prepare(["", "a dog", "a dog " * 99])]
    assert lengths == [4, 5, 9]


def test_an_encoder_that_cannot_be_loaded_there_says_so_in_that_environments_words(
    bert_folder: Path, tmp_path: Path, shared: str
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nobody-knows-it"}')
    with pytest.raises(EncoderError, match=r"failed while reading its configuration .*ValueError"):
        load_encoder(str(tmp_path), "text", python=shared, pooling="mean")
    config = (bert_folder / "config.json").read_text()
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(EncoderError, match=r"failed while loading in .*SafetensorError") as caught:
        load_encoder(str(tmp_path), "text", python=shared, pooling="mean")
    assert "\n" not in str(caught.value)


def test_ctrl_c_is_left_to_lateen(bert_folder: Path, shared: str, there: OtherPython) -> None:
    encoder = load_encoder(str(bert_folder), "text", pooling="mean", python=shared)
    os.kill(there._process.pid, signal.SIGINT)
    assert encoded(encoder, TEXTS).isfinite().all()


def test_what_runs_inside_sentence_transformers_does_so_there(
    sentence_folder: Path, shared: str
) -> None:
    pytest.importorskip("sentence_transformers")
    folder, pooling = sentence_folder, sentence_folder / "1_Pooling" / "config.json"
    pooling.write_text('{"word_embedding_dimension": 16, "pooling_mode_max_tokens": true}')
    assert_same(folder, "text", shared, prompt="the ", max_tokens=7)
    with pytest.raises(EncoderError, match="pooling of its own, which no pooling or layer can"):
        load_encoder(str(folder), "text", layer=1, python=shared)


def test_the_worker_is_written_for_older_pythons() -> None:
    source = Path(lateen.encoders._worker.__file__).read_text()
    ast.parse(source, feature_version=(3, 9))


def test_a_python_that_is_not_there_is_said_before_anything_is_run(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    with pytest.raises(UsageError, match=r"there is no python .*bin/python"):
        load_encoder("anything", "text", python=str(python))
    python.write_text("")
    with pytest.raises(UsageError, match="is not executable"):
        load_encoder("anything", "text", python=str(python))
    with pytest.raises(UsageError, match=f"is a folder. Give {python}"):
        load_encoder("anything", "text", python=str(tmp_path))
    python.chmod(0o755)
    python.write_bytes(b"\x7fELF of another machine")
    with pytest.raises(EncoderError, match=r"cannot be run: .*Give the other environment's Python"):
        load_encoder("anything", "text", python=str(python))


def test_a_program_that_is_no_python(tmp_path: Path) -> None:
    for code, said in (
        ("import sys; sys.exit(3)", "with exit status 3"),
        ("print(open(__import__('sys').argv[1]).read())", "with exit status 0"),
        ("raise SyntaxError('of a Python 2')", "exit status 1: SyntaxError: of a Python 2"),
        ("while True: print('y' * 4000)", "killed by SIGKILL"),
    ):
        python = program(tmp_path / "python", code)
        with pytest.raises(EncoderError, match=f"does not run as a Python: .*{said}"):
            OtherPython(python, "an encoder")


@pytest.mark.parametrize("lacking", ["torch", "transformers"])
def test_an_environment_without_what_encoders_need(tmp_path: Path, lacking: str) -> None:
    # As the worker sees it that answers for such an environment.
    refused = f'say({{"refused": ["has no {lacking}", "{lacking}"]}}); continue'
    python = staged(tmp_path / "python", stage=refused)
    with pytest.raises(EncoderError) as caught:
        OtherPython(python, "an encoder")
    assert str(caught.value) == (
        f"the environment of {python} has no {lacking}. "
        f"Install what is missing: {python} -m pip install {lacking}."
    )


def test_a_real_environment_without_torch(tmp_path: Path) -> None:
    python = program(
        tmp_path / "python",
        "import runpy, sys\nsys.modules['torch'] = None\n"
        "runpy.run_path(sys.argv[1], run_name='__main__')",
        "-I",
    )
    with pytest.raises(EncoderError, match=r"has no torch .*-m pip install torch transformers"):
        OtherPython(python, "an encoder")


def loaded(bert_folder: Path, python: Path) -> ElsewhereEncoder:
    encoder = load_encoder(str(bert_folder), "text", pooling="mean", python=str(python))
    assert isinstance(encoder, ElsewhereEncoder)
    return encoder


@pytest.mark.parametrize(
    ("encode", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)",
         r"ended while encoding, killed by SIGKILL \(so ends what takes more memory than there is"),
        ("sys.exit(137)", r"killed by SIGKILL \(so ends"),
        ("raise RuntimeError('the driver is gone')",
         "ended while encoding, with exit status 1: RuntimeError: the driver is gone. Lower "
         "--batch-size .* the same command goes on"),
        ("floats(rows, 3)", r"gave features of shape \[2, 3\] .* where \[2, 4\] is due"),
        ("floats(rows + 1, 4)", r"gave features of shape \[3, 4\]"),
        ("say({'failed': 'KeyError: a'})", "failed while encoding in .*: KeyError: a"),
        ("made.write(b'no message'); sys.exit()", "ended while encoding, with exit status 0"),
    ],
)  # fmt: skip
def test_a_worker_that_fails_while_encoding(
    bert_folder: Path, tmp_path: Path, encode: str, said: str
) -> None:
    encoder = loaded(bert_folder, staged(tmp_path / "python", encode))
    with pytest.raises(EncoderError, match=said) as caught:
        encoded(encoder, ["a dog", "a cat"])
    assert "\n" not in str(caught.value)


def test_memory_that_is_short_there_makes_smaller_batches(
    bert_folder: Path, tmp_path: Path
) -> None:
    short = "floats(rows, 4) if rows < 3 else say({'failed': 'CUDA out of memory. Tried'})"
    encoder = loaded(bert_folder, staged(tmp_path / "python", short))
    [features] = ForwardPasses()(encoder.prepare(["a dog"] * 5), [encoder])
    assert features.tolist() == [[1.0] * 4] * 5

    ends = loaded(bert_folder, staged(tmp_path / "ends", "sys.exit('CUDA error: out of memory')"))
    with pytest.raises(EncoderError, match=r"ended while encoding, .*: CUDA error: out of memory"):
        ForwardPasses()(ends.prepare(["a dog"] * 5), [ends])


def test_a_worker_that_is_slow_is_waited_for_and_one_that_is_interrupted_is_ended(
    bert_folder: Path, tmp_path: Path
) -> None:
    python = staged(tmp_path / "python", "time.sleep(0.3 if calls == 1 else 60); floats(rows, 4)")
    encoder = loaded(bert_folder, python)
    assert encoded(encoder, ["a dog"]).shape == (1, 4)
    process = encoder._there._process

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            encoded(encoder, ["a dog"])
    finally:
        signal.signal(signal.SIGALRM, before)
    assert process.poll() is not None
    with pytest.raises(EncoderError, match=r"has ended before\. Load the encoder again"):
        encoded(encoder, ["a dog"])


def test_a_worker_that_ends_while_loading(bert_folder: Path, tmp_path: Path) -> None:
    ends = "if asked['op'] == 'load': os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(EncoderError, match=r"ended while loading, .*See that the model fits in"):
        loaded(bert_folder, staged(tmp_path / "python", stage=ends))


def test_a_worker_ends_with_its_encoder(bert_folder: Path, tmp_path: Path) -> None:
    encoder = loaded(bert_folder, staged(tmp_path / "python"))
    process = encoder._there._process
    assert process.poll() is None
    del encoder
    assert process.poll() is not None


def test_what_our_own_python_is_told_is_not_for_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    python = program(tmp_path / "python", "import os, sys\nsys.exit(os.environ.get('PYTHONPATH'))")
    with pytest.raises(EncoderError, match="exit status 0"):
        OtherPython(python, "an encoder")
    assert os.environ["PYTHONPATH"] == str(tmp_path)
