"""What a picture file says of itself: EXIF, XMP and PNG text for a shot."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from PIL import Image
from PIL.ExifTags import GPS, IFD, Base
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import IFDRational

if TYPE_CHECKING:
    from datetime import datetime

    from imagedbd.demo.shots import Place, Shot

_EXIF_TIME = "%Y:%m:%d %H:%M:%S"
_ARC_SECOND_PARTS = 100

_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"{rating}>
   <dc:subject>
    <rdf:Bag>
{keywords}
    </rdf:Bag>
   </dc:subject>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""


def exif(shot: Shot) -> Image.Exif:
    """The EXIF block that the shot's camera would have written."""
    block = Image.Exif()
    block[Base.Make] = shot.camera.make
    block[Base.Model] = shot.camera.model
    block[Base.Software] = shot.camera.software
    block[Base.Orientation] = shot.orientation
    block[Base.DateTime] = shot.taken.strftime(_EXIF_TIME)
    if shot.caption is not None:
        block[Base.ImageDescription] = shot.caption
    block.get_ifd(IFD.Exif).update(_exposure_tags(shot))
    if shot.place is not None:
        block.get_ifd(IFD.GPSInfo).update(_gps_tags(shot.place))
    return block


def xmp(shot: Shot) -> bytes:
    """The XMP packet with the shot's keywords and, if it has one, its rating."""
    keywords = "\n".join(f"     <rdf:li>{escape(keyword)}</rdf:li>" for keyword in shot.keywords)
    rating = "" if shot.rating is None else f'\n    xmp:Rating="{shot.rating}"'
    return _XMP.format(rating=rating, keywords=keywords).encode()


def png_text(shot: Shot) -> PngInfo:
    """The text chunks of a drawing program's PNG."""
    text = PngInfo()
    text.add_text("Title", f"{shot.scene.colour} {shot.scene.subject}".capitalize())
    text.add_text("Creation Time", shot.taken.isoformat())
    if shot.caption is not None:
        text.add_text("Description", shot.caption)
    return text


def _exposure_tags(shot: Shot) -> dict[int, Any]:
    offset = _utc_offset(shot.taken)
    return {
        Base.ExposureTime: IFDRational(shot.exposure.time),
        Base.FNumber: _rational(shot.exposure.f_number, 100),
        Base.ISOSpeedRatings: shot.exposure.iso,
        Base.DateTimeOriginal: shot.taken.strftime(_EXIF_TIME),
        Base.DateTimeDigitized: shot.taken.strftime(_EXIF_TIME),
        Base.OffsetTime: offset,
        Base.OffsetTimeOriginal: offset,
        Base.OffsetTimeDigitized: offset,
        Base.FocalLength: _rational(shot.exposure.focal_length, 100),
        Base.LensModel: shot.lens.model,
    }


def _gps_tags(place: Place) -> dict[int, Any]:
    return {
        GPS.GPSVersionID: b"\x02\x03\x00\x00",
        GPS.GPSLatitudeRef: "N" if place.latitude >= 0 else "S",
        GPS.GPSLatitude: _sexagesimal(abs(place.latitude)),
        GPS.GPSLongitudeRef: "E" if place.longitude >= 0 else "W",
        GPS.GPSLongitude: _sexagesimal(abs(place.longitude)),
    }


def _sexagesimal(degrees: float) -> tuple[IFDRational, IFDRational, IFDRational]:
    """Degrees as whole degrees, whole minutes, and seconds to the hundredth."""
    parts = round(degrees * 3600 * _ARC_SECOND_PARTS)
    minutes, rest = divmod(parts, 60 * _ARC_SECOND_PARTS)
    whole, minutes = divmod(minutes, 60)
    return IFDRational(whole), IFDRational(minutes), IFDRational(rest, _ARC_SECOND_PARTS)


def _rational(value: float, denominator: int) -> IFDRational:
    return IFDRational(Fraction(round(value * denominator), denominator))


def _utc_offset(moment: datetime) -> str:
    """The offset as EXIF writes it: ``+02:00``."""
    text = moment.strftime("%z")
    return f"{text[:3]}:{text[3:]}"
