"""The service that tells people what paglets have to say: on its terminal, on a desktop, in a log, to web hooks."""

from __future__ import annotations

import sys
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from paglets.core.agent import NOT_HANDLED, Paglet, PagletState
from paglets.core.errors import HostError, PagletError
from paglets.core.events import CreationEvent, PersistencyEvent
from paglets.core.messages import Message
from paglets.core.runtime_values import ResidentLifecycle, ServiceScope
from paglets.services.contracts import ServiceContract, ServiceOperation
from paglets.services.resident import ResidentServiceSpec
from paglets.system.user_info import outbox, webhooks
from paglets.system.user_info.desktop import desktop_command, show
from paglets.system.user_info.logfile import NotificationLog
from paglets.system.user_info.outbox import Delivery
from paglets.system.user_info.postman import Postman
from paglets.system.user_info.rates import RateLimit
from paglets.system.user_info.text import fields_of, line_of

HOOKS_VARIABLE: Final = "PAGLETS_NOTIFY_WEBHOOKS"
HEADERS_VARIABLE: Final = "PAGLETS_NOTIFY_HEADERS"
#: What the host reminds this paglet of while something is pending, so that it wakes for it.
DELIVER: Final = "user-info.deliver"
REMIND_SECONDS: Final = 60.0
_POSTMAN_RESOURCE: Final = "user-info-postman"


@dataclass(frozen=True, slots=True)
class UserInfoRequest:
    """Something to tell the user."""

    severity: str = "info"
    title: str = ""
    message: str = ""
    source_agent_id: str = ""
    job_id: str = ""
    timestamp: float = 0.0
    """Unix seconds; 0 for now."""
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UserInfoReply:
    """Whether it was taken."""

    ok: bool = True


NOTIFY_USER: Final = ServiceOperation("notify", UserInfoRequest, UserInfoReply)
USER_INFO: Final = ServiceContract("user-info", (NOTIFY_USER,))


@dataclass
class UserInfoState(PagletState):
    """Whom to tell, and what is still to be posted."""

    service_scope: ServiceScope = ServiceScope.MESH
    webhooks: list[str] = field(default_factory=list)
    """URLs to post to."""
    webhooks_env: str = HOOKS_VARIABLE
    """Environment variable with further URLs, separated by blanks; for those that are secrets."""
    webhook_headers_env: str = HEADERS_VARIABLE
    """Environment variable with headers for all of them: a JSON object, or lines like `Authorization: Bearer …`."""
    webhook_timeout: float = 5.0
    """Seconds for one attempt."""
    log_file: str = ""
    """Where notifications are appended as JSON lines; an absolute path that ends in `.jsonl` or `.log`."""
    log_max_bytes: int = 10 * 1024 * 1024
    log_backups: int = 3
    desktop: bool = True
    """Whether they are shown on a desktop, where there is one."""
    rate_per_minute: float = 60.0
    """How many of one source are taken in a minute; five times as many of all."""
    pending: list[Delivery] = field(default_factory=list)
    undelivered_count: int = 0
    """Posts that were given up."""


