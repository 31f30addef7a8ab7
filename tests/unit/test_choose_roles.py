"""The role of one series: a table of vendors' habits, and what must never be taken for an input."""

from __future__ import annotations

from typing import Any

import pytest
from scans import FLAIR_2D, GADOLINIUM, T1_MPRAGE, T1_SE, T2_TSE, series

from dicom_node.choose.roles import Role, classify

SIEMENS: dict[str, Any] = {
    "manufacturer": "SIEMENS",
    "image_type": ("ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D"),
}
SIEMENS_XA: dict[str, Any] = {
    "manufacturer": "Siemens Healthineers",
    "image_type": ("ORIGINAL", "PRIMARY", "M", "NONE", "DIS2D", "DFC", "NORM"),
}
GE: dict[str, Any] = {"manufacturer": "GE MEDICAL SYSTEMS", "image_type": ("ORIGINAL", "PRIMARY", "OTHER")}
CANON: dict[str, Any] = {"manufacturer": "CANON_MEC", "image_type": ("ORIGINAL", "PRIMARY", "OTHER")}
HITACHI: dict[str, Any] = {
    "manufacturer": "Hitachi Medical Corporation",
    "image_type": ("ORIGINAL", "PRIMARY"),
}
FUJIFILM: dict[str, Any] = {
    "manufacturer": "FUJIFILM Healthcare Corporation",
    "image_type": ("ORIGINAL", "PRIMARY", "OTHER"),
}
UIH: dict[str, Any] = {"manufacturer": "UIH", "image_type": ("ORIGINAL", "PRIMARY", "M", "ND")}
NEUSOFT: dict[str, Any] = {"manufacturer": "Neusoft", "image_type": ("ORIGINAL", "PRIMARY", "OTHER")}
ESAOTE: dict[str, Any] = {"manufacturer": "ESAOTE", "image_type": ("ORIGINAL", "PRIMARY", "OTHER")}
HYPERFINE: dict[str, Any] = {"manufacturer": "Hyperfine", "image_type": ("ORIGINAL", "PRIMARY", "OTHER")}
NOTHING: dict[str, Any] = {"scanning_sequence": ()}


def philips(kind: str) -> dict[str, Any]:
    return {"manufacturer": "Philips", "image_type": ("ORIGINAL", "PRIMARY", f"M_{kind}", "M", kind)}


def timing(
    tr: float, te: float, ti: float | None, *sequence: str, flip: float | None = None
) -> dict[str, Any]:
    return {"tr_ms": tr, "te_ms": te, "ti_ms": ti, "flip_deg": flip, "scanning_sequence": sequence}


