import hashlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from atelier import images
from atelier.errors import ImageError

LARGEST = 1_000_000


def gradient(width=48, height=32):
    """Red grows to the right, green grows downwards."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width)
    pixels[..., 1] = np.linspace(0, 255, height)[:, None]
    pixels[..., 2] = 90
    return pixels


def saved(tmp_path, image, name, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def test_a_plain_picture_is_read_pixel_for_pixel(tmp_path):
    path = saved(tmp_path, Image.fromarray(gradient()), "plain.png")

    image = images.read(path, LARGEST)

    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), gradient())


def test_a_name_with_spaces_and_non_ascii_letters_is_read(tmp_path):
    path = saved(tmp_path, Image.fromarray(gradient()), "Нарцисс à l'étang — 水 1.png")

    np.testing.assert_array_equal(np.asarray(images.read(path, LARGEST)), gradient())
    assert images.sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, lambda upright: upright),
        (2, lambda upright: upright[:, ::-1]),
        (3, lambda upright: upright[::-1, ::-1]),
        (4, lambda upright: upright[::-1]),
        (5, lambda upright: upright.transpose(1, 0, 2)),
        (6, lambda upright: np.rot90(upright)),
        (7, lambda upright: upright[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda upright: np.rot90(upright, -1)),
    ],
)
def test_a_photo_that_exif_turns_is_read_upright(tmp_path, orientation, stored):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = Image.fromarray(np.ascontiguousarray(stored(gradient())))
    path = saved(tmp_path, turned, "turned.png", exif=exif)

    np.testing.assert_array_equal(np.asarray(images.read(path, LARGEST)), gradient())


def test_cmyk_without_a_profile_is_ink_on_white(tmp_path):
    # no ink is white, full cyan takes all red away
    inks = np.zeros((8, 16, 4), np.uint8)
    inks[:, 8:, 0] = 255
    path = saved(tmp_path, Image.fromarray(inks, mode="CMYK"), "inks.tif")

    pixels = np.asarray(images.read(path, LARGEST))

    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[0, 15].tolist() == [0, 255, 255]


def test_a_cmyk_jpeg_is_not_read_inverted(tmp_path):
    inks = Image.new("CMYK", (16, 16), (0, 0, 0, 20))
    path = saved(tmp_path, inks, "inks.jpg", quality=95)

    assert abs(int(np.asarray(images.read(path, LARGEST))[8, 8, 0]) - 235) <= 3


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path, name):
    # 65535 / 257 = 255; 25700 / 257 = 100; anything above 255 would clip to white
    deep = np.tile(np.array([0, 257, 25700, 65535], np.uint16), (4, 1))
    path = saved(tmp_path, Image.fromarray(deep), name)

    pixels = np.asarray(images.read(path, LARGEST))

    assert pixels[0, :, 0].tolist() == [0, 1, 100, 255]
    assert (pixels == pixels[..., :1]).all()


def test_numbers_of_unknown_range_are_refused(tmp_path):
    path = saved(tmp_path, Image.fromarray(np.ones((4, 4), np.float32)), "float.tif")

    with pytest.raises(ImageError, match=r"'F', whose range is not known; save it as 8-bit"):
        images.read(path, LARGEST)


def test_a_palette_is_looked_up(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 30, 40])
    path = saved(tmp_path, image, "palette.png")

    assert np.asarray(images.read(path, LARGEST))[0, 0].tolist() == [200, 30, 40]


def test_transparency_is_laid_on_white(tmp_path):
    # half-transparent black over white: 255 * (1 - 128/255) = 127
    layers = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([0, 0, 0])
    alpha = saved(tmp_path, layers, "alpha.png")
    keyed = saved(tmp_path, palette, "keyed.gif", transparency=0)
    grey = saved(tmp_path, Image.new("LA", (4, 4), (0, 128)), "grey.png")

    assert np.asarray(images.read(alpha, LARGEST))[0, 0].tolist() == [127, 127, 127]
    assert np.asarray(images.read(grey, LARGEST))[0, 0].tolist() == [127, 127, 127]
    assert np.asarray(images.read(keyed, LARGEST))[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("name", ["moving.gif", "moving.png", "moving.webp"])
def test_an_animation_is_its_first_frame(tmp_path, name):
    red, blue = (Image.new("RGB", (8, 8), c) for c in ((255, 0, 0), (0, 0, 255)))
    options = {"lossless": True} if name.endswith("webp") else {}
    path = saved(tmp_path, red, name, save_all=True, append_images=[blue], **options)

    assert np.asarray(images.read(path, LARGEST))[0, 0].tolist() == [255, 0, 0]


def test_one_bit_pictures_are_black_and_white(tmp_path):
    path = saved(tmp_path, Image.new("1", (4, 4), 1), "bits.png")

    assert np.asarray(images.read(path, LARGEST))[0, 0].tolist() == [255, 255, 255]


def icc_matrix_profile(red, green, blue):
    """A smallest ICC v2 display profile: three colorants (XYZ, D50) and a linear curve."""

    def s15(*numbers):
        return b"".join(struct.pack(">i", round(n * 65536)) for n in numbers)

    text = b"swap\0"
    bodies = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + b"\0" * 79,
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": b"XYZ \0\0\0\0" + s15(0.9642, 1.0, 0.8249),
        b"rXYZ": b"XYZ \0\0\0\0" + s15(*red),
        b"gXYZ": b"XYZ \0\0\0\0" + s15(*green),
        b"bXYZ": b"XYZ \0\0\0\0" + s15(*blue),
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), b"curv" + b"\0" * 8),
    }
    at, table, data = 128 + 4 + 12 * len(bodies), struct.pack(">I", len(bodies)), b""
    for tag, body in bodies.items():
        body += b"\0" * (-len(body) % 4)
        table += tag + struct.pack(">II", at + len(data), len(body))
        data += body
    header = bytearray(128)
    header[0:4] = struct.pack(">I", at + len(data))
    header[8:12] = b"\x02\x10\0\0"
    header[12:24] = b"mntrRGB XYZ "
    header[36:40] = b"acsp"
    header[68:80] = s15(0.9642, 1.0, 0.8249)
    return bytes(header) + table + data


def test_an_embedded_profile_says_what_the_numbers_mean(tmp_path):
    # sRGB's colorants with red and green exchanged: the stored pure red is a green
    red, green, blue = (
        (0.4360, 0.2225, 0.0139),
        (0.3851, 0.7169, 0.0971),
        (0.1431, 0.0606, 0.7141),
    )
    exchanged = icc_matrix_profile(green, red, blue)
    image = Image.new("RGB", (4, 4), (255, 0, 0))
    path = saved(tmp_path, image, "swapped.png", icc_profile=exchanged)

    r, g, b = np.asarray(images.read(path, LARGEST))[0, 0].tolist()

    assert g > 250
    assert r < 20
    assert b < 20


def test_a_broken_or_foreign_profile_changes_nothing(tmp_path):
    image = Image.fromarray(gradient())
    broken = saved(tmp_path, image, "broken.png", icc_profile=b"not a profile")
    grey = Image.fromarray(gradient()[..., 0])
    rgb_profile = icc_matrix_profile((0.4, 0.2, 0), (0.4, 0.7, 0.1), (0.1, 0.1, 0.7))
    foreign = saved(tmp_path, grey, "foreign.png", icc_profile=rgb_profile)

    np.testing.assert_array_equal(np.asarray(images.read(broken, LARGEST)), gradient())
    np.testing.assert_array_equal(
        np.asarray(images.read(foreign, LARGEST))[..., 0], gradient()[..., 0]
    )


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "gif"])
def test_a_truncated_picture_is_refused_with_a_reason(tmp_path, kind):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = io.BytesIO()
    Image.fromarray(noise).save(whole, kind)
    path = tmp_path / f"half.{kind}"
    path.write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])

    with pytest.raises(ImageError, match=r"damaged, cannot be decoded|not a picture") as caught:
        images.read(path, LARGEST)

    assert "\n" not in str(caught.value)


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "empty.jpg"
    path.touch()

    with pytest.raises(ImageError, match=r"^the file is empty \(0 bytes\)"):
        images.read(path, LARGEST)


@pytest.mark.parametrize("content", [b"hello, I am text", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_what_is_no_picture_is_refused_and_never_run(tmp_path, content):
    path = tmp_path / "note.jpg"
    path.write_bytes(content)

    with pytest.raises(ImageError, match=r"^not a picture that can be read \(JPEG, PNG, "):
        images.read(path, LARGEST)


def test_an_absent_file_and_a_folder_say_so(tmp_path):
    with pytest.raises(ImageError, match="cannot be opened: No such file"):
        images.read(tmp_path / "absent.png", LARGEST)
    with pytest.raises(ImageError, match="cannot be opened: Is a directory"):
        images.read(tmp_path, LARGEST)


def chunk(kind, body):
    check = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + check


def bomb(width, height):
    """A PNG of under 100 bytes whose header promises any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0"))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [2_000, 11_000, 50_000])
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(side, side))
    assert path.stat().st_size < 100

    with pytest.raises(ImageError, match=r"more than .*annotate.largest_pixels"):
        images.read(path, LARGEST)


