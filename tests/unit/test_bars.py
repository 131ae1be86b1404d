"""The image inside bars, margins and screens: found to the pixel, and nowhere else."""

import numpy as np
import pytest
from PIL import Image

from fakeface.core.seeds import rng
from fakeface.augment.backdrops import backdrop
from fakeface.faces.bars import content_box
from fakeface.images.decode import decode
from fakeface.images.jpeg import jpeg_bytes

INSIDE = (300, 360)  # width and height of the image


def inside(draw=0):
    "An image with something in every corner."
    noise = rng("bars", draw).integers(60, 200, (12, 10, 3)).astype(np.uint8)
    return Image.fromarray(noise).resize(INSIDE, Image.Resampling.BICUBIC)


def page(size, colour, corner):
    "The image on a page; with its place and the box of a face in its middle."
    whole = Image.new("RGB", size, colour)
    whole.paste(inside(), corner)
    left, top = corner
    place = (left, top, left + INSIDE[0], top + INSIDE[1])
    face = (left + 90, top + 100, left + 210, top + 250)
    return whole, place, face


@pytest.mark.parametrize("colour", ["black", "white", "#101014", (13, 240, 80)])
@pytest.mark.parametrize(
    "size, corner",
    [((700, 360), (200, 0)), ((300, 700), (0, 170)), ((500, 520), (90, 70))],
)
def test_found_to_the_pixel(colour, size, corner):
    whole, place, face = page(size, colour, corner)
    for file in (whole, decode(jpeg_bytes(whole, 90)).image):
        assert np.abs(np.subtract(content_box(file, face), place)).max() <= 1


@pytest.mark.parametrize("quality", [30, 50, 75])
@pytest.mark.parametrize("colour", ["black", "white", (13, 240, 80)])
def test_a_smeared_edge_may_be_missed_but_nothing_is_cut_off(colour, quality):
    whole, place, face = page((500, 520), colour, (90, 70))
    found = content_box(decode(jpeg_bytes(whole, quality)).image, face)
    for end, edge, limit in zip(found, place, (0, 0, *whole.size)):
        assert abs(end - edge) <= 3 or end == limit


@pytest.mark.parametrize("factor", [0.4, 1.7, 4.0])
def test_whatever_the_size(factor):
    whole, place, face = page((640, 600), "black", (150, 110))
    size = [round(length * factor) for length in whole.size]
    scaled = whole.resize(size, Image.Resampling.LANCZOS)
    found = content_box(scaled, tuple(round(edge * factor) for edge in face))
    assert np.abs(np.subtract(found, np.multiply(place, factor))).max() <= max(1.5, factor)


def test_an_image_without_bars_is_the_whole_image():
    for draw in range(20):
        image = backdrop((640, 480), rng("bars", draw))
        face = (200 + 5 * draw, 150, 300 + 5 * draw, 280)
        assert content_box(image, face) == (0, 0, 640, 480)


@pytest.mark.parametrize("wall", [0, 128, 255])
def test_a_head_before_a_plain_wall_has_no_bars(wall):
    "Neither a round head nor long straight hair is the side of an image."
    rows, columns = np.ogrid[:600, :600]
    round_head = ((rows - 320) / 210) ** 2 + ((columns - 300) / 150) ** 2 < 1
    straight_hair = round_head | (abs(columns - 300) < 150) & (rows > 320)
    pattern = np.asarray(inside().resize((600, 600))).copy()
    for head in (round_head, straight_hair):
        pixels = np.where(head[..., None], pattern, wall).astype(np.uint8)
        assert content_box(Image.fromarray(pixels), (220, 220, 380, 430)) == (0, 0, 600, 600)


@pytest.mark.parametrize("size, corner", [((300, 420), (0, 60)), ((420, 360), (0, 0)), ((700, 360), (0, 0))])
def test_one_side_alone_may_be_a_door_or_a_wall_in_two_colours(size, corner):
    whole, _, face = page(size, "black", corner)
    assert content_box(whole, face) == (0, 0, *size)


def test_faces_at_the_border_and_tiny_images_do_no_harm():
    image = inside()
    for face in (
        (900, 900, 950, 950),
        (-90, -90, -10, -10),
        (0, 0, 30, 30),
        (290, 350, 300, 360),
        (-5, -5, 310, 370),
        (10, 10, 10, 10),
    ):
        assert content_box(image, face) == (0, 0, *INSIDE)
    for side in (1, 2, 5):
        small = Image.new("RGB", (side, side))
        assert content_box(small, (0, 0, side, side)) == (0, 0, side, side)