#: description, vendor, timing, role
HABITS: list[tuple[str, dict[str, Any], dict[str, Any], Role]] = [
    # Siemens
    ("t1_mprage_sag_p2_iso", SIEMENS, T1_MPRAGE, Role.T1W),
    ("t1_mpr_ns_sag_p2_iso", SIEMENS, T1_MPRAGE, Role.T1W),
    ("t1_mprage_sag_p2_iso_KM", SIEMENS, T1_MPRAGE, Role.T1C),
    ("t1_fl2d_tra", SIEMENS, timing(250, 2.5, None, "GR", flip=70), Role.T1W),
    ("t1_vibe_tra", SIEMENS, timing(5.5, 2.5, None, "GR", flip=12), Role.T1W),
    ("t1_space_sag_p2_iso", SIEMENS, timing(600, 11, None, "SE", flip=120), Role.T1W),
    ("t1_tirm_tra_dark-fluid", SIEMENS, timing(2000, 9, 860, "SE", "IR"), Role.T1W),
    ("t2_tirm_tra_dark-fluid", SIEMENS, timing(9000, 87, 2500, "SE", "IR"), Role.FLAIR),
    ("t2_space_dark-fluid_sag_p3_iso", SIEMENS_XA, timing(5000, 387, 1800, "SE", "IR"), Role.FLAIR),
    ("t2_tirm_cor_fs", SIEMENS, timing(4000, 60, 150, "SE", "IR"), Role.OTHER),
    ("t2_tse_tra_512", SIEMENS, timing(5200, 99, None, "SE"), Role.T2W),
    ("t2_fl2d_tra_hemo", SIEMENS, timing(620, 20, None, "GR", flip=20), Role.OTHER),
    ("Mag_Images", SIEMENS, timing(28, 20, None, "GR", flip=15), Role.OTHER),
    ("t2_swi_tra_p2", SIEMENS, timing(28, 20, None, "GR", flip=15), Role.OTHER),
    ("ep2d_diff_3scan_trace_p2", SIEMENS, timing(6800, 100, None, "EP"), Role.OTHER),
    ("ep2d_perf_p2", SIEMENS, timing(1500, 30, None, "EP"), Role.OTHER),
    ("TOF_3D_multi-slab", SIEMENS, timing(21, 3.4, None, "GR", flip=18), Role.OTHER),
    ("AAHead_Scout", SIEMENS, timing(3.15, 1.4, None, "GR", flip=8), Role.LOCALIZER),
    ("localizer", SIEMENS, timing(7.6, 3.3, None, "GR", flip=20), Role.LOCALIZER),
    ("t1_mp2rage_sag_INV1", SIEMENS, timing(5000, 2.98, 700, "GR", "IR"), Role.OTHER),
    # GE
    ("Ax T1 FLAIR", GE, timing(2500, 9.4, 780, "SE", "IR"), Role.T1W),
    ("Ax T1 FLAIR PROPELLER", GE, timing(3050, 27, 1050, "SE", "IR"), Role.T1W),
    ("+C Ax T1 FLAIR", GE, timing(2500, 9.4, 780, "SE", "IR"), Role.T1C),
    ("Ax T2 FLAIR", GE, timing(8800, 125, 2250, "SE", "IR"), Role.FLAIR),
    ("Ax T2 FLAIR ASSET", GE, timing(8800, 125, 2250, "SE", "IR"), Role.FLAIR),
    ("Sag CUBE T2 FLAIR", GE, timing(6300, 117, 1850, "SE", "IR"), Role.FLAIR),
    ("Sag 3D BRAVO", GE, timing(8.2, 3.2, 450, "GR", flip=12), Role.T1W),
    ("Ax 3D FSPGR", GE, timing(9.5, 4.2, None, "GR", flip=20), Role.T1W),
    ("COR 3D SPGR +C", GE, timing(9.5, 4.2, None, "GR", flip=20), Role.T1C),
    ("SAG T1", GE, timing(466.7, 14, None, "SE"), Role.T1W),
    ("AX T1 POST GAD", GE, timing(466.7, 14, None, "SE"), Role.T1C),
    ("Ax FRFSE T2", GE, timing(4100, 102, None, "SE"), Role.T2W),
    ("Ax T2* GRE", GE, timing(600, 20, None, "GR", flip=20), Role.OTHER),
    ("Ax SWAN", GE, timing(41, 24, None, "GR", flip=15), Role.OTHER),
    ("Ax DWI Asset", GE, timing(8000, 80, None, "EP", "SE"), Role.OTHER),
    ("3-plane Loc SSFSE", GE, timing(1500, 80, None, "SE"), Role.LOCALIZER),
    ("3D ASL (non contrast)", GE, timing(4800, 10.5, 2025, "RM"), Role.OTHER),
    # Philips
    ("T1W_SE", philips("SE"), timing(450, 10, None, "SE"), Role.T1W),
    ("sT1W_3D_TFE", philips("FFE"), timing(7.5, 3.4, None, "GR", flip=8), Role.T1W),
    ("T1W_IR_TSE", philips("IR"), timing(2500, 15, 400, "IR"), Role.T1W),
    ("T1W_3D_TFE CLEAR +C", philips("FFE"), timing(7.5, 3.4, None, "GR", flip=8), Role.T1C),
    ("T1W_SE_GADO", philips("SE"), timing(450, 10, None, "SE"), Role.T1C),
    ("FLAIR_longTR", philips("IR"), timing(11000, 125, 2800, "IR"), Role.FLAIR),
    ("3D_Brain_VIEW_FLAIR", philips("IR"), timing(4800, 340, 1650, "IR"), Role.FLAIR),
    ("T2W_FLAIR SENSE", philips("IR"), timing(9000, 120, 2500, "IR"), Role.FLAIR),
    ("T2W_TSE", philips("SE"), timing(4400, 100, None, "SE"), Role.T2W),
    ("T2W_FFE", philips("FFE"), timing(700, 16, None, "GR", flip=18), Role.OTHER),
    ("SWIp", philips("FFE"), timing(31, 22, None, "GR", flip=17), Role.OTHER),
    ("STIR_longTE", philips("IR"), timing(4500, 80, 165, "IR"), Role.OTHER),
    ("Survey_32ch_HeadCoil", philips("FFE"), timing(11, 4.6, None, "GR", flip=20), Role.LOCALIZER),
    ("s3DI_MC_HR TOF", philips("FFE"), timing(23, 3.5, None, "GR", flip=18), Role.OTHER),
    ("sPCA_3D", philips("PCA"), timing(18, 5, None, "GR", flip=10), Role.OTHER),
    # Canon, Toshiba
    ("T1WI ax", CANON, timing(540, 12, None, "SE"), Role.T1W),
    ("T1強調画像", CANON, timing(540, 12, None, "SE"), Role.T1W),
    ("造影T1WI", CANON, timing(540, 12, None, "SE"), Role.T1C),
    ("FFE3D_IR sag", CANON, timing(6.2, 2.6, 900, "GR", "IR"), Role.T1W),
    ("FLAIR AX", CANON, timing(10000, 105, 2700, "SE", "IR"), Role.FLAIR),
    ("T2WI", CANON, timing(4300, 100, None, "SE"), Role.T2W),
    ("T2*WI", CANON, timing(600, 15, None, "GR", flip=20), Role.OTHER),
    # Hitachi
    ("T1 SE AX", HITACHI, timing(420, 20, None, "SE"), Role.T1W),
    ("3D GEIR", HITACHI, timing(10.5, 5.1, 1000, "GR", "IR"), Role.T1W),
    ("FLAIR AX", HITACHI, timing(7500, 100, 1900, "SE", "IR"), Role.FLAIR),
    # Siemens, more
    ("t1_se_tra_fs_KM", SIEMENS, timing(550, 11, None, "SE"), Role.T1C),
    ("t1_starvibe_tra_dyn", SIEMENS, timing(4.5, 2.0, None, "GR", flip=10), Role.OTHER),
    ("t1_vibe_dixon_tra_opp", SIEMENS, timing(5.5, 1.3, None, "GR", flip=9), Role.OTHER),
    ("t2_space_flair_sag_p4_CS_iso", SIEMENS_XA, timing(7000, 391, 2050, "SE", "IR"), Role.FLAIR),
    ("t1_space_dark-blood_sag", SIEMENS_XA, timing(700, 22, None, "SE", flip=120), Role.T1W),
    ("T1_MPRAGE_SAG_ISO_DL", SIEMENS_XA, timing(2200, 2.46, 950, "GR", "IR", flip=8), Role.T1W),
    ("t1_memprage_sag", SIEMENS, timing(2530, 1.69, 1100, "GR", "IR", flip=7), Role.T1W),
    # GE, more
    ("Sag T1 CUBE", GE, timing(602, 21, None, "SE", flip=90), Role.T1W),
    ("Ax LAVA-Flex", GE, timing(5.2, 1.7, None, "GR", flip=12), Role.T1W),
    ("Ax T1 MP-RAGE PROMO", GE, timing(2060, 3.1, 900, "GR", flip=8), Role.T1W),
    ("Sag T2 FLAIR CUBE PROMO AIR", GE, timing(6302, 109, 1703, "SE", "IR"), Role.FLAIR),
    ("MAGiC T1 FLAIR", GE, timing(2500, 10, 1000, "SE", "IR"), Role.DERIVED),
    ("Ax FIESTA-C", GE, timing(5.6, 2.2, None, "GR", flip=60), Role.OTHER),
    ("Ax COSMIC", GE, timing(5.0, 2.0, None, "GR", flip=30), Role.OTHER),
    # Philips, more
    ("T1W_TSE SENSE", philips("SE"), timing(600, 10, None, "SE"), Role.T1W),
    ("T1W_FFE", philips("FFE"), timing(180, 2.3, None, "GR", flip=75), Role.T1W),
    ("isoT1TFE", philips("FFE"), timing(8.2, 3.7, 1000, "GR", flip=8), Role.T1W),
    ("BrainVIEW_T1", philips("SE"), timing(500, 28, None, "SE", flip=90), Role.T1W),
    ("T1W_3D_TFE_GD", philips("FFE"), timing(7.5, 3.4, None, "GR", flip=8), Role.T1C),
    ("VISTA_FLAIR_sag", philips("IR"), timing(4800, 276, 1650, "IR"), Role.FLAIR),
    ("dDWI_EPI", philips("SE"), timing(3500, 88, None, "EP", "SE"), Role.OTHER),
    # Canon, more
    ("SE_T1 AX", CANON, timing(500, 15, None, "SE"), Role.T1W),
    ("フレア AX", CANON, timing(10000, 105, 2700, "SE", "IR"), Role.FLAIR),
    ("位置決め", CANON, timing(6, 2.6, None, "GR", flip=20), Role.LOCALIZER),
    ("拡散強調", CANON, timing(6000, 80, None, "SE"), Role.OTHER),
    # Hitachi, Fujifilm
    ("T1W RADAR", FUJIFILM, timing(2300, 22, 900, "SE", "IR"), Role.T1W),
    ("isoFSE T1", FUJIFILM, timing(500, 15, None, "SE"), Role.T1W),
    ("FLAIR RADAR", FUJIFILM, timing(9000, 110, 2300, "SE", "IR"), Role.FLAIR),
    ("BASG", HITACHI, timing(6, 3, None, "GR", flip=60), Role.OTHER),
    # United Imaging, Neusoft
    ("t1_gre_fsp_3d_sag", UIH, timing(8.1, 3.4, 900, "GR", flip=8), Role.T1W),
    ("t1_fse_tra", UIH, timing(520, 9.2, None, "SE"), Role.T1W),
    ("t1_gre_fsp_3d_sag+C", UIH, timing(8.1, 3.4, 900, "GR", flip=8), Role.T1C),
    ("t2_fse_flair_tra", UIH, timing(8500, 105, 2300, "SE", "IR"), Role.FLAIR),
    ("t2_mx3d_flair_sag", UIH, timing(5000, 390, 1750, "SE", "IR"), Role.FLAIR),
    ("T1加权 平扫", NEUSOFT, timing(480, 12, None, "SE"), Role.T1W),
    ("T1加权 增强", NEUSOFT, timing(480, 12, None, "SE"), Role.T1C),
    ("T2 压水", NEUSOFT, timing(8000, 120, 2100, "SE", "IR"), Role.FLAIR),
    # Low field
    ("SE T1 ax", ESAOTE, timing(620, 18, None, "SE"), Role.T1W),
    ("FLAIR ax", ESAOTE, timing(6500, 80, 1550, "SE", "IR"), Role.FLAIR),
    ("T1 (Axial)", HYPERFINE, timing(1500, 6, 300, "SE", "IR"), Role.T1W),
    ("FLAIR (Axial)", HYPERFINE, timing(4000, 200, 1400, "SE", "IR"), Role.FLAIR),
    # Fluid, fat, water and vessels, more
    ("t2_spc_da-fl_sag_p2", SIEMENS, timing(5000, 389, 1800, "SE", "IR"), Role.FLAIR),
    ("t1_tse_dixon_tra_W", SIEMENS, timing(600, 10, None, "SE"), Role.T1W),
    ("t1_vibe_dixon_tra_F", SIEMENS, timing(5.5, 2.5, None, "GR", flip=9), Role.OTHER),
    ("FAT: Ax T1 Flex", GE, timing(500, 10, None, "SE"), Role.OTHER),
    ("InPhase: Ax T1 Flex", GE, timing(500, 10, None, "SE"), Role.T1W),
    ("gre_field_mapping", SIEMENS, timing(400, 4.92, None, "GR", flip=60), Role.OTHER),
    ("FGATIR", SIEMENS, timing(3000, 4.4, 409, "GR", "IR"), Role.OTHER),
    ("CareBolus", SIEMENS, timing(25, 1.3, None, "GR", flip=25), Role.OTHER),
    ("SyntheticMR T1W", philips("SE"), timing(500, 10, None, "SE"), Role.DERIVED),
    ("RSSG T1", HITACHI, timing(20, 5, None, "GR", flip=30), Role.T1W),
    # Other languages
    ("T1 tra nativ", SIEMENS, T1_SE, Role.T1W),
    ("T1 AX SANS INJECTION", GE, T1_SE, Role.T1W),
    ("T1 AX APRES INJ", GE, T1_SE, Role.T1C),
    ("T1 AX SIN CIV", philips("SE"), T1_SE, Role.T1W),
    ("T1 AX CON CIV", philips("SE"), T1_SE, Role.T1C),
    ("T1 ASS SENZA MDC", philips("SE"), T1_SE, Role.T1W),
    ("T1 ASS CON MDC", philips("SE"), T1_SE, Role.T1C),
    ("T1 TRA ZONDER GADO", philips("SE"), T1_SE, Role.T1W),
    ("T1 TRA MET GADO", philips("SE"), T1_SE, Role.T1C),
    ("T1 AX SEM CONTRASTE", SIEMENS, T1_SE, Role.T1W),
    ("T1 AX PÓS CONTRASTE", SIEMENS, T1_SE, Role.T1C),
    ("T1 utan kontrast", SIEMENS, T1_SE, Role.T1W),
    ("T1 efter kontrast", SIEMENS, T1_SE, Role.T1C),
]
IDS = [f"{vendor['manufacturer'].split()[0]} {description}" for description, vendor, _, _ in HABITS]


