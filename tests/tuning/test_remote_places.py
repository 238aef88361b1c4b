"""Tuning records on S3 and over SSH, each served on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest
from made_records import OTHER, TASK, made
from shared_places import all_of, free_port, push_at_once, pushed_by, refused

from nncc.tuning import places
from nncc.tuning.connect import connect
from nncc.tuning.places import fetch_place, pull, push
from nncc.tuning.records import RecordSet, Workload, read_folder

# ---- S3 ---------------------------------------------------------------------------------------------------------


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
