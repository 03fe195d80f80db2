"""What pyarrow does with object stores: looking, reading ranges, writing whole objects.

Waiting and asking again is left to it. What goes wrong is said in words here.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import time
from collections.abc import Iterator
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lateen.errors import MissingExtraError, ObjectStoreError, reason

# pyarrow.fs is imported where a store is spoken to: it takes 0.2 s.

_TRIES = 6  # of a request, by pyarrow's own back-off
_PATIENCE = timedelta(seconds=60)  # with Google's store
_LOOKED_FOR_S = 60.0  # how long what was seen of an object counts
_MOST_SEEN = 500_000  # objects, of half a kilobyte each
_SETTLED_NS = 60 * 10**9
_HANDLES = 1024  # objects that are kept open, which spares a request at each read
_CREDENTIALS = {
    "s3": "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; for public data "
    "AWS_SKIP_SIGNATURE=true.",
    "gs": "Set GOOGLE_APPLICATION_CREDENTIALS to a key file; for public data "
    "GOOGLE_SKIP_SIGNATURE=true.",
}
SCHEMES = tuple(_CREDENTIALS)
# What pyarrow's messages have in them, what that means, and what to do; {} is the scheme's way to
# give credentials. The first that fits counts.
_FAULTS = (
    (r"time ?too ?skewed|REQUEST_TIME_TOO_SKEWED",
     "refuses the request, as this machine's clock differs from its own",
     "Set the clock, for example by NTP."),
    (r"NO_SUCH_BUCKET|bucket does not exist", "has no such bucket", "Check its name."),
    (r"certificate|curlCode: 60|SSL", "shows a certificate that is not valid here",
     "Set SSL_CERT_FILE to the authority's file, or check the address."),
    (r"ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH|EXPIRED|INVALID_CLIENT_TOKEN"
     r"|UNRECOGNIZED_CLIENT|MISSING_AUTHENTICATION|HTTP status 40[13]|Permanent error.*permission"
     r"|UNAUTHENTICATED|PERMISSION_DENIED|Anonymous|credentials",
     "denies access", "{}"),
    (r"SLOW_DOWN|THROTTL|REQUEST_LIMIT|HTTP status 503", "asks for fewer requests",
     "Run the same command again later, with fewer --workers: it goes on."),
    (r"NETWORK_CONNECTION|resolve|connect|timed? ?out|UNAVAILABLE",
     "cannot be reached",
     "Check the network and AWS_ENDPOINT_URL, and run the same command again: it goes on."),
)  # fmt: skip

_log = logging.getLogger("lateen")
_seen: dict[str, tuple[float, Any]] = {}  # by key: when it was looked at, and what was there


class Key(str):
    """``s3://BUCKET/KEY`` as a plain string, with its parts."""

    __slots__ = ()

    @property
    def scheme(self) -> str:
        """``s3`` or ``gs``."""
        return self.partition(":")[0]

    @property
    def within(self) -> str:
        """``BUCKET/KEY``, as pyarrow takes it."""
        return self.partition("://")[2]


