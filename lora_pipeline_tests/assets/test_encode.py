"""What the training set's table says of its buckets."""

from PIL import Image

from lora_pipeline import flow
from lora_pipeline.assets.encode import _beside, _faces, _line
from lora_pipeline.flow import Outcome, Work
from lora_pipeline.manifest import Manifest, Report, write
from lora_pipeline.pictures import save
from lora_pipeline.records import Caption, Crop, Example, File, Row
from lora_pipeline.settings import EncodeSettings, FitSettings, Settings
from lora_pipeline.store import Store, digest_file
from lora_pipeline.subject import Subject


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


def test_training_that_weighs_faces_is_told_where_they_are(tmp_path, tiny_base):
    """A crop of 128 pixels in a bucket of 64: its face comes half as large."""
    subject = Subject(
        name="ann", kind="person", photos=tmp_path, trigger="zx9", class_word="woman", recipe="sd15_person"
    )

    def told(weight):
        encode = EncodeSettings(resolution_px=64)
        work = Work(Store(tmp_path), subject, Settings(base=tiny_base, encode=encode, fit={"face_loss_weight": weight}))
        picture = work.folder("conceal") / "a.png"
        save(Image.new("RGB", (128, 128), "grey"), picture)
        crop = Crop("a.jpg", "close", (0, 0, 128, 128), 128, 128, face=(32, 16, 96, 80))
        file = File(picture.name, digest_file(picture))
        write(work.folder("conceal"), [Row("a.jpg@close", "k", data=crop.data(), files={"picture": file})])
        caption = Caption("a.jpg", "a photo", "hand")
        write(work.folder("describe"), [Row("a.jpg@close", "k", data=caption.data())])
        examples = [Example.of(row) for row in flow.encode(work).manifest.kept]
        return [one.face for one in examples], _faces(weight, examples)

    assert told(1.0) == ([None], {})
    assert told(4.0) == ([(16, 8, 48, 40)], {"pictures in which the face counts 4 times": 1})


def test_the_share_of_regularisation_pictures_is_of_what_is_trained_on(tmp_path):
    """4 photos × 6 looks, a quarter of them kept aside: 18 looks, and as many of the 4 others."""
    photos = [Example(f"p{n}", SQUARE, 6, "", 0, photo_digest=f"p{n}") for n in range(4)]
    ids = ("generated/0001", "generated/0002", "pool/bea/a.jpg@close", "regularisation/b.jpg")
    others = [Example(id, SQUARE, 3, "", 0, regularisation=True) for id in ids]
    rows = tuple(Row(one.photo, "k", data=one.data()) for one in (*photos, *others))
    subject = Subject(name="ann", kind="pet", photos=tmp_path, trigger="zx9", class_word="dog", recipe="sd15_pet")
    work = Work(Store(tmp_path), subject, Settings(fit=FitSettings(held_out_share=0.25)))
    refused = Row("pool/cleo", "k", "dropped", "she did not agree")
    write(work.folder("encode"), [refused], "regularisation")
    shown = _beside(work, Outcome(Manifest(tmp_path, rows), Report()))
    assert shown["regularisation pictures"] == 4
    assert shown["regularisation pictures' share of an epoch"] == "50%"
    whose = {"a folder's": 1, "other subjects'": 1, "the base model's": 2}
    assert shown["regularisation pictures by whose they are"] == whose
    (left_out,) = shown["regularisation pictures left out"].records
    assert left_out.data == {"picture": "pool/cleo", "why": "she did not agree"}
    assert _beside(work, Outcome(Manifest(tmp_path, rows[:4]), Report()))["regularisation pictures"] == 0
    (work.folder("encode") / "regularisation.parquet").unlink()
    assert _beside(work, Outcome(Manifest(tmp_path, rows[:4]), Report())) == {}
