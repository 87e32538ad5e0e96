"""The store of artifacts under deaths that are real: a process that is killed while it uploads and deletes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# One process forks writers and kills them: each death costs milliseconds. A writer prints what was acknowledged.
# Uploads with a key are made in two parts, so that there is something to resume.
KILLER = """
import json, os, random, select, signal, sys
from pathlib import Path
from paglets.artifacts import ArtifactStore
from paglets.artifacts.errors import NotStoredError
from tests.artifacts.contents import content_of, files, sha

QUOTA = 12_000_000
root, seed, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
chance = random.Random(seed)

def opened():
    return ArtifactStore(root, host_url="http://h", quota_bytes=QUOTA)

def content(name):
    size = {"s": 300, "m": 70_000, "l": 1_500_000}[name[0]]
    return content_of(name.partition("-")[2], size)

def write(out, number):
    chance = random.Random(f"{seed}-{number}")
    store, mine = opened(), []
    for count in range(10**6):
        # Few different contents of each size, so that they are shared and come back after they went.
        name = f"{chance.choice('sssmml')}-{chance.randrange(6)}"
        data = content(name)
        if chance.random() < 0.2:
            with store.begin(name=name, size_bytes=len(data), expected_sha256=sha(data),
                             upload=sha(name.encode()), offset=store.upload_offset(sha(name.encode()))) as writer:
                half = max(writer.offset, len(data) // 2)
                writer.write(data[writer.offset:half])
                if chance.random() < 0.5:
                    continue
                writer.write(data[half:])
                mine.append(writer.finish().ref.artifact_id)
        else:
            with store.begin(name=name, size_bytes=chance.choice([-1, len(data)])) as writer:
                for start in range(0, len(data), 200_000):
                    writer.write(data[start:start + 200_000])
                mine.append(writer.finish().ref.artifact_id)
        os.write(out, f"made {mine[-1]}\\n".encode())
        while len(mine) > 3 or (mine and chance.random() < 0.3):
            gone = mine.pop(chance.randrange(len(mine)))
            os.write(out, f"deleting {gone}\\n".encode())
            store.delete(gone)
            os.write(out, f"deleted {gone}\\n".encode())

def killed(number):
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.close(ours)
        try:
            write(theirs, number)
        finally:
            os._exit(1)
    os.close(theirs)
    text = os.read(ours, 65536)
    assert text, "the writer died by itself"
    # At any moment of its next few steps.
    deadline = chance.random() * 0.03
    while select.select([ours], [], [], deadline)[0] and (more := os.read(ours, 65536)):
        text += more
        deadline = chance.random() * 0.01
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(ours, 65536):
        text += more
    os.close(ours)
    return [line.split() for line in text.decode().splitlines()]

made, deleting, deleted, parts, resumed = set(), set(), set(), 0, 0
for number in range(rounds):
    for what, artifact_id in killed(number):
        {"made": made, "deleting": deleting, "deleted": deleted}[what].add(artifact_id)
    parts += len([name for name in files(root) if name.endswith(".part")])
    store = opened()
    listed = {ref.artifact_id: ref for ref in store.list()}
    assert made - deleting <= listed.keys(), "acknowledged artifacts are gone"
    assert not deleted & listed.keys(), "deleted artifacts are back"
    unique = {}
    for ref in listed.values():
        data = content(ref.name)
        with store.open_reader(ref.artifact_id) as stream:
            assert stream.read() == data, "wrong bytes"
        assert (ref.size_bytes, ref.sha256) == (len(data), sha(data))
        unique[ref.sha256] = ref.size_bytes
    waiting = {part.key: part.received for part in store.blobs.waiting()}
    resumed += len(waiting)
    assert store.used_bytes == sum(unique.values()) + sum(waiting.values()), "the quota is wrong"
    found = {name for name in files(root) if name.startswith("tmp")}
    assert found == {f"tmp/{key}.{kind}" for key in waiting for kind in ("part", "json")}, found
    assert list(store.problems) == [], store.problems
    if number % 5 == 4:
        for artifact_id in listed:
            store.delete(artifact_id)
            deleting.add(artifact_id)
print(json.dumps([len(made), len(deleted), parts, resumed]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
def test_a_killed_host_loses_no_artifact_and_shows_no_half_of_one(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(tmp_path), "1", "40"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=80,
    )
    assert (done.returncode, done.stderr) == (0, "")
    made, deleted, parts, resumed = json.loads(done.stdout)
    # The deaths hit what they are meant to hit.
    assert made > 40
    assert deleted > 10
    assert parts > 0
    assert resumed > 0


# The same, but death comes before each single call that changes the disk, one after the other.
STEPS = """
import json, os, signal, sys
from pathlib import Path
from paglets.artifacts import ArtifactStore
from paglets.artifacts.errors import NotStoredError
from tests.artifacts.contents import content_of, files, sha

base = Path(sys.argv[1])
EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.chmod", "os.utime", "open", "os.truncate"}
KEY = "a" * 32
kept, resumed, moved = (content_of(name, 3000) for name in ("kept", "resumed", "moved"))
left = -1

def audit(event, args):
    # Opening to read changes nothing, and what is not below the base is none of ours.
    global left
    if left < 0 or event not in EVENTS or not str(args[0]).startswith(str(base)):
        return
    if event == "open" and not args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1

sys.addaudithook(audit)

def opened(root):
    return ArtifactStore(root / "store", host_url="http://h", quota_bytes=100_000)

def said(content):
    return {"size_bytes": len(content), "expected_sha256": sha(content)}

def act(root, say):
    store = opened(root)
    say("one", store.create_from_stream(__import__("io").BytesIO(kept)).ref.artifact_id)
    with store.begin(upload=KEY, **said(resumed)) as writer:
        writer.write(resumed[:1000])
    with store.begin(upload=KEY, offset=1000, **said(resumed)) as writer:
        writer.write(resumed[1000:])
        say("two", writer.finish().ref.artifact_id)
    # The same content once more, by another artifact.
    three = store.create_from_stream(__import__("io").BytesIO(resumed)).ref.artifact_id
    say("three", three)
    say("deleting three", three)
    store.delete(three)
    say("deleted three", three)
    with store.blobs.receive(**{"size": len(moved), "sha256": sha(moved)}) as writer:
        writer.write(moved)
        writer.commit()
    say("received", "")
    (root / "work").mkdir()
    for name in "xy":
        store.blobs.put_at(sha(moved), root / "work" / name, modified_at=1e9)
        say("put " + name, "")
    say("taking", "")
    assert store.blobs.take(root / "work" / "x", sha(moved))
    store.export_to_path(store.list()[0].artifact_id, root / "work" / "exported")
    store.delete_owner("")
    say("all", "")

def died(root, steps):
    global left
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.close(ours)
        left = steps
        act(root, lambda what, artifact_id: os.write(theirs, (what + "=" + artifact_id + "\\n").encode()))
        os._exit(0)
    os.close(theirs)
    with open(ours) as stream:
        heard = dict(line.strip().split("=") for line in stream)
    return heard, os.waitpid(child, 0)[1]

steps = 0
while True:
    root = base / str(steps)
    root.mkdir()
    heard, status = died(root, steps)
    store = opened(root)
    listed = {ref.artifact_id: ref for ref in store.list()}
    if "taking" not in heard:
        for name, content in (("one", kept), ("two", resumed), ("three", resumed)):
            if name in heard and ("deleting " + name) not in heard:
                with store.open_reader(heard[name]) as stream:
                    assert stream.read() == content, (steps, heard)
    assert heard.get("deleted three") not in listed
    if "all" in heard:
        assert not listed
    for ref in listed.values():
        with store.open_reader(ref.artifact_id) as stream:
            assert sha(stream.read()) == ref.sha256, (steps, heard)
    waiting = store.blobs.waiting()
    assert store.used_bytes == sum({ref.sha256: ref.size_bytes for ref in listed.values()}.values()) + sum(
        part.received for part in waiting
    )
    assert list(store.problems) == [], (steps, list(store.problems))
    for name in files(root / "store"):
        assert name.startswith(("blobs", "metadata")) or name.removeprefix("tmp/").startswith(KEY), (steps, name)
    for path in (root / "work").glob("*"):
        # A name is taken before the content is moved to it; hidden ones are removed with the work directory.
        assert path.name.startswith(".") or path.read_bytes() in (b"", kept, resumed, moved), (steps, path)
    if "received" in heard and "taking" not in heard:
        assert store.blobs.has(sha(moved)) or (root / "work" / "x").read_bytes() == moved, (steps, heard)
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL, status
    steps += 1
print(steps)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
def test_a_death_before_any_change_of_the_disk_leaves_the_store_in_order(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STEPS, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=80,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 40