@pytest.mark.parametrize(("description", "vendor", "times", "role"), HABITS, ids=IDS)
def test_a_vendors_habit_is_understood(
    description: str, vendor: dict[str, Any], times: dict[str, Any], role: Role
) -> None:
    assert classify(series(description, **vendor, **times)).role == role


@pytest.mark.parametrize(
    ("vendor", "times", "role"),
    [row[1:] for row in HABITS if row[3] in {Role.T1W, Role.FLAIR, Role.T2W}],
    ids=[name for name, row in zip(IDS, HABITS, strict=True) if row[3] in {Role.T1W, Role.FLAIR, Role.T2W}],
)
def test_an_emptied_description_is_made_up_for_by_the_timing(
    vendor: dict[str, Any], times: dict[str, Any], role: Role
) -> None:
    assert classify(series("", **vendor, **times)).role == role


@pytest.mark.parametrize(
    ("description", "role"),
    [
        ("T1", Role.T1W),
        ("T1W_3D_TFE", Role.T1W),
        ("Ax T1 FLAIR", Role.T1W),
        ("t1_tirm_dark-fluid", Role.T1W),
        ("MPRAGE", Role.T1W),
        ("Т1 ВИ", Role.T1W),  # Cyrillic
        ("FLAIR", Role.FLAIR),
        ("Ax T2 FLAIR", Role.FLAIR),
        ("T2_FLAIR", Role.FLAIR),
        ("t2_dark fluid", Role.FLAIR),
        ("T2", Role.T2W),
        ("T1 POST", Role.T1C),
        ("t1c", Role.T1C),
    ],
)
def test_an_emptied_timing_is_made_up_for_by_the_description(description: str, role: Role) -> None:
    assert classify(series(description)).role == role


