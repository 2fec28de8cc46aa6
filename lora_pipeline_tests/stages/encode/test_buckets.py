"""Buckets are those that kohya-ss/sd-scripts counts, and pictures come into them whole and undistorted."""

import pytest
from PIL import Image

from lora_pipeline.settings import EncodeSettings
from lora_pipeline.stages.encode.buckets import bucket_of, buckets, into_bucket, placed, plan

# make_bucket_resolutions((512, 512), min_size=256, max_size=1024, divisible=64) of sd-scripts
KOHYA_512 = {
    (256, 1024), (320, 768), (384, 640), (448, 576), (512, 512), (576, 448), (640, 384), (704, 320), (768, 320), (832, 256),
    (896, 256), (960, 256), (1024, 256), (320, 704), (256, 832), (256, 896), (256, 960),
}  # fmt: skip


# the same of (768, 768), min_size=384, max_size=1024
KOHYA_768 = {
    (384, 1024), (448, 1024), (512, 1024), (576, 960), (576, 1024), (640, 896), (704, 832), (768, 768), (832, 704), (896, 640),
    (960, 576), (1024, 384), (1024, 448), (1024, 512), (1024, 576),
}  # fmt: skip
AT_MOST = EncodeSettings(bucket_area="at_most")


def test_the_buckets_of_512_are_kohyas_where_areas_are_at_most_the_squares():
    assert set(buckets(AT_MOST)) == KOHYA_512


def test_shortest_and_longest_side_are_kohyas():
    settings = EncodeSettings(resolution_px=768, bucket_min_px=384, bucket_max_px=1024, bucket_area="at_most")
    assert set(buckets(settings)) == KOHYA_768


@pytest.mark.parametrize("resolution", [128, 200, 512, 1024])
def test_no_bucket_is_larger_than_the_square_where_areas_are_at_most_the_squares(resolution):
    sizes = buckets(EncodeSettings(resolution_px=resolution, bucket_step_px=32, bucket_area="at_most"))
    assert (resolution, resolution) in sizes
    assert all(width * height <= resolution**2 for width, height in sizes)
    assert {(height, width) for width, height in sizes} == set(sizes)


@pytest.mark.parametrize("resolution", [128, 200, 512, 1024])
@pytest.mark.parametrize("longest", [0, 1216])
def test_by_default_a_buckets_area_is_the_squares_to_half_a_step(resolution, longest):
    sizes = buckets(EncodeSettings(resolution_px=resolution, bucket_step_px=32, bucket_max_px=longest))
    assert {(height, width) for width, height in sizes} == set(sizes)
    for width, height in sizes:
        miss = min(abs(height - resolution**2 / width), abs(width - resolution**2 / height))
        assert miss <= 16, (width, height)
        assert resolution // 2 <= width <= (longest or 2 * resolution)


def test_area_true_buckets_are_those_worked_out_by_hand():
    """Width 320 of 512²: 819.2 is nearest to 832, where sd-scripts goes down to 768; width 704: 372.4 to 384, and not 320."""
    assert {(320, 832), (704, 384)} <= set(buckets(EncodeSettings()))
    assert not {(320, 832), (704, 384)} & KOHYA_512
    assert bucket_of(400, 1040, EncodeSettings()) == (320, 832)
    assert bucket_of(400, 1040, AT_MOST) == (320, 768)


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
@pytest.mark.parametrize("settings", [EncodeSettings(), AT_MOST], ids=["nearest", "at_most"])
def test_a_picture_goes_where_its_aspect_ratio_is_nearest(picture, bucket, settings):
    assert bucket_of(*picture, settings) == bucket


# picture → (bucket, size it is brought to): BucketManager(no_upscale=True, (512, 512), …, 64).select_bucket of sd-scripts
KOHYA_NO_UPSCALE = {
    (1000, 700): ((576, 384), (576, 403)),
    (500, 333): ((448, 320), (500, 333)),
    (512, 512): ((512, 512), (512, 512)),
    (600, 600): ((512, 512), (512, 512)),
    (2000, 500): ((1024, 256), (1024, 256)),
    (333, 1200): ((256, 896), (256, 923)),
    (70, 100): ((64, 64), (70, 100)),
    (3000, 2000): ((576, 384), (576, 384)),
}


