"""Dead letters are listed, delivered again and cleared; none goes before its message was accepted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from paglets.core.errors import ConflictError, InvalidAgentError, NotFoundError, PagletError, RemoteHostError
from paglets.core.messages import Message
from paglets.persistence.journal import Journal
from paglets.persistence.persistency import QueuedMessage
from paglets.persistence.rows import DeadLetter
from paglets.persistence.tables import dead_letters
from paglets.runtime.dead_letters import DeadLetterDesk
from paglets.serialization.values import pack

HERE = "http://alpha:1"


class Post:
    """Accept messages, except to those who are gone or unreachable."""

    def __init__(self) -> None:
        self.delivered: list[tuple[str, str, str, bool]] = []
        self.attempts = 0
        self.refuse: dict[str, PagletError] = {}
        self.held: asyncio.Event | None = None
        self.entered = asyncio.Event()

    async def __call__(self, host_url: str, agent_id: str, message: Message, oneway: bool, /) -> None:
        self.attempts += 1
        self.entered.set()
        if self.held is not None:
            await self.held.wait()
        if agent_id in self.refuse:
            raise self.refuse[agent_id]
        self.delivered.append((host_url, agent_id, message.kind, oneway))


class Scene:
    """A desk on a loop, with letters."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.post = Post()
        self.desk = DeadLetterDesk(journal, self.on_disk, self.post)
        journal.attach(asyncio.get_running_loop())

    async def on_disk(self, work: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.to_thread(work, *args)

    async def die(self, agent_id: str, kind: str = "tick", host_url: str = HERE, **fields: Any) -> int:
        message = Message(kind, sender="sender", **fields)
        body = bytes(pack(QueuedMessage(message, oneway=True, queued_at=5.0).to_wire()))
        letter = DeadLetter(0, 7.0, agent_id, host_url, message.message_id, kind, "it ended", body)
        return await self.journal.write(lambda connection: dead_letters.add(connection, letter))

    async def left(self) -> list[int]:
        return [letter["letter_id"] for letter in await self.desk.listing()]


def play(tmp_path: Path, story: Callable[[Scene], Coroutine[Any, Any, None]]) -> None:
    """Tell a story on a loop of its own, with a journal that is closed afterwards."""

    async def tell() -> None:
        with Journal(tmp_path / "journal.db") as journal:
            await asyncio.wait_for(story(Scene(journal)), 20)

    asyncio.run(tell())


def test_letters_are_listed_by_id_and_receiver(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        first, second, third = [await scene.die(agent_id) for agent_id in ("a", "b", "a")]
        listed = await scene.desk.listing()
        assert [letter["letter_id"] for letter in listed] == [first, second, third]
        assert set(listed[0]) == {
            "letter_id", "died_at", "agent_id", "host_url", "message_id", "kind", "reason", "size_bytes",
        }  # fmt: skip
        assert (listed[0]["reason"], listed[0]["died_at"], listed[0]["host_url"]) == ("it ended", 7.0, HERE)
        assert [letter["letter_id"] for letter in await scene.desk.listing(agent_id="a")] == [first, third]
        assert [letter["letter_id"] for letter in await scene.desk.listing(since=first, limit=1)] == [second]
        assert await scene.desk.listing(limit=0) == []
        assert await scene.desk.count() == 3

    play(tmp_path, story)


def test_one_letter_has_its_message(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        letter = await scene.desk.get(await scene.die("a", "put", args={"x": [1, b"\0"]}))
        assert letter["message"]["args"] == {"x": [1, b"\0"]}
        assert (letter["message"]["kind"], letter["message"]["sender"]) == ("put", "sender")
        assert (letter["oneway"], letter["queued_at"]) == (True, 5.0)

    play(tmp_path, story)


def test_an_accepted_letter_is_gone(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        first, second = await scene.die("a"), await scene.die("b")
        await scene.desk.retry(second)
        assert scene.post.delivered == [(HERE, "b", "tick", True)]
        assert await scene.left() == [first]

    play(tmp_path, story)


def test_a_letter_that_is_refused_again_stays(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        letter_id = await scene.die("a")
        scene.post.refuse["a"] = InvalidAgentError("no paglet a")
        with pytest.raises(InvalidAgentError, match="no paglet a"):
            await scene.desk.retry(letter_id)
        assert await scene.left() == [letter_id]
        scene.post.refuse.clear()
        await scene.desk.retry(letter_id)
        assert await scene.left() == []

    play(tmp_path, story)


def test_an_unknown_letter_is_an_error(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        for act in (scene.desk.get, scene.desk.retry, scene.desk.clear):
            with pytest.raises(NotFoundError, match="no dead letter 5"):
                await act(5)

    play(tmp_path, story)


def test_a_letter_is_delivered_by_one_at_a_time(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        letter_id = await scene.die("a")
        scene.post.held = asyncio.Event()
        first = asyncio.create_task(scene.desk.retry(letter_id))
        await scene.post.entered.wait()
        with pytest.raises(ConflictError, match="being delivered already"):
            await scene.desk.retry(letter_id)
        scene.post.held.set()
        await first
        assert len(scene.post.delivered) == 1

    play(tmp_path, story)


def test_all_are_delivered_in_order_and_the_report_says_what_was_not(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        kinds = [("a", "one"), ("gone", "two"), ("a", "three"), ("gone", "four")]
        ids = [await scene.die(agent_id, kind) for agent_id, kind in kinds]
        scene.post.refuse["gone"] = InvalidAgentError("no paglet gone")

        report = await scene.desk.retry_all()

        assert [kind for _, _, kind, _ in scene.post.delivered] == ["one", "three"]
        # The second letter to the one that is gone was not tried: none overtakes another.
        assert scene.post.attempts == 3
        failure = {"error_type": "InvalidAgentError", "error": "no paglet gone"}
        assert report.to_wire() == {
            "accepted": [ids[0], ids[2]],
            "failed": [{"letter_id": ids[1], **failure}, {"letter_id": ids[3], **failure}],
            "untried": 0,
        }
        assert await scene.left() == [ids[1], ids[3]]

    play(tmp_path, story)


def test_a_host_that_cannot_be_reached_is_tried_once(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        for agent_id in ("far", "farther"):
            await scene.die(agent_id, host_url="http://beta:2")
            scene.post.refuse[agent_id] = RemoteHostError("could not reach http://beta:2")
        await scene.die("near")
        report = await scene.desk.retry_all()
        assert (len(report.accepted), len(report.failed), scene.post.attempts) == (1, 2, 2)

    play(tmp_path, story)


def test_only_the_letters_of_one_paglet_are_retried_or_cleared(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        ids = [await scene.die(agent_id) for agent_id in ("a", "b", "a", "b", "c")]
        report = await scene.desk.retry_all(agent_id="a", limit=1)
        assert report.accepted == [ids[0]]
        assert await scene.desk.clear_all(agent_id="b") == 2
        assert await scene.left() == [ids[2], ids[4]]
        await scene.desk.clear(ids[2])
        assert await scene.desk.clear_all() == 1
        assert await scene.desk.count() == 0

    play(tmp_path, story)


def test_more_than_a_page_of_letters_is_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paglets.runtime.dead_letters.MAX_LISTED", 2)

    async def story(scene: Scene) -> None:
        scene.post.refuse["gone"] = InvalidAgentError("no paglet gone")
        ids = [await scene.die(agent_id) for agent_id in ("gone", "a", "gone", "a", "a", "a")]
        report = await scene.desk.retry_all(limit=5)
        assert report.accepted == [ids[1], ids[3], ids[4]]
        assert [failure["letter_id"] for failure in report.failed] == [ids[0], ids[2]]
        assert await scene.left() == [ids[0], ids[2]]  # two are listed at once
        assert await scene.desk.count() == 3

    play(tmp_path, story)


def test_a_listing_has_the_size_of_what_it_does_not_read(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        small, large = await scene.die("a"), await scene.die("a", args={"data": b"x" * 100_000})
        sizes = [letter["size_bytes"] for letter in await scene.desk.listing()]
        assert sizes == [(await scene.desk.get(each))["size_bytes"] for each in (small, large)]
        assert sizes[1] - sizes[0] > 99_000

    play(tmp_path, story)


def test_a_retry_of_all_ends_in_time(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        ids = [await scene.die(agent_id) for agent_id in ("a", "b")]
        report = await scene.desk.retry_all(seconds=0)
        assert (report.accepted, report.failed, report.untried) == ([], [], 2)
        assert await scene.left() == ids

    play(tmp_path, story)
