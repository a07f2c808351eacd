"""Which requests were in the workers that died."""

from __future__ import annotations

import pytest

from server.crashes import CRASHES_REFUSED, PLACES, CrashRecord, Flight, digest
from server.errors import CrashedBefore

BODY, OTHER = b'{"a": 1}', b'{"a": 2}'


def test_a_request_is_known_by_its_route_and_body() -> None:
    assert digest("/v1/x", BODY) == digest("/v1/x", BODY)
    assert len({digest("/v1/x", BODY), digest("/v1/y", BODY), digest("/v1/x", OTHER)}) == 3


def test_who_was_in_every_crash_is_refused_and_nobody_else() -> None:
    record = CrashRecord()
    for number in range(CRASHES_REFUSED):
        flight, bystander = Flight(record, "/v1/x"), Flight(record, "/v1/y")
        flight.enter(BODY)
        if number:
            bystander.enter(OTHER)
        assert record.add_crash("SIGSEGV", 1.0).requests == 1 + bool(number)
    with pytest.raises(CrashedBefore):
        Flight(record, "/v1/x").enter(BODY)
    Flight(record, "/v1/y").enter(OTHER)
    Flight(record, "/v1/y").enter(BODY)


def test_an_answered_request_is_not_blamed() -> None:
    record = CrashRecord()
    for _ in range(CRASHES_REFUSED):
        flight = Flight(record, "/v1/x")
        flight.enter(BODY)
        flight.leave()
        assert record.add_crash("SIGABRT", 1.0).requests == 0
    Flight(record, "/v1/x").enter(BODY)


def test_more_requests_than_places_still_run() -> None:
    record = CrashRecord()
    flights = [Flight(record, "/v1/x") for _ in range(PLACES + 3)]
    for number, flight in enumerate(flights):
        flight.enter(str(number).encode())
    for flight in flights:
        flight.leave()
    flights[0].enter(BODY)
    assert record.add_crash("SIGKILL", 1.0).requests == 1


def test_readiness_is_the_workers_and_ends_with_it() -> None:
    record = CrashRecord()
    assert not record.was_ready
    record.mark_ready()
    assert record.was_ready
    record.add_crash("SIGSEGV", 1.0)
    assert not record.was_ready
