"""A pet or product that is looked for: close crops about it, its mask beside each crop, remembered a photo."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lora_pipeline.errors import SettingsError
from lora_pipeline.manifest import Stale, planning, read
from lora_pipeline.records import Crop
from lora_pipeline.settings import CropSettings, Settings
from lora_pipeline.stages.crop import crop, thing
from lora_pipeline.stages.crop.framing import Cut
from lora_pipeline.stages.crop.thing import with_close
from lora_pipeline_tests.models.test_things import tiny_grounding_dino, tiny_sam

SETTINGS = CropSettings(size_px=64, search_px=256, max_enlargement=8)
TRIM = (0, 0, 400, 300)
WHOLE = Cut("whole", TRIM, (72, 56))


def test_a_close_crop_is_a_square_about_the_thing_with_a_margin_moved_into_the_photo() -> None:
    (_, cut) = with_close([WHOLE], TRIM, (100, 100, 200, 160), SETTINGS)
    assert cut == Cut("close", (85, 65, 215, 195), (64, 64))
    (_, cut) = with_close([WHOLE], TRIM, (300, 240, 400, 300), SETTINGS)
    assert cut.region == (270, 170, 400, 300)
    (_, cut) = with_close([WHOLE], (0, 0, 400, 200), (10, 0, 200, 200), SETTINGS)
    assert cut.region == (5, 0, 205, 200)  # less margin, where the photo has none


def test_a_close_crop_that_would_be_no_good_has_its_reason() -> None:
    def reason(box: tuple[int, int, int, int], settings: CropSettings = SETTINGS) -> str:
        return with_close([WHOLE, Cut("full", (0, 0, 300, 300), (64, 64))], TRIM, box, settings)[-1].reason

    assert reason((0, 100, 400, 200)) == "a square would cut the subject"
    strict = SETTINGS.model_copy(update={"max_enlargement": 1.5})
    assert reason((100, 100, 120, 120), strict) == "would be enlarged 2.5 times, the limit is 1.5"
    assert reason((10, 10, 290, 290)) == "shows nearly the same as the framing full"
    without = SETTINGS.model_copy(update={"framings": ("medium", "whole")})
    assert with_close([WHOLE], TRIM, (100, 100, 200, 160), without) == [WHOLE]


def test_a_mask_without_a_box_is_refused() -> None:
    with pytest.raises(SettingsError, match="segment_model cuts out what subject_model finds"):
        Settings().changed({"crop": {"segment_model": "facebook/sam-vit-base"}}, "subject.yaml")


@pytest.mark.slow
def test_the_thing_and_its_mask_travel_with_the_crops(tmp_path: Path, curated, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real classes with random weights: what they find is by chance, but one and the same in every table."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        picture = Image.effect_noise((400, 300), 60).convert("RGB")
        ImageDraw.Draw(picture).ellipse((150, 80, 260, 200), fill=colour)
        picture.save(photos / name)
    manifest = curated(sorted(photos.iterdir()), {"a.png": (20, 0, 400, 300)})
    named = {
        "subject_model": str(tiny_grounding_dino(tmp_path / "dino")),
        "segment_model": str(tiny_sam(tmp_path / "sam")),
        "subject_score": 0.01,
    }
    settings = SETTINGS.model_copy(update=named)
    plain = crop(manifest, tmp_path / "crop", SETTINGS, "pet", None, class_word="dog")
    assert all("thing" not in row.data for row in plain.manifest.rows)
    with planning(), pytest.raises(Stale):
        crop(manifest, tmp_path / "crop", settings, "pet", None, class_word="dog")
    outcome = crop(manifest, tmp_path / "crop", settings, "pet", None, class_word="dog")
    boxes = {row.id: row.data["box"] for row in read(tmp_path / "crop", thing.THINGS).kept}
    masks = read(tmp_path / "crop", thing.CUT_OUT)
    assert boxes.keys() == {"a.png", "b.png"}
    assert boxes["a.png"][0] >= 20  # type: ignore[index]
    assert {row.id for row in outcome.manifest.kept} >= {"a.png@whole", "b.png@whole"}
    for row in outcome.manifest.kept:
        cut = Crop.of(row)
        assert cut.thing is not None
        scale = cut.width_px / (cut.region[2] - cut.region[0])
        assert cut.thing[0] == pytest.approx(max(0, (boxes[cut.photo][0] - cut.region[0]) * scale), abs=1)  # type: ignore[index]
        with (
            Image.open(outcome.manifest.path(row, "subject_mask")) as mask,
            Image.open(masks.path(masks.row(cut.photo), "mask")) as whole,
        ):
            assert (mask.mode, mask.size) == ("L", (cut.width_px, cut.height_px))
            assert whole.size == (400, 300)
            again = whole.crop(cut.region).resize(mask.size)
            assert np.array_equal(np.asarray(mask), np.asarray(again))
            assert set(np.unique(np.asarray(whole)).tolist()) <= {0, 255}

    monkeypatch.setattr(thing, "open_upright", None)
    again = crop(manifest, tmp_path / "crop", settings, "pet", None, class_word="dog")
    assert (again.report.computed, again.manifest.digest) == (0, outcome.manifest.digest)
    larger = settings.model_copy(update={"size_px": 72})
    crop(manifest, tmp_path / "crop", larger, "pet", None, class_word="dog")
    monkeypatch.undo()
    unseen = settings.model_copy(update={"subject_score": 0.999, "subject_prompt": "red mug"})
    monkeypatch.setattr("lora_pipeline.models.grounding_dino.GroundingDino.find", lambda *_: [])
    outcome = crop(manifest, tmp_path / "crop", unseen, "pet", None, class_word="dog")
    assert {row.id: row.reason for row in outcome.manifest.rows} == dict.fromkeys(
        ("a.png", "b.png"), "no red mug is found (crop.subject_score: 0.999)"
    )