def test_without_description_the_protocol_name_is_asked() -> None:
    assert classify(series("", protocol_name="t1_mprage_sag KM")).role == Role.T1C


def test_neither_timing_nor_words_is_unknown_and_says_so() -> None:
    verdict = classify(series("Series 4"))

    assert verdict.role == Role.UNKNOWN
    assert verdict.why[-1] == "neither timing nor description tells the contrast"


def test_the_timing_outvotes_a_wrong_description() -> None:
    verdict = classify(series("T1 tra", **FLAIR_2D))

    assert verdict.role == Role.FLAIR
    assert "but the timing decides" in verdict.why[1]


# --- never an input ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image_type", "role"),
    [
        (("ORIGINAL", "PRIMARY", "LOCALIZER"), Role.LOCALIZER),
        (("ORIGINAL", "PRIMARY", "MPR"), Role.DERIVED),
        (("DERIVED", "SECONDARY", "MPR", "CSA MPR", "", "CSAPARALLEL"), Role.DERIVED),
        (("DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"), Role.DERIVED),
        (("DERIVED", "PRIMARY", "PROJECTION IMAGE", "MIP"), Role.DERIVED),
        (("ORIGINAL", "PRIMARY", "PROJECTION IMAGE", "M", "FFE"), Role.DERIVED),
        (("DERIVED", "PRIMARY", "MPR", "MIP"), Role.DERIVED),
        (("ORIGINAL", "PRIMARY", "M", "SUB"), Role.DERIVED),
        (("DERIVED", "SECONDARY", "OTHER"), Role.DERIVED),
        (("DERIVED", "PRIMARY", "OTHER"), Role.DERIVED),
        (("ORIGINAL", "SECONDARY", "OTHER"), Role.DERIVED),
        (("ORIGINAL", "PRIMARY", "T1 MAP", "NONE"), Role.DERIVED),
        (("ORIGINAL", "PRIMARY", "P", "ND"), Role.OTHER),
        (("ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"), Role.OTHER),
        (("ORIGINAL", "PRIMARY", "R_IR", "R", "IR"), Role.OTHER),
        (("ORIGINAL", "PRIMARY", "I_FFE", "I", "FFE"), Role.OTHER),
        (("ORIGINAL", "PRIMARY", "M_PCA", "M", "PCA"), Role.OTHER),
        (("ORIGINAL", "PRIMARY", "F", "F", "FFE"), Role.OTHER),
        (("ORIGINAL", "PRIMARY", "M", "DIXON", "FAT"), Role.OTHER),
        (("ORIGINAL", "PRIMARY", "M", "UNI"), Role.OTHER),
        (("ORIGINAL", "PRIMARY", "DIFFUSION", "ADC"), Role.OTHER),
        (("ORIGINAL", "PRIMARY", "ASL", "PERFUSION"), Role.OTHER),
        (("DERIVED", "SECONDARY", "OTHER", "SYNTHETIC"), Role.SYNTHETIC),
    ],
)
@pytest.mark.parametrize("times", [T1_SE, FLAIR_2D], ids=["T1", "FLAIR"])
def test_image_type_excludes_what_is_not_an_acquired_magnitude_image(
    image_type: tuple[str, ...], role: Role, times: dict[str, Any]
) -> None:
    assert classify(series("", image_type=image_type, **times)).role == role


