import io

import pytest
from PIL import Image

from lateen.data.samples import MemoryImage
from lateen.errors import ImageError
from lateen.report.thumbnail import thumbnail


def stripes(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Red left third, green middle, blue right third."""
    image = Image.new("RGB", (width, height))
    third = width // 3
    for index, colour in enumerate(["red", "lime", "blue"]):
        image.paste(colour, (index * third, 0, (index + 1) * third, height))
    return image.convert(mode)


def test_the_middle_square_is_kept():
    image = thumbnail(stripes(300, 100), 50)
    assert image.size == (50, 50)
    assert image.mode == "RGB"
    assert image.getpixel((25, 25)) == (0, 255, 0)
    assert image.getpixel((4, 25)) == (0, 255, 0)


def test_paths_and_sources_and_images_give_the_same(tmp_path):
    original = stripes(90, 90)
    path = tmp_path / "photo.png"
    original.save(path)
    from_source = thumbnail(MemoryImage("row 1", path.read_bytes()), 30)
    assert thumbnail(path, 30).tobytes() == thumbnail(str(path), 30).tobytes()
    assert thumbnail(path, 30).tobytes() == from_source.tobytes()
    assert thumbnail(original, 30).tobytes() == from_source.tobytes()


def test_transparency_is_shown_over_white():
    assert thumbnail(Image.new("RGBA", (8, 8), (255, 0, 0, 0)), 4).getpixel((1, 1)) == (255,) * 3


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1", "LA"])
def test_every_mode_becomes_rgb(mode):
    assert thumbnail(stripes(60, 60, mode), 20).mode == "RGB"


def test_the_given_image_stays_as_it_is():
    image = stripes(60, 30)
    thumbnail(image, 10)
    assert image.size == (60, 30)


def test_missing_and_damaged_files_are_image_errors(tmp_path):
    buffer = io.BytesIO()
    stripes(60, 60).save(buffer, format="JPEG")
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(buffer.getvalue()[:300])
    for source in (tmp_path / "absent.jpg", cut, MemoryImage("row 2", b"<html>")):
        with pytest.raises(ImageError):
            thumbnail(source, 10)
