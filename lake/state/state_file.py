"""The file of a meter's state: load it, save it, and check that nothing else has changed it."""

from __future__ import annotations

import hashlib

import msgspec

from lake import paths
from lake.decoding import decode
from lake.state.rebuild import rebuild_state
from lake.state.records import KnownMeter, MeterState
from lake.storage import Storage
from schemas.errors import BrokenLakeError


class _DefinitionOnly(msgspec.Struct):
    """The definition in a state's file, without the rest."""

    definition: KnownMeter | None = None


def load_state(storage: Storage, meter: str) -> MeterState:
    """Return the state of a meter from its file, or rebuilt; see `decode_or_rebuild_state`."""
    return decode_or_rebuild_state(storage, meter, storage.read(paths.state(meter)))


def decode_or_rebuild_state(storage: Storage, meter: str, body: bytes | None) -> MeterState:
    """Return the state in the `body` of a meter's file; without one, rebuilt from the aggregates' metadata.

    A rebuilt state has no checksum. Raises BrokenLakeError if the file is not a state.
    """
    return rebuild_state(storage, meter) if body is None else _decode(meter, body)


def known_definition(body: bytes) -> KnownMeter | None:
    """Return only the definition in a state's file; None if it has none, or is not a state."""
    try:
        return decode(body, _DefinitionOnly, "not a state file", where="").definition
    except BrokenLakeError:
        return None


def save_state(storage: Storage, meter: str, state: MeterState, stored: str = "") -> str:
    """Publish the state of a meter unless `stored`, the checksum of its file, is the same; return the checksum."""
    state.partitions = dict(sorted(state.partitions.items()))
    body = _encode(state)
    if state.checksum != stored:
        storage.publish(paths.state(meter), body)
    return state.checksum


def _decode(meter: str, body: bytes) -> MeterState:
    """Return the state in a meter's file. Raises BrokenLakeError if it is not a state, or was changed."""
    hint = "remove it; the next run rebuilds it from the aggregates"
    where, expected = paths.state(meter), "the JSON of a state"
    state = decode(body, MeterState, "not a state file", where=where, expected=expected, hint=hint)
    expected = hashlib.sha256(
        body.replace(state.checksum.encode(), b"", 1) if state.checksum else body
    ).hexdigest()
    if state.checksum != expected:
        raise BrokenLakeError(
            "the state file was changed",
            where=where,
            expected=expected,
            found=state.checksum or "no checksum",
            hint=hint,
        )
    return state


def _encode(state: MeterState) -> bytes:
    """Return the content of the state's file, and set the state's checksum."""
    state.checksum = ""
    state.checksum = hashlib.sha256(msgspec.json.encode(state)).hexdigest()
    return msgspec.json.encode(state)
