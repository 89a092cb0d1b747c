"""Stored squares are, pixel by pixel, what the published code makes of the same file with torchvision's transforms."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from anchored.compat import prepare_torchvision
from anchored.plan.preprocessing import transform
from anchored.readers.preprocess import MOST_PIXELS, Unreadable, decode, preprocess

prepare_torchvision()
from torchvision import transforms as tv  # noqa: E402

BICUBIC = tv.InterpolationMode.BICUBIC


def sagawa_cub(size: int) -> list[Any]:
    """`get_transform_cub` without augmentation: group_DRO, BalancingGroups, SubpopBench, DFR; its numbers are floats."""
    scale = 256.0 / 224.0
    return [tv.Resize((int(size * scale), int(size * scale))), tv.CenterCrop((size, size))]


def sagawa_celeba(size: int) -> list[Any]:
    """`get_transform_celebA` without augmentation."""
    return [tv.CenterCrop(min(178, 218)), tv.Resize((size, size))]


PUBLISHED: dict[tuple[str, str], Callable[[int], list[Any]]] = {
    ("group-dro", "scenes"): sagawa_cub,
    ("group-dro", "faces"): sagawa_celeba,
    ("dfr", "scenes"): sagawa_cub,
    ("dfr", "faces"): sagawa_cub,
    ("kumar", "scenes"): lambda size: [tv.Resize(size, interpolation=BICUBIC), tv.CenterCrop(size)],
    ("kumar", "faces"): lambda size: [tv.Resize([size, size])],
    ("short-side", "scenes"): lambda size: [tv.Resize(size, interpolation=BICUBIC), tv.CenterCrop(size)],
    ("short-side", "faces"): lambda size: [tv.Resize(size, interpolation=BICUBIC), tv.CenterCrop(size)],
}


def photograph(width: int, height: int) -> Image.Image:
    """Edges, slopes and noise of that size, a function of it alone."""
    rng = np.random.default_rng([width, height])
    pixels = np.linspace(0, 255, height)[:, None, None] * np.linspace(0, 1, width)[:, None] + rng.normal(0, 40, (height, width, 3))
    pixels[: height // 2, width // 3 :] = 255 - pixels[: height // 2, width // 3 :]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def published(data: bytes, convention: tuple[str, str], size: int) -> NDArray[np.uint8]:
    """What the published code reads: `Image.open(file).convert("RGB")`, then its transforms but for ToTensor."""
    return np.asarray(tv.Compose(PUBLISHED[convention](size))(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("convention", PUBLISHED, ids="-".join)
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from([224, 96, 37, 8]))
@example(178, 218, 224)
@example(178, 218, 178)
@example(218, 178, 224)
@example(500, 375, 224)
@example(256, 256, 224)
@example(224, 224, 224)
@example(177, 179, 224)
@example(1, 400, 37)
@example(400, 1, 8)
@example(3, 2, 224)
def test_squares_are_those_of_torchvision(convention: tuple[str, str], width: int, height: int, size: int) -> None:
    """A side rounded instead of cut, or a margin of half a pixel on the other end, moves every pixel by up to one."""
    image = photograph(width, height)
    found = preprocess(image, transform(*convention, size))
    expected = published(saved(image), convention, size)
    assert found.shape == (size, size, 3)
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected)


MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"]


@pytest.mark.parametrize("mode", MODES)
def test_modes_are_converted_as_the_published_code_does(mode: str) -> None:
    """A grey image of one channel, or an image with a fourth, must not change the shape of a store."""
    kind = "TIFF" if mode in ("CMYK", "YCbCr", "LAB", "PA") else "PNG"
    image = photograph(40, 30)
    if mode in ("LA", "RGBA", "PA"):
        image.putalpha(photograph(40, 30).convert("L"))
    image = image.convert("RGB").convert(mode) if mode in ("LAB",) else image.convert(mode)
    data = saved(image, kind)
    assert Image.open(io.BytesIO(data)).mode == mode
    found = preprocess(decode(data), transform("group-dro", "scenes", 24))
    assert np.array_equal(found, published(data, ("group-dro", "scenes"), 24))


@pytest.mark.parametrize(("mode", "transparency"), [("P", 3), ("P", bytes(range(256))), ("L", 0), ("RGB", (1, 2, 3))])
def test_transparent_colours_are_dropped(mode: str, transparency: Any, recwarn: pytest.WarningsRecorder) -> None:
    """As the published code drops them; Pillow warns of palettes, once an image of a hundred thousand."""
    data = saved(photograph(40, 30).convert(mode), transparency=transparency)
    found = np.asarray(decode(data))
    assert len(recwarn) == 0
    assert np.array_equal(found, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_the_orientation_of_exif_is_not_applied() -> None:
    """Published tables were made without it: a photograph that lies on its side lay on its side there too."""
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = photograph(60, 40)
    data = saved(upright, "JPEG", exif=exif, quality=95)
    assert decode(data).size == (60, 40)
    assert np.array_equal(np.asarray(decode(data)), np.asarray(Image.open(io.BytesIO(saved(upright, "JPEG", quality=95)))))


def test_of_several_frames_the_first_counts() -> None:
    data = saved(photograph(20, 20), "GIF", save_all=True, append_images=[Image.new("RGB", (20, 20))])
    assert np.array_equal(np.asarray(decode(data)), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert np.asarray(decode(data)).any()


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_deep_single_channels_are_refused(dtype: type) -> None:
    """Pillow's conversion cuts at 255: nearly every 16-bit image would come out white, and would still train."""
    data = saved(Image.fromarray((np.arange(64).reshape(8, 8) * 500).astype(dtype)), "TIFF")
    with pytest.raises(Unreadable, match="more than 8 bits a channel"):
        decode(data)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds one compressed line of zeros."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(10_000, 10_000), (40_000, 40_000), (MOST_PIXELS + 1, 1)])
def test_decompression_bombs_are_refused(size: tuple[int, int]) -> None:
    """A file of a kilobyte can ask for gigabytes; the size is looked at before anything is decoded."""
    with pytest.raises(Unreadable, match="too many pixels"):
        decode(png_header(*size))


def test_a_line_that_a_step_would_blow_up_is_refused() -> None:
    """The shorter side of 1 x 500,000 pixels resized to 224 would be an image of 25 gigapixels."""
    with pytest.raises(Unreadable, match="too many pixels: 112000000 x 224"):
        preprocess(Image.new("RGB", (500_000, 1)), transform("short-side", "scenes", 224))


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]), st.data())
def test_damaged_files_are_refused_in_words(kind: str, data: st.DataObject) -> None:
    """Whatever Pillow's readers raise, the step names the image and goes on; a damaged file that still decodes is an image."""
    whole = saved(photograph(24, 17), kind)
    kept = data.draw(st.integers(0, len(whole)))
    position, value = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 255))
    damaged = bytearray(whole)
    damaged[position] = value
    try:
        found = decode(bytes(damaged[:kept])).mode
    except Unreadable as error:
        found = str(error)
    assert found
    assert "\n" not in found


def test_a_truncated_photograph_is_refused() -> None:
    """Pillow can fill the missing rest with grey; that must stay off."""
    data = saved(photograph(200, 150), "JPEG")
    with pytest.raises(Unreadable, match="truncated"):
        decode(data[: len(data) // 2])