def test_the_limit_itself_is_allowed(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (10, 10)), "small.png")

    assert images.read(path, 100).size == (10, 10)
    with pytest.raises(ImageError, match=r"10 x 10 pixels are more than .* 99; scale it down"):
        images.read(path, 99)


def test_square_keeps_the_middle():
    # 6 x 2, columns 2 and 3 are the middle square
    pixels = np.zeros((2, 6, 3), np.uint8)
    pixels[:, 2:4] = 200

    assert (images.square(Image.fromarray(pixels), 2) == 200).all()


def test_square_of_the_right_size_is_the_picture_itself():
    pixels = gradient(32, 32)

    np.testing.assert_array_equal(images.square(Image.fromarray(pixels), 32), pixels)


def test_square_averages_what_it_shrinks():
    # a chessboard of single pixels has no detail that 1/8 of its size can show: it is grey
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    pixels = images.square(Image.fromarray(board).convert("RGB"), 8)

    assert pixels.shape == (8, 8, 3)
    assert pixels.dtype == np.uint8
    assert abs(pixels.astype(int) - 127).max() <= 2


@pytest.mark.parametrize(
    ("size", "corner"),
    # The picture is 48 wide and 32 high. To cover 16 x 16 it becomes 24 x 16, of which the
    # middle starts at column 4; to cover 64 x 24 it becomes 96 x 64, columns from 36; to cover
    # 32 x 64 it becomes 64 x 43, rows from 5.
    [((16, 16), (0, 4)), ((64, 24), (0, 36)), ((32, 64), (5, 0)), ((32, 48), (0, 0))],
)
def test_a_picture_covers_a_size_without_distortion(size, corner):
    framed = images.cover(Image.fromarray(gradient()), size)

    assert framed.pixels.shape == (*size, 3)
    assert (framed.original, framed.corner) == ((32, 48), corner)
    # Both colours still grow evenly, at the one scale that the larger side asks for.
    scale = max(size[0] / 32, size[1] / 48)
    red, green = framed.pixels[0, :, 0].astype(float), framed.pixels[:, 0, 1].astype(float)
    assert (red[-3] - red[2]) / (size[1] - 5) == pytest.approx(255 / 47 / scale, rel=0.1)
    assert (green[-3] - green[2]) / (size[0] - 5) == pytest.approx(255 / 31 / scale, rel=0.1)


