"""Which frames of an Enhanced MR object make the volume that is read (PS3.3 C.7.6.16.2.2, C.8.13).

One object may hold several: stacks of other directions, echoes, time points, magnitude and phase. Node and
worker both ask here, so that what is chosen by its header is what is read. Imports nothing of either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableSequence, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.tag import Tag

#: Fewer frames than this are a survey or a rest, whatever distance they span.
LEAST_FRAMES = 10
#: Two volumes whose extents and numbers of frames both differ by less than this share are equally fit.
ALIKE_WITHIN = 0.1
#: At most this many volumes that are not read are named.
MOST_NAMED = 3
#: Two frames closer than this lie at one place.
SAME_POSITION_MM = 0.01
#: Cosines of one direction, and echo or inversion times of one volume (as a share), differ by less: scanners
#: round each frame by itself, and invert each package of slices by itself.
SAME_COSINES, SAME_TIME_WITHIN = 0.01, 0.05
#: Components and values of Frame Type that no network was trained on, where an object holds others, too.
_UNFIT = {
    *("PHASE", "REAL", "IMAGINARY", "P", "R", "I", "PHASE_MAP", "PHASE MAP", "PHASE CONTRAST"),
    *("F", "FAT", "FAT_FRACTION", "OP", "OPP_PHASE", "OUT_PHASE", "OUT_OF_PHASE", "OPPOSED_PHASE"),
}
#: Dimensions that only say where in its stack a frame lies.
_PLACES = {Tag(keyword) for keyword in ("StackID", "InStackPositionNumber", "ImagePositionPatient")}


@dataclass(frozen=True)
class Choice:
    """The frames of one volume."""

    #: Frame numbers, from 1, in the order of the object; empty when none can be chosen.
    frames: tuple[int, ...]
    #: What was chosen among what, or why nothing was; empty where the object holds one volume.
    sentence: str = ""
    #: ``SEVERAL_STACKS``, ``SEVERAL_ECHOES`` or ``SEVERAL_VOLUMES`` when none can be chosen.
    code: str = ""


@dataclass(frozen=True)
class _Frame:
    number: int
    #: Which of the directions that occur its plane has; None where it does not say.
    direction: int | None
    stack: str
    kind: tuple[str, ...]
    #: Which of the echo and inversion times that occur it has.
    echo: int | None
    inversion: int | None
    b_value: object
    #: Where it stands along the dimensions that the scanner added: time, label and control, …
    dimensions: tuple[object, ...]
    #: Along the normal; None without position or orientation.
    offset_mm: float | None


_Frames = tuple[_Frame, ...]


@dataclass
class _Known:
    """Values that occur among the frames of an object."""

    directions: list[np.ndarray] = field(default_factory=list)
    echoes: list[np.ndarray] = field(default_factory=list)
    inversions: list[np.ndarray] = field(default_factory=list)


#: What may differ among the frames of an object, the code of a refusal for it, and the value.
_DIFFERENCES: tuple[tuple[str, str, Callable[[_Frame], object]], ...] = (
    ("stack", "SEVERAL_STACKS", lambda frame: (frame.direction, frame.stack)),
    ("kind of image", "SEVERAL_VOLUMES", lambda frame: frame.kind),
    ("echo time", "SEVERAL_ECHOES", lambda frame: frame.echo),
    ("inversion time", "SEVERAL_VOLUMES", lambda frame: frame.inversion),
    ("b-value", "SEVERAL_VOLUMES", lambda frame: frame.b_value),
    ("time point", "SEVERAL_VOLUMES", lambda frame: frame.dimensions),
)


def chosen_frames(header: Dataset) -> Choice:
    """Return the frames that cover the head best: magnitude first, then the longest stack, then the finest.

    Parameters
    ----------
    header
        An Enhanced MR object with a functional group for each frame; its pixels are not looked at.
    """
    frames = _frames_of(header)
    volumes = _volumes(frames)
    if len(volumes) < 2:
        return Choice(tuple(frame.number for frame in frames))
    what, code = _differences(volumes)
    holds = f"The Enhanced MR object holds {len(volumes)} volumes (different {what})"
    if int(header.get("InConcatenationTotalNumber") or 1) > 1:
        return Choice((), f"{holds} and is cut into parts; please send one volume alone.", code)
    best, rivals = _best(_fit(volumes))
    if rivals:
        what, code = _differences([best, *rivals])
        return Choice(
            (),
            f"{holds}, and {1 + len(rivals)} of them are equally fit ({_said(best)}, different {what}); "
            "please send one alone.",
            code,
        )
    others = [_said(volume) for volume in volumes if volume is not best]
    more = ", …" if len(others) > MOST_NAMED else ""
    return Choice(
        tuple(frame.number for frame in best),
        f"{holds}: {_said(best)} are read, not {', '.join(others[:MOST_NAMED])}{more}.",
    )


def _frames_of(header: Dataset) -> _Frames:
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    pointers = [item.get("DimensionIndexPointer") for item in header.get("DimensionIndexSequence") or []]
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    known = _Known()
    frames = tuple(_frame(number, shared, own, pointers, known) for number, own in enumerate(per_frame, 1))
    if len({frame.stack for frame in frames}) == len(frames):  # counted, not named
        frames = tuple(replace(frame, stack="") for frame in frames)
    return frames


def _frame(number: int, shared: Dataset, own: Dataset, pointers: Sequence[object], known: _Known) -> _Frame:
    def group(name: str) -> Dataset:
        for groups in (own, shared):
            if groups.get(name):
                return groups[name][0]  # type: ignore[no-any-return]
        return Dataset()

    content, kind = group("FrameContentSequence"), group("MRImageFrameTypeSequence")
    orientation = _numbers(group("PlaneOrientationSequence").get("ImageOrientationPatient"), 6)
    position = _numbers(group("PlanePositionSequence").get("ImagePositionPatient"), 3)
    indices = _parts(content.get("DimensionIndexValues"))
    offset = None
    if orientation is not None and position is not None:
        offset = float(np.cross(orientation[:3], orientation[3:]) @ position)
    return _Frame(
        number=number,
        direction=_number_of(orientation, known.directions, SAME_COSINES, 0.0),
        stack=str(content.get("StackID") or ""),
        kind=(str(kind.get("ComplexImageComponent") or ""), *map(str, _parts(kind.get("FrameType")))),
        echo=_time_of(group("MREchoSequence").get("EffectiveEchoTime"), known.echoes),
        inversion=_time_of(group("MRModifierSequence").get("InversionTimes"), known.inversions),
        b_value=str(group("MRDiffusionSequence").get("DiffusionBValue")),
        dimensions=(
            content.get("TemporalPositionIndex"),
            group("MRArterialSpinLabelingSequence").get("ASLContext"),
            *(
                index
                for pointer, index in zip(pointers, indices, strict=False)
                if pointer is not None and pointer not in _PLACES
            ),
        ),
        offset_mm=offset,
    )


def _time_of(value: object, known: list[np.ndarray]) -> int | None:
    parts = _parts(value)
    return _number_of(_numbers(parts, len(parts)) if parts else None, known, 0.0, SAME_TIME_WITHIN)


def _number_of(value: np.ndarray | None, known: list[np.ndarray], within: float, share: float) -> int | None:
    """Return which of the known values this is; a new one is added to them."""
    if value is None:
        return None
    for index, one in enumerate(known):
        if one.shape == value.shape and (np.abs(one - value) <= within + share * np.abs(one)).all():
            return index
    known.append(value)
    return len(known) - 1


def _parts(value: Any) -> tuple[Any, ...]:
    """Return the values of an element: pydicom gives a single one bare."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, MutableSequence) else (value,)


