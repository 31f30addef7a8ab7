"""What series descriptions say, in the languages and habits of scanners. A vote, never the only witness if
the header tells the timing. Tokens, not substrings: "preset" is not "pre", "postop" is not "post".
"""

from __future__ import annotations

import re
import unicodedata

#: Signs that belong to a token: "+C", "C+", "T2*".
_TOKEN = re.compile(r"[^\W_]*[+*]?[^\W_]+[+*]?|\+", re.UNICODE)

#: Before splitting: "w/o", "C-" and "s/" are words, "T1+C" are two. Chinese, Japanese and Korean glue what
#: they say of contrast to other words: it is taken out of them, native first.
_REWRITTEN = (
    (re.compile(r"\(?\benhanced (?:conversion|mr)\b\)?"), " "),
    (re.compile(r"\bw/o\b"), " wo "),
    (re.compile(r"\b[wc]/c\b"), " +c "),
    (re.compile(r"\bw/"), " with "),
    (re.compile(r"\bs/c\b"), " native "),
    (re.compile(r"\bs/(?=\s*[^\W_])"), " sin "),
    (re.compile(r"\+/-|\bpre/post\b"), " pre and post and "),
    (re.compile(r"\b(?:c|iv|km|gd|gad|gado|inj|mdc|pdc|ce|k)(?:-(?![^\W_])|\s*\(-\))"), " native "),
    (re.compile(r"\bss\s+(?=inj|gado|iv\b|pdc)"), " sans "),
    # Hungarian and Turkish say before and after behind the word
    (re.compile(r"(?:kontras\w*|ivkm)\s+(?:el[oő]tt|[oö]ncesi)"), " native "),
    (re.compile(r"kontrasz\w*\s+ut[aá]n"), " kontrast "),
    # one of the four images of a Dixon
    (re.compile(r"^fat:|dixon.*[ _]f$"), " fatonly "),
    (re.compile(r"field[-_ ]?map(?:ping)?"), " fieldmap "),
    (re.compile(r"mp-?rage"), "mprage"),
    (re.compile(r"dark[- _]fluid"), "darkfluid"),
    (re.compile(r"(?<=[^\W_])\+(?=[^\W_])"), " +"),
    (re.compile("フレア|水抑制|压水|液体衰减|黑水"), " flair "),
    (re.compile("定位|位置決め|위치잡이"), " localizer "),
    (re.compile("拡散|弥散|彌散|扩散|확산"), " dwi "),
    (re.compile("灌注|灌流|관류|ダイナミック|动态"), " perfusion "),
    (re.compile(r"(?:造影|增强|增強)\s*\(-\)"), " native "),
    (re.compile("非造影|非增强|非増強|造影前|增强前|增強前|平扫|平掃|单纯|単純|비조영|조영 ?전"), " native "),
    (re.compile("造影|增强|增強|増強|强化|조영"), " kontrast "),
    (re.compile(r"(?<=[a-z0-9+])(?=[\u3040-\u9fff\uac00-\ud7af])"), " "),
)

T1 = set(
    """
    t1 t1w t1wi wt1 st1 st1w t1c t1ce t1gd t1km t1+c t1+ t1post t1pre 3dt1 mprage mpr3d bravo fspgr
    spgr tfe vibe thrive tfl memprage t1tfe irspgr geir lava ultrafast т1 т1ви т1w
    """.split()
)
FLAIR = set(
    """
    flair t2flair flairt2 darkfluid 3dflair tflair vflair tirm cubeflair spaceflair
    """.split()
)
T2 = set(
    """
    t2 t2w t2wi wt2 st2 st2w t2tse t2fse t2* t2star т2 т2ви
    """.split()
)

