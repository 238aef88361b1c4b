"""Shared places of tuning records: a folder, and HTTP on this machine; two may push at once."""

from __future__ import annotations

import errno
import functools
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_records import KEY, OTHER, TASK, made
from shared_places import all_of, free_port, push_at_once, pushed_by, refused

from nncc.errors import OutputError
from nncc.tuning import places
from nncc.tuning.connect import connect, local_path
from nncc.tuning.places import fetch_place, open_records, pull, push
from nncc.tuning.records import Journal, RecordSet, Workload, read_folder


class Server(http.server.ThreadingHTTPServer):
    """Files of a folder on loopback; it remembers what was asked of it, and may list nothing."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        self.lists = True
        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.asked.append(self.path)
        super().do_GET()

    def list_directory(self, path):
        assert isinstance(self.server, Server)
        if self.server.lists:
            return super().list_directory(path)
        self.send_error(403)
        return None

    def log_message(self, *anything) -> None:
        pass


@pytest.fixture
def served(tmp_path) -> Iterator[tuple[Path, Server]]:
    folder = tmp_path / "served"
    folder.mkdir()
    with Server(folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, server
        server.shutdown()


# ---- folders ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_push_adds_what_is_missing(tmp_path, scheme):
    url = f"{scheme}{tmp_path}/team"
    first = RecordSet([made(), made("ffffffff", key=OTHER)], [Workload.of(TASK, "{}")])
    done = push(first, url)
    assert done.records == 2
    assert [name.rpartition(".")[0].rpartition(".")[0] for name in done.files] == ["x86-64-v4-2t", "x86-64-v3-2t"]
    assert push(first, url) == (0, ())
    assert push(first | RecordSet([made(tile=8)]), url).records == 1
    assert fetch_place(url) == (first | RecordSet([made(tile=8)]), [])
    names = sorted(path.name for path in (tmp_path / "team").iterdir())
    assert len(names) == 4
    assert json.loads((tmp_path / "team" / "index.json").read_text()) == {"nncc": 1, "files": names[1:]}


def test_a_folder_is_pushed_and_pulled(tmp_path):
    Journal(tmp_path / "mine", KEY).append(made())
    push(tmp_path / "mine", tmp_path / "team")
    Journal(tmp_path / "yours", KEY).append(made(tile=8))
    assert pull(tmp_path / "team", tmp_path / "yours") == (1, [])
    assert set(read_folder(tmp_path / "yours")[0]) == {made(), made(tile=8)}
    assert pull(tmp_path / "team", tmp_path / "yours") == (0, [])


def test_pushes_at_once_to_a_folder(tmp_path):
    push_at_once(tmp_path / "team", 10)
    found, problems = fetch_place(tmp_path / "team")
    assert (pushed_by(found), problems) == (all_of(10), [])
    names = {path.name for path in (tmp_path / "team").iterdir()}
    assert set(json.loads((tmp_path / "team" / "index.json").read_text())["files"]) == names - {"index.json"}


def test_an_index_that_lost_a_race_is_written_again(tmp_path, monkeypatch):
    upload, lost = places._upload, []

    def meanwhile(place, name, data):
        upload(place, name, data)
        if name == places.INDEX and not lost:  # someone listed before us and writes after us
            lost.append(name)
            upload(place, name, b'{"nncc": 1, "files": []}')

    monkeypatch.setattr(places, "_upload", meanwhile)
    names = push(RecordSet([made()]), tmp_path / "team").files
    assert lost
    assert json.loads((tmp_path / "team" / "index.json").read_text())["files"] == list(names)


def test_several_places_are_united(tmp_path):
    Journal(tmp_path / "a", KEY).append(made())
    Journal(tmp_path / "b", KEY).append(made(tile=8))
    with open(tmp_path / "b" / "x.jsonl", "w") as file:
        file.write("noise\n")
    found, problems = open_records([tmp_path / "a", f"file://{tmp_path}/b"])
    assert set(found) == {made(), made(tile=8)}
    assert problems == [(str(tmp_path / "b" / "x.jsonl"), 1, "it is not JSON")]


def test_a_full_disk_at_a_place(tmp_path, monkeypatch):
    def full(*anything, **more):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.pipe_file", full)
    assert refused(lambda: push(RecordSet([made()]), tmp_path / "team"), OutputError) == (
        f"cannot write to `{tmp_path / 'team'}`: No space left on device",
        "free some space, or choose another place",
    )


def test_a_place_may_have_lost_a_slash():
    assert local_path(Path("s3://bucket/team")) is None
    assert connect(Path("http://host/team")).url == "http://host/team"
    assert local_path(Path("file:///tmp/a%20b")) == Path("/tmp/a b")
    assert local_path("records") == Path("records")
    assert local_path("C:/records") == Path("C:/records")


# ---- errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["ftp://host/team", "s3://bucket::file://team"])
def test_an_unknown_scheme(url):
    assert refused(lambda: fetch_place(url)) == (
        f"`{url}` is no place for tuning records",
        "a folder, or one of file://, s3://, gs://, ssh://, sftp://, http://, https://",
    )


@pytest.mark.parametrize(
    ("module", "url", "extra"),
    [
        ("s3fs", "s3://bucket/team", "s3"),
        ("gcsfs", "gs://bucket/team", "gs"),
        ("aiohttp", "http://host/team", "http"),
        ("sshfs", "ssh://host/team", "ssh"),
    ],
)
def test_a_package_that_is_missing(module, url, extra):
    code = f"""
