"""What timing says about the contrast, without any description: vendors' protocols at 1.5 and 3 T."""

from __future__ import annotations

import pytest

from dicom_node.choose.physics import Timing, Weighting, weighting

SE, IR, GR = ("SE",), ("SE", "IR"), ("GR",)
IR_ALONE, GR_IR, EP = ("IR",), ("GR", "IR"), ("EP", "SE")

#: protocol, TR, TE, TI, flip angle, Scanning Sequence, weighting
PROTOCOLS = [
    ("Siemens MPRAGE 3T", 2300, 2.98, 900, 9, GR_IR, Weighting.T1),
    ("Siemens MPRAGE 1.5T", 1900, 3.1, 1100, 15, GR_IR, Weighting.T1),
    ("Siemens MPRAGE long TI", 2530, 1.69, 1200, 7, GR_IR, Weighting.T1),
    ("Siemens MPRAGE, TI lost", 2300, 2.98, None, 9, GR, Weighting.T1),
    ("Siemens VIBE", 5.5, 2.5, None, 12, GR, Weighting.T1),
    ("Siemens FLASH 2D", 250, 2.5, None, 70, GR, Weighting.T1),
    ("Siemens SE", 500, 8.4, None, 90, SE, Weighting.T1),
    ("Siemens TSE 3T", 700, 9.2, None, 150, SE, Weighting.T1),
    ("Siemens SPACE T1", 600, 11, None, 120, SE, Weighting.T1),
    ("Siemens TIRM dark-fluid T1", 2000, 9, 860, 150, IR, Weighting.T1),
    ("Siemens TIRM dark-fluid T2", 9000, 87, 2500, 150, IR, Weighting.FLAIR),
    ("Siemens SPACE FLAIR", 5000, 387, 1800, 120, IR, Weighting.FLAIR),
    ("Siemens SPACE FLAIR 1.5T", 6000, 335, 2200, 120, IR, Weighting.FLAIR),
    ("Siemens TSE T2", 5200, 99, None, 150, SE, Weighting.T2),
    ("Siemens SPACE T2", 3200, 408, None, 120, SE, Weighting.T2),
    ("Siemens TSE PD", 3000, 12, None, 150, SE, Weighting.PD),
    ("Siemens TIRM fat-nulled", 4000, 60, 150, 150, IR, Weighting.STIR),
    ("Siemens SWI", 28, 20, None, 15, GR, Weighting.T2_STAR),
    ("Siemens hemo", 620, 20, None, 20, GR, Weighting.T2_STAR),
    ("Siemens DWI", 6800, 100, None, 90, EP, Weighting.DIFFUSION),
    ("GE BRAVO", 8.2, 3.2, 450, 12, GR, Weighting.T1),
    ("GE BRAVO 3T", 7.0, 2.6, 400, 11, GR, Weighting.T1),
    ("GE FSPGR, TI 0", 9.5, 4.2, 0, 20, GR, Weighting.T1),
    ("GE SPGR 1990s", 35, 5, None, 45, GR, Weighting.T1),
    ("GE T1 SE", 466.7, 14, None, 90, SE, Weighting.T1),
    ("GE T1 FSE", 650, 9.7, 0, 111, SE, Weighting.T1),
    ("GE CUBE T1", 600, 22, None, 90, SE, Weighting.T1),
    ("GE T1 FLAIR", 2500, 9.4, 780, 111, IR, Weighting.T1),
    ("GE T1 FLAIR PROPELLER 3T", 3050, 27, 1050, 125, IR, Weighting.T1),
    ("GE T2 FLAIR", 8800, 125, 2250, 160, IR, Weighting.FLAIR),
    ("GE CUBE T2 FLAIR", 6300, 117, 1850, 90, IR, Weighting.FLAIR),
    ("GE FRFSE T2", 4100, 102, 0, 111, SE, Weighting.T2),
    ("GE SWAN", 41, 24, None, 15, GR, Weighting.T2_STAR),
    ("Philips SE", 450, 10, None, 69, SE, Weighting.T1),
    ("Philips TSE 3T", 830, 20, None, 90, SE, Weighting.T1),
    ("Philips 3D TFE", 7.5, 3.4, None, 8, GR, Weighting.T1),
    ("Philips 3D TFE with TI", 8.1, 3.7, 1010, 8, GR, Weighting.T1),
    ("Philips 3D TFE, IR alone", 9.9, 4.6, 900, 8, IR_ALONE, Weighting.T1),
    ("Philips IR-TSE T1", 2500, 15, 400, 90, IR_ALONE, Weighting.T1),
    ("Philips FLAIR 1.5T", 9000, 100, 2500, 90, IR_ALONE, Weighting.FLAIR),
    ("Philips FLAIR longTR 3T", 11000, 125, 2800, 90, IR_ALONE, Weighting.FLAIR),
    ("Philips 3D VISTA FLAIR", 4800, 340, 1650, 90, IR_ALONE, Weighting.FLAIR),
    ("Philips FFE T2*", 700, 16, None, 18, GR, Weighting.T2_STAR),
    ("Philips venous BOLD", 31, 22, None, 17, GR, Weighting.T2_STAR),
    ("Philips STIR", 4500, 40, 165, 90, IR_ALONE, Weighting.STIR),
    ("Canon T1 SE", 540, 12, None, 90, SE, Weighting.T1),
    ("Canon FFE3D IR", 6.2, 2.6, 900, 9, GR_IR, Weighting.T1),
    ("Canon FLAIR", 10000, 105, 2700, 90, IR, Weighting.FLAIR),
    ("Canon FSE2D T2", 4300, 100, None, 90, SE, Weighting.T2),
    ("Hitachi 0.3T T1 SE", 420, 20, None, 90, SE, Weighting.T1),
    ("Hitachi 0.3T FLAIR", 7500, 100, 1900, 90, IR, Weighting.FLAIR),
    ("Hitachi GEIR", 10.5, 5.1, 1000, 8, GR_IR, Weighting.T1),
    ("any FLAIR, TI lost", 9000, 110, None, 150, IR, Weighting.FLAIR),
    ("any 3D FLAIR, TI lost", 4800, 340, None, 90, IR, Weighting.FLAIR),
    ("Siemens SPACE DIR", 7500, 325, 3000, 120, IR, Weighting.DOUBLE_INVERSION),
    ("Philips DIR", 5500, 325, 2550, 90, IR_ALONE, Weighting.DOUBLE_INVERSION),
    ("Siemens MP2RAGE, first", 5000, 2.98, 700, 4, GR_IR, Weighting.MP2RAGE),
    ("Siemens MP2RAGE, second", 5000, 2.98, 2500, 5, GR_IR, Weighting.MP2RAGE),
    ("Siemens MP2RAGE, quotient", 5000, 2.98, None, 4, GR, Weighting.MP2RAGE),
    ("Siemens FGATIR", 3000, 4.39, 409, 8, GR_IR, Weighting.WHITE_MATTER_NULLED),
    ("a SPGR in research mode", 8.2, 3.2, None, 12, ("RM",), Weighting.T1),
    # Scanning Sequence emptied
    ("MPRAGE, only times", 2300, 2.98, 900, None, (), Weighting.T1),
    ("SPGR, only times", 8.2, 3.2, None, None, (), Weighting.T1),
    ("T1 SE, only times", 500, 12, None, None, (), Weighting.T1),
    ("FLAIR, only times", 9000, 110, 2500, None, (), Weighting.FLAIR),
    ("T2 TSE, only times", 4500, 100, None, None, (), Weighting.T2),
    ("T2* with its flip angle", 620, 20, None, 20, (), Weighting.T2_STAR),
]


