"""The table of transitions: what holds for any of it, and random moves on a real ledger."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_node.errors import IllegalTransition
from dicom_node.ledger import COLLECTING, RETRYABLE, TRANSITIONS, Ledger, State


def test_every_state_has_its_line_in_the_table() -> None:
    assert set(TRANSITIONS) == set(State)


def test_every_state_can_be_reached_from_receiving() -> None:
    reached, border = {State.RECEIVING}, [State.RECEIVING]
    while border:
        for following in TRANSITIONS[border.pop()] - reached:
            reached.add(following)
            border.append(following)

    assert reached == set(State)


def test_no_state_is_followed_by_itself() -> None:
    assert not [state for state, following in TRANSITIONS.items() if state in following]


def test_only_committed_is_final() -> None:
    assert [state for state, following in TRANSITIONS.items() if not following] == [State.COMMITTED]


def test_what_can_be_retried_can_be_queued() -> None:
    assert all(State.QUEUED in TRANSITIONS[state] for state in RETRYABLE)


def test_a_job_can_be_cancelled_from_any_state_before_it_ended() -> None:
    ended = {State.DECLINED, State.DELIVERED, State.COMMITTED, State.FAILED, State.CANCELLED}

    assert {state for state in State if State.CANCELLED in TRANSITIONS[state]} == set(State) - ended


def test_collecting_jobs_can_become_complete() -> None:
    assert all(State.COMPLETE in TRANSITIONS[state] for state in COLLECTING)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return Ledger(f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'ledger.sqlite'}")


_studies = map(str, itertools.count())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=st.lists(st.sampled_from(State), max_size=12))
def test_random_moves_never_leave_the_table(ledger: Ledger, moves: list[State]) -> None:
    job = ledger.open_job(next(_studies), "every study", 1, None, 0.0, "Arriving.")
    path = [State.RECEIVING]
    for to in moves:
        legal = to in TRANSITIONS[path[-1]]
        try:
            job = ledger.move(job, to, f"To {to}.")
            assert legal
            path.append(to)
        except IllegalTransition:
            assert not legal

    assert ledger.job(job.id).state == path[-1]
    events = ledger.events(job.id)
    assert [event.after for event in events] == path
    assert [event.before for event in events] == [None, *path[:-1]]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(to=st.sampled_from(State), again=st.sampled_from(State))
def test_a_move_from_a_state_that_is_over_is_refused(ledger: Ledger, to: State, again: State) -> None:
    stale = ledger.open_job(next(_studies), "every study", 1, None, 0.0, "Arriving.")
    if to in TRANSITIONS[State.RECEIVING]:
        ledger.move(stale, to, "First.")

        with pytest.raises(IllegalTransition):
            ledger.move(stale, again, "Second, by one who has not seen the first.")

        assert ledger.job(stale.id).state == to
