"""Buckets are those that kohya-ss/sd-scripts counts, and pictures come into them whole and undistorted."""

import pytest
from PIL import Image

from lora_pipeline.stages.encode.buckets import bucket_of, buckets, into_bucket, placed

# make_bucket_resolutions((512, 512), min_size=256, max_size=1024, divisible=64) of sd-scripts
KOHYA_512 = {
    (256, 1024), (320, 768), (384, 640), (448, 576), (512, 512), (576, 448), (640, 384), (704, 320), (768, 320), (832, 256),
    (896, 256), (960, 256), (1024, 256), (320, 704), (256, 832), (256, 896), (256, 960),
}  # fmt: skip


def test_the_buckets_of_512_are_kohyas():
    assert set(buckets(512, 64)) == KOHYA_512


@pytest.mark.parametrize("resolution", [128, 200, 512, 1024])
def test_no_bucket_is_larger_than_the_square(resolution):
    sizes = buckets(resolution, 32)
    assert (resolution, resolution) in sizes
    assert all(width * height <= resolution**2 for width, height in sizes)
    assert {(height, width) for width, height in sizes} == set(sizes)


@pytest.mark.parametrize(
    ("picture", "bucket"),
    [
        ((128, 128), (512, 512)),
        ((3000, 3000), (512, 512)),
        ((640, 480), (576, 448)),
        ((480, 640), (448, 576)),
        ((4000, 400), (1024, 256)),
    ],
)
def test_a_picture_goes_where_its_aspect_ratio_is_nearest(picture, bucket):
    assert bucket_of(*picture, 512, 64) == bucket


def test_a_square_is_the_resolution_even_if_the_step_does_not_divide_it():
    assert bucket_of(700, 700, 200, 64) == (200, 200)


@pytest.mark.parametrize("picture", [(640, 480), (100, 333), (512, 512), (1023, 700)])
def test_a_placed_picture_covers_its_bucket_and_keeps_its_shape(picture):
    bucket = bucket_of(*picture, 512, 64)
    size, (left, top, right, bottom) = placed(picture, bucket)
    assert (right - left, bottom - top) == bucket
    assert left >= 0
    assert top >= 0
    assert right <= size[0]
    assert bottom <= size[1]
    assert size[0] / size[1] == pytest.approx(picture[0] / picture[1], rel=0.01)
    assert size[0] == bucket[0] or size[1] == bucket[1]


def test_the_centre_is_kept():
    picture = Image.new("RGB", (200, 100), "black")
    picture.paste("white", (90, 40, 110, 60))
    seen = into_bucket(picture, (100, 100))
    assert seen.size == (100, 100)
    assert seen.getpixel((50, 50)) == (255, 255, 255)
    assert seen.getpixel((20, 50)) == (0, 0, 0)
