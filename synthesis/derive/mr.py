"""Volumes on the grid of the T1W as classic MR series (PS3.3 A.4, C.8.3.1): T1C, difference, uncertainty.

One instance per T1W slice: same Frame of Reference, positions, orientation and spacing to the letter. What is
written, and why, attribute by attribute: deploy/CONFORMANCE.md.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import SimpleITK as sitk
from highdicom import SOPClass
from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

from synthesis.derive.corner import with_corner_text
from synthesis.derive.provenance import MANUFACTURER, SYNTHETIC, derivation_codes, stable_uid
from synthesis.derive.scaling import (
    SCALED_LEVEL,
    Pixels,
    Scaling,
    scaling_of,
    scaling_of_change,
    scaling_to_level,
)
from synthesis.derive.source import Source
from synthesis.series import FloatArray

IMAGE_COMMENTS = "Synthetic image for research only. Made by a neural network; no contrast agent was given."
#: Scan Options (0018,0022) for gated acquisitions.
GATING = ("PER", "RG", "CG", "PPG")
#: A parameter that changes the identifiers.
CORNER_TEXT = "corner text"


@dataclass(frozen=True)
class Look:
    """How one kind of series names and shows itself."""

    #: Enters the identifiers.
    kind: str
    #: Series Description (0008,103E), 64 characters; no word that a hanging rule for "T1 POST" looks for.
    description: str
    #: Added to the T1W's Series Number.
    number_step: int
    #: Beginning of the Derivation Description (0008,2111); the model follows.
    derivation: str
    #: Beginning of the Image Comments (0020,4000).
    comment: str
    #: Image Type (0008,0008) after value 4.
    flavour: tuple[str, ...]
    #: Window over the brain's level.
    window_center: float
    window_width: float


T1C = Look(
    kind="t1c",
    description="SYNTH T1C (AI, no Gd)",
    number_step=9000,
    derivation="Synthetic post-contrast T1 by neural network",
    comment=IMAGE_COMMENTS,
    flavour=(),
    # Fluid dark, brain below the middle, fat and enhancement bright.
    window_center=1.1,
    window_width=2.0,
)
DIFFERENCE = Look(
    kind="difference",
    description="SYNTH DIFF (AI, predicted change)",
    number_step=19000,
    derivation="Synthetic T1C minus T1W: enhancement predicted by neural network",
    comment=f"{IMAGE_COMMENTS} Difference synthetic T1C minus T1W: predicted enhancement, not measured.",
    flavour=("DIFFERENCE",),
    # From slightly below no change (dark grey) to what contrast agent does to vessels and solid tumour.
    window_center=0.25,
    window_width=0.7,
)
UNCERTAINTY = Look(
    kind="uncertainty",
    description="SYNTH UNCERTAINTY (AI, spread)",
    number_step=29000,
    derivation="Spread of the synthetic T1C among networks and mirror images: neural network",
    comment=f"{IMAGE_COMMENTS} Standard deviation of the synthetic T1C among the networks that answered; "
    f"{SCALED_LEVEL:.0f} is the brain's signal on the T1W. Where all are wrong alike it is small, too.",
    flavour=("UNCERTAINTY",),
    window_center=0.1,
    window_width=0.2,
)


@dataclass(frozen=True)
class Volume:
    """What a series shows: stored values (slices, rows, columns) and how they are to be seen."""

    look: Look
    pixels: Pixels
    scaling: Scaling
    #: In stored values.
    window: tuple[float, float]
    corner_text: bool = False

    @property
    def parameters(self) -> tuple[str, ...]:
        """Return the settings that changed the pixels."""
        return (CORNER_TEXT,) if self.corner_text else ()


class SyntheticMR(SOPClass):
    """One slice: MR Image Storage."""

    def __init__(self, source: Source, volume: Volume, series_uid: UID, index: int) -> None:
        """
        Parameters
        ----------
        source : Source
            What all objects share.
        volume : Volume
            What the series shows.
        series_uid : UID
            Series Instance UID.
        index : int
            The slice, from 0 along the normal.
        """
        header, frame = source.t1.headers[index], source.t1.frames[index]
        super().__init__(
            study_instance_uid=source.study.patient_and_study.StudyInstanceUID,
            series_instance_uid=series_uid,
            series_number=source.series_number(volume.look.number_step),
            sop_instance_uid=stable_uid(series_uid, str(header.SOPInstanceUID), str(frame)),
            sop_class_uid=MRImageStorage,
            instance_number=index + 1,
            modality="MR",
            manufacturer=MANUFACTURER,
            transfer_syntax_uid=ExplicitVRLittleEndian,
        )
        self.ImageType = ["DERIVED", "SECONDARY", "OTHER", SYNTHETIC, *volume.look.flavour]
        self.update(source.slices[index])
        self.FrameOfReferenceUID = source.frame_of_reference_uid
        self.ImageComments = source.comments(volume.look.comment)
        self.BurnedInAnnotation = "YES" if volume.corner_text else "NO"
        self.DerivationDescription = derivation_of(source, volume.look)
        self.DerivationCodeSequence = derivation_codes(resampled=source.resampled)
        source.refer(self, source.images[index])
        source.dress(self, volume.look.description)
        self._put_sequence_type()
        put_pixels(self, volume, volume.pixels[index])
        self.SmallestImagePixelValue = int(volume.pixels[index].min())
        self.LargestImagePixelValue = int(volume.pixels[index].max())
        self.WindowCenter, self.WindowWidth = (f"{value:.6g}" for value in volume.window)

    def _put_sequence_type(self) -> None:
        """Fill the type 1 attributes of the pulse sequence; an inversion time belongs to IR alone.

        Gating goes: it asks for trigger times, which are the scanner's to tell.
        """
        if not self.get("ScanningSequence"):
            self.ScanningSequence = "RM"
        if not self.get("SequenceVariant"):
            self.SequenceVariant = "NONE"
        options = self["ScanOptions"].value or []
        options = [options] if isinstance(options, str) else list(options)
        self.ScanOptions = [option for option in options if option not in GATING] or None
        inverted = "IR" in str(self.ScanningSequence)
        if inverted and "InversionTime" not in self:
            self.InversionTime = None
        if not inverted and "InversionTime" in self:
            del self.InversionTime


def t1c_volume(
    source: Source, t1c: sitk.Image, *, corner_text: bool = False
) -> tuple[Volume, tuple[str, ...]]:
    """Return the synthetic T1C as stored values, and what differs from the T1W's.

    Parameters
    ----------
    source : Source
        What it was made from.
    t1c : sitk.Image
        On the T1W's grid, in the T1W's values.
    corner_text : bool
        Whether "synthetic" is burned into a corner of each slice.
    """
    values = _on_the_grid(source, t1c)
    scaling, said = scaling_of(values, source.level, source.t1.bits_stored)
    volume = _volume(T1C, values, scaling, source.level)
    if not corner_text:
        return volume, said
    marked = with_corner_text(volume.pixels, volume.window)
    return Volume(T1C, marked, scaling, volume.window, corner_text=True), said


def difference_volume(source: Source, t1c: sitk.Image) -> tuple[Volume, tuple[str, ...]]:
    """Return T1C − T1W as stored values, signed, in the steps of the stored T1C."""
    values = _on_the_grid(source, t1c)
    scaling, _ = scaling_of(values, source.level, source.t1.bits_stored)
    change = values - sitk.GetArrayFromImage(source.t1.image)
    own, said = scaling_of_change(change, scaling)
    return _volume(DIFFERENCE, change, own, source.level), said


def uncertainty_volume(source: Source, spread: sitk.Image) -> Volume:
    """Return the spread of the T1C (in the T1W's values, on its grid) in thousandths of the brain's level."""
    values = _on_the_grid(source, spread)
    return _volume(UNCERTAINTY, values, scaling_to_level(source.level), source.level)


def derive_series(source: Source, volume: Volume) -> tuple[SyntheticMR, ...]:
    """Return one instance per T1W slice."""
    uid = source.series_uid(volume.look.kind, volume.parameters)
    with no_unknown_keywords():
        return tuple(SyntheticMR(source, volume, uid, index) for index in range(len(volume.pixels)))


def derivation_of(source: Source, look: Look) -> str:
    """Return the Derivation Description (0008,2111)."""
    return f"{look.derivation} {source.maker.model} {source.maker.version}; no contrast agent given"


def put_pixels(derived: Dataset, volume: Volume, pixels: Pixels) -> None:
    """Write the Image Pixel module; `pixels` is (rows, columns) or (frames, rows, columns)."""
    bits = volume.scaling.bits_stored
    derived.SamplesPerPixel = 1
    derived.PhotometricInterpretation = "MONOCHROME2"
    derived.Rows, derived.Columns = pixels.shape[-2:]
    derived.BitsAllocated, derived.BitsStored, derived.HighBit = 16, bits, bits - 1
    derived.PixelRepresentation = int(volume.scaling.signed)
    derived.PixelData = pixels.astype("<i2" if volume.scaling.signed else "<u2").tobytes()


@contextmanager
def no_unknown_keywords() -> Iterator[None]:
    """Raise for a keyword that pydicom does not know: it would only warn and silently not write it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Camel case attribute")
        yield


def _volume(look: Look, values: FloatArray, scaling: Scaling, level: float) -> Volume:
    window = scaling.window(look.window_center * level, look.window_width * level)
    return Volume(look, scaling.stored(values), scaling, window)


def _on_the_grid(source: Source, image: sitk.Image) -> FloatArray:
    values: FloatArray = sitk.GetArrayFromImage(image)
    if values.shape != sitk.GetArrayViewFromImage(source.t1.image).shape:
        raise ValueError("The synthetic volume does not lie on the T1W's grid.")
    return values
