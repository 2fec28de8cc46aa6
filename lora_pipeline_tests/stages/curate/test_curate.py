"""What goes on, what is dropped and why; and what a changed threshold costs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from lora_pipeline import manifest
from lora_pipeline.demo.world import draw, random_identity, random_scene
from lora_pipeline.errors import PipelineError
from lora_pipeline.manifest import Manifest, Outcome, Report, Stale, read, write
from lora_pipeline.records import Photo, Quality, Row
from lora_pipeline.settings import CurateSettings
from lora_pipeline.stages.curate import CODE_VERSION, curate
from lora_pipeline.store import digest_file

REAL = Path(__file__).parents[4] / "shared" / "data"


def scene(seed: int, size: tuple[int, int] = (640, 480), low: int = 0, high: int = 256) -> Image.Image:
    noise = np.random.default_rng(seed).integers(low, high, (24, 32, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.NEAREST)


def put(photos: Path, name: str, picture: Image.Image, **told: Any) -> None:
    path = photos / name
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **told)


def collected(photos: Path) -> Manifest:
    """What `collect` would say of a folder: stages do not know each other, and nor do their tests."""
    rows: list[Row] = []
    for path in sorted(photos.rglob("*")):
        if path.suffix in {".png", ".jpg"}:
            with Image.open(path) as opened:
                photo = Photo(str(path), digest_file(path), *opened.size, opened.format or "")
            rows.append(Row(path.relative_to(photos).as_posix(), "k", data=photo.data()))
    rows.append(Row("broken.jpg", "k", "failed", "the file is empty (0 bytes)"))
    return Manifest(photos, tuple(rows))


def run(photos: Path, **settings: Any) -> Outcome:
    return curate(collected(photos), photos.parent / "work", CurateSettings.model_validate(settings))


def counts(report: Report) -> tuple[int, int, int, int]:
    return report.computed, report.reused, report.dropped, report.failed


def states(outcome: Outcome) -> dict[str, str]:
    return {row.id: row.reason or row.state for row in outcome.manifest.rows}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


def test_each_fault_is_told_with_its_numbers(photos: Path) -> None:
    put(photos, "good.png", scene(1))
    put(photos, "small.png", scene(2, (300, 200)))
    put(photos, "blurred.png", scene(3).filter(ImageFilter.GaussianBlur(9)))
    put(photos, "dark.png", scene(4, low=0, high=18))
    put(photos, "bright.png", scene(5, low=244, high=256))
    put(photos, "plain.png", Image.new("RGB", (640, 480), (128, 128, 128)))
    told = run(photos, min_sharpness=5, min_contrast=0.01, min_true_side_px=0)
    found = states(told)
    assert found.pop("good.png") == "kept"
    assert found.pop("broken.jpg") == "the file is empty (0 bytes)"
    assert found.pop("small.png") == "too small: its short side of 200 px is under 256"
    sharp = Quality.of(told.manifest.row("blurred.png")).sharpness
    assert found.pop("blurred.png") == f"blurred: sharpness {sharp:g} is under 5"
    dark = Quality.of(told.manifest.row("dark.png")).brightness
    assert found.pop("dark.png").split("; ")[-1] == f"too dark: brightness {dark:g} is under 0.06"
    assert "is over 0.96" in found.pop("bright.png")
    assert found.pop("plain.png") == "blurred: sharpness 0 is under 5; empty: contrast 0 is under 0.01"
    assert found == {}
    assert counts(told.report) == (6, 0, 5, 1)
    assert told.manifest == read(photos.parent / "work")
    assert CODE_VERSION == "3"


def test_every_row_that_was_measured_is_a_quality_and_every_source_row_has_a_row(photos: Path) -> None:
    put(photos, "a.png", scene(1))
    put(photos, "deep/b.png", scene(2, (300, 200)))
    told = run(photos).manifest
    assert [row.id for row in told.rows] == ["a.png", "broken.jpg", "deep/b.png"]
    quality = Quality.of(told.row("deep/b.png"))
    assert (quality.width_px, quality.height_px, quality.trim) == (300, 200, (0, 0, 300, 200))
    assert quality.path == str(photos / "deep" / "b.png")
    assert quality.digest == digest_file(photos / "deep" / "b.png")
    assert quality.duplicates == ""
    assert told.row("broken.jpg").data == {}


def boxed(picture: Image.Image) -> Image.Image:
    canvas = Image.new("RGB", (picture.width * 2, picture.height))
    canvas.paste(picture, (picture.width // 2, 0))
    return canvas


def test_of_copies_the_best_is_kept(photos: Path) -> None:
    put(photos, "z_original.jpg", scene(1, (960, 720)), quality=92)
    put(photos, "a_smaller.jpg", scene(1, (960, 720)).resize((480, 360), Image.Resampling.LANCZOS), quality=85)
    put(photos, "blown_up.png", scene(1, (960, 720)).resize((240, 180)).resize((1200, 900)))
    put(photos, "a_saved_again.jpg", scene(1, (960, 720)), quality=20)
    put(photos, "boxed.png", boxed(scene(1, (960, 720)).resize((720, 540), Image.Resampling.LANCZOS)))
    put(photos, "other.png", scene(2))
    told = run(photos)
    assert states(told) == {
        "z_original.jpg": "kept",
        "other.png": "kept",
        "a_smaller.jpg": "copy of z_original.jpg",
        "a_saved_again.jpg": "copy of z_original.jpg",
        "blown_up.png": "copy of z_original.jpg",
        "boxed.png": "copy of z_original.jpg",
        "broken.jpg": "the file is empty (0 bytes)",
    }
    groups = {row.id: row.data.get("duplicates") for row in told.manifest.rows}
    assert groups == {
        **dict.fromkeys(
            ("z_original.jpg", "a_saved_again.jpg", "a_smaller.jpg", "blown_up.png", "boxed.png"), "z_original.jpg"
        ),
        "other.png": "",
        "broken.jpg": None,
    }
    assert Quality.of(told.manifest.row("boxed.png")).trim == (360, 0, 1080, 540)


def test_a_copy_that_was_only_made_crisper_and_saved_again_is_not_better(photos: Path) -> None:
    original = scene(1, low=40, high=210)
    put(photos, "original.jpg", original, quality=92)
    put(photos, "a_crisper.jpg", ImageEnhance.Contrast(original).enhance(1.08), quality=50)
    told = run(photos)
    sharp = {row.id: Quality.of(row).sharpness for row in told.manifest.rows if row.data}
    assert sharp["a_crisper.jpg"] > sharp["original.jpg"]
    assert states(told)["a_crisper.jpg"] == "copy of original.jpg"


def drawn(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    return draw(random_identity(rng), random_scene(rng, (480, 600))).picture


@pytest.mark.parametrize("method", [Image.Resampling.LANCZOS, Image.Resampling.BICUBIC, Image.Resampling.NEAREST])
@pytest.mark.parametrize("factor", [1.3, 2, 3])
def test_a_blown_up_copy_never_wins_over_the_original(photos: Path, factor: float, method: Image.Resampling) -> None:
    original = drawn(1)
    blown_up = original.resize((round(480 * factor), round(600 * factor)), method)
    put(photos, "original.jpg", original, quality=90)
    put(photos, "a_blown_up.png", blown_up)
    put(photos, "a_blown_up_and_saved.jpg", blown_up, quality=90)
    put(photos, "a_saved_at_70.jpg", blown_up, quality=70)
    put(photos, "a_saved_again.jpg", original, quality=60)
    put(photos, "a_smaller.png", original.resize((360, 450), Image.Resampling.LANCZOS))
    told = run(photos).manifest
    assert [row.id for row in told.kept] == ["original.jpg"]
    assert {row.data["duplicates"] for row in told.rows if row.data} == {"original.jpg"}
    for row in told.rows:
        if row.id.startswith("a_blown_up"):
            assert 0.75 * 480 < Quality.of(row).true_side_px < 1.2 * 480


def test_an_upright_crop_and_a_mirrored_copy_of_a_photo_are_left_out(photos: Path) -> None:
    put(photos, "original.jpg", drawn(2), quality=90)
    put(photos, "a_crop.png", drawn(2).crop((60, 30, 450, 560)))
    put(photos, "a_mirrored.jpg", drawn(2).transpose(Image.Transpose.FLIP_LEFT_RIGHT), quality=85)
    assert [row.id for row in run(photos).manifest.kept] == ["original.jpg"]


def weak(photos: Path) -> None:
    rng = np.random.default_rng(0)
    put(photos, "good.jpg", drawn(1), quality=90)
    put(photos, "blown_up.png", drawn(2).resize((48, 60)).resize((480, 600)))
    grain = rng.normal(0, 30, (600, 480, 1))
    put(photos, "noisy.png", Image.fromarray(np.clip(np.asarray(drawn(3)) + grain, 0, 255).astype(np.uint8)))
    put(photos, "blocks.jpg", drawn(4), quality=3)
    half = drawn(5)
    half.paste("black", (0, 100, 480, 600))
    put(photos, "half_black.png", half)
    burnt = drawn(6)
    burnt.paste("white", (0, 100, 480, 600))
    put(photos, "half_white.png", burnt)
    put(photos, "small.png", drawn(7).crop((0, 0, 250, 200)))


WORDS = {
    "blown_up.png": ("blown up or out of focus: its detail fits into ", "low resolution"),
    "noisy.png": ("noisy: noise of ", "noisy"),
    "blocks.jpg": ("JPEG blocks: their excess of ", "jpeg artifacts"),
    "half_black.png": ("underexposed: 83% of it is black, over 70%", "underexposed"),
    "half_white.png": ("overexposed: 83% of it is white, over 70%", "overexposed"),
}


def test_what_else_is_wrong_is_told_in_words(photos: Path) -> None:
    weak(photos)
    told = states(run(photos, trim_bars=False, min_sharpness=0, min_contrast=0))
    assert told.pop("good.jpg") == "kept"
    assert told.pop("small.png") == "too small: its short side of 200 px is under 256"
    for id, (reason, _) in WORDS.items():
        assert told[id].startswith(reason)


def test_a_weak_photo_may_be_kept_with_words_for_its_weakness(photos: Path) -> None:
    weak(photos)
    put(photos, "copy.png", drawn(1).resize((300, 375)))
    told = run(photos, trim_bars=False, min_sharpness=0, min_contrast=0, quality_tokens=True).manifest
    assert {row.id: row.data["tokens"] for row in told.kept} == {
        "good.jpg": [],
        **{id: [token] for id, (_, token) in WORDS.items()},
    }
    assert told.row("small.png").state == told.row("copy.png").state == "dropped"  # no word would help
    assert all(not row.data["tokens"] for row in run(photos).manifest.rows if row.data)


def test_of_copies_a_weak_one_is_not_the_best_for_being_kept(photos: Path) -> None:
    put(photos, "large_but_dark.png", Image.fromarray((np.asarray(scene(1, (960, 720))) * 0.8).astype(np.uint8)))
    put(photos, "small.png", scene(1, (640, 480)))
    dark = Quality.of(run(photos, keep_duplicates=True).manifest.row("large_but_dark.png")).brightness
    told = run(photos, min_brightness=dark + 0.01, quality_tokens=True).manifest
    assert [row.id for row in told.kept] == ["small.png"]
    assert told.row("large_but_dark.png").reason == "copy of small.png"


def test_screenshots_are_dropped_if_asked_for(photos: Path) -> None:
    screenshot = Image.new("RGB", (400, 600), (236, 238, 240))
    screenshot.paste((10, 90, 200), (0, 0, 400, 60))
    screenshot.paste(drawn(1).resize((300, 375)), (50, 100))
    put(photos, "screenshot.png", screenshot)
    put(photos, "grain.png", Image.fromarray(np.random.default_rng(0).integers(40, 220, (400, 300, 3), dtype=np.uint8)))
    told = states(run(photos, max_plain=0.6, trim_bars=False))
    assert told["screenshot.png"].startswith("a screenshot or a drawing: ")
    assert told["grain.png"].startswith("noisy: ")
    assert states(run(photos, trim_bars=False))["screenshot.png"] == "kept"


def test_equal_files_are_kept_by_name_in_whatever_order_they_come(photos: Path) -> None:
    for name in ("c.png", "b.png", "d/a.png"):
        put(photos, name, scene(1))
    source = collected(photos)
    for number, rows in enumerate((source.rows, source.rows[::-1])):
        told = curate(Manifest(photos, rows), photos.parent / f"work{number}", CurateSettings())
        assert [row.id for row in told.manifest.kept] == ["b.png"]
    one, other = (photos.parent / f"work{number}" / "manifest.parquet" for number in (0, 1))
    assert one.read_bytes() == other.read_bytes()


def test_a_copy_that_is_good_enough_is_kept_rather_than_a_better_one_that_is_not(photos: Path) -> None:
    put(photos, "large_but_dark.png", Image.fromarray((np.asarray(scene(1, (960, 720))) * 0.8).astype(np.uint8)))
    put(photos, "small.png", scene(1, (640, 480)))
    dark = Quality.of(run(photos, keep_duplicates=True).manifest.row("large_but_dark.png")).brightness
    told = run(photos, min_brightness=dark + 0.01)
    assert states(told)["small.png"] == "kept"
    assert states(told)["large_but_dark.png"].endswith("; copy of small.png")
    assert {row.data.get("duplicates") for row in told.manifest.rows if row.state != "failed"} == {"small.png"}


def test_copies_may_be_kept(photos: Path) -> None:
    put(photos, "a.png", scene(1))
    put(photos, "b.png", scene(1, (600, 450)))
    told = run(photos, keep_duplicates=True)
    assert [row.id for row in told.manifest.kept] == ["a.png", "b.png"]
    assert {row.data["duplicates"] for row in told.manifest.kept} == {"a.png"}


def test_bars_are_kept_if_asked_for(photos: Path) -> None:
    put(photos, "a.png", boxed(scene(1)))
    assert Quality.of(run(photos, trim_bars=False).manifest.row("a.png")).trim == (0, 0, 1280, 480)
    told = run(photos)
    assert counts(told.report) == (1, 0, 0, 1)
    assert Quality.of(told.manifest.row("a.png")).trim == (320, 0, 960, 480)


def test_a_threshold_measures_nothing_again(photos: Path) -> None:
    for seed in range(3):
        put(photos, f"{seed}.png", scene(seed))
    assert counts(run(photos).report) == (3, 0, 0, 1)
    assert counts(run(photos).report) == (0, 3, 0, 1)
    for settings in ({"min_sharpness": 9999}, {"min_side_px": 9999}, {"duplicate_distance": 0, "max_brightness": 0.01}):
        told = run(photos, **settings)
        assert counts(told.report) == (0, 3, 3, 1)
        assert told.manifest == read(photos.parent / "work")
    assert counts(run(photos).report) == (0, 3, 0, 1)


def test_only_a_changed_photo_is_measured_again(photos: Path, tmp_path: Path) -> None:
    for seed in range(3):
        put(photos, f"{seed}.png", scene(seed))
    run(photos)
    put(photos, "1.png", scene(9))
    (photos / "2.png").unlink()
    told = run(photos)
    assert counts(told.report) == (1, 1, 0, 1)
    assert [row.id for row in told.manifest.rows] == ["0.png", "1.png", "broken.jpg"]
    photos.rename(tmp_path / "moved")
    moved = curate(collected(tmp_path / "moved"), tmp_path / "work", CurateSettings())
    assert counts(moved.report) == (0, 2, 0, 1)
    assert Quality.of(moved.manifest.row("0.png")).path == str(tmp_path / "moved" / "0.png")


def test_a_run_gives_the_same_bytes_whatever_came_before(photos: Path, tmp_path: Path) -> None:
    for seed in range(4):
        put(photos, f"{seed}.png", scene(seed // 2, (640 + 64 * seed, 480 + 48 * seed)))
    source = collected(photos)
    curate(source, tmp_path / "straight", CurateSettings())
    curate(Manifest(photos, source.rows[2:]), tmp_path / "roundabout", CurateSettings(min_sharpness=999))
    curate(source, tmp_path / "roundabout", CurateSettings())
    for name in ("manifest.parquet", "measured.parquet"):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "roundabout" / name).read_bytes()


def test_a_photo_that_vanishes_on_the_way_is_tried_again(photos: Path) -> None:
    put(photos, "a.png", scene(1))
    put(photos, "b.png", scene(2))
    source = collected(photos)
    (photos / "b.png").rename(photos.parent / "b.png")
    told = curate(source, photos.parent / "work", CurateSettings())
    assert states(told)["b.png"] == "OSError: the file is gone"
    assert states(told)["a.png"] == "kept"
    (photos.parent / "b.png").rename(photos / "b.png")
    again = curate(source, photos.parent / "work", CurateSettings())
    assert states(again)["b.png"] == "kept"
    assert counts(again.report) == (1, 1, 0, 1)


def test_photos_that_have_all_vanished_are_an_error_in_words(photos: Path) -> None:
    put(photos, "a.png", scene(1))
    source = collected(photos)
    (photos / "a.png").unlink()
    with pytest.raises(PipelineError, match=r"photos measured: all 1 failed; the first, a\.png: the file is gone"):
        curate(source, photos.parent / "work", CurateSettings())


def test_no_photos_are_an_empty_table(photos: Path) -> None:
    told = run(photos)
    assert states(told) == {"broken.jpg": "the file is empty (0 bytes)"}
    assert counts(told.report) == (0, 0, 0, 1)


def test_planning(photos: Path) -> None:
    put(photos, "a.png", scene(1))
    put(photos, "b.png", scene(2))
    with manifest.planning(), pytest.raises(Stale) as told:
        run(photos)
    assert set(told.value.would) == {"a.png", "b.png"}
    assert not (photos.parent / "work").exists()
    run(photos)
    with manifest.planning():
        assert counts(run(photos).report) == (0, 2, 0, 1)
    with manifest.planning(), pytest.raises(Stale) as told:
        run(photos, min_sharpness=9999)
    assert told.value.would == {"a.png": "changed", "b.png": "changed"}


def test_what_was_written_by_hand_reads_as_a_source(photos: Path, tmp_path: Path) -> None:
    put(photos, "a.png", scene(1))
    source = write(tmp_path / "collect", collected(photos).rows)
    assert states(curate(read(tmp_path / "collect"), tmp_path / "work", CurateSettings()))["a.png"] == "kept"
    assert source.digest == read(tmp_path / "collect").digest


def real(name: str, tmp_path: Path, **settings: Any) -> Manifest:
    source = Manifest(tmp_path, tuple(row for row in collected(REAL / name / "photos").rows if row.state == "kept"))
    return curate(source, tmp_path / name, CurateSettings.model_validate(settings)).manifest


needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the real photos (../shared/data) are not here")


@pytest.mark.real
@needs_real
def test_real_portraits_are_one_group_and_nothing_else_joins_it(tmp_path: Path) -> None:
    told = real("person_a", tmp_path)
    boxed = {f"portrait_letterboxed_{height}.jpg" for height in (1080, 480, 240)}
    assert {row.id for row in told.rows if row.data["duplicates"]} == {"portrait.jpg", *boxed}
    assert {row.data["duplicates"] for row in told.rows} == {"", "portrait.jpg"}
    dropped = {row.id: row.reason for row in told.rows if row.state == "dropped"}
    assert dropped == {
        "portrait_letterboxed_1080.jpg": "copy of portrait.jpg",
        "portrait_letterboxed_480.jpg": "copy of portrait.jpg",
        "portrait_letterboxed_240.jpg": f"too small: its short side of {_side(told)} px is under 256; copy of portrait.jpg",
        "portrait_small.jpg": "too small: its short side of 240 px is under 256",
    }
    smaller = real("person_a", tmp_path, min_side_px=150)
    assert {row.id for row in smaller.rows if row.state == "dropped"} == boxed


def _side(told: Manifest) -> int:
    left, _, right, _ = Quality.of(told.row("portrait_letterboxed_240.jpg")).trim
    return right - left


@pytest.mark.real
@needs_real
@pytest.mark.parametrize("name", ["person_b", "dog", "can", "backpack_dog"])
def test_real_photos_are_all_kept_by_a_wide_margin(name: str, tmp_path: Path) -> None:
    told = real(name, tmp_path)
    assert all(row.state == "kept" for row in told.rows)
    assert min(Quality.of(row).sharpness for row in told.rows) > 5 * CurateSettings().min_sharpness


def by_hand(photos: Path, **verdicts: Any) -> Outcome:
    settings = CurateSettings(min_sharpness=5, min_contrast=0.01, min_true_side_px=0)
    given = {f"{name}.png": verdict for name, verdict in verdicts.items()}
    return curate(collected(photos), photos.parent / "work", settings, by_hand=given)


def test_what_a_person_decides_of_a_photo_wins_over_what_was_measured(photos: Path) -> None:
    put(photos, "good.png", scene(1))
    put(photos, "blurred.png", scene(2).filter(ImageFilter.GaussianBlur(9)))
    assert by_hand(photos).manifest.row("blurred.png").state == "dropped"
    told = by_hand(photos, good="drop", blurred="keep")
    assert states(told)["good.png"] == "dropped by hand"
    assert states(told)["blurred.png"] == "kept"
    assert Quality.of(told.manifest.row("blurred.png")).by_hand == "keep"
    assert (told.report.computed, told.report.reused) == (0, 2)  # nothing is measured again
    assert states(by_hand(photos))["good.png"] == "kept"


def test_of_copies_the_one_that_a_person_keeps_stands_for_them(photos: Path) -> None:
    picture = draw(
        random_identity(np.random.default_rng(3), "woman"), random_scene(np.random.default_rng(4), (640, 640))
    )
    put(photos, "large.png", picture.picture)
    put(photos, "small.png", picture.picture.resize((400, 400), Image.Resampling.LANCZOS))
    assert states(by_hand(photos))["small.png"] == "copy of large.png"
    assert states(by_hand(photos, small="keep"))["large.png"] == "copy of small.png"
    assert states(by_hand(photos, large="drop"))["small.png"] == "kept"
    both = by_hand(photos, small="keep", large="keep")
    assert [row.state for row in both.manifest.kept] == ["kept", "kept"]


def test_photos_with_writing_are_dropped_if_asked_for_or_say_so(photos: Path) -> None:
    """One line is text; the same line all over is a watermark."""
    for name, places in {
        "plain.png": (),
        "line.png": ((40, 560),),
        "all_over.png": tuple((40, y) for y in range(20, 600, 60)),
    }.items():
        picture = scene(len(places) + 1, (640, 620))
        pen = ImageDraw.Draw(picture)
        for place in places:
            pen.text(place, "Holiday 2024 preview only", "white", ImageFont.load_default(36))
        put(photos, name, picture)
    told = run(photos).manifest
    assert {row.id: bool(Quality.of(row).text_boxes) for row in told.kept} == {
        "plain.png": False,
        "line.png": True,
        "all_over.png": True,
    }
    dropped = states(run(photos, max_text=0.01))
    assert dropped["plain.png"] == "kept"
    assert dropped["line.png"].startswith("writing on it: ")
    kept = run(photos, max_text=0.01, quality_tokens=True).manifest
    assert {row.id: row.data["tokens"] for row in kept.kept} == {
        "plain.png": [],
        "line.png": ["text"],
        "all_over.png": ["watermark"],
    }


def test_photos_without_colours_are_dropped_or_say_so_and_measured_once(photos: Path) -> None:
    put(photos, "colour.png", scene(1))
    put(photos, "grey.png", scene(2).convert("L").convert("RGB"))
    put(photos, "sepia.png", ImageOps.colorize(scene(3).convert("L"), (40, 26, 13), (255, 240, 200)))
    assert {row.id for row in run(photos).manifest.kept} == {"colour.png", "grey.png", "sepia.png"}
    told = run(photos, min_colour=5)
    assert told.report.computed == 0  # it is known of what was measured before
    dropped = states(told)
    assert dropped["colour.png"] == "kept"
    assert dropped["grey.png"] == "black and white: its colours lie 0 levels from one tone, under 5"
    assert dropped["sepia.png"].startswith("sepia: ")
    kept = run(photos, min_colour=5, quality_tokens=True).manifest
    tokens = {row.id: Quality.of(row).tokens for row in kept.kept}
    assert tokens == {"colour.png": (), "grey.png": ("black and white",), "sepia.png": ("sepia",)}
