"""How an order comes to all workers: one after the other, whoever dies, is late or says no."""

from service.processes.line import Asked, Order, Report, Telling, Told, Verdict
from service.processes.relay import REACH_S, Relay

UNLOAD, LOAD = Order(about="x", what="unload"), Order(about="x", what="load")
OTHER = Order(about="y", what="unload")


class Stage:
    """A relay among workers 1, 2 and 3, on a clock of its own."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, Telling]] = []
        self.relay = Relay(lambda worker, telling: self.sent.append((worker, telling)))
        self.living = {1, 2, 3}
        self.now = 0.0

    def hears(self, worker: int, message: Asked | Report) -> None:
        self.relay.hear(worker, message)
        self.goes_on()

    def goes_on(self) -> None:
        self.relay.step(self.living, self.now)

    def asks(self, worker: int, order: Order, ticket: int = 1) -> None:
        self.hears(worker, Asked(ticket=ticket, order=order))

    def reports(self, worker: int, number: int, accepted: bool = True, why: str = "") -> None:
        self.hears(worker, Report(number=number, accepted=accepted, why=why))

    def said(self) -> list[tuple[int, Telling]]:
        """Since the last look."""
        said, self.sent[:] = list(self.sent), []
        return said


def told(number: int, order: Order, ticket: int | None = None) -> Told:
    return Told(number=number, order=order, ticket=ticket)


def verdict(number: int, *refusals: str, silent: int = 0) -> Verdict:
    return Verdict(number=number, refusals=refusals, silent=silent)


def begun(order: Order = UNLOAD) -> Stage:
    """Worker 2 was asked and has accepted, the others are told."""
    stage = Stage()
    stage.asks(2, order, ticket=7)
    assert stage.said() == [(2, told(1, order, ticket=7))]
    assert stage.relay.held == ()
    stage.reports(2, 1)
    assert stage.said() == [(1, told(1, order)), (3, told(1, order))]
    return stage


def test_whoever_was_asked_goes_first_and_hears_when_all_are_done() -> None:
    stage = begun()
    stage.reports(1, 1)
    assert stage.said() == []
    stage.reports(3, 1)
    assert stage.said() == [(2, verdict(1))]


def test_what_the_first_refuses_goes_no_further() -> None:
    stage = Stage()
    stage.asks(2, UNLOAD)
    stage.asks(3, OTHER)
    stage.said()
    stage.reports(2, 1, accepted=False)
    assert stage.said() == [(3, told(2, OTHER, ticket=1))]
    assert stage.relay.held == ()


def test_one_order_at_a_time_in_the_order_of_arrival() -> None:
    stage = begun()
    stage.asks(3, LOAD)
    stage.asks(1, OTHER)
    stage.reports(1, 1)
    assert stage.said() == []
    stage.reports(3, 1)
    assert stage.said() == [(2, verdict(1)), (3, told(2, LOAD, ticket=1))]


def test_what_another_refuses_is_said() -> None:
    stage = begun()
    stage.reports(3, 1, accepted=False, why="no room")
    stage.reports(1, 1)
    assert stage.said() == [(2, verdict(1, "no room"))]


def test_the_dead_hold_nobody_up() -> None:
    stage = begun()
    stage.living = {1, 2}
    stage.reports(1, 1)
    assert stage.said() == [(2, verdict(1))]


def test_who_hangs_is_not_waited_for_and_may_answer_later() -> None:
    stage = begun()
    stage.reports(1, 1)
    stage.now = REACH_S
    stage.goes_on()
    assert stage.said() == [(2, verdict(1, silent=1))]
    stage.asks(1, LOAD)
    stage.said()
    stage.reports(3, 1)
    assert stage.said() == []
    stage.reports(1, 2)
    assert stage.said() == [(2, told(2, LOAD)), (3, told(2, LOAD))]


def test_one_that_dies_before_its_turn_or_in_it_changes_nothing() -> None:
    stage = Stage()
    stage.asks(1, UNLOAD)
    stage.asks(2, LOAD)
    stage.asks(3, OTHER)
    stage.living = {3}
    stage.goes_on()
    assert stage.said() == [(1, told(1, UNLOAD, ticket=1)), (3, told(2, OTHER, ticket=1))]
    assert stage.relay.held == ()


def test_one_that_dies_after_it_accepted_is_followed() -> None:
    stage = begun()
    stage.living = {1, 3, 4}
    stage.reports(1, 1)
    stage.reports(3, 1)
    assert stage.said() == []
    assert stage.relay.held == (UNLOAD,)


def test_of_all_orders_about_one_thing_the_last_holds() -> None:
    stage = Stage()
    stage.living = {1}
    for number, order in enumerate((UNLOAD, OTHER, LOAD), 1):
        stage.asks(1, order)
        stage.reports(1, number)
    assert set(stage.relay.held) == {LOAD, OTHER}
