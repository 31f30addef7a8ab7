"""What made an object: our equipment, the model, the source images, and identifiers that follow from them."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from highdicom import UID, AlgorithmIdentificationSequence
from highdicom.base_content import ContributingEquipment
from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.sr.codedict import codes

from synthesis.job import MANUFACTURER as MANUFACTURER

MODEL_NAME = "TA-ViT synthetic T1C"
#: Image Type value 4 of everything that we make; declared in deploy/CONFORMANCE.md.
SYNTHETIC = "SYNTHETIC"
NAMESPACE = uuid.UUID("6f0d3f0e-5b0a-4a7e-9d4e-3d1f8a6f2c11")
CONTRIBUTION = "Neural network: pre-contrast T1W and FLAIR to synthetic post-contrast T1"
#: Raise it when the code changes what the pixels become: identifiers change with it.
PIXELS_VERSION = "1"


@dataclass(frozen=True)
class Maker:
    """The model and the code that made an object."""

    model: str
    version: str
    #: SHA-256 of the weights, hexadecimal.
    digest: str
    #: What a reader must know of this model, as a sentence; goes into every image.
    caveat: str = ""
    #: Type of the device that computed ("cpu", "cuda"): pixels are equal to the bit on the same type.
    device: str = ""
    #: What was asked for, as `synthesis.job.Wanted` says it in words.
    parameters: str = ""

    @property
    def software_versions(self) -> tuple[str, str, str]:
        """Return code, weights and model, as Software Versions (0018,1020) hold them (64 characters each).

        The digest is 64 long: were it the last, padding to even length would make readers warn of 65.
        """
        return (f"dicom-node {code_version()}", self.digest, f"{self.model} {self.version}"[:64])

    @property
    def device_uid(self) -> UID:
        """Return the Device UID (0018,1002): the same weights are the same device."""
        return stable_uid("device", self.digest)

    def algorithm(self, what: str) -> AlgorithmIdentificationSequence:
        """Return the Algorithm Identification (PS3.3 10.13) of this model, for segments and maps."""
        return AlgorithmIdentificationSequence(
            name=f"{self.model}: {what}"[:64],
            family=codes.DCM.ArtificialIntelligence,
            version=f"{self.version}"[:64],
            source=MANUFACTURER,
            parameters={"weights_sha256": self.digest},
        )


def code_version() -> str:
    """Return the version of this package."""
    return version("dicom-node")


def stable_uid(*parts: str) -> UID:
    """Return the same ``2.25.`` identifier for the same parts (PS3.5 B.2)."""
    return UID.from_uuid(str(uuid.uuid5(NAMESPACE, "\n".join(parts))))


def series_uid(kind: str, inputs: Iterable[str], maker: Maker, parameters: Iterable[str] = ()) -> UID:
    """Return the Series Instance UID of what `maker` makes of these SOP instances, in any order."""
    return stable_uid(kind, PIXELS_VERSION, maker.digest, *sorted(parameters), *sorted(inputs))


def source_image(header: Dataset, frame: int | None, *, locations_preserved: bool) -> Dataset:
    """Return an item of the Source Image Sequence (0008,2112) (PS3.3 C.7.6.1.1.4)."""
    item = Dataset()
    item.ReferencedSOPClassUID = header.SOPClassUID
    item.ReferencedSOPInstanceUID = header.SOPInstanceUID
    if frame is not None:
        item.ReferencedFrameNumber = frame
    if locations_preserved:
        item.SpatialLocationsPreserved = "YES"
    item.PurposeOfReferenceCodeSequence = [
        CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)
    ]
    return item


def contributing_equipment(
    scanner: Dataset, maker: Maker, made: datetime.datetime
) -> list[ContributingEquipment]:
    """Return the scanner that acquired the sources, when it is known, and ourselves (PS3.3 C.12.1)."""
    ours = ContributingEquipment(
        manufacturer=MANUFACTURER,
        purpose_of_reference=codes.DCM.SynthesizingEquipment,
        manufacturer_model_name=MODEL_NAME,
        software_versions=list(maker.software_versions),
        contribution_datetime=made,
        contribution_description=contribution(maker),
    )
    if scanner.get("Manufacturer") in (None, "", MANUFACTURER):  # a header of our own names no scanner
        return [ours]
    return [ContributingEquipment.for_image_acquisition(scanner), ours]


def contribution(maker: Maker) -> str:
    """Return the Contribution Description (0018,A003): what was done, and what it takes to do it again."""
    return f"{CONTRIBUTION}; device={maker.device} pixels={PIXELS_VERSION} {maker.parameters}".rstrip()


def derivation_codes(*, resampled: bool) -> Sequence[Dataset]:
    """Return the items of the Derivation Code Sequence (0008,9215)."""
    used = [codes.DCM.ArtificialIntelligence]
    if resampled:
        used.append(codes.DCM.SpatialResampling)
    return [CodedConcept.from_code(code) for code in used]