@pytest.mark.parametrize(
    ("description", "role"),
    [
        ("T1 MPR cor", Role.DERIVED),
        ("T1 sag MIP", Role.DERIVED),
        ("T1 Subtraktion", Role.DERIVED),
        ("SUB T1", Role.DERIVED),
        ("FLAIR ROI", Role.DERIVED),
        ("FLAIR mask", Role.DERIVED),
        ("T1 segmentation", Role.DERIVED),
        ("T1 map", Role.DERIVED),
        ("SYNTH T1C (AI, no Gd)", Role.DERIVED),
        ("T1 sag C-Spine", Role.OTHER),
        ("T1 sag HWS", Role.OTHER),
        ("T1 sag rachis", Role.OTHER),
        ("T1 knee", Role.OTHER),
        ("perfusion T1 dce", Role.OTHER),
        ("TOF", Role.OTHER),
        ("PD TSE", Role.OTHER),
        ("T1 localizer", Role.LOCALIZER),
        ("Survey T1", Role.LOCALIZER),
    ],
)
def test_words_exclude_what_the_timing_cannot_tell(description: str, role: Role) -> None:
    assert classify(series(description, **T1_SE)).role == role


def test_a_reformat_of_an_mprage_is_not_the_mprage() -> None:
    reformat = series("t1_mpr_cor", image_type=("DERIVED", "SECONDARY", "MPR"), **T1_MPRAGE)

    assert classify(reformat).role == Role.DERIVED


