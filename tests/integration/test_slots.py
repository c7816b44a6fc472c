"""Slots of a real server, held by real processes: shared, waited for, freed when a holder is lost."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from core.planning.admission import turn_of
from settings.errors import RetrainError
from tasks.slots import PrefectLimits
from tests.commands import HANG_S, ROOT, PrefectServer, environment, post, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """One whose leases are looked at every second."""
    found = PrefectServer(
        tmp_path_factory.mktemp("prefect"), PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS="1"
    )
    try:
        found.start()
        yield found
    finally:
        found.stop()


@pytest.fixture
def client(server: PrefectServer) -> Iterator[SyncPrefectClient]:
    with temporary_settings({PREFECT_API_URL: server.api}), get_client(sync_client=True) as found:
        yield found


@pytest.fixture
def card(server: PrefectServer, request: pytest.FixtureRequest) -> str:
    """A limit of 24 slots of its own, with its turn."""
    limit = f"can-vram-{abs(hash(request.node.name))}"
    for name, slots in ((limit, 24), (turn_of(limit), 1)):
        post(f"{server.api}/v2/concurrency_limits/", name=name, limit=slots)
    return limit


@contextmanager
def holder(server: PrefectServer, limit: str, slots: int, *flags: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that waits for slots, and then holds them."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.slot_holder", limit, str(slots), *flags],
        cwd=ROOT,
        env=environment(PREFECT_API_URL=server.api),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdin
        assert process.stdout
        process.stdin.close()
        process.stdout.close()


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def let_go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin
    process.stdin.close()
    assert process.wait(HANG_S) == 0


def held(server: PrefectServer, limit: str) -> int:
    found = {one["name"]: one["active_slots"] for one in post(f"{server.api}/v2/concurrency_limits/filter")}
    return int(found[limit])


def test_phases_share_a_card_and_one_that_does_not_fit_waits_its_turn(
    server: PrefectServer, card: str
) -> None:
    with holder(server, card, 10) as first, holder(server, card, 10) as second:
        assert (said(first), said(second)) == ("granted", "granted")
        with holder(server, card, 20, "--priority") as large:
            wait_for(lambda: held(server, turn_of(card)) == 1, large)
            with holder(server, card, 2) as small:  # it would fit, but must not overtake
                let_go(first)
                let_go(second)
                assert said(large) == "granted"
                assert said(small) == "granted"
                assert held(server, card) == 22
                let_go(small)
                let_go(large)
    assert (held(server, card), held(server, turn_of(card))) == (0, 0)


def test_slots_of_a_killed_holder_are_free_after_its_lease_and_an_outage_of_the_server_frees_none(
    server: PrefectServer, card: str
) -> None:
    with holder(server, card, 12) as victim, holder(server, card, 12) as survivor:
        assert (said(victim), said(survivor)) == ("granted", "granted")
        with holder(server, card, 12) as waiting:
            victim.kill()
            server.kill()
            time.sleep(3.0)
            server.start()
            # The victim's slots become free only when its lease has run out, a minute after it began.
            assert said(waiting) == "granted"
            assert held(server, card) == 24
            let_go(waiting)
        assert survivor.poll() is None
        let_go(survivor)
    assert (held(server, card), held(server, turn_of(card))) == (0, 0)


def test_slots_whose_lease_is_gone_are_taken_again_unless_others_have_them(
    server: PrefectServer, card: str, client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    renew, are_gone = SyncPrefectClient.renew_concurrency_lease, threading.Event()

    def renew_then(*args: Any, **lease: Any) -> None:
        are_gone.wait()
        renew(*args, **lease)

    monkeypatch.setattr(SyncPrefectClient, "renew_concurrency_lease", renew_then)
    monkeypatch.setattr("tasks.slots._RENEW_S", 1.0)
    lost: list[str] = []
    kept = PrefectLimits(client, None, lambda: lost.append("kept")).take(card, 4)
    slots = PrefectLimits(client, None, lambda: lost.append("lost")).take(card, 20)
    assert kept
    assert slots
    for one in (kept, slots):  # as a server does whose clock was far ahead for a while
        client.release_concurrency_slots_with_lease(lease_id=one._lease_id)
    other = PrefectLimits(client, None, lambda: None).take(card, 20)
    assert other
    are_gone.set()
    wait_for(lambda: lost and held(server, card) == 24)
    assert lost == ["lost"]
    for one in (kept, slots, other):
        one.give_back()
    assert held(server, card) == 0


def test_a_limit_that_is_missing_is_named_with_what_makes_it(client: SyncPrefectClient) -> None:
    limits = PrefectLimits(client, None, lambda: None)
    with pytest.raises(RetrainError, match="no concurrency limit can-vram-none: run `python -m deployments"):
        limits.capacities(["can-vram-none"])
    with pytest.raises(RetrainError, match="can-vram-none"):
        limits.take("can-vram-none", 1)
