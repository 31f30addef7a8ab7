"""What a destination is asked next, and how its N-EVENT-REPORT is read."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydicom.dataset import Dataset

from dicom_node.commitment import UnusableReport, new_transaction, read_report
from dicom_node.confirm import Step, is_lost, next_step
from dicom_node.ledger import ConfirmationRow, DeliveryState, How

HOUR = 3600.0
NOW = 100 * HOUR


def asked(how: How = How.N_ACTION, ago: float = HOUR, ended: float | None = None) -> ConfirmationRow:
    """Return a question that was asked so many seconds ago and ended so many seconds ago."""
    return ConfirmationRow(
        "2.25.1", "job", "pacs", how, NOW - ago, None if ended is None else NOW - ended, 0, 0
    )


@pytest.mark.parametrize(
    ("before", "step"),
    [
        ([], Step.COMMIT),
        ([asked(ago=60)], Step.WAIT),
        ([asked(ago=3 * HOUR)], Step.FIND),
        ([asked(ended=5)], Step.WAIT),
        ([asked(ended=61)], Step.COMMIT),
        ([asked(ended=HOUR), asked(ended=100)], Step.WAIT),
        ([asked(ended=HOUR), asked(ended=121)], Step.COMMIT),
        ([asked(ended=HOUR)] * 3, Step.FIND),
        ([asked(How.C_FIND, ended=HOUR)] * 3, Step.COMMIT),
        ([asked(ago=3 * HOUR), asked(How.C_FIND, ended=HOUR)], Step.FIND),
    ],
    ids=[
        "never asked",
        "asked a minute ago",
        "silent for hours",
        "answered just now",
        "answered a while ago",
        "the pauses grow",
        "but end",
        "asked often enough",
        "queries count for themselves",
        "silent before",
    ],
)
def test_a_destination_is_asked_by_what_it_was_asked_before(
    before: list[ConfirmationRow], step: Step
) -> None:
    assert next_step(before, NOW) == step


@pytest.mark.parametrize(
    ("before", "lost"),
    [
        ([asked(How.C_FIND, ago=1)], False),
        ([asked(How.C_FIND, ago=500, ended=500), asked(How.C_FIND, ago=1)], False),
        ([asked(How.C_FIND, ago=700, ended=700), asked(How.C_FIND, ago=1)], True),
        ([asked(How.N_ACTION, ago=3 * HOUR), asked(How.QIDO_RS, ago=1)], False),
        ([replace(asked(How.C_FIND, ago=700, ended=650), lost=2), asked(How.C_FIND, ago=1)], False),
    ],
    ids=["first query", "archive may be indexing", "long enough", "only queries count", "sent again since"],
)
def test_what_a_query_does_not_find_is_lost_only_after_a_while(
    before: list[ConfirmationRow], lost: bool
) -> None:
    assert is_lost(before, NOW) is lost


def reference(uid: str, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2", uid
    if reason is not None:
        item.FailureReason = reason
    return item


def test_a_report_of_success_confirms_each_instance() -> None:
    information = Dataset()
    information.TransactionUID = "2.25.7"
    information.ReferencedSOPSequence = [reference("1.1"), reference("1.2")]

    report = read_report(1, information)

    assert report.transaction_uid == "2.25.7"
    assert report.found == {uid: (DeliveryState.COMMITTED, None) for uid in ("1.1", "1.2")}


def test_only_an_instance_that_is_absent_or_damaged_counts_as_lost() -> None:
    information = Dataset()
    information.TransactionUID = "2.25.7"
    information.ReferencedSOPSequence = [reference("1.1")]
    information.FailedSOPSequence = [
        reference("1.2", 0x0112),
        reference("1.3", 0x0213),
        reference("1.4", 0x0110),
        reference("1.5"),
    ]

    assert read_report(2, information).found == {
        "1.1": (DeliveryState.COMMITTED, None),
        "1.2": (DeliveryState.LOST, 0x0112),
        "1.3": (DeliveryState.STORED, 0x0213),
        "1.4": (DeliveryState.LOST, 0x0110),
        "1.5": (DeliveryState.LOST, 0x0110),
    }


@pytest.mark.parametrize(("event_type", "status"), [(3, 0x0113), (1, 0x0115)])
def test_a_report_that_says_nothing_gets_its_status(event_type: int, status: int) -> None:
    with pytest.raises(UnusableReport) as caught:
        read_report(event_type, Dataset())

    assert caught.value.status == status


def test_transactions_have_a_uid_each() -> None:
    assert new_transaction() != new_transaction() and new_transaction().startswith("2.25.")