class UserInfoAgent(Paglet[UserInfoState]):
    """Pass notifications on to people.

    What is to be posted is on disk before the sender hears that it was taken, and is tried again until it is delivered,
    refused or a day old. A post may reach its target twice; both have the same `id`.
    """

    State = UserInfoState
    RESIDENT_SERVICES: ClassVar[tuple[ResidentServiceSpec, ...]] = (
        ResidentServiceSpec(
            USER_INFO,
            scope=ServiceScope.MESH,
            lifecycle=ResidentLifecycle.LAZY,
            agent_id="service.user-info",
            idle_timeout=30.0,
        ),
    )

    def __init__(self, state: UserInfoState | None = None, *, agent_id: str | None = None) -> None:
        super().__init__(state, agent_id=agent_id)
        self._limit = RateLimit(self.state.rate_per_minute, now=time.monotonic())
        self._postman: Postman | None = None
        self._showing = threading.Lock()

    def on_creation(self, event: CreationEvent) -> None:
        """Check what is configured, and offer the service.

        :raises HostError: something configured makes no sense.
        """
        self._begin()

    def on_activation(self, event: PersistencyEvent) -> None:
        """Offer the service again, and go on with what is pending."""
        self._begin()
        if self.state.pending:
            self._post_soon()

    def _begin(self) -> None:
        state = self.state
        if not 0 < state.webhook_timeout <= 60:
            raise HostError(f"webhook_timeout must be between 0 and 60 s, not {state.webhook_timeout!r}")
        if not 0 < state.rate_per_minute <= 6000:
            raise HostError(f"rate_per_minute must be between 0 and 6000, not {state.rate_per_minute!r}")
        webhooks.targets(state.webhooks, state.webhooks_env)
        webhooks.headers(state.webhook_headers_env)
        self._log()
        self.advertise_contract(USER_INFO, scope=state.service_scope)

    def handle_message(self, message: Message) -> Any:
        """Answer the operation of the contract, and the reminder to post."""
        if message.kind == DELIVER:
            self._post_soon()
            return None
        return USER_INFO.route(message, {NOTIFY_USER: self.notify}, default=NOT_HANDLED)

    def on_deactivating(self, event: PersistencyEvent) -> None:
        """Tell how many notifications were held back since somebody was told so last."""
        self._tell_held_back()

    def on_disposing(self, event: PersistencyEvent) -> None:
        """Tell the same."""
        self._tell_held_back()

    def notify(self, request: UserInfoRequest) -> UserInfoReply:
        """Pass a notification on.

        One of too many is taken as well, but only counted: the number is what people are told. Refusing it would make
        the sender try the services of all other hosts.
        """
        now = time.time()
        if not self._limit.admits(request.source_agent_id, now=time.monotonic()):
            return UserInfoReply()
        self._tell_held_back()
        notice = fields_of(
            request.severity,
            title=request.title,
            message=request.message,
            source_agent_id=request.source_agent_id,
            job_id=request.job_id,
            timestamp=request.timestamp,
            metadata=request.metadata,
            now=now,
        )
        _print(line_of(notice))
        self._write(notice)
        self._show(notice)
        self._post(notice, now)
        return UserInfoReply()

    def _tell_held_back(self) -> None:
        count = self._limit.take_held_back()
        if count:
            text = f"{count} notifications were held back, because there were too many"
            notice = fields_of("warning", message=text, now=time.time())
            _print(line_of(notice))
            self._write(notice)

    # --- the ways -----------------------------------------------------------------------------------------------------

    def _log(self) -> NotificationLog | None:
        state = self.state
        if not state.log_file:
            return None
        return NotificationLog(state.log_file, max_bytes=state.log_max_bytes, backups=state.log_backups)

    def _write(self, notice: dict[str, Any]) -> None:
        log = self._log()
        if log is None:
            return
        try:
            log.write(notice)
        except OSError as exc:  # it was printed, and the other ways are still to go
            _print(f"a notification could not be written to {log.path}: {exc.strerror or exc}")

    def _show(self, notice: dict[str, Any]) -> None:
        command = None
        if self.state.desktop:
            command = desktop_command(notice["severity"], notice["title"], notice["message"])
        if command is None or not self._showing.acquire(blocking=False):
            return  # a desktop that is busy with one notification needs no second one

        def work() -> None:
            try:
                error = show(command)
            finally:
                self._showing.release()
            if error:
                _print(f"a notification could not be shown on the desktop: {error}")

        threading.Thread(target=work, name="paglet-desktop", daemon=True).start()

    def _post(self, notice: dict[str, Any], now: float) -> None:
        targets = webhooks.targets(self.state.webhooks, self.state.webhooks_env)
        if not targets:
            return
        # `text` is what chat programs show.
        body = notice | {"text": line_of(notice), "host_name": self.context.name, "host_url": self.context.address}
        new = [Delivery(uuid.uuid4().hex, name, body, created_at=now, next_at=now) for name in targets]
        with self.locked_state() as state:
            first = not state.pending
            state.pending, lost = outbox.with_new(state.pending, new)
            state.undelivered_count += len(lost)
        if lost:
            _print(f"{len(lost)} notifications were not posted, because too many are pending")
        if first:
            self.remind(DELIVER, every=REMIND_SECONDS)
        self.checkpoint()
        self._post_soon()

    def _post_soon(self) -> None:
        if self._postman is None:
            self._postman = Postman(self.locked_state, self._post_all, self._nothing_pending)
            self.resources.register(_POSTMAN_RESOURCE, self._stop_posting)
        self._postman.hurry()

    def _stop_posting(self) -> None:
        postman, self._postman = self._postman, None
        if postman is not None:
            # What is under way is waited for, so that it need not be posted again.
            postman.stop(self.state.webhook_timeout + 1)

    def _post_all(self, deliveries: list[Delivery]) -> list[webhooks.Attempt]:
        state = self.state
        urls = webhooks.targets(state.webhooks, state.webhooks_env)
        return webhooks.post_all(deliveries, urls, webhooks.headers(state.webhook_headers_env), state.webhook_timeout)

    def _nothing_pending(self) -> None:
        try:
            self.forget(DELIVER)
            if self.state.pending:  # something came meanwhile
                self.remind(DELIVER, every=REMIND_SECONDS)
        except PagletError as exc:
            _print(f"the reminder to post notifications could not be set: {exc}")


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - this is what the service does
