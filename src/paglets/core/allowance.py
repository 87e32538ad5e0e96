"""What a paglet may use up: moves, clones, time and room for its state; and what is left of it.

Pure: times are Unix seconds and passed in. An `Allowance` is what somebody gives, an `AllowanceBalance` is what the
hosts keep of it and a paglet carries. None of its numbers grows by anything that a paglet does: a move between hosts
takes one hop, and a clone takes one clone and half of what is left then. Only `AllowanceGrant.applied`, which an
operator asks for, adds to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Final

from paglets.core.errors import AllowanceExceededError, SerializationError
from paglets.core.wire import WirePayload
from paglets.core.wire_fields import WireFields

MOST_COUNT: Final = 1 << 53
"""The largest count, and the largest number of bytes."""
LONGEST_LIFETIME: Final = 1e10
"""Seconds; the longest lifetime (317 years)."""
UNLIMITED: Final = "unlimited"
"""In a grant: without a limit from now on."""


class AllowanceKind(StrEnum):
    """Which part of an allowance."""

    HOPS = "hops"
    """Moves from one host to another."""
    CLONES = "clones"
    """Copies, its own and those of its copies."""
    LIFETIME = "lifetime"
    """Time."""
    STATE = "state"
    """Size of the state, as it travels and is stored."""


def _least(one: Any, other: Any) -> Any:
    return min((each for each in (one, other) if each is not None), default=None)


def _count_or_none(wire: WireFields, name: str) -> int | None:
    value: Any = wire.get(name)
    if value is not None and type(value) is not int:
        raise SerializationError(f"{name} must be a whole number")
    return value


def _check_count(value: Any, name: str) -> None:
    if value is not None and not (type(value) is int and 0 <= value <= MOST_COUNT):
        raise ValueError(f"{name} must be a whole number of at least 0, not {value!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a paglet may use up; None is unlimited.

    :raises ValueError: a number is out of range.
    """

    max_hops: int | None = None
    """Moves from one host to another. A clone begins with what its original has left."""
    max_clones: int | None = None
    """Clones, with those that its clones make."""
    lifetime: float | None = None
    """Seconds from its creation."""
    max_state_bytes: int | None = None
    """Size of its state."""

    def __post_init__(self) -> None:
        for name in ("max_hops", "max_clones", "max_state_bytes"):
            _check_count(getattr(self, name), name)
        lifetime = self.lifetime
        if lifetime is not None and not (_is_number(lifetime) and 0 <= lifetime <= LONGEST_LIFETIME):
            raise ValueError(f"lifetime must be a number of seconds of at least 0, not {lifetime!r}")

    @property
    def limits(self) -> bool:
        """Whether anything is limited."""
        return self != NO_LIMITS

    def within(self, other: Allowance) -> Allowance:
        """Return the smaller of each part."""
        return Allowance(*(_least(getattr(self, each.name), getattr(other, each.name)) for each in fields(self)))

    def opened(self, now: float) -> AllowanceBalance:
        """Return what a paglet has that begins to live now."""
        return AllowanceBalance(
            hops_left=self.max_hops,
            clones_left=self.max_clones,
            expires_at=None if self.lifetime is None else now + self.lifetime,
            max_state_bytes=self.max_state_bytes,
        )

    def to_wire(self) -> WirePayload:
        """Return the allowance as plain values."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @classmethod
    def from_wire(cls, payload: WirePayload | None) -> Allowance:
        """Restore an allowance; None and missing keys are unlimited.

        :raises SerializationError: a field has the wrong type, or a number is out of range.
        """
        if payload is None:
            return NO_LIMITS
        wire = WireFields(payload, "allowance")
        unknown = sorted(set(payload) - {each.name for each in fields(cls)})
        if unknown:
            # A limit that is misspelt would be none at all.
            raise SerializationError(f"allowance has no {', '.join(map(repr, unknown))}")
        try:
            return cls(
                _count_or_none(wire, "max_hops"),
                _count_or_none(wire, "max_clones"),
                wire.number_or_none("lifetime"),
                _count_or_none(wire, "max_state_bytes"),
            )
        except ValueError as exc:
            raise SerializationError(str(exc)) from None


NO_LIMITS: Final = Allowance()
"""The allowance of a paglet of which nobody said anything."""


@dataclass(frozen=True, slots=True)
class AllowanceExcess:
    """That a paglet would go beyond, or has gone beyond, a part of its allowance."""

    which: AllowanceKind
    limit: float
    """How much it may: a number of moves or clones, a Unix time, or bytes."""
    used: float
    """How much it has used, the time it is, or how many bytes it would have; 0 where that is not known any more."""

    def error(self, agent_id: str) -> AllowanceExceededError:
        """Return the error that whoever asked for it gets."""
        match self.which:
            case AllowanceKind.HOPS:
                times = "once" if self.used == 1 else f"{self.used:.0f} times"
                what = f"has moved {times}, as often as it may" if self.used else "may not move to another host"
            case AllowanceKind.CLONES:
                what = "has no clones left to make"
            case AllowanceKind.LIFETIME:
                what = f"has lived for as long as it may, until Unix time {self.limit:.0f}"
            case AllowanceKind.STATE:
                seen = f"{self.used:.0f}" if self.used else "more"
                what = f"may have a state of {self.limit:.0f} bytes, not {seen}"
        option = f"--{self.which.value}"
        error = AllowanceExceededError(
            f"paglet {agent_id} {what}; whoever looks after its host can grant it more: "
            f"paglets allowance grant {agent_id} {option} ..."
        )
        error.excess = self
        return error

    def to_wire(self) -> WirePayload:
        """Return it as the data of an event."""
        return {"which": self.which.value, "limit": self.limit, "used": self.used}


@dataclass(frozen=True, slots=True)
class AllowanceBalance:
    """What a paglet has used of its allowance, and what is left; None is unlimited."""

    hops_used: int = 0
    """Moves from one host to another since it was created, by it and, before it was a clone, by its original."""
    hops_left: int | None = None
    clones_used: int = 0
    """Clones that it made itself."""
    clones_left: int | None = None
    """Clones that it may still make or give to its clones."""
    expires_at: float | None = None
    """Unix time at which it is put to sleep."""
    max_state_bytes: int | None = None
    exceeded: AllowanceKind | None = None
    """For what it was put to sleep; it does not wake before it is granted more of that."""

    @property
    def limits(self) -> bool:
        """Whether anything is limited."""
        return (self.hops_left, self.clones_left, self.expires_at, self.max_state_bytes) != (None,) * 4

    def hop(self) -> AllowanceBalance:
        """Return what is left after a move to another host.

        :raises ValueError: there is no hop left.
        """
        if self.hops_left == 0:
            raise ValueError("no hop is left")
        left = None if self.hops_left is None else self.hops_left - 1
        return replace(self, hops_used=self.hops_used + 1, hops_left=left)

    def split(self) -> tuple[AllowanceBalance, AllowanceBalance]:
        """Return what the original keeps when it is cloned, and what the clone gets.

        The clone takes one of the clones that are left. The rest is halved, the odd one stays with the original. All
        else is the same for both.

        :raises ValueError: there is no clone left.
        """
        if self.clones_left == 0:
            raise ValueError("no clone is left")
        kept = given = None
        if self.clones_left is not None:
            given = (self.clones_left - 1) // 2
            kept = self.clones_left - 1 - given
        original = replace(self, clones_used=self.clones_used + 1, clones_left=kept)
        return original, replace(self, clones_used=0, clones_left=given, exceeded=None)

    def capped(self, cap: Allowance, now: float) -> AllowanceBalance:
        """Return no more than an allowance that is given now."""
        if not cap.limits:
            return self
        most = cap.opened(now)
        return replace(
            self,
            hops_left=_least(self.hops_left, most.hops_left),
            clones_left=_least(self.clones_left, most.clones_left),
            expires_at=_least(self.expires_at, most.expires_at),
            max_state_bytes=_least(self.max_state_bytes, most.max_state_bytes),
        )

    def as_cap(self, now: float) -> Allowance:
        """Return what is left as an allowance that is given now."""
        lifetime = None if self.expires_at is None else min(LONGEST_LIFETIME, max(0.0, self.expires_at - now))
        return Allowance(self.hops_left, self.clones_left, lifetime, self.max_state_bytes)

    def no_hop(self) -> AllowanceExcess | None:
        """Return why it may not move to another host, None where it may."""
        return AllowanceExcess(AllowanceKind.HOPS, self.hops_used, self.hops_used) if self.hops_left == 0 else None

    def no_clone(self) -> AllowanceExcess | None:
        """Return why it may not be cloned, None where it may."""
        if self.clones_left != 0:
            return None
        return AllowanceExcess(AllowanceKind.CLONES, self.clones_used, self.clones_used)

    def over(self, now: float) -> AllowanceExcess | None:
        """Return that its time is over, None where it is not."""
        if self.expires_at is None or now < self.expires_at:
            return None
        return AllowanceExcess(AllowanceKind.LIFETIME, self.expires_at, now)

    def too_large(self, state_bytes: int) -> AllowanceExcess | None:
        """Return that its state is too large, None where it is not."""
        if self.max_state_bytes is None or state_bytes <= self.max_state_bytes:
            return None
        return AllowanceExcess(AllowanceKind.STATE, self.max_state_bytes, state_bytes)

    def held(self, now: float) -> AllowanceExcess | None:
        """Return why it may not wake, None where it may."""
        match self.exceeded:
            case AllowanceKind.HOPS:
                return AllowanceExcess(AllowanceKind.HOPS, self.hops_used, self.hops_used)
            case AllowanceKind.CLONES:
                return AllowanceExcess(AllowanceKind.CLONES, self.clones_used, self.clones_used)
            case AllowanceKind.STATE:
                return AllowanceExcess(AllowanceKind.STATE, self.max_state_bytes or 0, 0)
        return self.over(now)

    def to_wire(self) -> WirePayload:
        """Return the balance as plain values."""
        return {
            "hops_used": self.hops_used,
            "hops_left": self.hops_left,
            "clones_used": self.clones_used,
            "clones_left": self.clones_left,
            "expires_at": self.expires_at,
            "max_state_bytes": self.max_state_bytes,
            "exceeded": None if self.exceeded is None else self.exceeded.value,
        }

    @classmethod
    def from_wire(cls, payload: WirePayload | None) -> AllowanceBalance:
        """Restore a balance; None and missing keys are unlimited and unused.

        :raises SerializationError: a field has the wrong type, or a number is out of range.
        """
        if payload is None:
            return NOTHING_USED
        wire = WireFields(payload, "allowance balance")
        counts = {
            name: _count_or_none(wire, name)
            for name in ("hops_used", "hops_left", "clones_used", "clones_left", "max_state_bytes")
        }
        expires_at, exceeded = wire.number_or_none("expires_at"), wire.text_or_none("exceeded")
        try:
            for name, value in counts.items():
                _check_count(value, name)
            if expires_at is not None and not _is_number(expires_at):
                raise ValueError("expires_at must be a Unix time")
            return cls(
                counts["hops_used"] or 0,
                counts["hops_left"],
                counts["clones_used"] or 0,
                counts["clones_left"],
                expires_at,
                counts["max_state_bytes"],
                None if exceeded is None else AllowanceKind(exceeded),
            )
        except ValueError as exc:
            raise SerializationError(f"malformed allowance balance: {exc}") from None


NOTHING_USED: Final = AllowanceBalance()
"""The balance of a paglet without limits that has never moved."""


@dataclass(frozen=True, slots=True)
class AllowanceGrant:
    """What an operator changes of what a paglet has left; None leaves a part as it is.

    A part is `5` or `"5"` for so much from now on, `"+5"` and `"-5"` for more or less than what is left, and
    `"unlimited"`. Of a lifetime it is seconds: from now, or later than what was set before, as long as that is not
    over.

    :raises ValueError: a part is none of these.
    """

    hops: int | str | None = None
    clones: int | str | None = None
    lifetime: float | str | None = None
    """Seconds."""
    state: int | str | None = None
    """Bytes."""
    _changes: dict[AllowanceKind, tuple[str, float]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        changes = {}
        for kind in AllowanceKind:
            value = getattr(self, kind.value)
            if value is not None:
                changes[kind] = _change(kind, value)
        if not changes:
            raise ValueError("nothing is granted: say how many hops or clones, how much lifetime, or what state size")
        object.__setattr__(self, "_changes", changes)

    def applied(self, balance: AllowanceBalance, now: float) -> AllowanceBalance:
        """Return what a paglet has after the grant."""
        new = balance
        for kind, change in self._changes.items():
            match kind:
                case AllowanceKind.HOPS:
                    new = replace(new, hops_left=_changed(balance.hops_left, change))
                case AllowanceKind.CLONES:
                    new = replace(new, clones_left=_changed(balance.clones_left, change))
                case AllowanceKind.LIFETIME:
                    new = replace(new, expires_at=_expiry(balance.expires_at, change, now))
                case AllowanceKind.STATE:
                    new = replace(new, max_state_bytes=_changed(balance.max_state_bytes, change))
        return replace(new, exceeded=None) if _is_more(balance, new) else new

    def to_wire(self) -> WirePayload:
        """Return the grant as plain values."""
        return {kind.value: getattr(self, kind.value) for kind in self._changes}


def _is_more(before: AllowanceBalance, after: AllowanceBalance) -> bool:
    """Tell whether a paglet that was held may go on."""
    match before.exceeded:
        case AllowanceKind.HOPS:
            return after.hops_left != 0
        case AllowanceKind.CLONES:
            return after.clones_left != 0
        case AllowanceKind.STATE:
            old, new = before.max_state_bytes, after.max_state_bytes
            return new is None or old is None or new > old
        case AllowanceKind.LIFETIME:
            return after.expires_at != before.expires_at
    return False


def _change(kind: AllowanceKind, value: float | str) -> tuple[str, float]:
    """Return how a number changes, `+`, `-`, `=` or `unlimited`, and by how much."""
    if value == UNLIMITED:
        return UNLIMITED, 0
    sign, digits = "=", value
    if isinstance(value, str):
        text = value.strip()
        sign, digits = (text[0], text[1:]) if text[:1] in ("+", "-") else ("=", text)
    wanted = "seconds" if kind is AllowanceKind.LIFETIME else "a whole number"
    problem = f"{kind.value} must be {wanted} like 5, +5 or -5, or unlimited, not {value!r}"
    try:
        if isinstance(digits, bool) or (isinstance(digits, str) and not digits[:1].isdigit()):
            raise ValueError(problem)
        number = float(digits) if kind is AllowanceKind.LIFETIME else int(digits)
        if kind is not AllowanceKind.LIFETIME and number != (float(digits) if isinstance(digits, str) else digits):
            raise ValueError(problem)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(problem) from None
    most = LONGEST_LIFETIME if kind is AllowanceKind.LIFETIME else MOST_COUNT
    if not 0 <= number <= most:
        raise ValueError(f"{kind.value} must be between 0 and {most:g}, not {value!r}")
    return sign, number


def _changed(left: int | None, change: tuple[str, float]) -> int | None:
    sign, number = change[0], int(change[1])
    if sign == UNLIMITED:
        return None
    if sign == "=":
        return number
    if left is None:
        return None
    return max(0, min(MOST_COUNT, left + number if sign == "+" else left - number))


def _expiry(expires_at: float | None, change: tuple[str, float], now: float) -> float | None:
    sign, seconds = change
    if sign == UNLIMITED:
        return None
    if sign == "=":
        return now + seconds
    if expires_at is None:
        return None
    return max(expires_at, now) + seconds if sign == "+" else expires_at - seconds


def grant_of(payload: Mapping[str, Any]) -> AllowanceGrant:
    """Restore a grant from plain values.

    :raises ValueError: it grants nothing, or a part is malformed.
    """
    return AllowanceGrant(**{kind.value: payload.get(kind.value) for kind in AllowanceKind})
