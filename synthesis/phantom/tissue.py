"""What a head is made of: the tissues with their MR constants, and the map of where they are."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt

MAP_FILE = Path(__file__).with_name("tissue.npz")

Labels = npt.NDArray[np.uint8]
Fractions = npt.NDArray[np.float32]


class Tissue(IntEnum):
    """What a voxel of the map can be; inside the brain, white and grey matter are fractions over CSF."""

    AIR = 0
    SKIN = 1
    FAT = 2
    MUSCLE = 3
    BONE = 4
    MARROW = 5
    CSF = 6
    VITREOUS = 7
    BLOOD = 8
    MUCOSA = 9
    CHOROID = 10
    NERVE = 11
    WHITE_MATTER = 12
    GREY_MATTER = 13
    OEDEMA = 14
    TUMOUR = 15
    NECROSIS = 16


@dataclass(frozen=True)
class Constants:
    """MR constants at 1.5 T: proton density (CSF = 1), T1, T2; and with a contrast agent on board."""

    pd: float
    t1_ms: float
    t2_ms: float
    t1_enhanced_ms: float | None = None
    pd_enhanced: float | None = None


#: Rounded from the reviews of Bottomley 1984 and Stanisz 2005. Blood stands for flow: a void before the
#: agent, bright with it. Fat has the long apparent T2 that it shows in turbo spin echo.
CONSTANTS: dict[Tissue, Constants] = {
    Tissue.AIR: Constants(0.0, 1000, 100),
    Tissue.SKIN: Constants(0.60, 700, 45),
    Tissue.FAT: Constants(0.80, 270, 85),
    Tissue.MUSCLE: Constants(0.72, 950, 42, 800),
    Tissue.BONE: Constants(0.06, 500, 10),
    Tissue.MARROW: Constants(0.45, 380, 60),
    Tissue.CSF: Constants(1.00, 4200, 2000),
    Tissue.VITREOUS: Constants(0.98, 3900, 1000),
    Tissue.BLOOD: Constants(0.12, 1400, 150, 180, 0.75),
    Tissue.MUCOSA: Constants(0.85, 1100, 110, 350),
    Tissue.CHOROID: Constants(0.90, 1300, 130, 350),
    Tissue.NERVE: Constants(0.70, 650, 80),
    Tissue.WHITE_MATTER: Constants(0.70, 580, 78),
    Tissue.GREY_MATTER: Constants(0.82, 1120, 98, 1060),
    Tissue.OEDEMA: Constants(0.88, 1500, 160),
    Tissue.TUMOUR: Constants(0.88, 1450, 140, 380),
    Tissue.NECROSIS: Constants(0.95, 2600, 400),
}


@dataclass(frozen=True)
class HeadMap:
    """Where the tissues are, on a grid along the axes of LPS. Arrays are `(z, y, x)`: up, back, left."""

    #: `Tissue` of each voxel.
    labels: Labels
    #: Share of white and of grey matter, 0–1; what is left of 1 is the tissue of the label.
    white: Fractions
    grey: Fractions
    #: Centre of the first voxel in LPS, millimetres, and the size of the cubic voxels.
    origin_mm: tuple[float, float, float]
    voxel_mm: float

    @classmethod
    def load(cls) -> HeadMap:
        """Return the head that is shipped with the package."""
        with np.load(MAP_FILE, allow_pickle=False) as arrays:
            depth = float(arrays["depth"])
            x, y, z = (float(value) for value in arrays["origin_mm"])
            return cls(
                labels=arrays["labels"],
                white=arrays["white"].astype(np.float32) / depth,
                grey=arrays["grey"].astype(np.float32) / depth,
                origin_mm=(x, y, z),
                voxel_mm=float(arrays["voxel_mm"]),
            )

    def centres_mm(self) -> tuple[Fractions, Fractions, Fractions]:
        """Return the LPS coordinates x, y, z of the voxel centres, each broadcastable to `(z, y, x)`."""
        depth, height, width = self.labels.shape
        x, y, z = (
            (origin + self.voxel_mm * np.arange(size)).astype(np.float32)
            for origin, size in zip(self.origin_mm, (width, height, depth), strict=True)
        )
        return x[None, None, :], y[None, :, None], z[:, None, None]