@pytest.mark.parametrize(("picture", "wanted"), KOHYA_NO_UPSCALE.items())
def test_without_enlarging_buckets_and_sizes_are_kohyas(picture, wanted):
    bucket = bucket_of(*picture, EncodeSettings(bucket_no_upscale=True))
    assert bucket is not None
    assert (bucket, placed(picture, bucket, 512**2)[0]) == wanted


@pytest.mark.parametrize("picture", [(63, 500), (500, 63), (60000, 100)])
def test_what_is_smaller_than_a_step_has_no_bucket_without_enlarging(picture):
    assert bucket_of(*picture, EncodeSettings(bucket_no_upscale=True)) is None


def test_a_square_is_the_resolution_even_if_the_step_does_not_divide_it():
    assert bucket_of(700, 700, EncodeSettings(resolution_px=200)) == (200, 200)


def planned(sizes, batch_size, **settings):
    """(bucket, own bucket) by number of the picture."""
    made = plan({str(at): size for at, size in enumerate(sizes)}, EncodeSettings(**settings), batch_size)
    return {int(id): (one.bucket, one.own) for id, one in made.items()}


SQUARE, WIDE, WIDER, TALL = (512, 512), (576, 448), (1024, 256), (448, 576)


def test_a_bucket_that_fills_no_batch_joins_its_neighbour():
    """5 squares, 2 of 4:3, 1 of 4:1; batches of 3: 4:1 goes to 4:3, which is then three and stays."""
    sizes = [(600, 600)] * 5 + [(640, 480)] * 2 + [(4000, 1000)]
    told = planned(sizes, 3, repeats=1)
    assert [told[at] for at in range(8)] == [(SQUARE, SQUARE)] * 5 + [(WIDE, WIDE)] * 2 + [(WIDE, WIDER)]
    assert planned(sizes, 3, repeats=1, merge_small_buckets=False)[7] == (WIDER, WIDER)
    assert planned(sizes, 3, repeats=3)[7] == (WIDER, WIDER)  # 1 picture × 3 repeats fills a batch
    assert planned(sizes, 1, repeats=1)[7] == (WIDER, WIDER)


def test_merging_goes_on_until_no_bucket_is_short_or_one_is_left():
    sizes = [(640, 480), (480, 640), (4000, 1000)]
    for batch_size in (3, 100):
        assert len({bucket for bucket, _ in planned(sizes, batch_size, repeats=1).values()}) == 1
    assert (
        len({bucket for bucket, _ in planned(sizes, 2, repeats=1).values()}) == 1
    )  # two join, and the third joins them


def test_the_neighbour_is_as_far_turned_as_upright():
    """A lone 1:4 picture among 1:1.3 and 1.3:1 ones joins the tall ones, though its ratio's difference to both is like."""
    sizes = [(640, 480)] * 4 + [(480, 640)] * 4 + [(1000, 4000)]
    assert planned(sizes, 2, repeats=1)[8][0] == TALL


def test_nothing_is_enlarged_to_join_a_neighbour():
    sizes = [(512, 512)] * 4 + [(200, 130)]
    assert planned(sizes, 2, repeats=1, bucket_no_upscale=True)[4] == ((192, 128), (192, 128))
    sizes = [(512, 512)] + [(200, 130)] * 4
    assert planned(sizes, 2, repeats=1, bucket_no_upscale=True)[0] == ((192, 128), (512, 512))


def test_a_picture_that_keeps_its_size_is_cut_and_not_resized():
    picture = Image.new("RGB", (500, 333), "black")
    picture.paste("white", (26, 6, 474, 326))  # its middle 448 × 320
    seen = into_bucket(picture, (448, 320), 512**2)
    assert seen.getextrema() == ((255, 255),) * 3
    assert into_bucket(picture, (448, 320)).getextrema() == ((0, 255),) * 3


@pytest.mark.parametrize("picture", [(640, 480), (100, 333), (512, 512), (1023, 700)])
def test_a_placed_picture_covers_its_bucket_and_keeps_its_shape(picture):
    bucket = bucket_of(*picture, EncodeSettings())
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
