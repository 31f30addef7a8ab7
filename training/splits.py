"""Who is trained on and who is judged: by patient, stratified, written down with the reason before training.

A patient may have several exams, and several names: follow-ups, and the same exam in several data sets (298
of UCSF-PDGM are also in BraTS 2021). All that is known to be one person stays on one side. People are dealt
out in order of enhancement, institution and size of the tumour, so that each part gets some of every kind.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.prepare.cache import Case, read_cases
from training.prepare.names import warn_of_twins

SEED = 7
FOLDS = 5
#: Exams of UCSF-PDGM in the papers on MPR-ViT and TA-ViT; who is in which part is not published.
UCSF_EXAMS = {"train": 400, "validation": 50, "test": 51}


@dataclass(frozen=True)
class Split:
    """Parts of the patients of a data set."""

    #: What was split, how, and why.
    source: str
    seed: int
    #: Of the parts, in their order.
    names: tuple[str, ...]
    folds: tuple[frozenset[str], ...]

    @property
    def digest(self) -> str:
        """Return what changes when a patient changes sides."""
        text = json.dumps([self.names, [sorted(fold) for fold in self.folds]], ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def others(self, part: int) -> frozenset[str]:
        """Return the patients of all parts but this."""
        return frozenset().union(*(fold for index, fold in enumerate(self.folds) if index != part))


@dataclass(frozen=True)
class Person:
    """One human being, under all names, with what he is stratified by."""

    patients: frozenset[str]
    exams: int
    #: The strongest of his exams: ``clear``, ``some``, ``none``.
    group: str
    institution: str
    #: The largest of his exams.
    tumour_ml: float


def k_folds(cases: Iterable[Case], k: int = FOLDS, seed: int = SEED) -> Split:
    """Return k folds with numbers of exams as equal as the patients' exams allow.

    Exams that were refused or that nobody segmented are in no fold.

    Raises
    ------
    ValueError
        When a fold would be empty.
    """
    reason = (
        f"{k} folds by patient, stratified by enhancement, institution and size of the tumour (seed {seed})"
    )
    return _split(list(cases), reason, {str(fold): 1 for fold in range(k)}, seed)


def ucsf_split(cases: Iterable[Case], seed: int = SEED) -> Split:
    """Return 400, 50 and 51 exams of UCSF-PDGM, or as many in proportion when not all 501 are there.

    Raises
    ------
    ValueError
        When a part would be empty.
    """
    reason = (
        "400 exams to train, 50 to validate, 51 to test, as in the papers, follow-ups with their patient; "
        f"stratified by enhancement and size of the tumour (seed {seed})"
    )
    return _split(list(cases), reason, UCSF_EXAMS, seed)


def people(cases: Sequence[Case]) -> list[Person]:
    """Return who has a usable, segmented exam, by name."""
    own = _persons(cases)
    members: dict[int, list[Case]] = {}
    for case, person in zip(cases, own, strict=True):
        if case.count and case.labelled:
            members.setdefault(person, []).append(case)
    found = [
        Person(
            patients=frozenset(case.patient for case in exams),
            exams=len(exams),
            group=max((case.group for case in exams), key=_GROUPS.index),
            institution=max(case.institution for case in exams),
            tumour_ml=max(case.tumour_ml or 0.0 for case in exams),
        )
        for exams in members.values()
    ]
    return sorted(found, key=lambda person: sorted(person.patients))


def without_twins(*sources: Sequence[Case]) -> list[list[Case]]:
    """Return the cases of each source without the people segmented in an earlier one: best source first."""
    own = iter(_persons([case for source in sources for case in source]))
    seen: set[int] = set()
    out = []
    for source in sources:
        persons = [next(own) for _ in source]
        out.append([case for case, person in zip(source, persons, strict=True) if person not in seen])
        seen |= {person for case, person in zip(source, persons, strict=True) if case.count and case.labelled}
    return out


def write_splits(caches: Sequence[Path], folder: Path) -> list[Path]:
    """Write ``NAME.json``, `FOLDS` folds of each cache, and ``NAME-papers.json`` of UCSF-PDGM; return paths.

    Twins are left out of all but the first cache that has them, so that parts of several may be put together.

    Raises
    ------
    FileExistsError
        When a file is there: a split is fixed before any training, and stays.
    ValueError
        When a cache has too few patients to split.
    """
    splits: dict[Path, Split] = {}
    sources = [read_cases(cache) for cache in caches]
    warn_of_twins((case.patient, *case.also) for cases in sources for case in cases)
    for cache, cases in zip(caches, without_twins(*sources), strict=True):
        splits[folder / f"{cache.name}.json"] = k_folds(cases)
        if any(case.patient.startswith("UCSF-PDGM") for case in cases):
            splits[folder / f"{cache.name}-papers.json"] = ucsf_split(cases)
    for path in splits:
        if path.exists():
            raise FileExistsError(f"{path.name} is fixed: a new split needs another name.")
    folder.mkdir(parents=True, exist_ok=True)
    for path, split in splits.items():
        save_split(split, path)
    return list(splits)


def save_split(split: Split, path: Path) -> None:
    """Write a split: a list of patients for each part."""
    values = {
        "source": f"{path.stem}: {split.source}",
        "seed": split.seed,
        "digest": split.digest,
        "names": split.names,
        "folds": [sorted(fold) for fold in split.folds],
    }
    path.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load_split(path: Path, cases: Sequence[Case] = ()) -> Split:
    """Return a split that was written, whether by `save_split` or by hand.

    Parameters
    ----------
    path : Path
        A file of `training/folds`.
    cases : sequence of Case
        Where these say that two patients are one person, both must be on one side.

    Raises
    ------
    ValueError
        When someone is in two parts, or the parts are not those that the digest was made of.
    """
    values = json.loads(path.read_text(encoding="utf-8"))
    folds = tuple(frozenset(fold) for fold in values["folds"])
    names = tuple(values.get("names", map(str, range(len(folds)))))
    split = Split(values["source"], int(values.get("seed", 0)), names, folds)
    if sum(map(len, values["folds"])) != len(frozenset().union(*folds)):
        raise ValueError(f"{path.name}: a patient is named twice.")
    if values.get("digest", split.digest) != split.digest:
        raise ValueError(f"{path.name} was changed after it was written.")
    for person in people(cases):
        if sum(bool(person.patients & fold) for fold in folds) > 1:
            raise ValueError(f"{path.name}: one person is in two parts under two names.")
    return split


_GROUPS = ("", "none", "some", "clear")


def _split(cases: Sequence[Case], reason: str, sizes: Mapping[str, int], seed: int) -> Split:
    persons = people(cases)
    order = _order(persons, seed)
    parts: list[set[str]] = [set() for _ in sizes]
    for index, part in zip(
        order, _dealt([persons[i].exams for i in order], list(sizes.values())), strict=True
    ):
        parts[part] |= persons[index].patients
    if not all(parts):
        raise ValueError(
            f"{len(persons)} segmented patients are too few for {len(parts)} parts: one would be empty."
        )
    return Split(reason, seed, tuple(sizes), tuple(frozenset(part) for part in parts))


def _order(persons: Sequence[Person], seed: int) -> list[int]:
    """Return in which order to deal: who has several exams first, then kind by kind, in it by chance."""
    chance = np.random.default_rng(seed).permutation(len(persons))
    by_size = np.argsort([person.tumour_ml for person in persons], kind="stable")
    tercile = np.empty(len(persons), dtype=int)
    tercile[by_size] = 3 * np.arange(len(persons)) // max(1, len(persons))

    def kind(index: int) -> tuple[int, int, str, int, int]:
        person = persons[index]
        group = _GROUPS.index(person.group)
        return -person.exams, -group, person.institution, int(tercile[index]), int(chance[index])

    return sorted(range(len(persons)), key=kind)


def _dealt(exams: Sequence[int], sizes: Sequence[int]) -> list[int]:
    """Return the part of each person: always the one that lacks most of its share of what was dealt.

    With one exam each and equal shares this is dealing in turn: in any run of people, parts differ by one.
    """
    shares = np.asarray(sizes) / sum(sizes)
    room = _rounded(shares * sum(exams), sum(exams))
    had = np.zeros(len(sizes), dtype=int)
    out = []
    for dealt, own in zip(np.cumsum(exams), exams, strict=True):
        lacks = shares * dealt - had
        fits = had + own <= room
        part = int(np.argmax(np.where(fits, lacks, -np.inf) if fits.any() else lacks))
        had[part] += own
        out.append(part)
    return out


def _rounded(wanted: npt.NDArray[np.float64], total: int) -> npt.NDArray[np.int64]:
    """Return integers of this total next to what is wanted, larger remainders first."""
    whole = np.floor(wanted).astype(np.int64)
    order = np.argsort(whole - wanted, kind="stable")
    whole[order[: total - int(whole.sum())]] += 1
    return whole


def _persons(cases: Sequence[Case]) -> list[int]:
    """Return the person of each case: who shares a name or an image with another is the same."""
    root: dict[str, str] = {}

    def find(name: str) -> str:
        root.setdefault(name, name)
        while root[name] != name:
            root[name] = root[root[name]]
            name = root[name]
        return name

    for case in cases:
        same = {case.patient, *case.also, *([f"image {case.fingerprint}"] if case.fingerprint else [])}
        for name in same:
            root[find(name)] = find(case.patient)
    numbers: dict[str, int] = {}
    return [numbers.setdefault(find(case.patient), len(numbers)) for case in cases]