#: An agent was given. English, German, French, Spanish, Italian, Portuguese, Dutch, Polish, Russian.
CONTRAST = set(
    """
    +c c+ +gd gd+ +gad +k k+ +km km+ +ce ce+ +iv iv+ t1+c t1+ +contrast + gd gad gado gadolinium
    gadolinio gadovist gadavist dotarem magnevist prohance multihance clariscan vueway elucirem post
    pós pos postgd postgad postcontrast postkm postcon postc postinj postmdc postcontraste
    poscontraste postcontrasto t1post contrast contraste contrasto contrastmiddel kontrast
    kontrastem kontrastu kontrastmittel km inj injected injection injecte injectee injecté injectée
    gdtpa dtpa civ mdc cmdc ce t1c t1ce t1gd t1km pdc contrasted contrastado contrastada
    gadolínio gadobutrol gadoterate gadopiclenol omniscan optimark ev efter etter efterkontrast
    ку кв enhanced enhance enh nach apres après dopo después despues po после iv delayed
    μετά μετα γαδολίνιο tiêm tiem אחרי קונטרסט بعد صبغة
    """.split()
)
#: None was given.
NATIVE = set(
    """
    pre pré native nativ natif nativo nativa basal basale blanco plain unenhanced noncontrast
    nonenhanced precontrast precontraste precontrasto pregd pregad prekm precon t1pre smdc nc ohne
    sans senza zonder bez без without vor avant до kontrastsiz kontrastsız simple
    utan uden uten före før natív nativní nativt natiivi natywny natywne natywna pregado prekontrast
    natief diretta dirette przed před pred ennen πριν χωρίς χωρις trước truoc לפני ללא قبل بدون
    """.split()
)
#: None was given, if a word of CONTRAST follows.
_NOT = set("no non not o wo sin sem".split())
#: How many words a negation reaches: "sans injection de gado", "no i.v. contrast".
_NEGATION_REACHES = 3
#: An agent was given: "T1AXPOST", "axT1Gad", "T1wCE", "kontrastli", "postkontrast", "nachKM".
_GIVEN = re.compile(
    r"\w*t1\w*(?:post|gad|gado|gd|km)$|t1w?ce$|(?:post|po|nach)?[ck]ontra[sz]|контраст|σκιαγραφ"
    r"|(?:nach|mit|m|iv)km$"
)
#: None was given: "vorKM".
_NONE_GIVEN = re.compile(r"(?:vor|ohne|o)km$")
#: An agent was given, if nothing follows: "T1 C", "T1 AX WITH".
_AT_THE_END = set("c with".split())
_AND = set("and und et y e ed i en и &".split())
#: "post" that does not speak of contrast.
_POST_OTHER = set(
    """
    fossa op operative surgery surgical resection biopsy rt srs gk radiation chemo treatment tx
    process processed
    """.split()
)

