"""The journal under deaths and full disks that are real: other processes, killed or short of room."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from paglets.persistence.journal import Journal
from paglets.persistence.states import INLINE_BYTES
from paglets.persistence.tables import handled, outbox, paglets, queued

# Every unit writes its number to four tables. What is printed was acknowledged.
WRITER = """
import os, sys, threading
from itertools import count
from paglets.persistence.journal import Journal
from paglets.persistence.tables import handled, outbox, paglets, queued
from tests.persistence.journal_rows import handled_message, inline, message, put

journal = Journal(sys.argv[1])
large = int(sys.argv[2])

def unit(agent_id, name):
    def work(c):
        assert paglets.update_state(c, agent_id, 1, ref)
        handled.remember(c, agent_id, handled_message(name))
        outbox.add(c, agent_id, "http://h", "b", name.encode())
        queued.enqueue(c, agent_id, message(name), max_count=10**6, max_bytes=10**9)
    ref = journal.states.keep(name.encode().ljust(large if name.endswith("7") else 10))
    return work

def acknowledge(name):
    def done(value, error):
        assert error is None, error
        os.write(1, name.encode() + b"\\n")
    return done

def write(agent_id, epoch):
    for number in count():
        name = f"{agent_id}-{epoch}-{number}"
        if number % 3:
            journal.submit(unit(agent_id, name), acknowledge(name))
        else:
            journal.write_now(unit(agent_id, name))
            os.write(1, name.encode() + b"\\n")

for agent_id in ("a0", "a1", "a2"):
    if journal.read(lambda c: paglets.get(c, agent_id)) is None:
        journal.write_now(lambda c: put(c, agent_id))
threads = [threading.Thread(target=write, args=(f"a{n}", sys.argv[3]), daemon=True) for n in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


@pytest.mark.parametrize("large", [0, INLINE_BYTES + 1], ids=["small", "large"])
def test_a_killed_process_loses_nothing_that_it_acknowledged(tmp_path: Path, large: int) -> None:
    path = tmp_path / "host" / "journal.db"
    acknowledged: list[str] = []
    for round_number, lines in enumerate((1, 40, 7, 150)):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(large), str(round_number)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        ) as writer:
            assert writer.stdout is not None
            acknowledged += [writer.stdout.readline().strip() for _ in range(lines)]
            writer.kill()
            # What was printed before the kill counts; a last line may be torn.
            acknowledged += [line.strip() for line in writer.stdout if line.endswith("\n")]
            writer.wait()
        with Journal(path) as journal:
            assert journal.warnings == []
            sent = journal.read(lambda c: [row.body.decode() for row in outbox.pending(c, 10**6)])
            assert set(acknowledged) <= set(sent)
            assert len(set(sent)) == len(sent)
            named = set(journal.read(paglets.state_files))
            kept = {found.name for found in journal.states.directory.glob("*")}
            assert kept == named
            for agent_id in ("a0", "a1", "a2"):
                mine = [name for name in sent if name.startswith(agent_id)]
                found = journal.read(lambda c, a=agent_id: paglets.get(c, a))
                if found is None:
                    assert mine == []
                    continue
                assert [
                    item.message.message_id for _, item in journal.read(lambda c, a=agent_id: queued.waiting(c, a))
                ] == mine
                window = journal.read(lambda c, a=agent_id: handled.window(c, a))
                assert [item.message_id for item in window] == mine[-handled.WINDOW :]
                state = journal.states.load(found[1]).decode().strip()
                assert state == (mine[-1] if mine else "state")


# A file size limit stands for a full disk: the write to the log fails in the middle of a commit.
FULL = """
import os, resource, sys, threading
from pathlib import Path
from paglets.core.errors import InsufficientStorageError
from paglets.persistence.journal import Journal
from paglets.persistence.tables import outbox

path = Path(sys.argv[1])
journal = Journal(path)

def adds(name, size):
    return lambda c: outbox.add(c, name, "http://h", "b", os.urandom(size))

def hold():
    entered, leave = threading.Event(), threading.Event()
    journal.submit(lambda c: (entered.set(), leave.wait()), lambda value, error: None)
    entered.wait()
    return leave

journal.write_now(adds("before", 10))
most = path.with_name("journal.db-wal").stat().st_size + 400_000
resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
outcomes = []
leave = hold()
for name, size, key in (("a", 10, "a"), ("large", 2_000_000, "k"), ("after", 10, "k"), ("b", 10, "b")):
    def done(value, error, name=name):
        outcomes.append((name, None if error is None else type(error)))
    journal.submit(adds(name, size), done, key=key)
leave.set()
journal.write_now(adds("c", 10))
expected = [("a", None), ("large", InsufficientStorageError), ("after", InsufficientStorageError), ("b", None)]
assert outcomes == expected, outcomes
try:
    journal.states.keep(os.urandom(4_000_000))
except InsufficientStorageError:
    assert list(journal.states.directory.iterdir()) == []
else:
    raise AssertionError("the state was kept")

# The log may not grow, but what is in it can move to the file: far more than fits into the log goes through.
row = journal.write_now(adds("again", 10_000))
for number in range(200):
    body = os.urandom(10_000)
    journal.write_now(lambda c: c.execute("UPDATE outbox SET body = ? WHERE position = ?", (body, row)))
assert path.with_name("journal.db-wal").stat().st_size <= most

resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.release("k")
journal.write_now(adds("room", 2_000_000))
print("fine", flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of the file size")
def test_a_full_disk_fails_what_is_too_large_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "host" / "journal.db"
    ended = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, timeout=60)
    assert ended.stdout == "fine\n", ended.stderr
    with Journal(path) as journal:
        assert journal.warnings == []
        assert [row.sender_id for row in journal.read(outbox.pending)] == ["before", "a", "b", "c", "again", "room"]
