"""The role of one series: exclusions first, then physics, then contrast, then words. Each says why.

Sources: PS3.3 C.7.6.1.1.2 and C.8.3.1.1.1 (Image Type), C.8.13.4 (Acquisition Contrast), C.7.6.4
(Contrast/Bolus); vendors' habits as in `words` and `physics`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dicom_node.choose import words
from dicom_node.choose.physics import Timing, Weighting, weighting
from dicom_node.choose.series import BRAIN_FROM_MM, MOST_LABELS, Series, most_common
from dicom_node.headers import CLASSIC_MR, MULTIFRAME_MR


class Role(StrEnum):
    """What a series is to us."""

    T1W = "T1W"
    FLAIR = "FLAIR"
    T1C = "T1C"  # T1-weighted after contrast
    T2W = "T2W"
    OTHER = "OTHER"  # another contrast, another part of the body
    LOCALIZER = "LOCALIZER"
    DERIVED = "DERIVED"  # made from other images
    SYNTHETIC = "SYNTHETIC"  # made by a network: this node's own output, or another's
    NOT_MR = "NOT_MR"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class Verdict:
    """The role of a series and why, as sentences."""

    role: Role
    why: tuple[str, ...]


#: Values of Image Type from the third on that make a series unfit, and what they are.
_UNFIT_IMAGE_TYPES: dict[str, tuple[Role, str]] = {
    "LOCALIZER": (Role.LOCALIZER, "a localizer"),
    **dict.fromkeys(
        ("MPR", "REFORMATTED", "CPR", "RESAMPLED", "AVERAGE", "MOSAIC"), (Role.DERIVED, "reformatted images")
    ),
    **dict.fromkeys(
        ("PROJECTION IMAGE", "MIP", "MINIP", "MIN_IP", "MAX_IP", "MNIP", "MAXIMUM INTENSITY PROJECTION"),
        (Role.DERIVED, "a projection"),
    ),
    **dict.fromkeys(
        ("SUB", "SUBTRACT", "SUBTRACTION", "SUBTRACTED", "SCREEN SAVE", "SCREENSAVE", "COMPOSED", "ADDITION"),
        (Role.DERIVED, "computed from other images"),
    ),
    **dict.fromkeys(
        (
            "T1 MAP",
            "T2 MAP",
            "T2_STAR MAP",
            "T2* MAP",
            "R2 MAP",
            "R2* MAP",
            "PROTON_DENSITY MAP",
            "MAP",
            "FIELD_MAP",
        ),
        (Role.DERIVED, "a parameter map"),
    ),
    **dict.fromkeys(
        ("ADC", "EADC", "FA", "TRACEW", "TRACE", "DIFFUSION", "TENSOR", "ISOTROPIC", "ANISOTROPY"),
        (Role.OTHER, "diffusion"),
    ),
    **dict.fromkeys(
        ("PERFUSION", "ASL", "TTP", "RELCBV", "RELCBF", "RELMTT", "CBF", "CBV", "MTT", "PBP", "GBP", "TMAX"),
        (Role.OTHER, "perfusion"),
    ),
    **dict.fromkeys(("SWI", "SWI_MAG", "MIP_SWI", "QSM"), (Role.OTHER, "susceptibility")),
    **dict.fromkeys(("P", "PHASE", "PHASE MAP", "PHASE_MAP", "PHASE IMAGE"), (Role.OTHER, "phase images")),
    **dict.fromkeys(("R", "REAL", "I", "IMAGINARY"), (Role.OTHER, "real or imaginary parts, not magnitude")),
    **dict.fromkeys(
        ("VELOCITY", "VELOCITY MAP", "FLOW", "TOF", "MR ANGIO", "PCA", "M_PCA"), (Role.OTHER, "an angiogram")
    ),
    **dict.fromkeys(("F", "FAT", "FAT_FRACTION"), (Role.OTHER, "fat alone (Dixon)")),
    **dict.fromkeys(
        ("OP", "OPP_PHASE", "OUT_PHASE", "OUT_OF_PHASE", "OPPOSED_PHASE"),
        (Role.OTHER, "opposed phase (Dixon)"),
    ),
    "UNI": (Role.OTHER, "a quotient of two inversions (MP2RAGE)"),
    "SYNTHETIC": (Role.SYNTHETIC, "synthetic images"),
}

#: Acquisition Contrast of Enhanced MR (PS3.3 C.8.13.4.1.6).
_BY_ACQUISITION_CONTRAST = {
    "T1": Weighting.T1,
    "FLUID_ATTENUATED": Weighting.FLAIR,
    "T2": Weighting.T2,
    "T2_STAR": Weighting.T2_STAR,
    "PROTON_DENSITY": Weighting.PD,
    "DIFFUSION": Weighting.DIFFUSION,
    "STIR": Weighting.STIR,
}
_ROLE_OF = {
    Weighting.FLAIR: Role.FLAIR,
    Weighting.T2: Role.T2W,
    Weighting.PD: Role.OTHER,
    Weighting.STIR: Role.OTHER,
    Weighting.T2_STAR: Role.OTHER,
    Weighting.DIFFUSION: Role.OTHER,
    Weighting.DOUBLE_INVERSION: Role.OTHER,
    Weighting.MP2RAGE: Role.OTHER,
    Weighting.WHITE_MATTER_NULLED: Role.OTHER,
}
#: Why a series is T1C when its header says so.
AGENT = "the header names a contrast agent"
#: What is said of a FLAIR that is not from before the injection.
LATE = "acquired after contrast agent: it may differ from one before"
#: Why a series has no role when its header says nothing.
UNTOLD = "neither timing nor description tells the contrast"


def classify(series: Series) -> Verdict:
    """Return the role of a series by its headers."""
    excluded = _excluded(series)
    if excluded:
        return excluded
    found, why = _weighting(series)
    if found is None:
        return Verdict(Role.UNKNOWN, (*why, UNTOLD))
    if found != Weighting.T1:
        return Verdict(_ROLE_OF[found], tuple(why))
    given, reason = _contrast(series)
    if given is None:
        return Verdict(Role.UNKNOWN, (*why, reason))
    return Verdict(Role.T1C if given else Role.T1W, (*why, reason))


def _excluded(series: Series) -> Verdict | None:
    """Return the verdict of a series that can have no role here, whatever its contrast."""
    first = series.first
    if any(header.synthetic for header in series.headers):
        return Verdict(Role.SYNTHETIC, ("made by a network, never an input",))
    if first.modality != "MR":
        return Verdict(Role.NOT_MR, (f"modality {first.modality or 'unknown'}, not MR",))
    if first.sop_class_uid not in {CLASSIC_MR, *MULTIFRAME_MR}:
        return Verdict(Role.DERIVED, ("not stored as MR images",))
    kinds = first.image_type
    for value in sorted(series.all_image_types()):
        if value in _UNFIT_IMAGE_TYPES and (value not in {"R", "I", "P", "F", "OP"} or value in kinds[2:]):
            role, what = _UNFIT_IMAGE_TYPES[value]
            return Verdict(role, (f"Image Type says {value}: {what}",))
    if "DERIVED" in kinds[:1] or "SECONDARY" in kinds[1:2]:
        return Verdict(Role.DERIVED, (f"Image Type says {'/'.join(kinds[:2])}: not an acquired image",))
    if first.complex_component in {"PHASE", "REAL", "IMAGINARY"}:
        return Verdict(Role.OTHER, (f"{first.complex_component.lower()} images, not magnitude",))
    if first.angio:
        return Verdict(Role.OTHER, ("Angio Flag is Y: an angiogram",))
    parts = words.tokens(first.body_part)
    if words.mentions(parts, words.ELSEWHERE | words.NECK) and not words.mentions(parts, words.HEAD):
        return Verdict(Role.OTHER, (f"body part {first.body_part}, not the brain",))
    if series.looks_like_a_mask:
        return Verdict(Role.DERIVED, (f"{MOST_LABELS} different pixel values at most: a mask, not an image",))
    phantom = words.mentions(words.tokens(first.study_description), words.PHANTOM)
    if phantom:
        return Verdict(Role.OTHER, (f"the study's description says “{phantom}”: no patient",))
    said = words.tokens(first.series_description or first.protocol_name)
    if _is_mprage(series):
        said = [word for word in said if word != "mpr"]  # Siemens: t1_mpr_ns_sag_p2_iso
    for table, role, what in (
        (words.LOCALIZER, Role.LOCALIZER, "a localizer"),
        (words.MADE, Role.DERIVED, "made from other images"),
        (words.ELSEWHERE, Role.OTHER, "another part of the body"),
        (words.OTHER, Role.OTHER, "another kind of image"),
    ):
        word = words.mentions(said, table)
        if word:
            return Verdict(role, (f"the description says “{word}”: {what}",))
    part = words.mentions(said, words.PART_OF_HEAD)
    if part and 0 < series.extent_mm < BRAIN_FROM_MM:
        return Verdict(
            Role.OTHER,
            (f"the description says “{part}”, and {series.extent_mm:.0f} mm show a part of a head",),
        )
    return None


def _is_mprage(series: Series) -> bool:
    """Whether an acquired series has the timing of an inversion-prepared gradient echo."""
    timing = timing_of(series)
    acquired = series.first.image_type[:2] == ("ORIGINAL", "PRIMARY")
    return acquired and bool(timing.ti_ms) and (timing.te_ms or 99) < 6


def timing_of(series: Series) -> Timing:
    """Return the timing that most images of a series agree on."""
    headers = series.headers
    return Timing(
        tr_ms=most_common(header.tr_ms for header in headers),
        te_ms=most_common(header.te_ms for header in headers),
        ti_ms=most_common(header.ti_ms for header in headers),
        flip_deg=most_common(header.flip_deg for header in headers),
        scanning_sequence=series.first.scanning_sequence,
        sequence_variant=series.first.sequence_variant,
        b_value=max((header.b_value or 0 for header in headers), default=0) or None,
    )


def _weighting(series: Series) -> tuple[Weighting | None, list[str]]:
    timing = timing_of(series)
    physics = weighting(timing)
    stated = _BY_ACQUISITION_CONTRAST.get(series.first.acquisition_contrast)
    said, what = _said(series)
    if physics:
        found, reason = physics
        why = [reason]
        if found == Weighting.T2 and said == Weighting.FLAIR and _may_hide_inversion(timing):
            return Weighting.FLAIR, [f"{timing.text()}: long TR and TE", f"{what}; the header leaves out TI"]
        if said == found:
            why.append(what)
        elif said:
            why.append(f"{what}, but the timing decides")
        return found, why
    if stated:
        return stated, [
            f"Acquisition Contrast is {series.first.acquisition_contrast}",
            *([what] if said else []),
        ]
    if said:
        return said, [f"{timing.text()} in the header", what]
    return None, [f"{timing.text()} in the header" if timing == Timing() else timing.text()]


def _may_hide_inversion(timing: Timing) -> bool:
    """Whether a long TR and TE may be a FLAIR's whose inversion time was left out."""
    return timing.ti_ms is None and ("IR" in timing.scanning_sequence or (timing.tr_ms or 0) >= 4500)