LOCALIZER = set(
    """
    localizer localiser localizador loc locator scout survey 3plane 3pl topogram smartbrain aahead
    aascout coilsurvey lokalizer repérage reperage 3plloc locate planscan übersicht uebersicht
    """.split()
)
#: Made from other images.
MADE = set(
    """
    mpr mip minip mnip sub subtraction subtracted subtr subtraktion reformat reformatted refmt
    recon3d curved difference reg registered fused fusion roi mask maske seg segmentation label
    labels labelmap contour overlay map maps t1map t2map mapit synthetic synth magic symri
    screensave snapshot report rfmt brainmask aseg aparc parcellation heatmap prediction skullstripped
    syntac syntheticmr
    """.split()
)
#: Other ways of looking.
OTHER = set(
    """
    dwi dti adc eadc trace tracew b0 b500 b1000 b2000 diff diffusion resolve tensor fa swi swan swip
    venobold susceptibility hemo t2* t2star medic merge qsm tof mra mrv angio angiography venography
    inhance pca trance twist tricks perf perfusion pwi dsc dce cbf cbv rcbv mtt ttp tmax asl pcasl
    pasl bold fmri rest resting epi spectro mrs csi press steam mp2rage inv1 inv2 uni psir dir stir
    pd pdw ciss fiesta drive t1rho mtr mt phase pha calibration calib calib2 fieldmap b0map
    b1map shim fatfrac outphase opp opposed fatonly basg cosmic disco dynamic dyn fgatir carebolus
    """.split()
)
#: Of these, the ones for which contrast agent is injected; "perfusion" alone may be ASL.
WITH_BOLUS = set("dsc dce pwi rcbv twist tricks".split())
PERFUSION = set("perf perfusion".split())
#: Parts of the body that are not the brain, as Body Part Examined or in a description.
ELSEWHERE = set(
    """
    spine cspine tspine lspine ctspine lsspine cervical thoracic lumbar sacrum hws bws lws knee
    shoulder hip ankle foot hand wrist elbow arm leg femur tibia humerus chest thorax heart cardiac
    breast abdomen liver kidney pancreas pelvis prostate uterus rectum bladder mamma leber knie
    schulter wirbelsäule rachis genou columna rodilla colonna ginocchio wervelkolom coluna joelho
    """.split()
)
PHANTOM = set("phantom fantom phantome fantoma acr".split())
ELSEWHERE |= PHANTOM
#: As Body Part Examined, alone or with another part.
HEAD = set("head brain neuro skull cerebral cranium kopf schädel crane crâne cerveau cabeza cranio".split())
#: As Body Part Examined; in a description a neck may belong to a head.
NECK = set("neck hals cou cuello collo larynx carotid".split())
#: Parts of the head: a stack that is too short for a brain and says one of them is made for it.
PART_OF_HEAD = set(
    """
    orbit orbits orbita orbitae orbites iac iam cai tmj pituitary sella hypophysis hypophyse hypofyse
    ipofisi hipofisis hipófisis hipofise hypophysen felsenbein rocher rochers neck hals parotid sinus
    hippocampus hippocampi trigeminal
    """.split()
)
#: Glued together: "T1TRA", "sagT1", "isoT1TFE", "3DT1W", "t2flair", "axFLAIR".
_GLUED = re.compile(r"(?:[23]d|s|st|iso|wip|ax|oax|sag|cor|tra|osag|ocor)?(t[12])(?![*0-9])[a-z]*$")


def tokens(text: str) -> list[str]:
    """Return the words of a description, in lower case."""
    lowered = unicodedata.normalize("NFKC", text).casefold()  # Japanese consoles write Ｔ１ in full width
    for pattern, replacement in _REWRITTEN:
        lowered = pattern.sub(replacement, lowered)
    return _TOKEN.findall(lowered)


def contrast_of(words: list[str]) -> bool | None:
    """Return whether the words say that contrast was given; None if they say neither, or both."""
    native, given = False, False
    negated = 0  # so many more words
    for position, word in enumerate(words):
        if word == "post" and words[position + 1 : position + 2] and words[position + 1] in _POST_OTHER:
            continue
        if word in NATIVE or word in _NOT or _NONE_GIVEN.match(word):
            native = native or word not in _NOT
            negated = _NEGATION_REACHES
            continue
        last = position == len(words) - 1
        if (
            word in CONTRAST
            or word.strip("+") in CONTRAST
            or _GIVEN.match(word)
            or (last and position > 0 and word in _AT_THE_END)
        ):
            native, given = native or negated > 0, given or negated == 0
        negated = 0 if word in _AND else max(0, negated - 1)
    if native and given:
        return None
    return True if given else False if native else None


def mentions(words: list[str], table: set[str]) -> str:
    """Return the first word that is in the table, or ""."""
    return next((word for word in words if word in table), "")


def weightings(words: list[str]) -> tuple[str, str, str]:
    """Return the words that say T1, FLAIR and T2, "" where none does."""
    t1, flair, t2 = (mentions(words, table) for table in (T1, FLAIR, T2))
    for word in words:
        glued = _GLUED.match(word)
        if glued and word not in FLAIR:
            t1, t2 = (t1 or word, t2) if glued[1] == "t1" else (t1, t2 or word)
        flair = flair or (word if "flair" in word else "")
    return t1, flair, t2