def test_a_size_that_fits_leaves_the_picture_as_it_is():
    framed = images.cover(Image.fromarray(gradient()), (32, 48))

    np.testing.assert_array_equal(framed.pixels, gradient())


def test_sizes_of_an_area_are_multiples_of_the_step_about_as_large():
    sizes = images.sizes_of_area(1024, 64, 2.0)

    assert (1024, 1024) in sizes
    assert (1216, 832) in sizes
    assert (832, 1216) in sizes
    assert all(side % 64 == 0 for size in sizes for side in size)
    assert all(max(size) <= 2 * min(size) for size in sizes)
    assert all(abs(h * w / 1024**2 - 1) < 0.05 for h, w in sizes)
    assert images.sizes_of_area(128, 8, 1.0) == [(128, 128)]


def test_the_nearest_size_is_the_one_of_the_nearest_ratio():
    sizes = [(64, 32), (48, 48), (32, 64)]

    assert images.nearest((900, 1000), sizes) == (48, 48)
    assert images.nearest((500, 1000), sizes) == (32, 64)
    assert images.nearest((1000, 600), sizes) == (64, 32)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_size_is_read_upright_from_the_header(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(gradient()), "turned.jpg", exif=exif)

    image = images.read(path, LARGEST)

    assert images.size_of(path, LARGEST) == (image.height, image.width)