def _numbers(value: object, count: int) -> np.ndarray | None:
    try:
        numbers = np.array([float(item) for item in value], dtype=np.float64)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return None
    return numbers if numbers.shape == (count,) and np.isfinite(numbers).all() else None


def _volumes(frames: _Frames) -> list[_Frames]:
    """Return the frames by volume. What a scanner counts beside them parts only frames at one place."""
    parted = list(_by(frames, lambda frame: tuple(value(frame) for _, _, value in _DIFFERENCES[:-1])))
    return [
        volume
        for part in parted
        for volume in (_by(part, lambda frame: frame.dimensions) if _repeats(part) else [part])
    ]


def _by(frames: _Frames, key: Callable[[_Frame], object]) -> Iterator[_Frames]:
    found: dict[object, list[_Frame]] = {}
    for frame in frames:
        found.setdefault(key(frame), []).append(frame)
    return map(tuple, found.values())


def _repeats(frames: _Frames) -> bool:
    offsets = _offsets(frames)
    return bool((np.diff(offsets) < SAME_POSITION_MM).any())


def _offsets(frames: _Frames) -> np.ndarray:
    return np.sort([frame.offset_mm for frame in frames if frame.offset_mm is not None])


def _extent_mm(frames: _Frames) -> float:
    offsets = _offsets(frames)
    return float(offsets[-1] - offsets[0]) if len(offsets) else 0.0


def _fit(volumes: list[_Frames]) -> list[_Frames]:
    """Return the volumes of the best kind, without surveys, as far as there are any."""
    for wanted in (_is_acquired_magnitude, lambda volume: len(volume) >= LEAST_FRAMES):
        volumes = [volume for volume in volumes if wanted(volume)] or volumes
    return volumes


def _is_acquired_magnitude(volume: _Frames) -> bool:
    kind = volume[0].kind
    return not _UNFIT & set(kind) and "DERIVED" not in kind[1:2]


def _best(volumes: list[_Frames]) -> tuple[_Frames, list[_Frames]]:
    """Return the best volume and those that are equally fit."""
    longest = max(map(_extent_mm, volumes))
    long = [volume for volume in volumes if _extent_mm(volume) >= (1 - ALIKE_WITHIN) * longest]
    best = max(long, key=len)
    rivals = [
        volume for volume in long if volume is not best and len(volume) >= (1 - ALIKE_WITHIN) * len(best)
    ]
    return best, rivals


def _differences(volumes: list[_Frames]) -> tuple[str, str]:
    """Return what tells these volumes apart, and the code of a refusal for it."""
    found = [
        (what, code)
        for what, code, value in _DIFFERENCES
        if len({value(volume[0]) for volume in volumes}) > 1
    ]
    return ", ".join(what for what, _ in found), found[0][1]


def _said(volume: _Frames) -> str:
    return f"{len(volume)} slices over {_extent_mm(volume):.0f} mm"
