"""Which series is the pre-contrast T1W, which the FLAIR, and why: pure functions over headers."""

from dicom_node.choose.pair import Choice, SeriesLine, choose_pair
from dicom_node.choose.roles import Role, Verdict, classify
from dicom_node.choose.series import Series, group

__all__ = ["Choice", "Role", "Series", "SeriesLine", "Verdict", "choose_pair", "classify", "group"]
