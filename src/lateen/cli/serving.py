"""``lateen serve``: an index on a page, and as JSON."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from lateen.cli.checks import check_inputs, check_model
from lateen.cli.keys import takes_hardware
from lateen.cli.models import BankPlace
from lateen.cli.output import say
from lateen.errors import Faults, MissingExtraError, UsageError

if TYPE_CHECKING:
    from lateen.indexing import Index
    from lateen.serving.settings import ServeSettings

_NEEDED = {"fastapi": "fastapi", "uvicorn": "uvicorn", "python_multipart": "python-multipart"}
_LOCAL = "127.0.0.1"
_MEBIBYTE = 1 << 20


@takes_hardware()
def serve_command(
    target: str,
    /,
    *,
    images: Annotated[
        Path | None, Parameter(help="folder of photographs, if MODEL is given instead of an index")
    ] = None,
    host: Annotated[
        str, Parameter(help="address to listen on; 0.0.0.0 for all networks, with a token")
    ] = _LOCAL,
    port: Annotated[int, Parameter(help="port to listen on; 0 takes one that is free")] = 7860,
    token: Annotated[
        str | None,
        Parameter(
            help="what everybody has to know who asks; made up beyond this machine",
            env_var="LATEEN_TOKEN",
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        Parameter(help="further names of this server, as behind a proxy", consume_multiple=True),
    ] = None,
    allow: Annotated[
        list[Path] | None,
        Parameter(
            help="further folders that links among the photographs may lead to",
            consume_multiple=True,
        ),
    ] = None,
    originals: Annotated[
        bool,
        Parameter(help="give files as they are, and coordinates: both say where they were taken"),
    ] = False,
    upload: Annotated[float, Parameter(help="MiB of a picture that is sent")] = 32,
    rate: Annotated[float, Parameter(help="requests a second of one client; 0 for no limit")] = 50,
    open: Annotated[bool, Parameter(help="also open the page in a browser")] = False,
    bank: BankPlace = None,
) -> None:
    """Serve a page that finds photographs, and the same as JSON.

    Sentences and pictures find, labels sort, by date and folder. Only this machine can ask, unless
    --host says otherwise; then everybody has to know a token. Photographs are shown without what
    their files say of where they were taken. The API is described at /docs.

    Parameters
    ----------
    target
        An index (`lateen index`); or with --images, a model's folder, or a CLIP or SigLIP by folder
        or hub id.
    """
    for module, package in _NEEDED.items():
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(package, "serve", "a server")
    settings = _settings(host, port, token, name, allow, originals, upload, rate)
    from lateen.serving.run import listen, serve, with_token

    settings = with_token(settings)
    listening = listen(settings)  # before what takes long
    try:
        index = _opened(target, images, bank)
    except BaseException:
        listening.close()
        raise

    def ready(address: str) -> None:
        say(address)
        say(
            f"{len(index):,} photographs of {index.about.name}, found by {index.about.model}; "
            "Ctrl-C ends it"
        )
        if originals:
            say("files are given as they are, and say where they were taken (--originals)")
        sys.stdout.flush()  # in a pipe, too, the address is there at once

    serve(index, settings, listening, ready=ready, browser=open)
    say("ended")


def _settings(
    host: str, port: int, token: str | None, names: list[str] | None, allow: list[Path] | None,
    originals: bool, upload: float, rate: float,
) -> ServeSettings:  # fmt: skip
    """How the server is run.

    Raises:
        UsageError: a number, token or folder that cannot be.
    """
    from lateen.serving.settings import ServeSettings

    if not 0 <= port <= 65535:
        raise UsageError(f"there is no port {port}", "Ports go from 1 to 65535.")
    if token is not None and (not token.isascii() or not token.isprintable() or len(token) < 8):
        raise UsageError("the token is too simple", "Give eight letters or more, and no accents.")
    if not upload > 0 or not rate >= 0:
        raise UsageError("--upload and --rate are amounts", "Give numbers above 0.")
    faults = Faults()
    check_inputs(faults, folders=allow or ())
    return ServeSettings(
        host=host, port=port, token=token, names=tuple(names or ()), allow=tuple(allow or ()),
        originals=originals, upload_bytes=int(upload * _MEBIBYTE), rate=rate,
    )  # fmt: skip


def _opened(target: str, images: Path | None, bank: str | None) -> Index:
    """The index.

    Raises:
        LateenError: it is not there, or cannot be made.
    """
    from lateen.indexing.folders import open_or_build
    from lateen.indexing.photo_index import is_index

    if images is not None and not is_index(target):
        faults = Faults()
        check_model(faults, target)
        check_inputs(faults, folders=(images,))
    return open_or_build(target, images, bank=bank)
