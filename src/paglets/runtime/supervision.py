"""Watch over the processes of a host's paglets: what it means when one ends by itself, and who is started again.

What to do is decided by :mod:`paglets.protocol.supervision`; here it is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paglets.core.chance import CHANCE
from paglets.core.errors import PagletCrashedError
from paglets.core.policies import RestartPolicy
from paglets.protocol.supervision import InHand, Rerun, Restart, back_off
from paglets.runtime.agents import AgentEntry, Phase
from paglets.runtime.place import Place, describe_exit

if TYPE_CHECKING:
    from paglets.runtime.kernel import Kernel

#: How often it is tried again to bring a paglet back whose process dies over that.
MOST_RECOVERIES = 3
_RECOVERIES = RestartPolicy(restarts=MOST_RECOVERIES, backoff=0.25)
#: For a paglet nothing of which can be recorded; it is never given up.
_RELOADS = RestartPolicy(backoff=0.05, max_backoff=5.0)


def reload_pause(earlier: int) -> float:
    """Return the seconds before a paglet is started again from its row, which it was ahead of.

    :param earlier: how often in a row that has happened before.
    """
    return back_off(_RELOADS, earlier - 1) if earlier else 0.0


class Watch:
    """Watch over the processes of one host; runs on its loop."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def lost(self, entry: AgentEntry, place: Place) -> None:
        """Hear that a process ended without being told to."""
        if entry.place is not place or entry.phase in (Phase.GONE, Phase.CRASHED):
            return
        if entry.phase is Phase.STARTING:
            return  # whoever starts it gets the error of its request
        code = place.exitcode
        self.crash(entry, describe_exit(code) if code is not None else "process ended")

    def reload(self, entry: AgentEntry, why: str) -> None:
        """End the process of a paglet that is ahead of its row, and start it again from that.

        At once the first time, and after growing pauses as long as nothing that it does can be recorded: the message
        was accepted, so it is handled again and again until the disk has room.
        """
        if entry.current is not None:
            # It had no part in this, and nothing of what its handler does will be on disk.
            entry.verdict = Rerun(entry.current.message_id, 0)
        self._stop(entry, why)
        self._restart_after(reload_pause(entry.reloads), entry, "recovery")
        entry.reloads += 1

    def show_crashed(self, entry: AgentEntry, error: str) -> None:
        """Let a paglet be seen as crashed: it could not be started, or was so already when the host started."""
        entry.phase = Phase.CRASHED
        entry.restarting = False
        entry.error = error
        self._kernel.messages.release(entry, PagletCrashedError(f"paglet {entry.agent_id} crashed: {error}"))

    def crash(self, entry: AgentEntry, error: str) -> None:
        """Note a death that nobody asked for, and do as the paglet's restart policy says."""
        if entry.crashed:
            return
        delivery = entry.current
        in_hand = None if delivery is None else InHand(delivery.message_id, delivery.oneway)
        entry.deaths, verdict = entry.deaths.died(self._kernel.loop.time(), entry.restart, entry.durability, in_hand)
        entry.verdict = verdict.message
        self._stop(entry, error)
        if isinstance(verdict.process, Restart):
            self._restart_after(verdict.process.after, entry, "restart")
            return
        entry.restarting = False
        self._kernel.messages.release(entry, PagletCrashedError(f"paglet {entry.agent_id} crashed: {error}"))
        self._kernel.background(self._kernel.vault.crashed(entry.agent_id, entry.class_name, entry.epoch, error))

    def failed_to_restart(self, entry: AgentEntry, error: str) -> None:
        """Note that a paglet could not be started again, which counts as one more death."""
        self.crash(entry, f"restart failed: {error}")
        entry.release_held()

    def recover_again(self, entry: AgentEntry, error: str) -> bool:
        """Hear that a process died with which a paglet was to be brought back after the death of its host.

        Whatever killed it, such as the want of memory of a machine on which everything starts at once, may be over
        soon; and nobody is there yet to revive it.

        :return: whether it is tried again; the messages for the paglet wait for that.
        """
        if entry.recoveries >= MOST_RECOVERIES or self._kernel.closing:
            return False
        self._stop(entry, error)
        self._restart_after(back_off(_RECOVERIES, entry.recoveries), entry, "recovery")
        entry.recoveries += 1
        return True

    def _restart_after(self, pause: float, entry: AgentEntry, reason: str) -> None:
        entry.restarting = True
        self._kernel.loop.call_later(pause * CHANCE.uniform(1.0, 1.2), self._restart, entry, reason)

    def _restart(self, entry: AgentEntry, reason: str) -> None:
        if entry.restarting and entry.crashed and not self._kernel.closing:
            self._kernel.background(self._kernel.revive(entry, reason))

    def _stop(self, entry: AgentEntry, error: str) -> None:
        place = entry.place
        entry.phase = Phase.CRASHED
        entry.exitcode = place.exitcode if place is not None else None
        entry.crashed_pid = place.pid if place is not None else None
        entry.error = error
        entry.mailbox.pause()
        entry.wake_idle_waiters()
        for tell in self._kernel.on_departed:
            tell(entry)
        self._kernel.emit(
            "paglet-crashed", entry, data={"pid": entry.crashed_pid, "exitcode": entry.exitcode}, error=error
        )
        if place is not None and place.alive:
            place.kill()

    def run_ended(self, entry: AgentEntry, place: Place, error: Exception | None) -> None:
        """Hear that the ``run`` of a process returned, or raised."""
        future = place.run_ended
        if future is None or future.done():
            return
        if error is None:
            future.set_result(None)
            return
        future.set_exception(error)
        future.exception()  # whether anybody waits or not, it has been seen
        if entry.active and entry.place is place and not entry.creating:
            self.crash(entry, f"run failed: {type(error).__name__}: {error}")
