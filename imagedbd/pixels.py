"""From an opened picture to the pixels that a model sees, equal to OpenCLIP's own transform.

OpenCLIP's evaluation transform (``open_clip.transform.image_transform``) is built from torchvision, which no
decoder process should import. On a picture it only ever calls Pillow, so the same sizes, filters and crops
give the same bytes. Its rounding is kept as it stands there, banker's rounding and truncation included.

One thing differs on purpose: OpenCLIP converts to RGB last and clips or drops what RGB cannot hold. Here the
picture is first made what a person sees (upright, on white where it is transparent, 16-bit tones scaled
rather than clipped), palettes are resolved before filtering, and colours are made sRGB. For opaque 8-bit RGB
and greyscale pictures without a profile the two orders give equal bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from imagedbd.colours import conversion

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from imagedbd.colours import ToSrgb
    from imagedbd.datatypes import Pixels, Preprocess

Size = tuple[int, int]
"""Width and height in pixels, as Pillow orders them."""

_DRAFT_FACTOR = 2
_EXTREME_ASPECT = 100
_WHITE = (255, 255, 255)
_DEEP_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})

_UPRIGHT: dict[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Exif 2.32, tag Orientation (0x0112): the stored value, and what turns such a picture upright."""
_TURNED_BY_READER = frozenset({"TIFF", "HEIF", "JXL"})
_RIGHT_ANGLES = frozenset(_UPRIGHT[orientation] for orientation in (5, 6, 7, 8))


def shown_size(image: Image.Image, orientation: int | None) -> Size:
    """The size of the picture as shown.

    :param image: opened; decoded or not.
    :param orientation: the Exif orientation, 1 to 8; ``None`` means upright.
    """
    return _swapped(image.size, _turn_left_to_us(image, orientation))


def size_upright(size: Size, orientation: int) -> Size:
    """The size, as shown, of what is stored in this size and with this Exif orientation."""
    return _swapped(size, _UPRIGHT.get(orientation))


def to_pixels(image: Image.Image, preprocess: Preprocess, orientation: int | None = None) -> Pixels:
    """Decode a picture and make it what the model expects.

    Of an animation this is the first frame. A JPEG is decoded at a reduced scale where that leaves at least
    twice the size it is resized to; embeddings stay within a cosine of 0.9998 of a full decode.

    :param image: opened and not yet decoded; it is consumed.
    :param orientation: the Exif orientation, 1 to 8; ``None`` means upright.
    :return: shape ``(preprocess.height, preprocess.width, 3)``, RGB.
    :raises OSError: (and other errors of Pillow's) if the file's data are damaged.
    :raises ValueError: if OpenCLIP knows no such resize mode.
    """
    turn = _turn_left_to_us(image, orientation)
    resized = _resized_size(_swapped(image.size, turn), preprocess)
    _reduce_while_decoding(image, _swapped(resized, turn))
    image.load()
    convert = conversion(image.info.get("icc_profile")) if preprocess.to_srgb else None
    rgb, left_to_convert = _to_rgb(image if turn is None else image.transpose(turn), convert)
    return np.array(_resize_and_crop(rgb, resized, preprocess, left_to_convert))


def _reduce_while_decoding(image: Image.Image, resized: Size) -> None:
    """Let libjpeg scale by 1/2, 1/4 or 1/8; other formats ignore it."""
    width, height = resized
    image.draft(None, (_DRAFT_FACTOR * width, _DRAFT_FACTOR * height))


def _turn_left_to_us(image: Image.Image, orientation: int | None) -> Image.Transpose | None:
    """TIFF files have the size as shown from the start, and Pillow turns them itself as it decodes them.

    So do the readers of HEIF and JPEG XL, whose standards have a rotation of their own and let Exif's say
    nothing; but a JPEG that was packed into JPEG XL comes out as the JPEG it was.
    """
    is_upright = image.format in _TURNED_BY_READER and not getattr(image, "jpeg", False)
    return None if is_upright else _UPRIGHT.get(orientation or 1)


def _swapped(size: Size, turn: Image.Transpose | None) -> Size:
    """What a turn makes of a size; the same turn leads back."""
    return (size[1], size[0]) if turn in _RIGHT_ANGLES else size


# What a person sees, as 8-bit RGB.


def _to_rgb(image: Image.Image, convert: ToSrgb | None) -> tuple[Image.Image, ToSrgb | None]:
    """As 8-bit RGB; and what turns its colours into sRGB, if that may wait until there are fewer pixels.

    A profile that is for other numbers than the picture has says nothing of it.
    """
    if convert is not None and convert.mode == "CMYK":
        return (convert(image) if image.mode == "CMYK" else _as_stored(image)), None
    if convert is not None and (convert.mode == "L") != _is_grey(image):
        convert = None
    return _as_stored(image), None if image.mode == "CMYK" else convert


def _is_grey(image: Image.Image) -> bool:
    return image.mode in _DEEP_MODES or image.mode in {"1", "L", "LA", "La"}


