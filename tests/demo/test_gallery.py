"""The sample library is the same every time, and reads like pictures that cameras took."""

from __future__ import annotations

import os
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING

import exifread
import pytest
from PIL import Image, ImageChops, ImageOps, ImageStat

from imagedbd.demo.cameras import CAMERAS
from imagedbd.demo.gallery import DEFAULT_SEED, TRIPS, planned, write_gallery
from imagedbd.demo.scenes import draw

if TYPE_CHECKING:
    from pathlib import Path

    from imagedbd.demo.shots import Shot

Library = list[tuple["Path", "Shot"]]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """The default library: every file with the shot that it was written from."""
    paths = write_gallery(tmp_path_factory.mktemp("library"))
    shots = [shot for _, shot in planned(len(paths), DEFAULT_SEED)]
    return list(zip(paths, shots, strict=True))


@pytest.fixture(scope="module")
def jpegs(library: Library) -> Library:
    return [(path, shot) for path, shot in library if path.suffix == ".jpg"]


def test_there_are_enough_pictures_in_all_formats_and_folders(library: Library) -> None:
    paths = [path for path, _ in library]
    assert len(set(paths)) == len(paths) >= 200
    assert {path.parent.name for path in paths} == {trip.folder for trip in TRIPS}
    suffixes = Counter(path.suffix for path in paths)
    assert set(suffixes) == {".jpg", ".png", ".webp"}
    assert suffixes[".jpg"] > len(paths) / 2


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    first = write_gallery(tmp_path / "first", count=30, seed=5)
    second = write_gallery(tmp_path / "second", count=30, seed=5)
    assert [path.relative_to(tmp_path / "first") for path in first] == [
        path.relative_to(tmp_path / "second") for path in second
    ]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_another_seed_gives_other_pictures() -> None:
    assert planned(30, 5) != planned(30, 6)


@pytest.mark.parametrize("count", [0, 1, 6, 100, 700])
def test_any_number_of_pictures_can_be_had_under_distinct_names(count: int) -> None:
    names = [name for name, _ in planned(count, seed=3)]
    assert len(set(names)) == len(names) == count


def test_files_are_dated_and_ordered_by_when_they_were_taken(library: Library) -> None:
    moments = [shot.taken for _, shot in library]
    assert moments == sorted(moments)
    assert [os.stat(path).st_mtime for path, _ in library] == [moment.timestamp() for moment in moments]
    for path, shot in library:
        assert path.parent.name.startswith(f"{shot.taken:%Y-%m} ")


def test_exif_tells_camera_and_date(jpegs: Library) -> None:
    for path, shot in jpegs:
        tags = _exif(path)
        assert (str(tags["Image Make"]), str(tags["Image Model"])) == (shot.camera.make, shot.camera.model)
        assert str(tags["EXIF LensModel"]) == shot.lens.model
        assert tags["EXIF ISOSpeedRatings"].values == [shot.exposure.iso]
        assert float(tags["EXIF FNumber"].values[0]) == pytest.approx(shot.exposure.f_number)
        assert float(tags["EXIF FocalLength"].values[0]) == pytest.approx(shot.exposure.focal_length)
        assert tags["EXIF ExposureTime"].values[0] == shot.exposure.time
        taken = f"{tags['EXIF DateTimeOriginal']} {tags['EXIF OffsetTimeOriginal']}"
        assert datetime.strptime(taken, "%Y:%m:%d %H:%M:%S %z") == shot.taken
    assert {shot.camera for _, shot in jpegs} == set(CAMERAS.values())


def test_gps_reads_back_north_and_south_east_and_west(jpegs: Library) -> None:
    quarters = set()
    for path, shot in jpegs:
        tags = _exif(path)
        if shot.place is None:
            assert "GPS GPSLatitude" not in tags
            continue
        latitude = _degrees(tags["GPS GPSLatitude"], str(tags["GPS GPSLatitudeRef"]))
        longitude = _degrees(tags["GPS GPSLongitude"], str(tags["GPS GPSLongitudeRef"]))
        assert latitude == pytest.approx(shot.place.latitude, abs=1e-5)
        assert longitude == pytest.approx(shot.place.longitude, abs=1e-5)
        quarters.add((latitude > 0, longitude > 0))
    assert quarters >= {(True, True), (True, False), (False, True)}


def test_turned_pictures_are_upright_once_the_orientation_is_honoured(jpegs: Library) -> None:
    turned = [(path, shot) for path, shot in jpegs if shot.orientation != 1]
    assert {shot.orientation for _, shot in turned} == {3, 6, 8}
    for path, shot in turned[:12]:
        with Image.open(path) as stored:
            upright = ImageOps.exif_transpose(stored)
        assert upright.size == shot.size
        difference = ImageStat.Stat(ImageChops.difference(upright, draw(shot.scene, shot.size)))
        assert max(difference.mean) < 6


def test_captions_keywords_and_ratings_are_there_for_some(jpegs: Library) -> None:
    captions = keywords = 0
    for path, shot in jpegs:
        with Image.open(path) as picture:
            description, packet = picture.getexif().get(0x010E), picture.info.get("xmp")
        assert description == shot.caption
        captions += description is not None
        assert (packet is not None) == bool(shot.keywords)
        if packet is not None:
            keywords += 1
            assert f'xmp:Rating="{shot.rating}"'.encode() in packet or shot.rating is None
            assert all(f"<rdf:li>{keyword}</rdf:li>".encode() in packet for keyword in shot.keywords)
    assert captions > 20
    assert keywords > 20


def test_pngs_carry_text_and_webps_carry_exif(library: Library) -> None:
    for path, shot in library:
        with Image.open(path) as picture:
            if path.suffix == ".png":
                assert datetime.fromisoformat(picture.text["Creation Time"]) == shot.taken
                assert picture.size == shot.size
            if path.suffix == ".webp":
                assert picture.getexif()[0x0110] == shot.camera.model


def _exif(path: Path) -> dict[str, exifread.classes.IfdTag]:
    with path.open("rb") as file:
        return exifread.process_file(file, details=False)


def _degrees(tag: exifread.classes.IfdTag, reference: str) -> float:
    degrees, minutes, seconds = (float(value) for value in tag.values)
    size = degrees + minutes / 60 + seconds / 3600
    return -size if reference in "SW" else size