@pytest.mark.parametrize(
    ("tr", "te", "ti", "flip", "sequence", "expected"),
    [row[1:] for row in PROTOCOLS],
    ids=[row[0] for row in PROTOCOLS],
)
def test_timing_tells_the_weighting(
    tr: float, te: float, ti: float | None, flip: float | None, sequence: tuple[str, ...], expected: Weighting
) -> None:
    found = weighting(Timing(tr, te, ti, flip, sequence))

    assert found is not None and found[0] == expected


@pytest.mark.parametrize(
    ("tr", "te", "flip", "sequence"),
    [
        (21, 3.4, 18, GR),
        (25, 6.9, 30, ("GR", "MTC")),
        (3.2, 1.2, 30, GR),
        (5.6, 2.2, 60, GR),
        (4.8, 2.4, 45, ()),
        (2500, 9.4, 111, IR),
    ],
    ids=["TOF", "TOF with MT", "CE-MRA", "FIESTA", "balanced, only times", "T1 FLAIR, TI lost"],
)
def test_a_timing_that_several_sequences_have_is_left_to_the_words(
    tr: float, te: float, flip: float, sequence: tuple[str, ...]
) -> None:
    variant = tuple(part for part in sequence if part == "MTC")

    assert weighting(Timing(tr, te, None, flip, tuple(sequence), variant)) is None


def test_a_b_value_means_diffusion_whatever_the_timing() -> None:
    found = weighting(Timing(tr_ms=500, te_ms=10, scanning_sequence=SE, b_value=1000))

    assert found is not None and found[0] == Weighting.DIFFUSION


def test_no_timing_tells_nothing() -> None:
    assert weighting(Timing()) is None


def test_the_reason_names_the_times() -> None:
    found = weighting(Timing(9000, 100, 2500, None, IR))

    assert found is not None and found[1].startswith("TR 9000 ms, TE 100 ms, TI 2500 ms: ")