@contextlib.contextmanager
def explained(key: Key) -> Iterator[None]:
    """What pyarrow raises inside, as errors with a remedy.

    Raises:
        FileNotFoundError: there is no such object.
        ObjectStoreError: anything else: it can be tried again, and must not count as absent.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "there is no such object", str(key)) from error
    except OSError as error:
        place = f"the object store of {key}"
        for pattern, what, remedy in _FAULTS:
            if re.search(pattern, str(error), re.IGNORECASE):
                said = f"{place} {what} ({_short(error)})"
                raise ObjectStoreError(said, remedy.format(_CREDENTIALS[key.scheme])) from error
        raise ObjectStoreError(
            f"{place} failed ({_short(error)})", "Run the same command again: it goes on."
        ) from error


def _short(error: BaseException) -> str:
    """What a store said, without what pyarrow says around it."""
    said = re.sub(r"^When .*?: (?=AWS Error)", "", reason(error))
    said = re.sub(r" \(Request ID: .*|; Details: .*", "", said)
    return said if len(said) <= 160 else said[:159] + "…"


def file_system(key: Key) -> Any:
    """The store that an object is in.

    The environment says the rest, in the words that other tools read, too.
    """
    bucket = key.within.partition("/")[0]
    asked = os.environ.get
    if key.scheme == "s3":
        endpoint = (
            asked("AWS_ENDPOINT_URL_S3") or asked("AWS_ENDPOINT_URL") or asked("AWS_ENDPOINT")
        )
        region = asked("AWS_REGION") or asked("AWS_DEFAULT_REGION")
        return _s3(bucket, endpoint, region, _says_yes("AWS_SKIP_SIGNATURE"))
    return _gcs(asked("STORAGE_EMULATOR_HOST"), _says_yes("GOOGLE_SKIP_SIGNATURE"))


def _says_yes(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes")


@lru_cache(64)
def _s3(bucket: str, endpoint: str | None, region: str | None, public: bool) -> Any:
    fs = _pyarrow_fs("S3FileSystem")
    options: dict[str, Any] = {"anonymous": public, "region": region}
    if endpoint:
        parts = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
        options.update(endpoint_override=parts.netloc, scheme=parts.scheme)
    elif region is None:
        with contextlib.suppress(OSError):  # a bucket that does not say; then its requests fail
            options["region"] = fs.resolve_s3_region(bucket)
    return fs.S3FileSystem(
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_TRIES), connect_timeout=5,
        request_timeout=60, allow_delayed_open=True, **options,
    )  # fmt: skip


@lru_cache(8)
def _gcs(endpoint: str | None, public: bool) -> Any:
    fs = _pyarrow_fs("GcsFileSystem")
    options: dict[str, Any] = {"anonymous": public or endpoint is not None}
    if endpoint:
        parts = urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
        options.update(endpoint_override=parts.netloc, scheme=parts.scheme)
    return fs.GcsFileSystem(retry_time_limit=_PATIENCE, **options)


def _pyarrow_fs(kind: str) -> Any:
    from pyarrow import fs

    try:
        getattr(fs, kind)
    except ImportError as error:  # a build without it
        raise MissingExtraError("pyarrow", None, f"reading object stores ({kind})") from error
    return fs


def look(key: Key) -> Any:
    """What is at a key, as pyarrow's ``FileInfo``; what was seen within a minute counts.

    That nothing is there is never remembered: some stores show objects late.

    Raises:
        ObjectStoreError: it cannot be seen.
    """
    seen = _seen.get(key)
    if seen is not None and time.monotonic() - seen[0] < _LOOKED_FOR_S:
        return seen[1]
    with explained(key):
        info = file_system(key).get_file_info(key.within)
    if info.type.name != "NotFound":
        _remember(key, info)
    return info


def seconds(mtime_ns: int | None) -> int:
    """A time in whole seconds: some stores list parts of them, and leave them out elsewhere."""
    return (mtime_ns or 0) // 10**9


def is_settled(mtime_ns: int | None) -> bool:
    """Whether a change to an object would also move its time, which counts in whole seconds.

    A minute is for clocks that differ: it is the store's that sets the time.
    """
    return mtime_ns is not None and mtime_ns < time.time_ns() - _SETTLED_NS


def _remember(key: Key, info: Any) -> None:
    if len(_seen) >= _MOST_SEEN:
        _seen.clear()
    _seen[key] = (time.monotonic(), info)


def forget(key: Key) -> None:
    """Look anew the next time: the object was written or removed."""
    _seen.pop(key, None)


def listed(key: Key, *, recursive: bool = False) -> list[tuple[str, Any]]:
    """What lies below a key: its name relative to it, and what it is; sorted by name.

    Raises:
        ObjectStoreError: it cannot be listed.
    """
    from pyarrow import fs

    selector = fs.FileSelector(key.within, recursive=recursive, allow_not_found=True)
    with explained(key):
        infos = file_system(key).get_file_info(selector)
    below, strange = [], 0
    for info in infos:
        name = info.path.removeprefix(key.within.rstrip("/") + "/")
        if name.startswith("/") or "//" in name or name == info.path:
            strange += 1  # a path has no empty names
        elif name:
            _remember(Key(f"{key.rstrip('/')}/{name}"), info)
            below.append((name, info))
    if strange:
        _log.warning("%s: %d keys with an empty name between slashes are left out", key, strange)
    return sorted(below, key=lambda each: each[0])


def fetch(key: Key, version: str, start: int, length: int) -> bytes:
    """Bytes of an object, by one request.

    Args:
        key: which.
        version: of the object, when it was looked at.
        start: of the first byte.
        length: how many, which must be there.

    Raises:
        FileNotFoundError: it has gone.
        ObjectStoreError: it cannot be read, or is another one now.
    """
    with explained(key):
        data = bytes(_opened(key, version, id(file_system(key))).read_at(length, start))
    if len(data) != length:
        raise ObjectStoreError(
            f"{key} has become shorter while it was read", "Run the same command again."
        )
    return data


@lru_cache(_HANDLES)
def _opened(key: Key, version: str, store: int) -> Any:
    del version, store  # another version, or store, is another object
    return file_system(key).open_input_file(key.within)


def upload(file: Path, key: Key) -> None:
    """Put a file's bytes at a key, where they are seen whole or not at all.

    Raises:
        ObjectStoreError: it cannot be written; what was there stays.
    """
    import pyarrow

    size = file.stat().st_size
    data = pyarrow.memory_map(str(file)).read_buffer(size) if size else b""
    with explained(key):
        # A stream that is dropped makes an object of what it has: nothing may fail in between.
        stream = file_system(key).open_output_stream(key.within)
        stream.write(data)
        stream.close()
    forget(key)
    written = look(key).size
    if written != size:
        raise ObjectStoreError(
            f"{key} has {written} bytes after {size} were written", "Run the same command again."
        )


def remove_below(key: Key) -> None:
    """Remove all objects whose keys begin so.

    Raises:
        ObjectStoreError: they cannot be removed.
    """
    names = [name for name, _ in listed(key, recursive=True)]
    with explained(key), contextlib.suppress(FileNotFoundError):
        file_system(key).delete_dir(key.within)
    for name in ("", *names):
        forget(Key(f"{key}/{name}" if name else key))


def remove(key: Key) -> None:
    """Remove an object.

    Raises:
        FileNotFoundError: there is none.
        ObjectStoreError: it cannot be removed.
    """
    with explained(key):
        file_system(key).delete_file(key.within)
    forget(key)
