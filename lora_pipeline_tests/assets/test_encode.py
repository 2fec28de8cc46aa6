"""What the training set's table says of its buckets."""

from lora_pipeline.assets.encode import _line
from lora_pipeline.records import Example


def example(bucket, own):
    return Example(photo="a", bucket=bucket, repeats=2, caption="", hidden=0, own_bucket=own)


SQUARE, WIDE, TALL = (512, 512), (576, 448), (448, 576)
EXAMPLES = [example(SQUARE, SQUARE), example(SQUARE, WIDE), example(SQUARE, WIDE), example(TALL, TALL)]


def test_a_bucket_that_joined_another_is_reported():
    remark = "576 × 448 would have filled no batch and joined it"
    assert _line(SQUARE, EXAMPLES, batch_size=4) == ("512 × 512", 3, 6, remark)


def test_a_bucket_that_fills_no_batch_is_reported():
    assert _line(TALL, EXAMPLES, batch_size=4) == ("448 × 576", 1, 2, "fills no batch of 4")
    assert _line(TALL, EXAMPLES, batch_size=2) == ("448 × 576", 1, 2, "")
