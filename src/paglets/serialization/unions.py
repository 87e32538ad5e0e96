"""Unions: which member a value is, on the way out and on the way in.

On the way in the exact type decides first (`int | str` with "5" is text), then the dataclass whose fields are just the
keys, then the first member that converts. A value for which this would pick another member than the one it came from
carries the name of its member in a tagged dict, so that `Path | str` gives back a path for a path.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, Literal, NamedTuple, get_args, get_origin

from paglets.serialization import hints
from paglets.serialization.kinds import (
    LEAVES,
    MEMBER_TAG,
    TEXT_SCALARS,
    Decoder,
    MisfitError,
    is_binary_tag,
    is_value_tag,
    type_name,
    untag_binary,
)
from paglets.serialization.packing import Encoder, Sink
from paglets.serialization.restore import restore

_TEXT_TYPES = frozenset(cls for cls, _, _, _ in TEXT_SCALARS)


class Member(NamedTuple):
    """One member of a union."""

    hint: Any
    label: str
    runtime: type | None
    """The type its values have, None when that says nothing (Any, Literal, NewTypes)."""
    wire: frozenset[type]
    """The types its values have on the wire; empty when it needs no care."""
    keys: frozenset[str] | None
    """The field names of a dataclass."""


def _member(hint: Any) -> Member:
    origin = get_origin(hint) or hint
    keys: frozenset[str] | None = None
    wire: frozenset[type] = frozenset()
    runtime: type | None = origin if isinstance(origin, type) and origin is not object else None
    if hints.is_dataclass_type(hint):
        keys = frozenset(field.name for field in hints.class_plan(hint).fields)
    elif hints.is_typed_dict(hint):
        runtime = dict
        wire = frozenset({dict})
    elif origin is Literal:
        wire = frozenset(type(option) for option in get_args(hint))
    elif runtime is None:
        pass
    elif runtime in LEAVES:
        wire = frozenset({runtime})
    elif origin in hints.DICT_HINTS:
        runtime, wire = dict if origin.__module__ == "collections.abc" else runtime, frozenset({dict})
    elif origin in hints.LIST_HINTS or origin in hints.SET_HINTS or hints.is_named_tuple(hint):
        runtime = _concrete.get(origin.__name__, runtime) if origin.__module__ == "collections.abc" else runtime
        wire = frozenset({list})
    elif issubclass(runtime, enum.Enum):
        wire = frozenset(type(member.value) for member in runtime)
    elif issubclass(runtime, PurePath):
        wire = frozenset({str})
    elif runtime is memoryview:
        wire = frozenset({bytes})
    label = runtime.__name__ if runtime is not None else hints.describe(hint)
    return Member(hint, label, runtime, wire, keys)


_concrete: dict[str, type] = {"Set": set, "MutableSet": set}
_ACCEPTS: dict[type | None, frozenset[type]] = {
    float: frozenset({int}),
    int: frozenset({bool}),
    bytearray: frozenset({bytes}),
    memoryview: frozenset({bytearray}),
}
"""What a decoder takes besides its own wire type."""


def _members(hint: Any) -> list[Member]:
    members = [_member(item) for item in hints.union_members(hint)]
    labels = [member.label for member in members]
    return [
        member if labels.count(member.label) == 1 else member._replace(label=_long_label(member)) for member in members
    ]


def _long_label(member: Member) -> str:
    runtime = member.runtime
    return member.label if runtime is None else f"{runtime.__module__}:{runtime.__qualname__}"


def _needs_name(position: int, members: list[Member]) -> bool:
    """Return whether decoding the wire form of this member could pick another one."""
    member = members[position]
    if member.runtime in member.wire or get_origin(member.hint) is Literal:
        return False
    if member.keys is not None:
        return any(member.keys == other.keys for other in members[:position])
    return any(
        member.wire & (other.wire | _ACCEPTS.get(other.runtime, frozenset()))
        and (other.runtime in member.wire or index < position)
        for index, other in enumerate(members)
        if index != position
    )


def union_encoder(hint: Any, encoder_of: Callable[[Any], Encoder], encode_any: Encoder) -> Encoder:
    """Return the encoder of a union, given the encoders of its members and of values of whatever kind."""
    members = _members(hint)
    if all(member.hint in hints.NATIVE_SCALARS for member in members):
        return encode_any
    runtimes = [member.runtime for member in members]
    table: list[tuple[type, Encoder]] = []
    names: dict[type, str] = {}
    for position, member in enumerate(members):
        if member.runtime is None or runtimes.count(member.runtime) > 1 or member.runtime in _TEXT_TYPES | {complex}:
            continue  # nothing to choose by, or better tagged with its kind
        table.append((member.runtime, encoder_of(member.hint)))
        if _needs_name(position, members):
            names[member.runtime] = member.label
    exact = dict(table)
    lookalikes = {member.keys for member in members if member.keys is not None}

    def encode(value: Any, sink: Sink | None) -> Any:
        kind: type | None = type(value)
        encode_member = exact.get(type(value))
        if encode_member is None:
            kind, encode_member = next(
                ((base, item) for base, item in table if isinstance(value, base)), (None, encode_any)
            )
        wire = encode_member(value, sink)
        if kind in names:
            return {MEMBER_TAG: names[kind], "value": wire}
        if kind is dict and lookalikes and frozenset(wire) in lookalikes:
            return {MEMBER_TAG: "dict", "value": wire}
        return wire

    return encode


def union_decoder(hint: Any, decoder_of: Callable[[Any], Decoder]) -> Decoder:
    """Return the decoder of a union, given the decoders of its members."""
    members = _members(hint)
    decoders = [decoder_of(member.hint) for member in members]
    by_name = {member.label: decode for member, decode in zip(members, decoders, strict=True)}
    by_kind: dict[type, list[Decoder]] = {}
    for member, decode in zip(members, decoders, strict=True):
        if member.runtime is not None:
            by_kind.setdefault(member.runtime, []).append(decode)
    by_keys = [
        (member.keys, decode) for member, decode in zip(members, decoders, strict=True) if member.keys is not None
    ]
    takes_any = restore in decoders

    def candidates(value: Any) -> list[Decoder]:
        chosen = list(by_kind.get(type(value), ()))
        if isinstance(value, dict):
            chosen[:0] = [decode for keys, decode in by_keys if keys == value.keys()]
        return chosen

    def decode_union(value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, dict) and len(value) == 2:
            if MEMBER_TAG in value and "value" in value:
                decode_named = by_name.get(str(value[MEMBER_TAG]))
                if decode_named is not None:
                    return decode_named(value["value"])
            elif is_binary_tag(value):
                value = untag_binary(value)
            elif is_value_tag(value):
                value = restore(value)
        first: MisfitError | None = None
        attempts = 0
        for decode_member in (*candidates(value), *decoders):
            try:
                return decode_member(value)
            except MisfitError as misfit:
                # The member that got furthest knows best what is wrong.
                attempts += 1
                if first is None or len(misfit.parts) > len(first.parts):
                    first = misfit
        if first is not None and first.parts:
            raise first
        raise MisfitError(f"expected {hints.describe(hint)}, got {type_name(value)}")

    return decode_union if not takes_any or len(decoders) > 1 else restore