def _said(series: Series) -> tuple[Weighting | None, str]:
    """Return what description or, if that is silent, the protocol name says."""
    first = series.first
    for name, text in (
        ("description", first.series_description),
        ("protocol name", first.protocol_name),
        ("sequence name", first.sequence_name),
    ):
        said = words.tokens(text)
        t1, flair, t2 = words.weightings(said)
        if flair and not (t1 and not t2):  # "T1 FLAIR" is T1W, "T2 FLAIR" is FLAIR
            return Weighting.FLAIR, f"the {name} says “{flair}”"
        if t1 and not t2:
            return Weighting.T1, f"the {name} says “{t1}”"
        if t2 and not t1:
            return Weighting.T2, f"the {name} says “{t2}”"
    return None, ""


def _contrast(series: Series) -> tuple[bool | None, str]:
    """Return whether contrast was given before a T1W series, None where its witnesses disagree."""
    first = series.first
    said = words.contrast_of(words.tokens(first.series_description))
    if said is None and not first.series_description:
        said = words.contrast_of(words.tokens(first.protocol_name))
    agent = any(header.contrast_given for header in series.headers)
    if agent and said is False:
        return None, "the header names a contrast agent, the description says that none was given"
    if agent:
        return True, AGENT
    if said:
        return True, "the description says that contrast was given"
    return False, "no contrast agent in the header" + (
        "; the description says native" if said is False else ""
    )
