"""What a server is asked of an image, what its answer is worth, and each way in which it fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from served_toys import ChatServer, certificate_files, serving

from lateen.encoders import openai_server
from lateen.errors import LateenError, MissingExtraError, ModelError, UsageError
from lateen.mllm.captioner import Asked, ServedCaptioner, open_captioner

from .conftest import picture

pytest.importorskip("openai", reason="openai, the client, is not installed")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving(kind=ChatServer) as made:
        yield made


def opened(server: ChatServer, model: str = "toy", **asked: object) -> ServedCaptioner:
    captioner = open_captioner(server.name(model), Asked(**asked))  # type: ignore[arg-type]
    assert isinstance(captioner, ServedCaptioner)
    return captioner


def grey(level: int = 128, size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.new("RGB", size, (level, level, level))


def test_what_is_asked_is_what_is_sent(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    made = opened(
        server, prompt="What?", system="Be brief.", max_tokens=9, temperature=0.5, seed=3
    ).caption(grey(50))  # fmt: skip
    assert (made.caption, made.finish, made.reason) == ("It is 50 bright.", "stop", None)
    assert (made.model, made.prompt_tokens, made.answer_tokens) == ("toy-1", 100, 7)
    [body] = server.requests
    system, user = body["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    assert user["content"][-1] == {"type": "text", "text": "What?"}
    assert (body["max_tokens"], body["temperature"], body["seed"]) == (9, 0.5, 3)
    assert server.keys == {"Bearer sesame"}


def test_nothing_is_said_of_chance_where_there_is_none(server: ChatServer) -> None:
    opened(server).caption(grey())
    [body] = server.requests
    assert body["temperature"] == 0
    assert not {"seed", "max_completion_tokens"} & set(body)
    assert [each["role"] for each in body["messages"]] == ["user"]


def test_an_image_is_sent_as_it_is_but_for_the_losses_of_jpeg(server: ChatServer) -> None:
    shown = Image.new("RGB", (64, 48), (200, 30, 60))
    opened(server).caption(shown)
    [sent] = server.pictures
    assert sent.size == (64, 48)
    assert np.abs(np.asarray(sent, np.int16) - np.asarray(shown, np.int16)).max() < 4


@pytest.mark.parametrize(
    ("fault", "finish", "reason"),
    [
        ("refusal", "refused", "the model refused (I will not.)"),
        ("filter", "refused", "the model refused (its content filter ended the answer)"),
        ("spent", "empty", "the caption is empty, and the limit of 256 tokens is spent"),
        ("length", "length", None),
        ("no usage", "stop", None),
    ],
)
def test_an_answer_is_taken_for_what_it_is(
    server: ChatServer, fault: str, finish: str, reason: str | None
) -> None:
    server.fault = lambda shown: fault
    made = opened(server).caption(grey(50))
    assert (made.finish, made.reason) == (finish, reason)
    assert made.caption == (None if reason else "It is 50 bright.")
    assert made.prompt_tokens == (None if fault == "no usage" else 100)


@pytest.mark.parametrize(
    ("said", "reason"),
    [(None, "the caption is empty"), (" \n", "the caption is empty"),
     ("N/A", "the caption says nothing ('N/A')")],
)  # fmt: skip
def test_an_answer_that_says_nothing_is_no_caption(
    server: ChatServer, said: str | None, reason: str
) -> None:
    server.says = lambda shown: said
    made = opened(server).caption(grey())
    assert (made.caption, made.finish, made.reason) == (None, "empty", reason)


@pytest.mark.parametrize("status", ["400", "413", "422"])
def test_an_image_that_is_refused_leaves_the_others(server: ChatServer, status: str) -> None:
    captioner = opened(server)
    server.fault = lambda shown: status if np.asarray(shown).mean() < 20 else None
    made = captioner.caption(grey(5))
    assert made.finish == "refused"
    assert made.reason == f"the server refused the image ({status}: toy says {status})"
    assert captioner.caption(grey(90)).caption == "It is 90 bright."


def test_a_server_that_refuses_all_is_not_taken_for_bad_images(server: ChatServer) -> None:
    server.fault = lambda shown: "400"
    with pytest.raises(ModelError, match=r"does not caption with 'toy' \(400: toy says 400\)"):
        opened(server).caption(grey())


def test_one_that_begins_to_refuse_all_is_noticed(server: ChatServer) -> None:
    captioner = opened(server)
    captioner.caption(grey())
    server.fault = lambda shown: "400"
    with pytest.raises(ModelError, match="does not caption"):
        for _ in range(20):
            captioner.caption(grey())
    assert len(server.requests) <= 10


def test_a_server_that_ignores_the_models_name_is_told_of(
    server: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.fault = lambda shown: server.models.append("mine")  # type: ignore[func-returns-value]
    opened(server, "mine").caption(grey())
    assert "answers for 'mine', but lists only toy" in caplog.text


def test_an_unknown_model_is_told_with_the_choices(server: ChatServer) -> None:
    with pytest.raises(ModelError, match=r"'tow' \(404: .*does not exist.*Did you mean 'toy'"):
        opened(server, "tow").caption(grey())
    with pytest.raises(UsageError, match=r"does not say which model\. It serves: toy"):
        opened(server, "")


@pytest.mark.parametrize(
    ("fault", "message", "remedy"),
    [
        ("500", r"fails, also when asked again \(500: toy says 500\)", "in its log"),
        ("429", r"is too busy, also after waiting \(429: toy says 429\)", "it goes on"),
        ("401", r"refuses the key \(401", "OPENAI_API_KEY"),
        ("page", "something else than a chat completion: '<html>hello", "ends in /v1"),
        ("no choices", "something else than a chat completion", "ends in /v1"),
        ("no message", "an answer without a message of text", "OpenAI's API"),
    ],
)  # fmt: skip
def test_a_server_that_fails_is_one_error(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, fault: str, message: str, remedy: str
) -> None:
    monkeypatch.setattr(openai_server, "_RETRIES", 1)
    server.fault = lambda shown: fault
    with pytest.raises(ModelError, match=message) as raised:
        opened(server).caption(grey())
    assert remedy in raised.value.remedy
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("fault", ["429", "500", "444"])
def test_what_passes_is_asked_again(server: ChatServer, fault: str) -> None:
    left = [fault]
    server.fault = lambda shown: left.pop() if left else None
    assert opened(server).caption(grey(50)).caption == "It is 50 bright."


def test_an_answer_that_takes_too_long_is_one_error(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_server, "_RETRIES", 0)
    server.wait = lambda shown: 0.5
    with pytest.raises(ModelError, match=r"no answer within 0\.1 s.*allow more time"):
        open_captioner(server.name(), Asked(), timeout=0.1).caption(grey())


def test_a_model_that_knows_the_limit_by_another_name_gets_it(server: ChatServer) -> None:
    server.fault = lambda shown: "other name"
    captioner = opened(server, max_tokens=9)
    assert captioner.caption(grey(50)).caption == captioner.caption(grey(50)).caption
    assert [body.get("max_completion_tokens") for body in server.requests] == [None, 9, 9]


def test_a_server_that_cannot_list_its_models_is_asked_all_the_same(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_server, "_FIRST_RETRIES", 0)
    server.lists = False
    assert opened(server).caption(grey(50)).caption == "It is 50 bright."


def test_a_server_that_is_not_there(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_server, "_FIRST_RETRIES", 0)
    server.port = 9  # where nothing listens
    with pytest.raises(ModelError, match=r"cannot be reached .*See that it runs"):
        opened(server)


def test_a_servers_certificate_must_be_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_server, "_FIRST_RETRIES", 0)
    with (
        serving(certificate_files(tmp_path), ChatServer) as server,
        pytest.raises(LateenError, match=r"certificate .* is not valid.*SSL_CERT_FILE"),
    ):
        opened(server)


def test_a_server_is_asked_by_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"the model openai\+.*lateen\[server\]"):
        open_captioner("openai+http://host/v1#m", Asked())


@pytest.mark.parametrize(
    "wrong", [{"prompt": " "}, {"max_side": 8}, {"max_tokens": 0}, {"temperature": -1.0}]
)
def test_what_cannot_be_asked_is_refused(server: ChatServer, wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"is empty|at least"):
        opened(server, **wrong)


def test_a_model_of_a_folder_captions(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    captioner = open_captioner(str(folder), Asked(prompt="What?", max_tokens=5), device="cpu")
    first, again = captioner.caption(picture()), captioner.caption(picture())
    assert first == again
    assert first.answer_tokens == 5
    assert first.finish in ("length", "empty")
    assert captioner.at_once == 1
    with pytest.raises(UsageError, match="likeliest token each time"):
        open_captioner(str(folder), Asked(temperature=0.5))
