"""A paglet that surveys a directory tree together with its clones on other hosts, and carries the result around.

The story, which `SurveyPaglet.run` tells: the original plans the work at home and sends a clone to every other
host. All walk their shares at the same time, each into a SQLite file. The clones carry theirs home, where the original
merges them. Then it visits every host with the merged file, signs it there, and returns.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Final

from paglets.core.agent import Paglet, handler
from paglets.core.errors import HostError
from paglets.core.itinerary import ItineraryPlan
from paglets.examples.survey.models import (
    Counts,
    Share,
    ShareReport,
    Stage,
    SurveyProgress,
    SurveyReport,
    SurveyState,
)
from paglets.examples.survey.store import SurveyFile
from paglets.examples.survey.walk import plan_shares, walk
from paglets.remote.calls import CallOptions
from paglets.remote.proxy import PagletProxy
from paglets.remote.references import PagletProxyRef

RESULT: Final = "survey.sqlite"
SHARE: Final = "share.sqlite"
TELL_SECONDS: Final = 0.1
MERGE_TIMEOUT_SECONDS: Final = 600.0


class SurveyPaglet(Paglet[SurveyState]):
    """Survey the directory `state.root` together with clones on the hosts of `state.hosts`."""

    State = SurveyState

    def run(self) -> None:
        """Go on with whatever this paglet is about to do where it is.

        A move ends the process that asks for it, so nothing follows one here: the paglet begins `run` anew at its next
        host, and what it does there depends on nothing but the stage in its state.
        """
        match self.state.stage:
            case Stage.PLAN:
                self.share_the_work()
                self.walk_share()
                self.hand_over()
                self.wait_for_clones()
                self.set_out()
            case Stage.WALK:  # a clone woke up on its host
                self.walk_share()
                self.go_home()
            case Stage.CARRY:  # a clone came home
                self.hand_over()
                self.dispose()
            case Stage.TOUR:
                self.sign_result()
                self.go_on()

    # --- what everybody may ask -----------------------------------------------------------------------------------

    @handler
    def progress(self) -> SurveyProgress:
        """Return how far the survey has come."""
        with self.locked_state() as state:
            merged = [report.host for report in state.reports]
            return SurveyProgress(state.stage, dict(state.walked), merged)

    @handler
    def report(self, largest: int = 10) -> SurveyReport:
        """Return what came out, with so many of the largest files."""
        with SurveyFile(self.file_path(RESULT)) as result:
            return result.report(largest)

    @handler
    def save(self, target: Path) -> int:
        """Copy the result to a file on this machine and return its size."""
        shutil.copyfile(self.file_path(RESULT), target)
        return target.stat().st_size

    # --- what the clones say to the original ----------------------------------------------------------------------

    @handler
    def note(self, host: str, counts: Counts) -> None:
        """Take note of how far the walk on a host has come."""
        with self.locked_state() as state:
            if all(report.host != host for report in state.reports):  # a note may come later than the result
                state.walked[host] = counts

    @handler
    def take(self, share: ShareReport, path: Path) -> None:
        """Merge the finished share of a host, which is in a file here."""
        with SurveyFile(self.work_dir() / RESULT) as result:
            result.merge(path)
        with self.locked_state() as state:
            state.walked[share.host] = share.counts
            state.reports.append(share)
            self.notify_all_state_changed()

    # --- the steps of the story -----------------------------------------------------------------------------------

    def share_the_work(self) -> None:
        """Give every host its share, and send a clone to each but this one."""
        state = self.state
        hosts = [self.context.wait_for_host(name) for name in state.hosts]
        parts = plan_shares(state.root, len(hosts), skip=set(state.skip))
        with self.locked():
            state.shares = [Share(host.name, host.url, part) for host, part in zip(hosts, parts, strict=True)]
            state.home = PagletProxyRef(self.context.address, self.agent_id)
            # What a clone begins with is the state of now, so this is the stage in which it wakes up.
            state.stage = Stage.WALK
        for share in state.shares:
            if share.host != self.context.name:
                self.clone(share.url)

    def walk_share(self) -> None:
        """Walk the share of the host this paglet is on into a file, and have the file travel along."""
        state, host, home = self.state, self.context.name, self.home()
        share = next(share for share in state.shares if share.host == host)
        path = self.work_dir() / SHARE
        counts, started, told = Counts(), time.monotonic(), 0.0
        with SurveyFile(path) as result:
            for batch in walk(state.root, share.units, skip=set(state.skip)):
                result.add(batch)
                counts += batch.counts
                if time.monotonic() - told >= TELL_SECONDS:
                    told = time.monotonic()
                    # One way: the walk does not wait until the original has heard of it.
                    home.call_oneway(SurveyPaglet.note, host, counts)
            report = ShareReport(host, counts, time.monotonic() - started)
            result.finish(report)
        with self.locked():
            state.own = report
        # As a move: once this paglet has safely arrived elsewhere, the file is deleted here.
        self.register_file(path, name=SHARE, mode="move")

    def go_home(self) -> None:
        """Return to the original."""
        with self.locked():
            self.state.stage = Stage.CARRY
        self.dispatch(self.home().host_url)

    def hand_over(self) -> None:
        """Give the own share to the original, which for the original itself is a message like any other."""
        if self.state.own is None:
            raise HostError("there is nothing to hand over before the walk")
        # Merging a large share may take longer than other calls.
        patient = self.home().with_options(CallOptions(timeout=MERGE_TIMEOUT_SECONDS))
        patient.call(SurveyPaglet.take, self.state.own, self.file_path(SHARE))

    def wait_for_clones(self) -> None:
        """Wait until every share has been handed over; each one notifies."""
        self.wait_state(lambda state: len(state.reports) == len(state.shares))

    def set_out(self) -> None:
        """Leave the own share behind, take the merged result along, and begin the tour."""
        self.unregister_file(SHARE)
        self.register_file(self.work_dir() / RESULT, name=RESULT, mode="move")
        with self.locked_state() as state:
            elsewhere = [share.url for share in state.shares if share.host != self.context.name]
            state.route = ItineraryPlan([*elsewhere, self.context.address])
            state.stage = Stage.TOUR
        self.go_on()

    def go_on(self) -> None:
        """Go to the next host of the tour, or stay if this was the last."""
        if self.state.route.dispatch_next(self) is None:
            with self.locked():
                self.state.stage = Stage.DONE

    def sign_result(self) -> None:
        """Check that the result arrived sound, and write the name of this host into it."""
        with SurveyFile(self.file_path(RESULT)) as result:
            result.sign(self.context.name)

    def home(self) -> PagletProxy:
        """Return a proxy of the original."""
        if self.state.home is None:
            raise HostError("this survey has not begun")
        return self.state.home.resolve(self.context)
