"""The cameras that the sample library was supposedly taken with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True)
class Lens:
    """A lens with the settings it offers: f-numbers, and focal lengths in millimetres."""

    model: str
    f_numbers: tuple[float, ...]
    focal_lengths: tuple[float, ...]


@dataclass(frozen=True)
class Camera:
    """A camera, and how it names its files: a ``strftime`` pattern that may hold ``{number}``."""

    make: str
    model: str
    software: str
    lenses: tuple[Lens, ...]
    file_name: str
    knows_place: bool

    def file_stem(self, taken: datetime, number: int) -> str:
        """The name, without suffix, of the camera's picture ``number`` taken at ``taken``."""
        return taken.strftime(self.file_name).format(number=number)


CAMERAS: dict[str, Camera] = {
    "iphone": Camera(
        make="Apple",
        model="iPhone 13",
        software="17.5.1",
        lenses=(
            Lens("iPhone 13 back dual wide camera 5.1mm f/1.6", (1.6,), (5.1,)),
            Lens("iPhone 13 back dual wide camera 1.54mm f/2.4", (2.4,), (1.54,)),
        ),
        file_name="IMG_{number:04d}",
        knows_place=True,
    ),
    "pixel": Camera(
        make="Google",
        model="Pixel 7",
        software="HDR+ 1.0.540104767zd",
        lenses=(Lens("Pixel 7 back camera 6.81mm f/1.85", (1.85,), (6.81,)),),
        file_name="PXL_%Y%m%d_%H%M%S",
        knows_place=True,
    ),
    "canon": Camera(
        make="Canon",
        model="Canon EOS R6",
        software="Firmware Version 1.8.1",
        lenses=(
            Lens("RF24-105mm F4 L IS USM", (4.0, 5.6, 8.0), (24.0, 35.0, 70.0, 105.0)),
            Lens("RF50mm F1.8 STM", (1.8, 2.8, 4.0), (50.0,)),
        ),
        file_name="IMG_{number:04d}",
        knows_place=False,
    ),
    "nikon": Camera(
        make="NIKON CORPORATION",
        model="NIKON Z 6",
        software="Ver.03.60",
        lenses=(Lens("NIKKOR Z 24-70mm f/4 S", (4.0, 5.6, 8.0, 11.0), (24.0, 35.0, 50.0, 70.0)),),
        file_name="DSC_{number:04d}",
        knows_place=True,
    ),
    "fuji": Camera(
        make="FUJIFILM",
        model="X-T4",
        software="Digital Camera X-T4 Ver2.01",
        lenses=(
            Lens("XF18-55mmF2.8-4 R LM OIS", (2.8, 4.0, 5.6), (18.0, 23.0, 35.0, 55.0)),
            Lens("XF35mmF1.4 R", (1.4, 2.0, 2.8), (35.0,)),
        ),
        file_name="DSCF{number:04d}",
        knows_place=False,
    ),
    "sony": Camera(
        make="SONY",
        model="ILCE-7M3",
        software="ILCE-7M3 v4.01",
        lenses=(Lens("FE 28-70mm F3.5-5.6 OSS", (3.5, 5.6, 8.0), (28.0, 50.0, 70.0)),),
        file_name="DSC{number:05d}",
        knows_place=True,
    ),
}