def _as_stored(image: Image.Image) -> Image.Image:
    if image.mode in _DEEP_MODES:
        return _scaled_to_8_bit(image).convert("RGB")
    if image.has_transparency_data:
        return _on_white(image)
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    """Composite on white: what lies under full transparency is noise that nobody ever saw."""
    layer = image.convert("RGBA")
    page = Image.new("RGB", layer.size, _WHITE)
    page.paste(layer, mask=layer)
    return page


def _scaled_to_8_bit(image: Image.Image) -> Image.Image:
    """Map deep greyscale onto 0..255; Pillow's own conversion would clip everything above 255 to white."""
    values: NDArray[np.float32] = np.nan_to_num(np.asarray(image, dtype=np.float32))
    low, high = _tone_range(values, image.mode)
    values -= low
    values *= 255.0 / (high - low)
    return Image.fromarray(values.clip(0, 255).round().astype(np.uint8))


def _tone_range(values: NDArray[np.float32], mode: str) -> tuple[float, float]:
    """The smallest customary range of tones that holds all values, or else their own extremes."""
    if mode.startswith("I;16"):
        return 0.0, 65535.0
    low, high = float(values.min()), float(values.max())
    customary = (1.0, 255.0, 65535.0) if mode == "F" else (255.0, 65535.0)
    fitting = next((top for top in customary if low >= 0 and high <= top), None)
    if fitting is not None:
        return 0.0, fitting
    return low, high if high > low else low + 1.0


# Sizes and crops, as in open_clip.transform and torchvision.transforms.functional.


def _resized_size(shown: Size, preprocess: Preprocess) -> Size:
    try:
        resized = _RESIZED_SIZE[preprocess.resize_mode]
    except KeyError:
        raise ValueError(f"unknown resize mode {preprocess.resize_mode!r}") from None
    return resized(shown, (preprocess.width, preprocess.height))


def _shortest(shown: Size, target: Size) -> Size:
    if target[0] != target[1]:
        return _keeping_ratio(shown, target, min)
    # torchvision's Resize with one number, which truncates the longer side
    (width, height), edge = shown, target[0]
    longer = int(edge * max(shown) / min(shown))
    return (edge, longer) if width <= height else (longer, edge)


def _longest(shown: Size, target: Size) -> Size:
    return _keeping_ratio(shown, target, max)


def _squash(_shown: Size, target: Size) -> Size:
    return target


def _keeping_ratio(shown: Size, target: Size, choose: Callable[[float, float], float]) -> Size:
    """OpenCLIP's ``ResizeKeepRatio``, but never down to nothing."""
    ratio = choose(shown[1] / target[1], shown[0] / target[0])
    return max(1, round(shown[0] / ratio)), max(1, round(shown[1] / ratio))


_RESIZED_SIZE: dict[str, Callable[[Size, Size], Size]] = {
    "shortest": _shortest,
    "longest": _longest,
    "squash": _squash,
}


def _resample(preprocess: Preprocess) -> Image.Resampling:
    # OpenCLIP forgets the configured filter for a target that is not square
    forgotten = preprocess.resize_mode == "shortest" and preprocess.width != preprocess.height
    if preprocess.interpolation == "bilinear" and not forgotten:
        return Image.Resampling.BILINEAR
    return Image.Resampling.BICUBIC


def _resize_and_crop(
    image: Image.Image, resized: Size, preprocess: Preprocess, convert: ToSrgb | None
) -> Image.Image:
    """:param convert: what turns colours into sRGB; the few pixels that are left cost nothing."""
    target = (preprocess.width, preprocess.height)
    resample = _resample(preprocess)
    if max(resized) > _EXTREME_ASPECT * max(target):
        made = _resize_centre_only(image, resized, target, resample)
        return made if convert is None else convert(made)
    made = image.resize(resized, resample)
    # What is padded has no colour of the picture's.
    fill = preprocess.fill_color if preprocess.resize_mode == "longest" else 0
    return _centre_crop_or_pad(made if convert is None else convert(made), target, fill)


def _resize_centre_only(
    image: Image.Image, resized: Size, target: Size, resample: Image.Resampling
) -> Image.Image:
    """Compute only what the crop keeps: a picture one pixel high would else be resized to gigabytes."""
    left, top = _centred(resized, target)
    per_column, per_row = (have / want for have, want in zip(image.size, resized, strict=True))
    box = (
        left * per_column,
        top * per_row,
        min((left + target[0]) * per_column, image.width),
        min((top + target[1]) * per_row, image.height),
    )
    return image.resize(target, resample, box)


def _centre_crop_or_pad(image: Image.Image, target: Size, fill: int) -> Image.Image:
    """OpenCLIP's ``center_crop_or_pad``, which with a fill of 0 is also torchvision's ``center_crop``."""
    padded = tuple(max(have, want) for have, want in zip(image.size, target, strict=True))
    if padded != image.size:
        canvas = Image.new("RGB", (padded[0], padded[1]), (fill, fill, fill))
        canvas.paste(image, ((padded[0] - image.width) // 2, (padded[1] - image.height) // 2))
        image = canvas
    left, top = _centred(image.size, target)
    return image.crop((left, top, left + target[0], top + target[1]))


def _centred(have: Size, want: Size) -> Size:
    """Where a crop begins, rounded as torchvision does it: halves go to the even number."""
    return round((have[0] - want[0]) / 2), round((have[1] - want[1]) / 2)
