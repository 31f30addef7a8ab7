"""Splits: nobody stands on both sides, under whatever name, and every side gets some of every kind."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from training.prepare import Case
from training.splits import (
    UCSF_EXAMS,
    Split,
    k_folds,
    load_split,
    people,
    save_split,
    ucsf_split,
    without_twins,
    write_splits,
)

FOLDS = Path(__file__).resolve().parents[2] / "training" / "folds"
GROUPS = ("none", "some", "clear")


def case(patient: str, **changes: object) -> Case:
    """Return a usable, segmented exam."""
    kept = Case(patient, 0, 20, exam=patient, group="none", tumour_ml=10.0)
    return replace(kept, **changes)  # type: ignore[arg-type]


@st.composite
def data_sets(draw: st.DrawFn, most_exams: int = 3) -> list[Case]:
    """Return exams as they come: several of a patient, patients under two names, refused, not segmented."""
    exams = []
    for number in range(draw(st.integers(6, 60))):
        also = (f"other-{draw(st.integers(0, 9))}",) if draw(st.integers(0, 9)) == 0 else ()
        for _ in range(draw(st.integers(1, most_exams))):
            exams.append(
                case(
                    f"patient-{number:02d}",
                    count=draw(st.sampled_from([20, 20, 20, 20, 0])),
                    labelled=draw(st.integers(0, 9)) > 0,
                    group=draw(st.sampled_from(GROUPS)),
                    institution=draw(st.sampled_from(["", "CS", "DU"])),
                    tumour_ml=draw(st.floats(0, 300)),
                    also=also,
                )
            )
    return exams


@st.composite
def single_exams(draw: st.DrawFn) -> list[Case]:
    groups = draw(st.lists(st.sampled_from(GROUPS), min_size=6, max_size=80))
    return [
        case(f"p{number}", group=group, tumour_ml=float(number * 7 % 31))
        for number, group in enumerate(groups)
    ]


def counts(split: Split, cases: Sequence[Case]) -> list[int]:
    """Return the usable exams of each part."""
    return [
        sum(bool(one.count) and one.labelled and one.patient in fold for one in cases) for fold in split.folds
    ]


@given(data_sets(), st.integers(2, 5), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_everybody_is_in_one_fold_and_nobody_in_two(cases: list[Case], k: int, seed: int) -> None:
    assume(len(people(cases)) >= k)
    split = k_folds(cases, k, seed)
    usable = {one.patient for one in cases if one.count and one.labelled}
    assert sorted(patient for fold in split.folds for patient in fold) == sorted(usable)
    for person in people(cases):
        assert sum(bool(person.patients & fold) for fold in split.folds) == 1
    largest = max((person.exams for person in people(cases)), default=0)
    assert max(counts(split, cases)) - min(counts(split, cases)) <= max(1, largest)


@given(data_sets(), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_a_split_follows_from_people_and_seed_alone(cases: list[Case], random: object) -> None:
    assume(len(people(cases)) >= 5)
    shuffled = list(cases)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert k_folds(cases).digest == k_folds(shuffled).digest


@given(single_exams(), st.integers(2, 5))
@settings(max_examples=60, deadline=None)
def test_every_fold_gets_its_share_of_every_kind(cases: list[Case], k: int) -> None:
    split = k_folds(cases, k)
    sizes = [len(fold) for fold in split.folds]
    assert max(sizes) - min(sizes) <= 1
    for group in GROUPS:
        kind = {one.patient for one in cases if one.group == group}
        shares = [len(kind & fold) for fold in split.folds]
        assert max(shares) - min(shares) <= 1


@given(single_exams())
@settings(max_examples=60, deadline=None)
def test_unequal_parts_are_of_the_sizes_that_were_asked_for(cases: list[Case]) -> None:
    assume(len(cases) > 6)  # of six, one part would get none
    split = ucsf_split(cases)
    for size, part in zip(UCSF_EXAMS.values(), split.folds, strict=True):
        assert abs(len(part) - size * len(cases) / 501) < 1


def ucsf() -> list[Case]:
    """Return the 501 exams of 495 patients of UCSF-PDGM, one in 18 without enhancement."""
    follow_ups = {391: "016", 396: "175", 409: "001", 429: "003", 431: "001", 433: "007"}
    exams = [
        case(
            f"UCSF-PDGM-{number:04d}", group="none" if number % 18 == 0 else "clear", tumour_ml=number % 97.0
        )
        for number in range(4, 499)
    ]
    exams += [
        case(f"UCSF-PDGM-{number:04d}", exam=f"UCSF-PDGM-{number:04d}_FU{days}d", group="clear")
        for number, days in follow_ups.items()
    ]
    return exams


def test_ucsf_is_split_as_in_the_papers_with_follow_ups_kept() -> None:
    cases = ucsf()
    split = ucsf_split(cases)
    assert split.names == ("train", "validation", "test")
    assert counts(split, cases) == [400, 50, 51]
    controls = {one.patient for one in cases if one.group == "none"}
    for fold, exams in zip(split.folds, UCSF_EXAMS.values(), strict=True):
        assert abs(len(controls & fold) - len(controls) * exams / 501) < 1
    assert sum(map(len, split.folds)) == 495


def test_twins_are_left_out_of_the_later_source() -> None:
    ucsf = [case("UCSF-PDGM-0004", also=("BraTS-00097",)), case("UCSF-PDGM-0005")]
    refused = [case("UCSF-PDGM-0006", count=0, also=("BraTS-00099",))]
    brats = [case(f"BraTS2021_{number:05d}", also=(f"BraTS-{number:05d}",)) for number in (97, 98, 99)]
    again = [case("BraTS-GLI-00098", also=("BraTS-00098",)), case("plain", fingerprint="f")]
    last = [case("copy", fingerprint="f"), case("BraTS20_Training_001", also=("BraTS-00099",))]
    kept = without_twins(ucsf + refused, brats, again, last)
    assert [[one.patient for one in source] for source in kept] == [
        ["UCSF-PDGM-0004", "UCSF-PDGM-0005", "UCSF-PDGM-0006"],
        ["BraTS2021_00098", "BraTS2021_00099"],
        ["plain"],
        [],
    ]


def test_only_a_segmented_exam_displaces_its_twin() -> None:
    drawn = case("BraTS2021_00097", also=("BraTS-00097",))
    bare = case("UCSF-PDGM-0004", also=("BraTS-00097",), labelled=False, group="", tumour_ml=None)
    assert without_twins([bare], [drawn]) == [[bare], [drawn]]
    assert without_twins([drawn], [bare]) == [[drawn], []]


def test_an_empty_part_is_refused() -> None:
    with pytest.raises(ValueError, match="3 segmented patients are too few for 5 parts"):
        k_folds([case("a"), case("b"), case("c"), case("d", labelled=False)])
    with pytest.raises(ValueError, match="too few for 3 parts"):
        ucsf_split(ucsf()[:6])


def test_names_are_chained_to_one_person() -> None:
    cases = [case("a", also=("x",)), case("b", also=("x", "y")), case("c", also=("y",)), case("d")]
    assert Counter(len(person.patients) for person in people(cases)) == {3: 1, 1: 1}
    assert sorted(len(fold) for fold in k_folds(cases, 2).folds) == [1, 3]


def test_a_split_is_written_with_its_reason_and_read_back(tmp_path: Path) -> None:
    split = k_folds(ucsf(), 5)
    save_split(split, tmp_path / "ucsf.json")
    read = load_split(tmp_path / "ucsf.json", ucsf())
    assert (read.folds, read.digest, read.seed) == (split.folds, split.digest, split.seed)
    assert "stratified by enhancement" in read.source
    assert read.others(2) == frozenset().union(*split.folds) - split.folds[2]


def test_a_split_that_was_changed_by_hand_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ucsf.json"
    save_split(k_folds(ucsf(), 5), path)
    values = json.loads(path.read_text())
    values["folds"][0].append(values["folds"][1].pop())
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="was changed"):
        load_split(path)
    values["folds"][0].append(values["folds"][1][0])
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="named twice"):
        load_split(path)


def test_one_person_under_two_names_on_two_sides_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "folds.json"
    save_split(k_folds([case("a"), case("b")], 2), path)
    assert load_split(path, [case("a"), case("b")]).folds
    with pytest.raises(ValueError, match="two names"):
        load_split(path, [case("a"), case("b", also=("a",))])


def write_caches(root: Path, **sources: Sequence[Case]) -> list[Path]:
    for name, cases in sources.items():
        (root / name).mkdir()
        rows = [one.__dict__ | {"also": list(one.also), "notes": []} for one in cases]
        (root / name / "cases.json").write_text(json.dumps(rows))
    return [root / name for name in sources]


def brats_2021() -> list[Case]:
    return [case(f"BraTS2021_{number:05d}", also=(f"BraTS-{number:05d}",)) for number in range(90, 110)]


def test_it_is_said_aloud_when_no_table_tells_the_twins(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_splits(write_caches(tmp_path, ucsf=ucsf(), brats2021=brats_2021()), tmp_path / "folds")
    assert "NO TABLE SAYS WHO IS IN BOTH" in caplog.text


def test_splits_of_caches_share_nobody_and_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mapped = [*ucsf(), case("UCSF-PDGM-0601", also=("BraTS-00097",))]
    caches = write_caches(tmp_path, ucsf=mapped, brats2021=brats_2021())
    paths = write_splits(caches, tmp_path / "folds")
    assert "NO TABLE" not in caplog.text
    assert [path.name for path in paths] == ["ucsf.json", "ucsf-papers.json", "brats2021.json"]
    brats = frozenset().union(*load_split(paths[2]).folds)
    assert len(brats) == 19
    assert "BraTS2021_00097" not in brats
    with pytest.raises(FileExistsError, match="is fixed"):
        write_splits([tmp_path / "ucsf"], tmp_path / "folds")


@pytest.mark.parametrize("path", sorted(FOLDS.glob("*.json")), ids=lambda path: path.stem)
def test_the_fold_files_of_the_project_are_splits(path: Path) -> None:
    assert len(load_split(path).folds) >= 2
