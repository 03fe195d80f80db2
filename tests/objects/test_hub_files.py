"""Files of the hub: its client downloads them, and what it says is passed on."""

from __future__ import annotations

from pathlib import Path

import pytest

from lateen.errors import DataError
from lateen.objects import to_path
from lateen.objects.hub import hub_snapshot


def test_a_snapshot_of_the_hub_says_why_it_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    def download(repository: str, **options: object) -> str:
        asked.append({"repository": repository, **options})
        if options["local_files_only"]:
            raise KeyError
        return "/cache/whole"

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert hub_snapshot("a/b", dataset=True, files=["*.txt"]) == Path("/cache/whole")
    assert asked[0] == {
        "repository": "a/b", "repo_type": "dataset", "revision": None, "allow_patterns": ["*.txt"],
        "ignore_patterns": None, "local_files_only": False,
    }  # fmt: skip
    with pytest.raises(FileNotFoundError, match="KeyError"):
        hub_snapshot("a/b", cached=True)


@pytest.mark.parametrize(
    ("url", "asked", "inside"),
    [
        ("hf://datasets/me/birds@v2/shards/{000..002}.tar",
         ("me/birds", "dataset", "v2", ["shards/*.tar", "shards/*.tar/*"]),
         "shards/{000..002}.tar"),
        ("hf://datasets/me/birds", ("me/birds", "dataset", None, None), ""),
        ("hf:/me/store/images", ("me/store", "model", None, ["images", "images/*"]), "images"),
    ],
)  # fmt: skip
def test_a_path_on_the_hub_is_the_one_that_its_client_downloads(
    url: str, asked: tuple[object, ...], inside: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def download(repository: str, **options: object) -> str:
        names = ("repo_type", "revision", "allow_patterns")
        calls.append((repository, *(options[name] for name in names)))
        return "/cache/whole"

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert to_path(url) == Path("/cache/whole") / inside
    assert to_path(Path(url)) == Path("/cache/whole") / inside
    assert calls == [asked] * 2


def test_what_the_hub_does_not_have_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> str:
        raise KeyError("404: no such repository")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(DataError, match=r"me/birds cannot be had from the hub .*hf auth login"):
        to_path("hf://datasets/me/birds/a.csv")
