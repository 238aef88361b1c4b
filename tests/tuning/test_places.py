"""Shared places of tuning records: a folder, HTTP, S3 and SSH on this machine; two may push at once."""

from __future__ import annotations

import errno
import functools
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_records import KEY, OTHER, TASK, made

from nncc.errors import OutputError, RecordError
from nncc.tuning import places
from nncc.tuning.connect import connect, local_path
from nncc.tuning.places import fetch_place, open_records, pull, push
from nncc.tuning.records import Journal, RecordSet, Workload, read_folder

PUSHER = """
import sys
sys.path.insert(0, sys.argv[1])
from made_records import made
from nncc.tuning.records import RecordSet, push
sys.stdin.readline()
for number in range(int(sys.argv[4])):
    push(RecordSet([made(tile=number, by=sys.argv[3]), made(tile=number, by="both")]), sys.argv[2])
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NNCC_CACHE_DIR", str(tmp_path / "cache"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def push_at_once(url: str | Path, count: int) -> None:
    words = [sys.executable, "-c", PUSHER, str(Path(__file__).parents[1]), str(url)]
    pushers = [subprocess.Popen([*words, who, str(count)], stdin=subprocess.PIPE, text=True) for who in "ab"]
    for each in pushers:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    for each in pushers:
        each.communicate(timeout=240)
        assert each.returncode == 0


def pushed_by(records: RecordSet) -> set[tuple[str, int]]:
    return {(record.by, record.decisions["tile"]) for record in records}


def all_of(count: int) -> set[tuple[str, int]]:
    return {(who, number) for who in ("a", "b", "both") for number in range(count)}


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


def refused(call, kind=RecordError) -> tuple[str, str | None]:
    with pytest.raises(kind) as error:
        call()
    return str(error.value), error.value.hint


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


# ---- s3 ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    port = free_port()
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{url}/moto-api/data.json", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def bucket(s3_server, monkeypatch) -> str:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    urllib.request.urlopen(urllib.request.Request(f"{s3_server}/moto-api/reset", method="POST")).close()
    urllib.request.urlopen(urllib.request.Request(f"{s3_server}/bucket", method="PUT")).close()
    return "s3://bucket"


def test_s3(bucket, tmp_path, monkeypatch):
    url = f"{bucket}/team"
    records = RecordSet([made(), made("ffffffff", key=OTHER)], [Workload.of(TASK, "{}")])
    assert push(records, url).records == 2
    assert push(records, url) == (0, ())
    assert fetch_place(url) == (records, [])
    assert push(RecordSet([made(tile=8)]), url).records == 1
    assert pull(url, tmp_path / "mine") == (3, [])
    monkeypatch.setattr("s3fs.S3FileSystem._cat_file", None)  # all of it is in the cache
    assert len(fetch_place(url)[0]) == 3


def test_s3_by_the_root_of_a_bucket(bucket):
    push(RecordSet([made()]), bucket)
    assert fetch_place(bucket + "/") == (RecordSet([made()]), [])


def test_pushes_at_once_to_s3(bucket):
    push_at_once(f"{bucket}/team", 4)
    found, problems = fetch_place(f"{bucket}/team")
    assert (pushed_by(found), problems) == (all_of(4), [])
    place = connect(f"{bucket}/team")
    assert places._read_index(place) == sorted(places._listed(place))


def test_s3_without_the_bucket_or_records(bucket):
    hint = "look at its name, or make it first"
    missing = ("`s3://none/team` is in a bucket that does not exist", hint)
    assert refused(lambda: push(RecordSet([made()]), "s3://none/team")) == missing
    assert refused(lambda: fetch_place("s3://none/team")) == missing
    assert refused(lambda: fetch_place("s3://bucket/none")) == (
        "there is nothing at `s3://bucket/none`",
        "`nncc records push FOLDER s3://bucket/none` puts records there",
    )


def test_s3_without_a_host_or_keys(bucket, monkeypatch, tmp_path):
    keys = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; FSSPEC_S3_ANON=true for a public bucket"
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    message, hint = refused(lambda: fetch_place("s3://bucket/team"))
    assert message.startswith("`s3://bucket/team` cannot be reached: ")
    assert hint == "look at the address and the network"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert refused(lambda: fetch_place("s3://bucket/team")) == (
        "`s3://bucket/team` gives no permission: Unable to locate credentials",
        keys,
    )


def test_s3_without_permission(bucket, monkeypatch):
    async def refuse(self, *anything, **more):
        raise PermissionError("Access Denied")

    monkeypatch.setattr("s3fs.S3FileSystem._ls", refuse)
    message, _ = refused(lambda: fetch_place("s3://bucket/team"))
    assert message == "`s3://bucket/team` gives no permission: Access Denied"


# ---- ssh --------------------------------------------------------------------------------------------------------

SSH_SERVER = """
import asyncio, sys
import asyncssh

class Server(asyncssh.SSHServer):
    def begin_auth(self, username):
        return False

class Files(asyncssh.SFTPServer):
    def __init__(self, channel):
        super().__init__(channel, chroot=sys.argv[1])

async def serve():
    key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.create_server(Server, "127.0.0.1", 0, server_host_keys=[key], sftp_factory=Files)
    print(server.get_port(), key.export_public_key().decode().strip(), flush=True)
    await asyncio.Event().wait()

asyncio.run(serve())
"""


@pytest.fixture
def ssh(tmp_path, monkeypatch) -> Iterator[str]:
    pytest.importorskip("sshfs")
    folder, home = tmp_path / "far", tmp_path / "home"
    folder.mkdir()
    (home / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    words = [sys.executable, "-c", SSH_SERVER, str(folder)]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port, key = server.stdout.readline().strip().split(" ", 1)
        (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}\n")
        yield f"ssh://me@127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


@pytest.mark.parametrize("scheme", ["ssh", "sftp"])
def test_ssh(ssh, tmp_path, scheme):
    url = ssh.replace("ssh", scheme) + "/team/records"
    records = RecordSet([made(), made("ffffffff", key=OTHER)], [Workload.of(TASK, "{}")])
    assert push(records, url).records == 2
    assert push(records, url) == (0, ())
    assert fetch_place(url) == (records, [])
    assert read_folder(tmp_path / "far" / "team" / "records") == (records, [])
    assert push(RecordSet([made(tile=8)]), url).records == 1
    names = sorted(path.name for path in (tmp_path / "far" / "team" / "records").iterdir())
    assert json.loads((tmp_path / "far" / "team" / "records" / "index.json").read_text())["files"] == names[1:]


@pytest.mark.parametrize("file", [True, False])
def test_ssh_to_a_host_that_is_not_known(ssh, tmp_path, file):
    (tmp_path / "home" / ".ssh" / "known_hosts").unlink()
    if file:
        (tmp_path / "home" / ".ssh" / "known_hosts").write_text("")
    message, hint = refused(lambda: fetch_place(f"{ssh}/team"))
    assert message.startswith(f"the host of `{ssh}/team` is not known: ")
    assert hint == "if you trust it, `ssh` to it once, which asks and remembers"


def test_ssh_without_a_host_or_records(ssh):
    url = f"ssh://127.0.0.1:{free_port()}/team"
    message, _ = refused(lambda: fetch_place(url))
    assert message.startswith(f"`{url}` cannot be reached: ")
    assert refused(lambda: fetch_place(f"{ssh}/none"))[0] == f"there is nothing at `{ssh}/none`"
