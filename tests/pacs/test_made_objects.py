"""Every object that we make is valid, is read by independent readers where it lies, and Orthanc shows it."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from bench import Orthanc, tool
from highdicom import get_volume_from_series, imread
from objects import blob, every_object, save_all, spread_out
from PIL import Image
from pydicom import dcmread

from synthesis.phantom import write_study
from synthesis.series import Series, read_series

pytestmark = pytest.mark.pacs

REAL = {
    "BRAINIX": ("BRAINIX/T1", "BRAINIX/FLAIR"),
    "XA30 enhanced": ("enhanced/siemens_xa30/005_T1w_tfl.dcm", "enhanced/siemens_xa30/006_T1w_tfl_norm.dcm"),
    "Prisma sagittal": ("studies/siemens_prisma_t1_fl2d_sag",) * 2,
    "lgg 1": ("lgg/TCGA_CS_4941_19960909/t1", "lgg/TCGA_CS_4941_19960909/flair"),
    "lgg 2": ("lgg/TCGA_DU_7304_19930325/t1", "lgg/TCGA_DU_7304_19930325/flair"),
}
#: dciodvfy of 2022 does not know Synthetic Data, which came in 2024.
TOO_NEW_FOR_DCIODVFY = "(0x0008,0x001c)"
#: An unusable PatientSex is emptied: the source's own fault shows as a difference.
EMPTIED_BY_US = "<PatientSex>"
#: dcentvfy looks for these attributes of the study in the series of documents (SR, KO), and for images not.
FILED_ELSEWHERE = "IE <Series> versus <Study>"
NEAR_MM = 1e-3
#: Kinds of object without a place in the patient.
NO_PLACE = ("REPORT", "document", "page", "retraction")


@dataclass(frozen=True)
class Made:
    """A pair of series, and the files of each kind of object made from it."""

    sources: list[Path]
    t1: Series
    files: dict[str, list[Path]]

    @property
    def all_files(self) -> list[Path]:
        return [path for paths in self.files.values() for path in paths]

    @property
    def images(self) -> dict[str, list[Path]]:
        """Return what has a place: no documents."""
        return {
            kind: paths for kind, paths in self.files.items() if not any(word in kind for word in NO_PLACE)
        }


def made_from(t1_files: list[Path], flair_files: list[Path], folder: Path) -> Made:
    t1, flair = read_series(t1_files), read_series(flair_files)
    found = every_object(t1, flair)
    files = {
        kind: save_all(instances, folder / str(number))
        for number, (kind, instances) in enumerate(found.items())
    }
    return Made([*t1_files, *flair_files], t1, files)


@pytest.fixture(scope="module", params=REAL.values(), ids=REAL)
def real(request: pytest.FixtureRequest, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    tool("dciodvfy")
    t1, flair = (_files(shared_data / place) for place in request.param)
    return made_from(t1, flair, tmp_path_factory.mktemp("real"))


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("phantom")
    study = write_study(folder / "in", t2=None, localizer=False)
    t1, flair = (list(study.series[role].paths) for role in ("t1", "flair"))
    return made_from(t1, flair, folder / "out")


def test_dciodvfy_finds_no_error_in_any_kind_of_object(real: Made) -> None:
    for kind, paths in real.files.items():
        for path in spread_out(paths):
            errors = [line for line in _said("dciodvfy", path) if line.startswith("Error")]
            assert [line for line in errors if TOO_NEW_FOR_DCIODVFY not in line.lower()] == [], kind


def test_dcentvfy_finds_nothing_that_is_not_in_the_source_too(real: Made) -> None:
    before = {_kind(line) for line in _said("dcentvfy", *real.sources)}
    after = {_kind(line) for line in _said("dcentvfy", *real.sources, *real.all_files)}
    new = {line for line in after - before if EMPTIED_BY_US not in line and FILED_ELSEWHERE not in line}
    assert new == set()


def test_simpleitk_reads_each_series_where_the_t1w_lies(real: Made) -> None:
    for kind, paths in real.images.items():
        image = sitk.ReadImage([str(path) for path in paths] if len(paths) > 1 else str(paths[0]))
        assert "SEG" in kind or image.GetSize() == real.t1.image.GetSize(), kind
        assert _off_the_grid_mm(_places(image), real.t1.image) < NEAR_MM, kind


def test_highdicom_reads_each_series_where_the_t1w_lies(real: Made) -> None:
    for kind, paths in real.images.items():
        if "SEG" in kind:  # by the place of each voxel: tests/unit/test_objects.py
            continue
        one = len(paths) == 1
        volume = (
            imread(paths[0]).get_volume()
            if one
            else get_volume_from_series([dcmread(path) for path in paths])
        )
        assert volume.spatial_shape == real.t1.image.GetSize()[::-1], kind
        corners = [(volume.affine @ [*index, 1])[:3] for index in _corners(volume.spatial_shape)]
        assert _off_the_grid_mm(corners, real.t1.image) < NEAR_MM, kind


def test_dcmtk_reads_every_object(phantom: Made, tmp_path: Path) -> None:
    for kind, paths in phantom.files.items():
        dump = subprocess.run([tool("dcmdump"), "+P", "0008,0016", str(paths[0])], capture_output=True)
        assert dump.returncode == 0, kind
        if any(word in kind for word in ("REPORT", "document", "retraction")):
            run = subprocess.run([tool("dsrdump"), str(paths[0])], capture_output=True, text=True)
            assert run.returncode == 0, (kind, run.stderr)
            assert "dicom-node" in run.stdout


def test_dcm2niix_reads_each_series_where_the_t1w_lies(phantom: Made, tmp_path: Path) -> None:
    for number, (kind, paths) in enumerate(phantom.images.items()):
        out = tmp_path / str(number)
        out.mkdir()
        subprocess.run(
            [tool("dcm2niix"), "-f", "out", "-o", str(out), str(paths[0].parent)],
            capture_output=True,
            check=True,
        )
        read = sitk.ReadImage(str(next(out.glob("*.nii*"))))
        assert _off_the_grid_mm(_places(read), phantom.t1.image) < NEAR_MM, kind


def test_orthanc_takes_every_object_and_shows_the_images(phantom: Made, orthanc: Orthanc) -> None:
    shown: dict[str, int] = {}
    for kind, paths in phantom.files.items():
        for path in {paths[0], paths[len(paths) // 2]}:
            answer = orthanc.post("/instances", path.read_bytes())
            assert answer["Status"] in ("Success", "AlreadyStored"), kind
            if any(word in kind for word in ("REPORT", "document", "retraction")):
                continue
            picture = orthanc.call("GET", f"/instances/{answer['ID']}/preview")
            darkest, brightest = Image.open(BytesIO(picture)).convert("L").getextrema()
            shown[kind] = max(shown.get(kind, 0), brightest - darkest)
    assert len(shown) == 7
    assert {kind for kind, contrast in shown.items() if contrast < 50} == set(), shown


@pytest.mark.parametrize(
    "kind", ["T1C (AI, no Gd)", "DIFF (AI, predicted change)", "UNCERTAINTY (AI, spread)"]
)
def test_orthanc_renders_the_images_through_the_window_that_we_chose(
    kind: str, phantom: Made, orthanc: Orthanc
) -> None:
    paths = phantom.files[f"classic: SYNTH {kind}"]
    image = dcmread(paths[len(paths) // 2])
    center, width = float(image.WindowCenter), float(image.WindowWidth)

    shown = rendered(orthanc, paths[len(paths) // 2])

    through = (image.pixel_array - (center - 0.5)) / (width - 1) + 0.5  # PS3.3 C.11.2.1.2.1
    expected = 255 * np.clip(through, 0, 1)
    assert np.ptp(shown) > 50, "black, white or flat"
    assert np.abs(shown - expected).mean() < 2
    assert np.corrcoef(shown.ravel(), expected.ravel())[0, 1] > 0.999


def test_orthanc_renders_each_frame_of_the_enhanced_t1c(phantom: Made, orthanc: Orthanc) -> None:
    (path,) = phantom.files["enhanced: SYNTH T1C (AI, no Gd)"]
    frames = dcmread(path).pixel_array

    for number in (0, len(frames) // 2, len(frames) - 1):
        shown = rendered(orthanc, path, number)
        assert np.corrcoef(shown.ravel(), frames[number].ravel())[0, 1] > 0.9


@pytest.mark.parametrize("form", ["classic", "enhanced"], ids=["binary", "fractional"])
def test_orthanc_renders_the_segments_where_they_are(form: str, phantom: Made, orthanc: Orthanc) -> None:
    (path,) = phantom.files[f"{form}: SYNTH SEG (AI, predicted tumour)"]
    frames = dcmread(path).pixel_array

    fullest = int(frames.reshape(len(frames), -1).sum(axis=1).argmax())
    shown = rendered(orthanc, path, fullest)

    assert np.corrcoef(shown.ravel(), frames[fullest].ravel())[0, 1] > 0.99


def rendered(orthanc: Orthanc, path: Path, frame: int = 0) -> np.ndarray:
    """Return a frame as Orthanc shows it, 0-255."""
    identity = orthanc.post("/instances", path.read_bytes())["ID"]
    picture = orthanc.call("GET", f"/instances/{identity}/frames/{frame}/rendered")
    return np.asarray(Image.open(BytesIO(picture)).convert("L"), dtype=np.float64)


def test_the_blob_of_these_tests_is_not_symmetric(phantom: Made) -> None:
    """A mirrored or rotated mask would not pass for the right one."""
    tumour = blob(phantom.t1) > 0.5
    for axis in range(3):
        assert (tumour != np.flip(tumour, axis)).any()


def _files(place: Path) -> list[Path]:
    return [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())


def _said(name: str, *paths: Path) -> list[str]:
    run = subprocess.run([tool(name), *map(str, paths)], capture_output=True, text=True, errors="replace")
    return (run.stdout + run.stderr).splitlines()


def _kind(line: str) -> str:
    return line.split(" for file ")[0]


def _corners(size: Iterable[int]) -> Iterator[tuple[int, ...]]:
    """Yield the indices of the outer voxels."""
    return itertools.product(*[(0, count - 1) for count in size])


def _places(image: sitk.Image) -> list[tuple[float, ...]]:
    """Return where the outer voxels lie."""
    return [image.TransformIndexToPhysicalPoint(corner) for corner in _corners(image.GetSize())]


def _off_the_grid_mm(places: Iterable[Sequence[float]], grid: sitk.Image) -> float:
    """Return how far any of these places is from the voxel of the grid that is nearest to it."""
    worst = 0.0
    for place in places:
        point = [float(value) for value in place]
        nearest = grid.TransformIndexToPhysicalPoint(grid.TransformPhysicalPointToIndex(point))
        worst = max(worst, float(np.abs(np.subtract(point, nearest)).max()))
    return worst
