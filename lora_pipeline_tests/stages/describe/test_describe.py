"""One caption a picture: the hand wins, the trigger word is always there, and what is empty says so."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from lora_pipeline.errors import ModelError, PipelineError
from lora_pipeline.manifest import Manifest, Outcome
from lora_pipeline.records import Caption, Crop, File, Row
from lora_pipeline.settings import DescribeSettings
from lora_pipeline.stages.describe import describe, open_captioner
from lora_pipeline.store import digest_file


class Parrot:
    """A captioner that says what it is told to."""

    name = "parrot"

    def __init__(self, says: str = "a dog on the beach") -> None:
        self.says, self.identity = says, says
        self.asked: list[str] = []

    def words(self, picture: Image.Image, crop: Crop) -> str:
        assert picture.mode == "RGB"
        self.asked.append(f"{crop.photo}@{crop.framing}")
        return self.says


@pytest.fixture
def pictures(tmp_path: Path) -> Manifest:
    """Two crops of one photo, one of another in a folder, one dropped."""
    folder = tmp_path / "conceal"
    folder.mkdir()
    rows = [Row("d.jpg", "0", "dropped", "no face found")]
    for number, (photo, framing) in enumerate((("a.jpg", "close"), ("a.jpg", "medium"), ("trip/b.jpg", "close"))):
        Image.new("RGB", (32, 32), (number * 40, 90, 90)).save(folder / f"{number}.png")
        crop = Crop(photo, framing, (0, 0, 32, 32), 32, 32, (8, 8, 20, 20), (), 0.0)  # type: ignore[arg-type]
        data = {**crop.data(), "hidden": 0}
        rows.append(
            Row(
                f"{photo}@{framing}",
                str(number),
                data=data,
                files={"picture": File(f"{number}.png", digest_file(folder / f"{number}.png"))},
            )
        )
    return Manifest(folder, tuple(rows))


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    folder = tmp_path / "captions"
    (folder / "trip").mkdir(parents=True)
    return folder


def run(pictures: Manifest, captions: Path, writer: Parrot | None = None, **settings: object) -> Outcome:
    given = DescribeSettings.model_validate(settings)
    return describe(pictures, captions.parent / "describe", given, captions, "jx265", "woman", writer or Parrot())


def texts(outcome: Outcome) -> dict[str, str]:
    return {row.id: str(row.data["text"]) for row in outcome.manifest.kept}


def test_a_caption_a_picture_trigger_and_class_first(pictures: Manifest, captions: Path) -> None:
    outcome = run(pictures, captions)
    assert texts(outcome) == dict.fromkeys(
        ("a.jpg@close", "a.jpg@medium", "trip/b.jpg@close"), "jx265 woman, a dog on the beach"
    )
    assert Caption.of(outcome.manifest.row("a.jpg@close")) == Caption(
        "a.jpg", "jx265 woman, a dog on the beach", "parrot"
    )


def test_the_hand_wins_for_all_crops_of_its_photo(pictures: Manifest, captions: Path) -> None:
    (captions / "a.txt").write_text("\ufeff{trigger} {class}\n  laughing \n", encoding="utf-8")
    writer = Parrot()
    outcome = run(pictures, captions, writer)
    assert texts(outcome)["a.jpg@close"] == texts(outcome)["a.jpg@medium"] == "jx265 woman laughing"
    assert outcome.manifest.row("a.jpg@close").data["source"] == "hand"
    assert writer.asked == ["trip/b.jpg@close"]


@pytest.mark.parametrize("name", ["trip/b.jpg.txt", "trip/b.txt", "b.txt"])
def test_a_photo_in_a_folder_is_named_with_it_or_without(pictures: Manifest, captions: Path, name: str) -> None:
    (captions / name).write_text("jx265 at sea")
    assert texts(run(pictures, captions))["trip/b.jpg@close"] == "jx265 at sea"


def test_the_fuller_name_wins(pictures: Manifest, captions: Path) -> None:
    for name in ("b.txt", "trip/b.txt"):
        (captions / name).write_text(f"jx265 from {name}")
    assert texts(run(pictures, captions))["trip/b.jpg@close"] == "jx265 from trip/b.txt"


def test_a_missing_trigger_is_put_first_and_said(pictures: Manifest, captions: Path) -> None:
    (captions / "a.txt").write_text("laughing, jx2655 is no trigger")
    outcome = run(pictures, captions)
    assert texts(outcome)["a.jpg@close"] == "jx265 woman, laughing, jx2655 is no trigger"
    assert "put first" in str(outcome.manifest.row("a.jpg@close").data["note"])
    assert outcome.manifest.row("trip/b.jpg@close").data["note"] == ""


def test_an_empty_or_unreadable_file_fails_its_rows_and_no_others(pictures: Manifest, captions: Path) -> None:
    (captions / "a.txt").write_text(" \n")
    (captions / "b.txt").write_bytes(b"\xff\xfe\x00")
    outcome = run(pictures, captions)
    reasons = {row.id: (row.state, row.reason) for row in outcome.manifest.rows}
    assert reasons["a.jpg@close"] == ("failed", "captions/a.txt is empty; write a caption in it, or remove it")
    assert reasons["trip/b.jpg@close"] == ("failed", "captions/b.txt cannot be read: it is not UTF-8 text")
    (captions / "a.txt").unlink()
    assert texts(run(pictures, captions))["a.jpg@close"] == "jx265 woman, a dog on the beach"


def test_a_captioner_is_cut_short_and_a_hand_is_not(pictures: Manifest, captions: Path) -> None:
    (captions / "a.txt").write_text("jx265 one two three four five")
    outcome = run(pictures, captions, Parrot("one two, three four"), max_words=4)
    assert texts(outcome)["trip/b.jpg@close"] == "jx265 woman, one two"
    assert texts(outcome)["a.jpg@close"] == "jx265 one two three four five"


def test_a_weak_photo_has_words_for_it_after_all_others_unless_a_hand_wrote(pictures: Manifest, captions: Path) -> None:
    def with_tokens(**tokens: tuple[str, ...]) -> Outcome:
        given = DescribeSettings(max_words=4)
        told = {"a.jpg": tokens.get("a", ()), "trip/b.jpg": tokens.get("b", ())}
        folder = captions.parent / "describe"
        return describe(pictures, folder, given, captions, "jx265", "woman", Parrot("one two three"), tokens=told)

    assert with_tokens().report.computed == 3
    assert run(pictures, captions, Parrot("one two three"), max_words=4).report.computed == 0  # as if nobody had asked
    outcome = with_tokens(a=("blurry", "jpeg artifacts"))
    assert outcome.report.computed == 2
    assert texts(outcome) == {
        "a.jpg@close": "jx265 woman, one two, blurry, jpeg artifacts",
        "a.jpg@medium": "jx265 woman, one two, blurry, jpeg artifacts",
        "trip/b.jpg@close": "jx265 woman, one two",
    }
    (captions / "b.txt").write_text("jx265 at sea")
    assert texts(with_tokens(b=("noisy",)))["trip/b.jpg@close"] == "jx265 at sea"


def test_only_what_changed_is_written_again(pictures: Manifest, captions: Path) -> None:
    run(pictures, captions)
    assert run(pictures, captions).report.computed == 0
    (captions / "b.txt").write_text("jx265 at sea")
    assert run(pictures, captions).report.computed == 1
    (captions / "b.txt").write_text("jx265 on land")
    assert texts(outcome := run(pictures, captions))["trip/b.jpg@close"] == "jx265 on land"
    assert outcome.report.computed == 1
    other = replace(pictures.rows[1], data={**pictures.rows[1].data, "yaw_deg": 30.0})
    assert run(Manifest(pictures.folder, (other, *pictures.rows[2:])), captions).report.computed == 1
    assert run(pictures, captions, Parrot("something else")).report.computed == 2  # the hand's stays


def test_measured_is_what_the_settings_name(pictures: Manifest, captions: Path) -> None:
    outcome = describe(pictures, captions.parent / "describe", DescribeSettings(), captions, "jx265", "woman")
    assert texts(outcome)["a.jpg@close"].startswith("jx265 woman, close portrait, facing the camera, ")
    assert outcome.manifest.row("a.jpg@close").data["source"] == "measured"


def test_a_captioner_without_weights_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"describe\.blip_model"):
        open_captioner(DescribeSettings(captioner="blip", blip_model=str(tmp_path / "nowhere")))


def test_weights_that_do_not_open_are_tried_again_next_time(pictures: Manifest, captions: Path) -> None:
    class Broken(Parrot):
        def words(self, picture: Image.Image, crop: Crop) -> str:
            super().words(picture, crop)
            raise ModelError("the weights are cut short")

    with pytest.raises(PipelineError, match="the weights are cut short"):
        run(pictures, captions, Broken())
    assert len(texts(run(pictures, captions))) == 3


def test_folders_stand_in_a_captioners_caption_if_asked_and_are_not_what_is_cut(
    pictures: Manifest, captions: Path
) -> None:
    tagged = Manifest(pictures.folder, tuple(row.with_data(tags=["2024 beach", "night"]) for row in pictures.rows))
    assert set(texts(run(tagged, captions)).values()) == {"jx265 woman, a dog on the beach"}
    told = texts(run(tagged, captions, folder_tags=True, max_words=7))
    assert set(told.values()) == {"jx265 woman, 2024 beach, night, a dog"}
    assert set(texts(run(pictures, captions, folder_tags=True)).values()) == {"jx265 woman, a dog on the beach"}
    (captions / "a.txt").write_text("{trigger} by hand")
    assert texts(run(tagged, captions, folder_tags=True))["a.jpg@close"] == "jx265 by hand"


def test_the_rules_ask_no_captioner_again(pictures: Manifest, captions: Path) -> None:
    writer = Parrot("1girl, solo, red shirt, smiling")
    assert texts(run(pictures, captions, writer))["a.jpg@close"] == "jx265 woman, 1girl, solo, red shirt, smiling"
    ruled = run(
        pictures,
        captions,
        writer,
        blacklist=["solo", "1girl"],
        tag_order=["smiling"],
        front="photo of {trigger}",
        angle_tokens=True,
    )
    assert set(texts(ruled).values()) == {"photo of jx265, smiling, red shirt, frontal"}
    assert len(writer.asked) == 3
    (captions / "b.txt").write_text("by hand, solo")
    assert (
        texts(run(pictures, captions, writer, blacklist=["solo"]))["trip/b.jpg@close"] == "jx265 woman, by hand, solo"
    )
    assert len(writer.asked) == 3


def test_what_never_changes_about_the_subject_binds_to_the_trigger(tmp_path: Path, captions: Path) -> None:
    (tmp_path / "conceal").mkdir()
    rows: list[Row] = []
    for number in range(6):
        file = tmp_path / "conceal" / f"{number}.png"
        Image.new("RGB", (32, 32), (number, 0, 0)).save(file)
        crop = Crop(f"{number}.jpg", "close", (0, 0, 32, 32), 32, 32)
        rows.append(Row(f"{number}.jpg", "k", data=crop.data(), files={"picture": File(file.name, digest_file(file))}))

    class Seer(Parrot):
        """Sees brown hair on all but the last."""

        def words(self, picture: Image.Image, crop: Crop) -> str:
            super().words(picture, crop)
            return "a woman with blond hair and a hat" if crop.photo[0] == "5" else "a woman with brown hair and a hat"

    writer = Seer()
    outcome = run(Manifest(tmp_path / "conceal", tuple(rows)), captions, writer, drop_constant=0.7)
    assert texts(outcome)["0.jpg"] == "jx265 woman, a woman with a hat"
    assert outcome.manifest.row("0.jpg").data["note"] == "left out, since it never changes: brown hair"
    assert texts(outcome)["5.jpg"] == "jx265 woman, a woman with blond hair and a hat"
    (captions / "0.txt").write_text("{trigger} with brown hair")
    outcome = run(Manifest(tmp_path / "conceal", tuple(rows)), captions, writer, drop_constant=0.7)
    assert (texts(outcome)["0.jpg"], outcome.report.computed) == ("jx265 with brown hair", 1)
    assert len(writer.asked) == 6


def test_the_expression_stands_where_crop_has_scored_it(pictures: Manifest) -> None:
    from lora_pipeline.stages.describe import ruled

    plain = Crop.of(pictures.rows[1])
    scored = replace(plain, yaw_deg=-20.0, expression=(("neutral", 0.9), ("sad", 0.05)))
    asked = DescribeSettings(expression_tokens=True, angle_tokens=True)
    assert (
        ruled("a dog", scored, asked, "jx265", "woman", ["blurry"])
        == "jx265 woman, a dog, three-quarter left, neutral_90 sad_5, blurry"
    )
    assert ruled("a dog", plain, asked, "jx265", "woman") == "jx265 woman, a dog, frontal"
    assert ruled("a dog", scored, DescribeSettings(), "jx265", "woman") == "jx265 woman, a dog"


def test_settings_that_cannot_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="min_words"):
        DescribeSettings(min_words=50, max_words=40)
    with pytest.raises(ValueError, match="front"):
        DescribeSettings(front="a photo of {class}")


def test_an_expression_that_is_scored_later_asks_no_captioner_again(pictures: Manifest, captions: Path) -> None:
    writer = Parrot()
    run(pictures, captions, writer)
    scored = Manifest(
        pictures.folder, tuple(row.with_data(expression=[["happy", 1.0]]) if row.data else row for row in pictures.rows)
    )
    told = texts(run(scored, captions, writer, expression_tokens=True))
    assert set(told.values()) == {"jx265 woman, a dog on the beach, happy_100"}
    assert len(writer.asked) == 3
