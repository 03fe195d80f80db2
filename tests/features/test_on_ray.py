"""A local Ray of several processes makes the store of one; what is killed is done again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import call

import lateen
from lateen.errors import LateenError, MissingExtraError, UsageError
from lateen.features import EncodeInputs, on_ray
from lateen.features.on_ray import Cluster, encode_on_ray

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]
HERE = Path(__file__).parent


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.fixture(scope="module")
def dies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Ray of two processes on this machine; an encoder in it dies if this file is there."""
    pytest.importorskip("ray", reason="Ray is not installed")
    import ray

    mark = tmp_path_factory.mktemp("ray") / "dies"
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(HERE))
        patched.setenv("LATEEN_TEST_DIES", str(mark))
        on_ray._start(None)
        yield mark
        ray.shutdown()


def test_the_bytes_are_those_of_one_process_though_an_actor_is_killed(
    dies: Path, album: Path
) -> None:
    (album / "images" / "broken.png").write_bytes(b"no image")
    one = lateen.encode(
        album / "images", "ray_toys:dying_encoder", album / "one", shard_items=4, batch_size=2
    )
    dies.touch()
    made = encode_on_ray(
        EncodeInputs(album / "images", "ray_toys:dying_encoder"), album / "made", Cluster(actors=2),
        shard_items=4, batch_size=2,
    )  # fmt: skip
    assert not dies.exists()  # an actor died
    assert content(made.path) == content(one.path)
    assert not (album / "made.slices").exists()


def test_what_goes_wrong_on_the_cluster_is_said_and_the_next_call_goes_on(
    dies: Path, album: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(album)
    with pytest.raises(LateenError, match=r"this encoder is not there\. Look for it"):
        encode_on_ray(EncodeInputs("images", "ray_toys:failing_encoder"), "out", Cluster(actors=1))
    words = ("encode", "images", "--encoder", "ray_toys:dying_encoder", "--shard-items", "4")
    code, out, _ = call(capsys, *words, "--on", "ray", "--actors", "1", "--out", "out")
    assert code == 0 and "24" in out
    assert call(capsys, *words, "--out", "one")[0] == 0
    assert content(album / "out") == content(album / "one")
    # Asked for again, it is there; another one is refused.
    before = {path: path.stat().st_mtime_ns for path in (album / "out").glob("shard-*")}
    assert call(capsys, *words, "--on", "ray", "--actors", "1", "--out", "out")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in (album / "out").glob("shard-*")} == before
    code, _, error = call(capsys, *words[:-1], "8", "--on", "ray", "--actors", "1", "--out", "out")
    assert code == 1 and "made differently (shard_items: 4 there, 8 now)" in error
    assert not (album / "out.slices").exists()


def test_wrong_words(
    album: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(album)
    words = ("encode", "images", "--encoder", "toys:colour_encoder", "--out", "out")
    for more, said in [
        (("--actors", "2"), "--actors belongs to --on ray"),
        (("--on", "ray", "--slice", "1/2"), "makes slices of its own"),
        (("--on", "ray", "--device", "cuda"), "takes no --device cuda"),
        (("--on", "ray", "--actors", "0"), "--actors is 0"),
        (("--slice", "1/2", "--device", "cpu,cpu"), "a slice is encoded on one device"),
    ]:
        code, _, error = call(capsys, *words, *more)
        assert code == 2 and said in error, more
    assert not (album / "out").exists()
    inputs = EncodeInputs(album / "images", "toys:colour_encoder")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"lateen\[ray\]"):
        encode_on_ray(inputs, album / "out", Cluster())
    monkeypatch.undo()
    if __import__("importlib.util").util.find_spec("ray"):
        with pytest.raises(UsageError, match="open data and encoder themselves"):
            encode_on_ray(
                EncodeInputs(album / "images", lateen.load_encoder("toys:colour_encoder", "image")),
                album / "out", Cluster(),
            )  # fmt: skip
