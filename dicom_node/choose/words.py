"""What series descriptions say, in the languages and habits of scanners. A vote, never the only witness if
the header tells the timing. Tokens, not substrings: "preset" is not "pre", "postop" is not "post".
"""

from __future__ import annotations

import re

#: Signs that belong to a token: "+C", "C+", "T2*".
_TOKEN = re.compile(r"[^\W_]*[+*]?[^\W_]+[+*]?|\+", re.UNICODE)

#: Before splitting: "w/o" and "C-" are words, "T1+C" are two, and so are "T1平扫".
_REWRITTEN = (
    (re.compile(r"\bw/o\b"), " wo "),
    (re.compile(r"\bc-(?![^\W_])"), " native "),
    (re.compile(r"dark[- _]fluid"), "darkfluid"),
    (re.compile(r"(?<=[^\W_])\+(?=[^\W_])"), " +"),
    (re.compile(r"(?<=[a-z0-9+])(?=[\u3040-\u9fff\uac00-\ud7af])"), " "),
)

T1 = set(
    """
    t1 t1w t1wi wt1 st1 st1w t1c t1ce t1gd t1km t1+c t1+ t1post t1pre 3dt1 mprage mpr3d bravo fspgr
    spgr tfe vibe thrive tfl memprage t1tfe irspgr
    """.split()
)
FLAIR = set(
    """
    flair t2flair flairt2 darkfluid 3dflair tflair vflair tirm cubeflair spaceflair
    """.split()
)
T2 = set(
    """
    t2 t2w t2wi wt2 st2 st2w t2tse t2fse t2* t2star
    """.split()
)

#: An agent was given. English, German, French, Spanish, Italian, Portuguese, Dutch, Polish, Russian,
#: Chinese, Japanese, Korean.
CONTRAST = set(
    """
    +c c+ +gd gd+ +gad +k k+ +km km+ +ce ce+ t1+c t1+ +contrast + gd gad gado gadolinium gadovist
    gadavist dotarem magnevist prohance multihance post pós postgd postgad postcontrast postkm
    postcon postc t1post contrast contraste contrasto contrastmiddel kontrast kontrastmittel km
    kontrastem inj injected injection injecte injecté gdtpa dtpa civ mdc ce t1c t1ce t1gd t1km
    ку контраст контрастом 增强 增強 造影 造影后 造影後 조영 조영증강 强化
    enhanced enh nach après apres dopo después despues po после
    """.split()
)
#: None was given (alone, or before a word of CONTRAST).
NATIVE = set(
    """
    pre native nativ natif nativo nativa basal basale plain unenhanced noncontrast nonenhanced
    precontrast pregd pregad prekm precon t1pre smdc nc 平扫 平掃 単純 비조영 ohne sans sin senza sem zonder
    bez без without wo w/o no non o vor avant
    """.split()
)
#: "post" that does not speak of contrast.
_POST_OTHER = set(
    """
    fossa op operative surgery surgical rt radiation chemo treatment tx process
    """.split()
)

LOCALIZER = set(
    """
    localizer localiser localizador loc locator scout survey 3plane 3pl topogram planning smartbrain
    aahead aascout lokalizer repérage reperage 3plloc 定位
    """.split()
)
#: Made from other images.
MADE = set(
    """
    mpr mip minip mnip sub subtraction subtracted subtr subtraktion reformat reformatted refmt
    recon3d curved difference diff reg registered fused fusion roi mask maske seg segmentation label
    labels labelmap contour overlay map maps t1map t2map mapit synthetic synth magic symri
    screensave snapshot report
    """.split()
)
#: Other ways of looking.
OTHER = set(
    """
    dwi dti adc eadc trace tracew b0 b500 b1000 b2000 diff diffusion resolve tensor fa swi swan swip
    venobold susceptibility hemo t2* t2star medic merge qsm tof mra mrv angio angiography venography
    inhance pca trance twist tricks perf perfusion pwi dsc dce cbf cbv rcbv mtt ttp tmax asl pcasl
    pasl bold fmri rest resting epi spectro mrs csi press steam mp2rage inv1 inv2 uni psir dir stir
    pd pdw ciss fiesta drive t1rho mtr mt phase pha calibration calib calib2 asset fieldmap b0map
    b1map shim fatfrac inphase outphase
    """.split()
)
#: Parts of the body that are not the brain, as Body Part Examined or in a description.
ELSEWHERE = set(
    """
    spine cspine tspine lspine ctspine lsspine cervical thoracic lumbar sacrum hws bws lws knee
    shoulder hip ankle foot hand wrist elbow arm leg femur tibia humerus chest thorax heart cardiac
    breast abdomen liver kidney pancreas pelvis prostate uterus rectum bladder mamma leber knie
    schulter wirbelsäule rachis genou columna rodilla
    """.split()
)


def tokens(text: str) -> list[str]:
    """Return the words of a description, in lower case."""
    lowered = text.casefold()
    for pattern, replacement in _REWRITTEN:
        lowered = pattern.sub(replacement, lowered)
    return _TOKEN.findall(lowered)


def contrast_of(words: list[str]) -> bool | None:
    """Return whether the words say that contrast was given; None if they say neither, or both."""
    native, given = False, False
    negated = False
    for position, word in enumerate(words):
        following = words[position + 1] if position + 1 < len(words) else ""
        if word == "post" and following in _POST_OTHER:
            continue
        if word in NATIVE:
            negated = True
            native = native or word not in {"no", "non", "o", "wo", "sin", "sem"} or following in CONTRAST
        elif word in CONTRAST:
            if not negated:
                given = True
            negated = False
    if native and given:
        return None
    return True if given else False if native else None


def mentions(words: list[str], table: set[str]) -> str:
    """Return the first word that is in the table, or ""."""
    return next((word for word in words if word in table), "")
