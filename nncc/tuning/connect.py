"""Reaching a place where tuning records are shared, through fsspec; and what to say where that fails."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from nncc.errors import NnccError, OutputError, RecordError, ToolError

__all__ = ["Place", "connect", "explained", "local_path"]

EXTRAS = {"s3": "s3", "gs": "gs", "ssh": "ssh", "sftp": "ssh", "http": "http", "https": "http"}
"""The extra of nncc that brings what a scheme needs."""

SECONDS = 15
"""How long to wait for a connection."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(?=[^/])(.*)", re.DOTALL)
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "PermissionDenied", "DefaultCredentialsError")
_NO_BUCKET = re.compile(r"bucket does not exist|NoSuchBucket|bucket.* not found", re.IGNORECASE)
_NO_HOST = ("KeyNotVerifiable", "HostKeyNotVerifiable")


@dataclass(frozen=True)
class Place:
    """An open place; `fs` is a file system of fsspec."""

    url: str
    fs: Any
    root: str
    lists: bool
    """Whether it can say what files it has."""
    atomic: bool
    """Whether a file appears there whole."""

    @property
    def shown(self) -> str:
        return shown(self.url)

    def path(self, name: str) -> str:
        return f"{self.root}/{name}" if self.root else name


def shown(url: str) -> str:
    """A URL without its password."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", url)


def local_path(place: str | Path) -> Path | None:
    """The folder that a place is, or None for a URL. A path and ``file:///path`` are the same."""
    scheme, rest = _split(place)
    if scheme == "file":
        return Path("/" + unquote(rest))
    return None if scheme else Path(place)


def connect(place: str | Path, write: bool = False) -> Place:
    """Open a place. Raises RecordError where its scheme is unknown or it cannot be reached, ToolError where the
    package for it is missing."""
    folder = local_path(place)
    if folder is not None:
        from fsspec.implementations.local import LocalFileSystem

        root = str(folder.absolute())
        return Place(root, LocalFileSystem(), root, lists=True, atomic=False)
    scheme, rest = _split(place)
    url = f"{scheme}://{rest}".rstrip("/")
    if scheme not in EXTRAS or "::" in url:
        known = ", ".join(f"{name}://" for name in ("file", *EXTRAS))
        raise RecordError(f"`{shown(url)}` is no place for tuning records", f"a folder, or one of {known}")
    if write and scheme in ("http", "https"):
        raise RecordError(f"`{shown(url)}` can be read, not pushed to", "push to where its server has the files from")
    try:
        with explained(shown(url)):
            import fsspec

            fs, root = fsspec.core.url_to_fs(url, **_options(scheme))
    except ImportError as error:
        extra = EXTRAS[scheme]
        raise ToolError(
            f"`{shown(url)}` needs a package that is missing: {error}", f"`pip install 'nncc[{extra}]'`"
        ) from error
    return Place(url, fs, root.rstrip("/"), lists=EXTRAS[scheme] != "http", atomic=scheme in ("s3", "gs"))


def _split(place: str | Path) -> tuple[str, str]:
    """Scheme and rest of a URL, also of one that was made a path of and lost a slash; an empty scheme for a path."""
    found = _URL.fullmatch(str(place))
    return (found[1].lower(), found[2]) if found else ("", str(place))


def _options(scheme: str) -> dict[str, Any]:
    """What a file system is opened with: nothing remembered, an end to waiting."""
    common: dict[str, Any] = {"skip_instance_cache": True}
    if EXTRAS[scheme] == "ssh":
        import sshfs  # noqa: F401  # else fsspec takes paramiko, which knows none of these words

        # Without `known_hosts` sshfs talks to any host; with it, to those of ~/.ssh/known_hosts.
        return common | {"known_hosts": (), "connect_timeout": SECONDS, "login_timeout": SECONDS}
    common["use_listings_cache"] = False
    if scheme == "s3":
        waits = {"connect_timeout": SECONDS, "read_timeout": 60, "retries": {"max_attempts": 2}}
        return common | {"config_kwargs": waits}
    if EXTRAS[scheme] == "http":
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=SECONDS, sock_read=60)
        return common | {"client_kwargs": {"timeout": timeout}}
    return common


@contextlib.contextmanager
def explained(url: str) -> Iterator[None]:
    """What goes wrong on the way to `url` is a RecordError; what there is no room for, an OutputError."""
    try:
        yield
    except (NnccError, ImportError, TypeError, AttributeError, NameError):
        raise
    except Exception as error:
        raise _explanation(url, error) from error


def _explanation(url: str, error: Exception) -> NnccError:
    names = {kind.__name__ for kind in type(error).__mro__}
    strerror = getattr(error, "strerror", None)
    reason = strerror if isinstance(strerror, str) else " ".join(str(error).split()) or type(error).__name__
    status = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError):
        if _NO_BUCKET.search(str(error)):
            return RecordError(f"`{url}` is in a bucket that does not exist", "look at its name, or make it first")
        read_only = url.startswith("http")
        hint = "look at the address" if read_only else f"`nncc records push FOLDER {url}` puts records there"
        return RecordError(f"there is nothing at `{url}`", hint)
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return OutputError(f"cannot write to `{url}`: {reason}", "free some space, or choose another place")
    if isinstance(error, PermissionError) or names & set(_NO_CREDENTIALS) or status in (401, 403):
        hint = _CREDENTIALS.get(url.partition(":")[0], "look at its permissions")
        return RecordError(f"`{url}` gives no permission: {reason}", hint)
    if names & set(_NO_HOST):
        hint = "if you trust it, `ssh` to it once, which asks and remembers"
        return RecordError(f"the host of `{url}` is not known: {reason}", hint)
    return RecordError(f"`{url}` cannot be reached: {reason}", "look at the address and the network")


_CREDENTIALS = {
    "s3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; FSSPEC_S3_ANON=true for a public bucket",
    "gs": "`gcloud auth application-default login`",
    "ssh": "`ssh` must work without a password: use a key, and an agent",
    "sftp": "`ssh` must work without a password: use a key, and an agent",
}
