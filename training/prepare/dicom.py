"""An exam of DICOM series in one frame of reference, with a SEG (the layout of `lgg`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import SimpleITK as sitk
from pydicom import Dataset
from pydicom.errors import InvalidDicomError

from synthesis.errors import RefusedInput
from synthesis.register import register, resampled
from synthesis.series import DECODING_ERRORS, read_series
from training.prepare.exams import Exam, Role, dicom_files
from training.prepare.patient import Patient

#: Frames of the SEG may lie this far from the T1W's own pixels and planes, in voxels.
OFF_GRID = 0.1


def read_dicom(exam: Exam) -> Patient:
    """Return the volumes of an exam that has all three series, on the T1W's grid.

    The FLAIR is brought there as the pipeline does it. T1C and SEG are what is judged by: they are taken to
    lie where they say.

    Raises
    ------
    RefusedInput
        When a series cannot be read (see `read_series`) or the FLAIR not aligned (see `register`),
        ``FRAMES_DIFFER`` when they are not in one frame of reference, ``UNREADABLE_FILE`` or
        ``SEGMENT_ELSEWHERE`` for the SEG.
    """
    found = {role: read_series(dicom_files(exam.files[role])) for role in (Role.T1, Role.FLAIR, Role.T1C)}
    t1, frame = found[Role.T1].image, found[Role.T1].frame_of_reference_uid
    for role in (Role.FLAIR, Role.T1C):
        _refuse_other_frame(role, found[role].frame_of_reference_uid, frame)
    flair = register(t1, found[Role.FLAIR].image, same_frame_of_reference=True).flair_on_t1
    t1c = resampled(found[Role.T1C].image, t1, sitk.Transform())
    marked = np.zeros(t1.GetSize()[::-1], dtype=np.uint8)
    notes = exam.notes
    if Role.SEG in exam.files:
        first, *more = dicom_files(exam.files[Role.SEG])
        if more:
            notes += (f"The SEG is there {1 + len(more)} times: {first.name} was taken.",)
        _mark(marked, first, t1, frame)
    tumour = sitk.GetImageFromArray(marked)
    tumour.CopyInformation(t1)
    return Patient(t1, flair, t1c, tumour, labelled=Role.SEG in exam.files, notes=notes)


def _refuse_other_frame(role: Role, frame: str, t1_frame: str) -> None:
    if not frame or frame != t1_frame:
        raise RefusedInput(
            "FRAMES_DIFFER", f"T1W and {role.name} are not in one frame of reference, or do not say so."
        )


def _mark(marked: npt.NDArray[np.uint8], path: Path, t1: sitk.Image, t1_frame: str) -> None:
    """Set 1 what the segments of a DICOM SEG cover in (D, H, W). Its frames lie on the T1W's planes."""
    try:
        dataset = pydicom.dcmread(path)
        frames = np.asarray(dataset.pixel_array).reshape(-1, dataset.Rows, dataset.Columns)
        positions = [_position(group) for group in dataset.PerFrameFunctionalGroupsSequence]
    except (InvalidDicomError, *DECODING_ERRORS) as error:
        raise RefusedInput("UNREADABLE_FILE", "The segmentation is damaged or no DICOM SEG.") from error
    _refuse_other_frame(Role.SEG, str(dataset.get("FrameOfReferenceUID") or ""), t1_frame)
    for frame, position in zip(frames, positions, strict=True):
        index = np.asarray(t1.TransformPhysicalPointToContinuousIndex(position))
        plane = round(float(index[2]))
        off = float(np.abs(index - (0, 0, plane)).max())
        if frame.shape != marked.shape[1:] or off > OFF_GRID or not 0 <= plane < len(marked):
            raise RefusedInput("SEGMENT_ELSEWHERE", "The segmentation does not lie on the T1W's planes.")
        marked[plane] |= frame > 0


def _position(group: Dataset) -> list[float]:
    return [float(value) for value in group.PlanePositionSequence[0].ImagePositionPatient]
