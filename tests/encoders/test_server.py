"""Encoders behind a server: what comes back, and each way in which a server can fail."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from served_toys import DIM, EmbeddingServer, certificate_files, serving, vector, vectors

from lateen.encoders import Encoder, RemoteEncoder, load_encoder
from lateen.encoders.resolve import files_are_here
from lateen.errors import EncoderError, LateenError, MissingExtraError, UsageError

pytest.importorskip("openai", reason="openai, the client, is not installed")

TEXTS = [f"caption {number} of a dog" for number in range(70)]  # three requests


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with serving() as made:
        yield made


def encoded(encoder: Encoder, texts: list[str]) -> torch.Tensor:
    return encoder.encode(encoder.prepare(texts))


def test_vectors_are_the_servers_in_the_order_of_the_texts(server: EmbeddingServer) -> None:
    encoder = load_encoder(server.name())
    assert isinstance(encoder, RemoteEncoder)
    server.requests.clear()
    np.testing.assert_array_equal(encoded(encoder, TEXTS).numpy(), vectors(TEXTS))
    assert sorted(map(len, server.requests)) == [6, 32, 32]
    assert encoder.info.dim == DIM
    assert encoder.info.preprocessing == {"prompt": None, "normalized": True}
    assert encoded(encoder, []).shape == (0, DIM)


@pytest.mark.parametrize("as_bytes", [False, None])
def test_servers_that_send_numbers_alone(server: EmbeddingServer, as_bytes: bool | None) -> None:
    first = load_encoder(server.name())
    server.bytes = as_bytes
    encoder = load_encoder(server.name())
    assert encoder.info == first.info
    np.testing.assert_array_equal(encoded(encoder, TEXTS).numpy(), vectors(TEXTS))


def test_long_texts_are_divided_among_requests(server: EmbeddingServer) -> None:
    encoder = load_encoder(server.name())
    server.requests.clear()
    texts = [letter * 9000 for letter in "abc"]
    np.testing.assert_array_equal(encoded(encoder, texts).numpy(), vectors(texts))
    assert len(server.requests) == 3


def test_a_prompt_stands_before_a_text_or_around_it(server: EmbeddingServer) -> None:
    before = load_encoder(server.name(), prompt="query: ")
    around = load_encoder(server.name(), prompt="<{}>")
    assert before.prepare(["a"]) == ["query: a"]
    assert around.prepare(["a"]) == ["<a>"]
    assert len({before.info.key, around.info.key, load_encoder(server.name()).info.key}) == 3


def test_vectors_that_are_not_normalised_are_said_so(server: EmbeddingServer) -> None:
    server.vector = lambda text: 3 * vector(text)
    assert load_encoder(server.name()).info.preprocessing["normalized"] is False


@pytest.mark.parametrize("fault", ["429", "500", "503", "444", "shuffled"])
def test_what_passes_is_waited_for(server: EmbeddingServer, fault: str) -> None:
    encoder = load_encoder(server.name())
    server.fail_once(fault)
    np.testing.assert_array_equal(encoded(encoder, TEXTS).numpy(), vectors(TEXTS))
    server.fail_once(fault)
    assert load_encoder(server.name()).info == encoder.info


@pytest.mark.parametrize(
    ("fault", "message", "remedy"),
    [
        ("500", r"fails, also when asked again \(500: toy says 500\)", "in its log"),
        ("429", r"is too busy, also after waiting \(429: toy says 429\)", "it goes on"),
        ("401", r"refuses the key \(401", "OPENAI_API_KEY"),
        ("fewer", "gave 31 vectors for 32 texts|gave 5 vectors for 6 texts", "OpenAI's API"),
        ("one index", "numbers its vectors", "OpenAI's API"),
        ("longer", f"gave vectors of {DIM + 1} values, after {DIM}", "model has changed"),
        ("ragged", "vectors of different lengths", "OpenAI's API"),
        ("page", "something else than embeddings: '<html>hello", "ends in /v1"),
    ],
)  # fmt: skip
def test_a_server_that_fails_is_one_error(
    server: EmbeddingServer, fault: str, message: str, remedy: str
) -> None:
    encoder = load_encoder(server.name())
    server.fault = lambda texts: fault
    with pytest.raises(EncoderError, match=message) as raised:
        encoded(encoder, TEXTS)
    assert remedy in raised.value.remedy
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("400", r"the server refused the text \(400: toy says 400\)"),
        ("413", r"the server refused the text \(413"),
        ("nan", "the server gave NaN or infinity"),
        ("null", "the server gave NaN or infinity"),
        ("zeros", "the server gave a vector of zeros"),
    ],
)  # fmt: skip
def test_a_text_at_fault_leaves_the_others(
    server: EmbeddingServer, fault: str, message: str
) -> None:
    encoder = load_encoder(server.name())
    assert isinstance(encoder, RemoteEncoder)
    bad = "far too long"
    server.fault = lambda texts: fault if bad in (texts if fault.isdigit() else texts[:1]) else None
    texts = [bad, *TEXTS, bad] if fault.isdigit() else [bad, *TEXTS]
    features = encoder.encode_accepted(texts)
    wrong = [row for row, text in enumerate(texts) if text == bad]
    assert features.isnan().all(dim=1).nonzero().flatten().tolist() == wrong
    np.testing.assert_array_equal(features[1 : 1 + len(TEXTS)].numpy(), vectors(TEXTS))
    with pytest.raises(EncoderError, match=message):
        encoder.encode(texts)
    fresh = load_encoder(server.name())  # that has not seen it
    assert isinstance(fresh, RemoteEncoder)
    assert fresh.refusal(bad) == encoder.refusal(bad)


def test_a_model_that_changes_under_way_is_noticed(server: EmbeddingServer) -> None:
    encoder = load_encoder(server.name())
    server.vector = partial(vector, seed=1)
    with pytest.raises(EncoderError, match="has changed under way"):
        encoded(encoder, TEXTS * 4)


def test_a_server_that_refuses_all_is_not_taken_for_bad_texts(server: EmbeddingServer) -> None:
    encoder = load_encoder(server.name())
    server.models = ["another"]
    with pytest.raises(
        EncoderError, match=r"no longer takes what it took at first .*does not exist"
    ):
        encoded(encoder, TEXTS)


def noisy(text: str, noise: float) -> np.ndarray:
    rng = np.random.default_rng()
    return (vector(text) + rng.normal(0, noise, DIM)).astype(np.float32)


@pytest.mark.parametrize("noise", [1e-6, 2e-4])
def test_rounding_leaves_the_fingerprint(server: EmbeddingServer, noise: float) -> None:
    first = load_encoder(server.name())
    server.vector = partial(noisy, noise=noise)
    assert {load_encoder(server.name()).info.key for _ in range(10)} == {first.info.key}


def test_another_model_has_another_fingerprint(server: EmbeddingServer) -> None:
    first = load_encoder(server.name())
    server.models = ["toy", "other"]
    assert load_encoder(server.name("other")).info.weights != first.info.weights
    server.vector = partial(noisy, noise=0.05)
    assert load_encoder(server.name()).info.weights != first.info.weights


def test_the_fingerprint_needs_no_cache(
    server: EmbeddingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_encoder(server.name()).info
    monkeypatch.setenv("LATEEN_CACHE", str(tmp_path / "other"))
    assert load_encoder(server.name()).info == first
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LATEEN_CACHE", str(tmp_path / "file"))
    assert load_encoder(server.name()).info == first


def test_the_key_is_sent_and_not_recorded(
    server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    info = load_encoder(server.name()).info
    assert server.keys == {"Bearer sesame"}
    assert "sesame" not in str(info)


def test_an_unknown_model_is_told_with_the_choices(server: EmbeddingServer) -> None:
    with pytest.raises(EncoderError, match=r"'tow' \(404: .*does not exist.*Did you mean 'toy'"):
        load_encoder(server.name("tow"))
    with pytest.raises(UsageError, match=r"does not say which model\. It serves: toy"):
        files_are_here(server.name(""))


def test_a_server_that_ignores_the_models_name_is_told_of(
    server: EmbeddingServer, caplog: pytest.LogCaptureFixture
) -> None:
    answer = server.answer
    server.answer = lambda model, *rest: answer("toy", *rest)  # type: ignore[method-assign]
    load_encoder(server.name("mine"))
    assert "answers for 'mine', but lists only toy" in caplog.text


@pytest.mark.parametrize("fault", ["400", "nan", "zeros"])
def test_first_sentences_must_be_embedded(server: EmbeddingServer, fault: str) -> None:
    server.fault = lambda texts: fault
    with pytest.raises(EncoderError, match="does not embed"):
        load_encoder(server.name())


def test_a_server_that_is_not_there(server: EmbeddingServer) -> None:
    name = server.name()
    server.port = 9  # where nothing listens
    with pytest.raises(EncoderError, match=r"cannot be reached .*See that it runs"):
        load_encoder(server.name())
    assert files_are_here(name)


@pytest.mark.parametrize(
    "name",
    ["openai+localhost:8000#m", "openai+ftp://host/v1#m", "openai+http://#m",
     "openai+http://host:port/v1#m", "openai+http://me:secret@host/v1#m",
     "openai+http://host/v1?key=secret#m"],
)  # fmt: skip
def test_a_wrong_address(name: str) -> None:
    with pytest.raises(UsageError, match=r"HOST:PORT|OPENAI_API_KEY") as raised:
        files_are_here(name)
    with pytest.raises(UsageError):
        load_encoder(name)
    assert "secret" not in str(raised.value)


def test_what_the_server_decides_is_no_option(server: EmbeddingServer) -> None:
    with pytest.raises(UsageError, match="decides its pooling, layer"):
        load_encoder(server.name(), pooling="mean", layer=3)
    with pytest.raises(EncoderError, match="encodes texts, not images"):
        load_encoder(server.name(), "image")


def test_the_client_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"lateen\[server\]"):
        files_are_here("openai+http://host/v1#m")


def test_a_certificate_must_be_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = certificate_files(tmp_path)
    with serving(certificate) as server:
        with pytest.raises(LateenError, match=r"certificate .* is not valid.*SSL_CERT_FILE"):
            load_encoder(server.name())
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        assert load_encoder(server.name()).info.dim == DIM
