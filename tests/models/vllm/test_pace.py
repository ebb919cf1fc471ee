"""How the limit of calls in flight follows what a server says."""

from __future__ import annotations

from lbt_sim.models.vllm.metrics import Snapshot
from lbt_sim.models.vllm.pace import LEAST, Pace


class Server:
    """Runs so many calls at once and queues the rest; more than its cache holds push each other out."""

    def __init__(self, slots: int, holds: int = 10**9) -> None:
        self.slots, self.holds = slots, holds
        self.preempted = 0

    def given(self, calls: int) -> Snapshot:
        running = min(calls, self.slots, self.holds)
        full = min(1.0, min(calls, self.slots) / self.holds)
        self.preempted += min(calls, self.slots) > self.holds
        return Snapshot(running=running, waiting=calls - running, cache_use=full, preempted=self.preempted)


def settled(server: Server, pace: Pace, looks: int = 40, calls: int = 10**6) -> list[int]:
    """The limits of the last looks, while so many calls want in."""
    limits = []
    for _ in range(looks):
        now = server.given(min(calls, pace.limit))
        limits.append(pace.look(now, wanted=calls > pace.limit, pushed_back=0))
    return limits[-10:]


def test_a_server_is_kept_full_with_a_few_calls_in_its_queue() -> None:
    for slots in (8, 64, 256, 1000):
        limits = settled(Server(slots), Pace())
        assert min(limits) >= slots, slots
        assert max(limits) <= 1.6 * slots + LEAST, slots


def test_without_calls_that_wait_nothing_grows() -> None:
    pace = Pace()
    assert settled(Server(500), pace, calls=10) == [64] * 10


def test_a_full_cache_lets_fewer_in() -> None:
    limits = settled(Server(256, holds=100), Pace(limit=256))
    assert max(limits) < 150


def test_a_call_sent_back_halves_the_limit_and_it_stays_for_a_while() -> None:
    pace, busy = Pace(limit=100), Snapshot(running=20, waiting=0)
    assert pace.look(busy, wanted=True, pushed_back=3) == 50
    assert [pace.look(busy, wanted=True, pushed_back=3) for _ in range(4)] == [50] * 4
    assert pace.look(busy, wanted=True, pushed_back=3) == 100


def test_the_scenarios_cap_holds() -> None:
    pace = Pace(most=3)
    assert pace.limit == 3
    assert settled(Server(64), pace) == [3] * 10


def test_a_server_that_says_nothing_is_given_no_less() -> None:
    pace = Pace()
    assert pace.look(Snapshot(), wanted=False, pushed_back=0) == 64


def test_a_server_without_figures_is_given_no_more_however_much_waits() -> None:
    pace = Pace()
    assert [pace.look(Snapshot(), wanted=True, pushed_back=0) for _ in range(9)] == [64] * 9


def test_a_server_without_figures_that_sends_calls_back_gets_half_and_slowly_what_it_had() -> None:
    pace = Pace()
    assert pace.look(Snapshot(), wanted=True, pushed_back=1) == 32
    assert pace.look(Snapshot(), wanted=True, pushed_back=7) == 16
    limits = [pace.look(Snapshot(), wanted=True, pushed_back=7) for _ in range(40)]
    assert limits[:6] == [16, 16, 16, 16, 20, 24]
    assert limits[-1] == 64


def test_no_number_of_refusals_stops_all_calls() -> None:
    pace = Pace()
    assert min(pace.look(Snapshot(), wanted=True, pushed_back=number) for number in range(1, 30)) == LEAST
