"""What descriptions say about contrast agent, in the languages of scanners, and what they don't say."""

from __future__ import annotations

import pytest

from dicom_node.choose.words import MADE, OTHER, contrast_of, mentions, tokens, weightings

GIVEN = """
T1 +C | T1+C | T1 C+ | T1 (C+) | T1 + C | Ax T1 +Gd | +C AX T1 FLAIR | T1 POST | AX T1 POST GAD
T1 Post-Contrast
T1W_SE_CE | T1 postcontrast FS | T1c | T1 Gd | T1 w/c | T1 w/ contrast | T1 with Gadovist | CE-T1
T1 enhanced
t1_mprage_sag_p2_iso_KM | T1 tra KM | T1 tra nach KM | T1 tra n. KM | T1 post KM
T1 SE mit Kontrastmittel | T1_+KM
T1 AX GADO | T1 AX INJ | AX T1 INJECTE | 3D T1 EG GADO | T1 apres injection | T1 après injection
T1 IV+ | T1 injectée
T1 AX CON CONTRASTE | T1 CIV | T1 POSTCONTRASTE | T1 POS CONTRASTE | T1 c/ contraste | T1 GADOLINIO
T1 SE ax MDC | T1 dopo mdc | T1 con mdc | T1 post MDC | T1 CMDC
T1 PÓS | T1 PÓS CONTRASTE | T1 AX POS
T1 met contrast | T1 na contrast | T1 +K | T1+K | T1 po k.l. | T1 po kontraście
T1 C | sT1W_SE C | T1 AX IV | AX T1 W/ | AX T1 WITH | T1 C/C | T1AXPOST | T1AXGAD | T1 AX DELAYED
T1 AKS KONTRASTLI
T1 AVEC PDC | T1 con MDC e.v. | T1 contrastado | T1 efter kontrast | T1 med kontrast | T1 m. kontrast
T1 com contraste | T1 na gadolinium | t1_fse_tra+C | t1_gre_fsp_3d_sag_C | Ｔ１ 造影
T1 с КУ | T1 после КУ | T1 после контраста | T1 +КУ | T1+КВ | T1 с контрастированием
T1 tra nachKM | T1 tra mKM | T1 AX IVKM SONRASI | T1 AX POSTKONTRAST | axT1post | T1wCE | T1 ENHANCE
T1 Gd(+) | T1 kontraszt után | T1 με σκιαγραφικό | T1 μετά | T1 sau tiêm | T1 אחרי | T1 بعد الصبغة
T1增强 | T1WI 增强扫描 | T1增強 | 造影 T1 | 造影後T1 | 造影T1WI | T1 조영증강 | 조영후 T1
"""

NATIVE = """
T1 pre | T1 PRE GAD | T1 pre-contrast | T1 precontrast | T1 unenhanced | T1 non-contrast
T1 noncontrast | T1 NC
T1 w/o contrast | T1 wo contrast | T1 without contrast | T1 no contrast | T1 C- | T1 (C-) | T1 no Gd
T1 nativ | T1 tra ohne KM | T1 vor KM | T1 tra o KM | T1_nativ_tra
T1 AX SANS INJ | T1 SANS GADO | T1 s/inj | T1 avant injection | T1 IV- | T1 non injecté
T1 AX SIN CONTRASTE | T1 s/ contraste | T1 S/CONTRASTE | T1 basal | T1 SEM CONTRASTE | T1 pré contraste
T1 SMDC | T1 basale | T1 senza mdc | T1 pre MDC
T1 zonder contrast | T1 blanco | T1 bez k.l. | T1 bez kontrastu
T1 KM- tra | T1 GADO- | T1 Gd- | T1 SANS PDC | T1 simple | T1 utan kontrast | T1 uden kontrast
T1 före kontrast | T1 natív | T1 nativní | T1 senza contrasto | T1 sem gadolínio | T1 zonder gado
T1 增强前 | 単純Ｔ１
T1 без КУ | T1 до КУ | T1 S/C | T1 AKS KONTRASTSIZ | T1 AKS KONTRAST ÖNCESI | T1 kontraszt előtt
T1 tra vorKM | T1 przed kontrastem | T1 před kontrastem | 3D T1 SS INJ | T1 NATIEF | T1 diretta | T1 Gd(-)
T1WI 造影(-) | T1 πριν σκιαγραφικό | T1 trước tiêm | T1 לפני | T1 قبل
T1平扫 | T1WI平扫 | T1 单纯 | T1 単純 | 単純T1WI | 造影前T1 | T1 非造影 | T1 비조영 | 조영전 T1 | 조영 전 T1
"""

SILENT = """
T1 | Ax T1 SE | T1 preset | T1 postop | T1 post-op | T1 post op | T1 post fossa | T1 posterior fossa
sag T1 post RT
T1 w/o | T1 W/WO | t1_mprage_sag_p2_iso | sT1W_3D_TFE | Ax T1 FLAIR | T1 presat | T1 Kopf | T1 coronal
T1 tra compose | T1 +/- Gd | T1 pre/post KM
AX T1 W/ FS | T1 (enhanced conversion)
T1SPACE | T1 contralateral
T1+FS | T1 SE 5mm | T1 post treatment | T1 post surgery | prescan T1 | Nachname T1
"""


def described(text: str) -> list[str]:
    return [part.strip() for line in text.strip().splitlines() for part in line.split("|") if part.strip()]


@pytest.mark.parametrize("text", described(GIVEN))
def test_a_description_that_says_contrast_was_given(text: str) -> None:
    assert contrast_of(tokens(text)) is True


@pytest.mark.parametrize("text", described(NATIVE))
def test_a_description_that_says_none_was_given(text: str) -> None:
    assert contrast_of(tokens(text)) is False


@pytest.mark.parametrize("text", described(SILENT))
def test_a_description_that_says_nothing_about_contrast(text: str) -> None:
    assert contrast_of(tokens(text)) is None


def test_a_description_that_says_both_says_nothing() -> None:
    assert contrast_of(tokens("T1 pre and post")) is None


@pytest.mark.parametrize(
    "text",
    [
        "Ax FLAIR ASSET",
        "T1 subtle motion",
        "Ax T1 mapped",
        "T1 diffuse lesion",
        "T1 phased array",
        "T1 adcock",
    ],
)
def test_words_are_matched_whole(text: str) -> None:
    words = tokens(text)

    assert not mentions(words, MADE) and not mentions(words, OTHER)


def test_underscores_and_case_do_not_matter() -> None:
    assert tokens("T1_SE_Tra") == tokens("t1 se tra")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sagT1", "t1"),
        ("isoT1TFE", "t1"),
        ("3DT1W", "t1"),
        ("T1TRA", "t1"),
        ("MP-RAGE", "t1"),
        ("Ｔ１強調", "t1"),
        ("T1加权", "t1"),
        ("axFLAIR", "flair"),
        ("T2FLAIRFS", "flair"),
        ("フレア", "flair"),
        ("压水", "flair"),
        ("T2TSE", "t2"),
    ],
)
def test_words_that_are_glued_together_or_of_another_script(text: str, expected: str) -> None:
    t1, flair, t2 = weightings(tokens(text))

    found = "flair" if flair and not (t1 and not t2) else "t1" if t1 and not t2 else "t2" if t2 else ""
    assert found == expected


@pytest.mark.parametrize("text", ["T12 level", "AT1", "at10", "not1", "T1*"])
def test_letters_that_happen_to_hold_t1_are_no_t1(text: str) -> None:
    assert not weightings(tokens(text))[0]