import sys
sys.modules[{module!r}] = None
from nncc.errors import ToolError
from nncc.tuning.places import fetch_place
try:
    fetch_place({url!r})
except ToolError as error:
    print(error, error.hint, sep="|")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    message, _, hint = done.stdout.strip().partition("|")
    assert message.startswith(f"`{url}` needs a package that is missing: "), done.stderr
    assert hint == f"`pip install 'nncc[{extra}]'`"


def test_http_is_for_reading():
    assert refused(lambda: push(RecordSet([made()]), "https://host/team")) == (
        "`https://host/team` can be read, not pushed to",
        "push to where its server has the files from",
    )


def test_a_host_that_is_not_there():
    url = f"http://127.0.0.1:{free_port()}/team"
    message, hint = refused(lambda: fetch_place(url))
    assert message.startswith(f"`{url}` cannot be reached: ")
    assert hint == "look at the address and the network"


def test_a_mistake_of_ours_is_not_the_network_s(monkeypatch):
    monkeypatch.setattr(places, "_listing", lambda *anything: None + 1)  # type: ignore[operator]
    with pytest.raises(TypeError):
        fetch_place("http://127.0.0.1/team")


def test_a_password_is_not_shown():
    url = f"http://me:secret@127.0.0.1:{free_port()}/team"
    assert "secret" not in refused(lambda: fetch_place(url))[0]


# ---- http -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lists", [True, False])
def test_http_reads_what_was_pushed(served, lists):
    folder, server = served
    server.lists = lists
    records = RecordSet([made(), made("ffffffff", key=OTHER)])
    push(records, folder / "team")
    assert fetch_place(f"{server.url}/team") == (records, [])
    assert fetch_place(f"{server.url}/team/") == (records, [])


def test_http_fetches_what_changed(served):
    folder, server = served
    push(RecordSet([made()]), folder)
    Journal(folder, KEY).append(made(tile=8))
    fetch_place(server.url)
    server.asked.clear()
    assert len(fetch_place(server.url)[0]) == 2
    assert not any(path.endswith(".jsonl") for path in server.asked)
    Journal(folder, KEY).append(made(tile=9))
    push(RecordSet([made(tile=10)]), folder)
    server.asked.clear()
    assert len(fetch_place(server.url)[0]) == 4
    assert len({path for path in server.asked if path.endswith(".jsonl")}) == 2


def test_http_reads_a_folder_that_nobody_pushed_to(served):
    folder, server = served
    Journal(folder, KEY).append(made())
    assert fetch_place(server.url) == (RecordSet([made()]), [])


def test_http_without_records(served):
    _, server = served
    assert refused(lambda: fetch_place(f"{server.url}/none")) == (
        f"there is nothing at `{server.url}/none`",
        "look at the address",
    )
    server.lists = False
    message, hint = refused(lambda: fetch_place(server.url))
    assert message.startswith(f"`{server.url}` gives no permission: 403")
    assert hint == "look at its permissions"


def test_an_index_that_names_other_folders(served):
    folder, server = served
    (folder / "team").mkdir()
    (folder / "x.jsonl").write_text(made().to_line())
    (folder / "team" / "index.json").write_text(
        '{"files": ["../x.jsonl", 7, "gone.0123456789abcdef.jsonl", "/x.jsonl"]}'
    )
    assert fetch_place(f"{server.url}/team") == (RecordSet(), [])
    (folder / "team" / "index.json").write_text("[" * 100_000)
    assert refused(lambda: fetch_place(f"{server.url}/team")) == (
        f"`{server.url}/team` answers, but not with tuning records",
        "look at the address",
    )


def test_a_file_that_is_not_what_its_name_says_is_not_kept(served):
    folder, server = served
    name = push(RecordSet([made()]), folder).files[0]
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:100])
    found, problems = fetch_place(server.url)
    assert (len(found), problems[0].file) == (0, f"{server.url}/{name}")
    (folder / name).write_bytes(whole)
    assert fetch_place(server.url) == (RecordSet([made()]), [])


def test_a_cache_that_cannot_be_written(served, tmp_path):
    folder, server = served
    push(RecordSet([made()]), folder)
    (tmp_path / "cache").write_text("a file")
    assert fetch_place(server.url) == (RecordSet([made()]), [])
