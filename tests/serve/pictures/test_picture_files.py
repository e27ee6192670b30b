"""Files with their text: every format gives it back, other programs find it where they look, nothing breaks."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from serve.pictures.files import EXIF_BYTES, parameters_of, picture_file
from serve.pictures.parameters import Parameters
from serve.request import OutputFormat

PIXELS = np.arange(16 * 24 * 3, dtype=np.uint8).reshape(16, 24, 3)
TEXT = Parameters("a red apple,\nrouge, 赤いりんご 🍎", "blurry", {"Steps": "20", "Seed": "1", "Size": "24x16"})
FORMATS: tuple[OutputFormat, ...] = ("png", "jpeg", "webp")
MAGIC = {"png": b"\x89PNG", "jpeg": b"\xff\xd8", "webp": b"RIFF"}


@pytest.mark.parametrize("form", FORMATS)
def test_the_text_comes_back(form: OutputFormat) -> None:
    data = picture_file(PIXELS, form, 90, TEXT)
    assert data.startswith(MAGIC[form])
    assert parameters_of(data) == TEXT
    assert data == picture_file(PIXELS, form, 90, TEXT), "no clock in it"
    assert parameters_of(picture_file(PIXELS, form)) is None


@settings(max_examples=30)
@given(prompt=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50))
def test_any_prompt_in_any_format(prompt: str) -> None:
    text = Parameters(prompt, "", TEXT.settings)
    assert {str(parameters_of(picture_file(PIXELS, form, 90, text))) for form in FORMATS} == {str(text)}


def test_the_text_does_not_change_the_pixels() -> None:
    with Image.open(io.BytesIO(picture_file(PIXELS, "png", text=TEXT))) as picture:
        assert (np.asarray(picture) == PIXELS).all()


@pytest.mark.parametrize(("prompt", "chunk"), [("café", b"tEXtparameters\0caf\xe9"), ("赤", b"iTXtparameters\0")])
def test_where_png_readers_look(prompt: str, chunk: bytes) -> None:
    assert chunk in picture_file(PIXELS, "png", text=Parameters(prompt))


@pytest.mark.parametrize("form", ["jpeg", "webp"])
def test_where_exif_readers_look(form: OutputFormat) -> None:
    """Tag 0x9286 of the Exif IFD (0x8769), UTF-16 in the byte order of the file, which is the one piexif assumes."""
    data = picture_file(PIXELS, form, 90, TEXT)
    with Image.open(io.BytesIO(data)) as picture:
        exif = picture.getexif()
        assert exif.get_ifd(0x8769)[0x9286] == b"UNICODE\0" + str(TEXT).encode("utf-16-be")
        assert exif.endian == ">"
    kind = b"\x92\x86\0\x07"
    assert kind in data, "of type UNDEFINED, as the standard has it"


def test_a_prompt_too_long_for_a_jpeg_keeps_the_settings() -> None:
    long = Parameters("x" * EXIF_BYTES, "", TEXT.settings)
    for form in FORMATS:
        text = parameters_of(picture_file(PIXELS, form, 90, long))
        assert text is not None
        assert text.settings == TEXT.settings
        assert (text.prompt == long.prompt) == (form != "jpeg")


def test_files_of_other_programs() -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif.endian = "<"
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + str(TEXT).encode("utf-16-le")
    Image.fromarray(PIXELS).save(buffer, "jpeg", exif=exif.tobytes())
    assert parameters_of(buffer.getvalue()) == TEXT
    for comment in (b"ASCII\0\0\0hello", b"UNICODE\0\xd8", 7):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9286] = comment
        buffer = io.BytesIO()
        Image.fromarray(PIXELS).save(buffer, "webp", exif=exif.tobytes())
        parameters_of(buffer.getvalue())  # whatever it says, it is read


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP"])
def test_what_is_no_picture(data: bytes) -> None:
    with pytest.raises(ValueError, match=f"{len(data)} bytes"):
        parameters_of(data)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=200)
@given(form=st.sampled_from(FORMATS), at=st.floats(0, 1), byte=st.integers(0, 255), cut=st.floats(0, 1))
def test_broken_files_break_nothing(form: OutputFormat, at: float, byte: int, cut: float) -> None:
    data = bytearray(picture_file(PIXELS, form, 90, TEXT))
    data[int(at * (len(data) - 1))] = byte
    for broken in (bytes(data), bytes(data[: int(cut * len(data))])):
        try:
            parameters_of(broken)
        except ValueError as error:
            if "bytes" not in str(error):
                raise