@pytest.mark.parametrize("description", ["T1 cor sella", "T1 tra orbita", "T1 ax IAC", "T1 Hypophyse"])
def test_a_short_stack_of_a_part_of_the_head_is_no_brain(description: str) -> None:
    short, whole = (series(description, slices=count, spacing_mm=3.0, **T1_SE) for count in (14, 50))

    assert classify(short).role == Role.OTHER
    assert classify(whole).role == Role.T1W


@pytest.mark.parametrize("description", ["Phantom T1", "ACR T1"])
def test_a_phantom_that_says_so_is_no_head(description: str) -> None:
    assert classify(series(description, **T1_SE)).role == Role.OTHER


def test_an_angiogram_without_description_is_told_by_its_angio_flag() -> None:
    tof = series("", angio=True, **timing(21, 3.4, None, "GR", flip=18))

    assert classify(tof).role == Role.OTHER


def test_synthetic_data_is_never_an_input() -> None:
    verdict = classify(series("T1 tra", synthetic=True, **T1_SE))

    assert verdict.role == Role.SYNTHETIC


@pytest.mark.parametrize("part", ["CSPINE", "LSPINE", "C SPINE", "KNEE", "ABDOMEN", "CERVICAL SPINE"])
def test_another_part_of_the_body_is_not_a_head(part: str) -> None:
    assert classify(series("T1 sag", body_part=part, **T1_SE)).role == Role.OTHER


