"""Crop, size and colors; files that are no pictures."""

import numpy as np
from PIL import ExifTags, Image, ImageCms
import pytest

from experiments import data
from experiments.console.errors import UserError
from experiments.data.images import (
    Recipe,
    from_arrays,
    from_file,
    from_picture,
    header,
    stream,
)
from tests.experiments.data.pictures import encoded, picture


def test_a_crop_is_the_square_at_the_center():
    """White outside the square of 140/178 of the width: none of it is left."""
    array = np.full((218, 178, 3), 255, np.uint8)
    array[39:179, 19:159] = 0
    inside = Recipe(64, 3, "crop", 140 / 178)
    assert from_picture(Image.fromarray(array), inside).max() == 0
    wider = from_picture(Image.fromarray(array), inside._replace(crop=144 / 178))
    edges = (wider[0], wider[-1], wider[:, 0], wider[:, -1])
    assert min(edge.min() for edge in edges) > 90
    assert wider[2:-2, 2:-2].max() < 30
    small = np.full((109, 89, 3), 255, np.uint8)  # 70 of 89
    small[19:89, 9:79] = 0
    assert from_picture(Image.fromarray(small), inside).max() == 0


def test_resizing_averages():
    """Antialiasing: a fine pattern becomes gray, not another pattern."""
    fine = np.indices((128, 128)).sum(0) % 2 * 255
    image = Image.fromarray(fine.astype(np.uint8))
    for resize in ("crop", "squash"):
        array = from_picture(image, Recipe(32, 1, resize))
        assert array.shape == (32, 32, 1)
        assert np.abs(array[2:-2, 2:-2].astype(int) - 127.5).max() < 3


def test_squash_keeps_everything_and_not_the_proportions():
    array = np.zeros((60, 40, 3), np.uint8)
    array[:, :20, 0] = 200
    squashed = from_picture(Image.fromarray(array), Recipe(20, 3, "squash"))
    assert squashed.shape == (20, 20, 3)
    assert (squashed[:, :9, 0] == 200).all()
    assert (squashed[:, 11:] == 0).all()


def test_colors():
    image = Image.fromarray(np.array([[[255, 0, 0], [0, 255, 0]]], np.uint8))
    luma = from_picture(image, Recipe(None, 1, "crop"))
    assert luma[0, :, 0].tolist() == [76, 150]  # 0.299 and 0.587 of 255
    gray = Image.fromarray(luma[..., 0])
    assert from_picture(gray, Recipe(None, 3, "crop")).tolist() == [
        [[76] * 3, [150] * 3]
    ]
    for mode in ("I", "F", "I;16"):
        with pytest.raises(ValueError, match="at most 8 bits"):
            from_picture(Image.new(mode, (2, 2)), Recipe(None, 1, "crop"))


@pytest.mark.parametrize("channels", [1, 3])
def test_arrays_are_treated_as_pictures_are(channels: int):
    mode = {1: "L", 3: "RGB"}[channels]
    pictures = [picture(28, 28, seed, mode) for seed in range(3)]
    arrays = np.stack([np.asarray(p).reshape(28, 28, channels) for p in pictures])
    for recipe in (Recipe(32, channels, "crop"), Recipe(None, 4 - channels, "crop")):
        expected = np.stack([from_picture(p, recipe) for p in pictures])
        np.testing.assert_array_equal(from_arrays(arrays, recipe), expected)
    assert from_arrays(arrays, Recipe(28, channels, "crop")) is arrays


def test_damaged_pictures_are_named():
    recipe = Recipe(None, 3, "crop")
    for form in ("JPEG", "PNG", "BMP"):
        content = encoded(picture(20, 20, 0), form)
        assert from_file("x", content, recipe).shape == (20, 20, 3)
        for cut in (0, 10, len(content) // 2):
            with pytest.raises(UserError, match="^x cannot be read as a picture: ."):
                from_file("x", content[:cut], recipe)
    deep = encoded(Image.new("I;16", (2, 2)), "PNG")
    with pytest.raises(UserError, match="at most 8 bits"):
        from_file("x", deep, recipe)


def test_a_stream_is_in_order_and_in_pieces():
    pieces = list(stream(range(600), lambda i: np.array([i]), "x"))
    assert [len(piece) for piece in pieces] == [256, 256, 88]
    assert np.concatenate(pieces)[:, 0].tolist() == list(range(600))

    def fails(i: int) -> np.ndarray:
        raise UserError(f"at {i}")

    with pytest.raises(UserError, match="at 0"):
        list(stream(range(3), fails, "x"))


def test_digits_are_as_they_are():
    for options in (
        data.Options(image_size=4),
        data.Options(image_mode="rgb"),
        data.Options(image_resize="squash"),
    ):
        with pytest.raises(UserError, match="defaults where --dataset=digits"):
            data.load("digits", None, options)
    assert len(data.load("digits", None, data.Options(cache_dir="x")).train) == 1444


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(("tag", "turn"), [(6, 90), (3, 180), (8, 270)])
def test_a_picture_is_turned_as_its_file_says(form, tag, turn):
    """A tall picture with white above, as a camera held upright stores it."""
    upright = np.zeros((32, 16, 3), np.uint8)
    upright[:16] = 255
    stored = Image.fromarray(upright).rotate(turn, expand=True)
    exif = stored.getexif()
    exif[ExifTags.Base.Orientation] = tag
    content = encoded(stored, form, exif=exif)
    assert header(content)[0] == (16, 32)
    array = from_file("a", content, Recipe(None, 3, "crop")).astype(int)
    assert array.shape == upright.shape
    assert np.abs(array - upright).mean() < 8


def test_what_is_transparent_is_white():
    array = np.zeros((4, 4, 4), np.uint8)
    array[:2, :, 3] = 255  # black above, nothing below
    image = Image.fromarray(array)
    palette = Image.fromarray((array[..., 3] == 0).astype(np.uint8)).convert("P")
    palette.putpalette([0] * 6)  # two blacks, of which the second is nothing
    for content in (
        encoded(image, "PNG"),
        encoded(image.convert("LA"), "PNG"),
        encoded(palette, "PNG", transparency=1),
        encoded(palette, "GIF", transparency=1),
    ):
        for channels in (1, 3):
            shown = from_file("a", content, Recipe(None, channels, "crop"))
            assert (shown[:2] < 8).all()
            assert (shown[2:] > 247).all()


def test_colors_are_those_of_the_profile():
    """A picture in L*a*b* coordinates, or with a profile that says nothing new."""
    image = picture(8, 8, 0)
    plain = from_file("a", encoded(image, "PNG"), Recipe(None, 3, "crop"))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"broken"):
        content = encoded(image, "PNG", icc_profile=profile)
        same = from_file("a", content, Recipe(None, 3, "crop"))
        np.testing.assert_array_equal(same, plain)
    lab = ImageCms.createProfile("LAB")
    in_lab = ImageCms.profileToProfile(
        image, ImageCms.createProfile("sRGB"), lab, outputMode="LAB"
    )
    assert in_lab is not None
    profile = ImageCms.ImageCmsProfile(lab).tobytes()
    content = encoded(in_lab, "TIFF", icc_profile=profile)
    shown = from_file("a", content, Recipe(None, 3, "crop"))
    assert np.abs(shown.astype(int) - plain).mean() < 3