def test_the_size_of_a_file_that_is_no_picture_is_refused(tmp_path):
    (tmp_path / "x.png").write_bytes(b"no picture")

    with pytest.raises(ImageError, match="not a picture"):
        images.size_of(tmp_path / "x.png", LARGEST)


@pytest.mark.parametrize("name", ["turned.tif", "turned.png", "turned.webp", "turned.avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_from_the_header_is_that_of_the_picture_as_read(tmp_path, orientation, name):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(gradient()), name, exif=exif)

    image = images.read(path, LARGEST)

    assert images.size_of(path, LARGEST) == (image.height, image.width)
    assert (image.width < image.height) == (orientation >= 5)


@pytest.mark.parametrize("compression", [None, "tiff_deflate"])
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_tiff_that_xmp_alone_turns_has_the_size_it_is_read_in(
    tmp_path, orientation, compression
):
    xmp = f'<x tiff:Orientation="{orientation}"/>'.encode()
    path = saved(
        tmp_path, Image.fromarray(gradient()), "turned.tif",
        tiffinfo={700: xmp}, compression=compression,
    )  # fmt: skip

    image = images.read(path, LARGEST)

    assert images.size_of(path, LARGEST) == (image.height, image.width)


BROKEN_EXIF = {
    "no EXIF": b"garbage!",
    "a header and no more": b"Exif\0\0II*\0",
    "a table that is cut off": b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01",
    "an orientation of 9": b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\x09\0\0\0\0\0\0",
}


@pytest.mark.parametrize("name", ["odd.png", "odd.webp", "odd.jpg"])
@pytest.mark.parametrize("exif", BROKEN_EXIF.values(), ids=BROKEN_EXIF)
def test_broken_exif_counts_as_upright(tmp_path, name, exif):
    options = {"lossless": True} if name.endswith("webp") else {}
    path = saved(
        tmp_path, Image.new("RGB", (48, 32), (200, 30, 40)), name, exif=exif, **options
    )

    image = images.read(path, LARGEST)

    assert image.size == (48, 32)
    assert images.size_of(path, LARGEST) == (32, 48)
    assert np.abs(np.asarray(image).astype(int) - (200, 30, 40)).max() <= 4


def test_broken_exif_of_an_avif_counts_as_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "A description that is found in the file"
    path = saved(tmp_path, Image.fromarray(gradient()), "odd.avif", exif=exif)
    content = path.read_bytes()
    tiff = content.rindex(b"MM\0*", 0, content.index(b"A description"))
    path.write_bytes(content[:tiff] + b"!!!!" + content[tiff + 4 :])

    image = images.read(path, LARGEST)

    assert images.size_of(path, LARGEST) == (image.height, image.width)
    assert set(image.size) == {32, 48}


def png_of(header, row, *extra):
    """A PNG of one row of pixels: bit depth and color type, the packed row, other chunks."""
    depth, color, width = header
    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, color, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + start + b"".join(extra) + pixels + chunk(b"IEND", b"")


ODD_CHUNKS = {
    "a workflow of megabytes": chunk(b"zTXt", b"workflow\0\0" + zlib.compress(bytes(3 << 20))),
    "text that calls itself transparency": chunk(b"tEXt", b"transparency\0x"),
    "text that calls itself a profile": chunk(b"tEXt", b"icc_profile\0x"),
    "text that calls itself EXIF": chunk(b"tEXt", b"exif\0x"),
    "EXIF in hexadecimal that is none": chunk(b"tEXt", b"Raw profile type exif\0\n\nx\nzz"),
    "a profile packed in an unknown way": chunk(b"iCCP", b"name\0\5x"),
    "a resolution that is cut off": chunk(b"pHYs", b"x"),
    "a wrong checksum": chunk(b"tEXt", b"comment\0x")[:-1] + b"?",
    "half an animation": chunk(b"fcTL", b"x"),
}


@pytest.mark.parametrize("odd", ODD_CHUNKS.values(), ids=ODD_CHUNKS)
def test_no_metadata_spoil_the_pixels_of_a_png(tmp_path, odd):
    path = tmp_path / "odd.png"
    path.write_bytes(png_of((8, 2, 2), bytes([9, 99, 199, 1, 2, 3]), odd))

    assert np.asarray(images.read(path, LARGEST)).tolist() == [[[9, 99, 199], [1, 2, 3]]]
    assert images.size_of(path, LARGEST) == (1, 2)


@pytest.mark.parametrize("tag", [34675, 700])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_number_where_a_tiff_should_hold_metadata_spoils_nothing(tmp_path, tag, orientation):
    path = saved(
        tmp_path, Image.fromarray(gradient()), "odd.tif", tiffinfo={tag: 5, 274: orientation}
    )

    image = images.read(path, LARGEST)

    assert images.size_of(path, LARGEST) == (image.height, image.width)


def test_a_limit_above_pillows_own_is_the_only_limit(tmp_path):
    side = 14_000  # Pillow gives up at 179 megapixels
    path = saved(tmp_path, Image.new("1", (side, side)), "large.png")

    assert images.size_of(path, 10**9) == (side, side)
    with pytest.raises(ImageError, match="14000 x 14000 pixels are more than"):
        images.read(path, side * side - 1)


@pytest.mark.parametrize("largest", [100, 10**9])
def test_reading_leaves_pillows_limit_as_it_was(tmp_path, largest):
    before = Image.MAX_IMAGE_PIXELS
    path = saved(tmp_path, Image.new("RGB", (10, 10)), "small.png")

    images.read(path, largest)

    assert before == Image.MAX_IMAGE_PIXELS


TRANSPARENT = {  # bit depth, color type and width; the row; the transparent value; as read
    "grey, 16 bits": ((16, 0, 2), (0x1234, 0x5678), ">2H", (0x1234,), [255, 0x56]),
    "grey, 8 bits": ((8, 0, 2), (9, 99), ">2B", (9,), [255, 99]),
    "grey, 4 bits": ((4, 0, 2), (0x3F,), ">B", (3,), [255, 255]),
    "grey, 4 bits, another": ((4, 0, 2), (0x3A,), ">B", (10,), [51, 255]),
    "grey, 2 bits": ((2, 0, 2), (0b01100000,), ">B", (1,), [255, 170]),
    "one bit": ((1, 0, 2), (0b01000000,), ">B", (0,), [255, 255]),
}


@pytest.mark.parametrize("case", TRANSPARENT.values(), ids=TRANSPARENT)
def test_a_transparent_grey_is_white_at_every_depth(tmp_path, case):
    header, row, packed, value, expected = case
    keyed = chunk(b"tRNS", struct.pack(">H", *value))
    (tmp_path / "keyed.png").write_bytes(png_of(header, struct.pack(packed, *row), keyed))

    pixels = np.asarray(images.read(tmp_path / "keyed.png", LARGEST))

    assert pixels[0, :, 0].tolist() == expected


def test_a_transparent_colour_of_16_bits_is_white(tmp_path):
    keyed = chunk(b"tRNS", struct.pack(">3H", 0x1234, 0x5678, 0x9ABC))
    row = struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0x1111, 0x2222, 0x3333)
    (tmp_path / "keyed.png").write_bytes(png_of((16, 2, 2), row, keyed))

    pixels = np.asarray(images.read(tmp_path / "keyed.png", LARGEST))

    assert pixels.tolist() == [[[255, 255, 255], [0x11, 0x22, 0x33]]]


@pytest.mark.parametrize("extra", [1, 2], ids=["premultiplied", "alpha"])
def test_grey_with_alpha_of_a_tiff_is_laid_on_white(tmp_path, extra):
    # black at alpha 128, over white: 255 - 128 = 127
    path = saved(tmp_path, Image.new("LA", (4, 4), (0, 128)), "grey.tif", tiffinfo={338: extra})

    assert np.asarray(images.read(path, LARGEST))[0, 0].tolist() == [127, 127, 127]