@pytest.mark.parametrize("part", ["NECK", "HALS"])
def test_a_neck_is_no_head(part: str) -> None:
    assert classify(series("T1 tra", body_part=part, **T1_SE)).role == Role.OTHER


def test_without_description_the_protocol_name_excludes() -> None:
    assert classify(series("", protocol_name="Survey", **T1_SE)).role == Role.LOCALIZER


def test_a_study_of_a_phantom_holds_no_head() -> None:
    assert classify(series("T1", study_description="QA ACR Phantom", **T1_SE)).role == Role.OTHER


@pytest.mark.parametrize("part", ["", "BRAIN", "HEAD", "SKULL", "KOPF", "CRANE", "NEURO", "HEADNECK"])
def test_a_head_by_any_name_is_taken(part: str) -> None:
    assert classify(series("T1 tra", body_part=part, **T1_SE)).role == Role.T1W


@pytest.mark.parametrize("labels", [2, 5, 32])
def test_a_mask_stored_as_mr_with_the_flairs_timing_is_not_the_flair(labels: int) -> None:
    verdict = classify(series("FLAIR tra", distinct_values=labels, **FLAIR_2D))

    assert verdict.role == Role.DERIVED


def test_compressed_pixels_are_not_taken_for_a_mask() -> None:
    assert classify(series("FLAIR tra", distinct_values=None, **FLAIR_2D)).role == Role.FLAIR


@pytest.mark.parametrize("component", ["PHASE", "REAL", "IMAGINARY"])
def test_only_magnitude_images_are_used(component: str) -> None:
    assert classify(series("T1", complex_component=component, **T1_SE)).role == Role.OTHER


def test_another_modality_is_not_mr() -> None:
    assert classify(series("T1 fusion CT", modality="CT")).role == Role.NOT_MR


# --- contrast agent ------------------------------------------------------------------------------


def test_an_agent_in_the_header_makes_a_t1_post_contrast() -> None:
    assert classify(series("T1 tra", **T1_SE, **GADOLINIUM)).role == Role.T1C


def test_an_agent_on_one_slice_is_enough() -> None:
    mixed = series("T1 tra", **T1_SE)
    marked = type(mixed)(
        mixed.uid, (*mixed.headers[:-1], series("T1 tra", **T1_SE, **GADOLINIUM).headers[-1])
    )

    assert classify(marked).role == Role.T1C


def test_an_agent_on_a_series_called_native_is_a_conflict() -> None:
    verdict = classify(series("T1 tra nativ", **T1_SE, **GADOLINIUM))

    assert verdict.role == Role.UNKNOWN
    assert verdict.why[-1] == "the header names a contrast agent, the description says that none was given"


def test_a_t1_flair_whose_inversion_time_was_removed_is_told_by_its_name() -> None:
    assert classify(series("Ax T1 FLAIR", **timing(2500, 9.4, None, "SE", "IR"))).role == Role.T1W


def test_a_flair_after_contrast_is_still_a_flair() -> None:
    assert classify(series("FLAIR post", **FLAIR_2D, **GADOLINIUM)).role == Role.FLAIR


def test_a_t2_after_contrast_is_a_t2() -> None:
    assert classify(series("T2 +C", **T2_TSE)).role == Role.T2W


def test_acquisition_contrast_decides_where_an_enhanced_header_has_no_timing() -> None:
    assert classify(series("", acquisition_contrast="FLUID_ATTENUATED")).role == Role.FLAIR


def test_acquisition_contrast_unknown_says_nothing() -> None:
    assert classify(series("", acquisition_contrast="UNKNOWN", **T1_MPRAGE)).role == Role.T1W


def test_a_flair_whose_inversion_time_was_removed_is_told_by_its_name() -> None:
    assert classify(series("FLAIR", tr_ms=9000.0, te_ms=120.0)).role == Role.FLAIR
