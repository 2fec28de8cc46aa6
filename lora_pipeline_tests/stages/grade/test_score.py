from dataclasses import dataclass, field
from math import hypot
from pathlib import Path

import pytest
from PIL import Image

from lora_pipeline import manifest
from lora_pipeline.errors import PipelineError
from lora_pipeline.models.faces import SeenFaces
from lora_pipeline.records import File, Measure, Row, Score
from lora_pipeline.settings import GradeSettings
from lora_pipeline.stages.grade import draw_grids, look, make_chart, make_grid, score
from lora_pipeline.stages.grade.looks import look_distance
from lora_pipeline.stages.grade.plot import scores_plot
from lora_pipeline.store import digest_file

SETTINGS = GradeSettings(seeds=(1, 2), batch_size=4, size_px=64, overfit_tolerance=0.02)
PROMPTS = ("a photo of ohwx woman", "an oil painting of ohwx woman")
SUBJECT = [(0.0, 0.0), (0.2, 0.0)]  # their mean is red 25.5


@pytest.fixture
def grids(checkpoints, painter, base, tmp_path: Path):
    def make(reds):
        return draw_grids(checkpoints(reds), tmp_path / "grids", SETTINGS, base, PROMPTS, painter).manifest

    return make


def test_distances_are_to_the_mean_of_the_subjects_faces(grids, checkpoints, embed, tmp_path: Path) -> None:
    made = score(grids([102, 51]), checkpoints([102, 51]), tmp_path / "scores", SETTINGS, SUBJECT, embed, "person")
    assert [row.id for row in made.manifest.rows] == ["0000", "0001", "0002"]
    judged = [Score.of(row) for row in made.manifest.rows]
    assert [one.identity_distance for one in judged] == [
        pytest.approx(200 / 255 - 0.1, abs=1e-4),
        pytest.approx(0.3),
        pytest.approx(0.1),
    ]
    assert [one.faces_found for one in judged] == [1, 1, 1]
    assert [one.chosen for one in judged] == [False, False, True]
    assert made.manifest.rows[2].data["learned"] is True


def test_a_rerun_embeds_nothing_and_a_new_epoch_only_its_pictures(grids, checkpoints, embed, tmp_path: Path) -> None:
    seen: list[Image.Image] = []

    def counted(picture: Image.Image) -> SeenFaces | None:
        seen.append(picture)
        return embed(picture)

    first = score(grids([102]), checkpoints([102]), tmp_path / "scores", SETTINGS, SUBJECT, counted, "person")
    assert len(seen) == 8
    again = score(grids([102]), checkpoints([102]), tmp_path / "scores", SETTINGS, SUBJECT, counted, "person")
    assert (len(seen), again.report.computed, again.manifest.digest) == (8, 0, first.manifest.digest)
    score(grids([102, 51]), checkpoints([102, 51]), tmp_path / "scores", SETTINGS, SUBJECT, counted, "person")
    assert len(seen) == 12
    score(
        grids([102, 51]),
        checkpoints([102, 51]),
        tmp_path / "scores",
        SETTINGS.model_copy(update={"overfit_tolerance": 0.5}),
        SUBJECT,
        counted,
        "person",
    )
    assert len(seen) == 12
    score(
        grids([102, 51]),
        checkpoints([102, 51]),
        tmp_path / "scores",
        SETTINGS,
        SUBJECT,
        counted,
        "person",
        embedder="another",
    )
    assert len(seen) == 24


def test_pictures_that_could_not_be_drawn_count_as_pictures_without_a_face(
    grids, checkpoints, embed, tmp_path: Path
) -> None:
    made = score(grids([51, 255]), checkpoints([51, 255]), tmp_path / "scores", SETTINGS, SUBJECT, embed, "person")
    run_away = Score.of(made.manifest.row("0002"))
    assert (run_away.identity_distance, run_away.faces_found, run_away.chosen) == (None, 0.0, False)
    assert run_away.reason == "epoch 2 is not chosen: no face was found in its pictures"


def test_an_embedder_that_fails_on_one_picture_does_not_stop_the_others(
    grids, checkpoints, embed, tmp_path: Path
) -> None:
    def broken(picture: Image.Image) -> SeenFaces | None:
        if picture.getpixel((0, 0))[2] == 1:
            raise RuntimeError("out of luck")
        return embed(picture)

    made = score(grids([51]), checkpoints([51]), tmp_path / "scores", SETTINGS, SUBJECT, broken, "person")
    assert Score.of(made.manifest.row("0001")).faces_found == 0.5


def test_a_person_without_a_known_face_is_told_in_words(grids, checkpoints, embed, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="face is not known"):
        score(grids([51]), checkpoints([51]), tmp_path / "scores", SETTINGS, [], embed, "person")


def test_without_pictures_it_says_what_to_do(checkpoints, embed, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="validation_grids"):
        score(
            manifest.read(tmp_path / "none"), checkpoints([51]), tmp_path / "scores", SETTINGS, SUBJECT, embed, "person"
        )


def trained(folder: Path, colour: tuple[int, int, int]) -> manifest.Manifest:
    folder.mkdir()
    Image.new("RGB", (64, 64), colour).save(folder / "one.png")
    return manifest.write(
        folder, [Row("one", "key", files={"picture": File("one.png", digest_file(folder / "one.png"))})]
    )


def test_kinds_without_faces_are_judged_by_looks(checkpoints, base, embed, tmp_path: Path) -> None:
    def half_blue(lora, wanted):  # the second prompt's pictures
        return [
            Image.new(
                "RGB", (64, 64), (200 if lora is None else lora.read_bytes()[0], 0, 255 * (one.prompt == PROMPTS[1]))
            )
            for one in wanted
        ]

    made = checkpoints([102, 40])
    drawn = draw_grids(made, tmp_path / "grids", SETTINGS, base, PROMPTS, half_blue).manifest
    lenient = SETTINGS.model_copy(update={"max_copies": 1.0})  # plain pictures of near colours are copies
    made = score(
        drawn, made, tmp_path / "scores", lenient, (), embed, "product", pictures=trained(tmp_path / "set", (30, 0, 0))
    )
    judged = [Score.of(row) for row in made.manifest.rows]
    assert [one.identity_distance for one in judged] == [None, None, None]
    assert [one.picture_distance for one in judged] == [0.5, 0.5, pytest.approx(0.25)]
    assert [one.chosen for one in judged] == [False, False, True]


def test_kinds_without_faces_and_without_pictures_get_the_last_epoch(grids, checkpoints, embed, tmp_path: Path) -> None:
    made = score(grids([102, 40]), checkpoints([102, 40]), tmp_path / "scores", SETTINGS, (), embed, "style")
    assert [row.data["chosen"] for row in made.manifest.rows] == [False, False, True]
    assert made.manifest.rows[2].data["learned"] is None


def test_look_is_a_share_of_colours_and_edges() -> None:
    red, blue = Image.new("RGB", (50, 80), "red"), Image.new("RGB", (9, 9), "blue")
    assert len(look(red)) == 72
    assert sum(look(red)[:64]) == pytest.approx(1)
    assert sum(look(red)[64:]) == 0
    assert look_distance(look(red), look(red)) == 0
    assert look_distance(look(red), look(blue)) == pytest.approx(0.5)
    stripes = Image.new("RGB", (64, 64), "white")
    stripes.paste("black", (20, 0, 40, 64))
    turned = stripes.rotate(90)
    assert look_distance(look(stripes), look(turned)) == pytest.approx(0.5)  # all edges turned, no colour changed


def test_the_grid_names_everything_and_frames_the_chosen_epoch(grids, checkpoints, embed, tmp_path: Path) -> None:
    drawn, made = grids([102, 51, 255]), checkpoints([102, 51, 255])
    plain = make_grid(drawn, made, tmp_path / "grids")
    assert plain.report.computed == 1
    scores = score(drawn, made, tmp_path / "scores", SETTINGS, SUBJECT, embed, "person").manifest
    framed = make_grid(drawn, made, tmp_path / "scores", scores)
    paths = [one.manifest.path(one.manifest.rows[0], role) for one in (plain, framed) for role in ("picture", "small")]
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        "grids/grid.png",
        "grids/grid_small.jpg",
        "scores/grid.png",
        "scores/grid_small.jpg",
    ]
    assert all(path.stat().st_size < 200_000 for path in paths)
    with Image.open(paths[0]) as one, Image.open(paths[2]) as other:
        green = (30, 140, 60)
        assert green not in {colour for _, colour in one.getcolors(1 << 20)}
        assert green in {colour for _, colour in other.getcolors(1 << 20)}
    before = [path.read_bytes() for path in paths]
    assert make_grid(drawn, made, tmp_path / "grids").report.computed == 0
    make_grid(drawn, made, tmp_path / "anew")
    assert (tmp_path / "anew" / "grid.png").read_bytes() == before[0]
    assert make_grid(grids([102, 52, 255]), checkpoints([102, 52, 255]), tmp_path / "grids").report.computed == 1


def test_the_small_grid_stays_small(checkpoints, base, tmp_path: Path) -> None:
    import numpy as np

    def noise(lora, wanted):
        return [
            Image.fromarray(np.random.default_rng(one.seed).integers(0, 256, (256, 256, 3), dtype=np.uint8))
            for one in wanted
        ]

    settings = SETTINGS.model_copy(update={"seeds": (1, 2, 3)})
    drawn = draw_grids(
        checkpoints([1, 2, 3, 4]), tmp_path / "grids", settings, base, ("one", "two", "three", "four"), noise
    ).manifest
    made = make_grid(drawn, checkpoints([1, 2, 3, 4]), tmp_path / "grids").manifest
    assert made.path(made.rows[0], "small").stat().st_size <= 200_000
    with Image.open(made.path(made.rows[0], "small")) as picture:
        assert picture.width <= 1280


def test_the_plot_is_a_picture_and_always_the_same(grids, checkpoints, embed, tmp_path: Path) -> None:
    scores = score(
        grids([102, 51, 255]), checkpoints([102, 51, 255]), tmp_path / "scores", SETTINGS, SUBJECT, embed, "person"
    ).manifest
    data = scores_plot(scores)
    assert data.startswith(b"\x89PNG")
    assert scores_plot(scores) == data
    weak = score(grids([102, 51]), checkpoints([102, 51]), tmp_path / "weak", SETTINGS, (), embed, "pet").manifest
    assert scores_plot(weak).startswith(b"\x89PNG")


OTHERS = ("a photo of a woman", "a woman", "a woman outside")


def test_others_are_judged_for_drift_and_not_for_likeness(checkpoints, painter, base, embed, tmp_path: Path) -> None:
    def bleeding(lora, wanted):  # the base draws others at red 240, each epoch draws them as it draws the subject
        return [
            Image.new("RGB", (64, 64), (240 - 10 * one.seed, 0, 9))
            if lora is None and one.prompt in OTHERS
            else picture
            for one, picture in zip(wanted, painter(lora, wanted), strict=True)
        ]

    made = checkpoints([102, 51])
    drawn = draw_grids(made, tmp_path / "grids", SETTINGS, base, (*PROMPTS, *OTHERS), bleeding).manifest
    plain = score(drawn, made, tmp_path / "a", SETTINGS, SUBJECT, embed, "person")
    told = score(drawn, made, tmp_path / "b", SETTINGS, SUBJECT, embed, "person", others=OTHERS)
    assert {"drift of others", "bleeding into others"}.isdisjoint(measures(plain.manifest, 2))
    seen = measures(told.manifest, 2)
    assert seen["identity distance"].value == pytest.approx(0.1)
    assert seen["identity distance"].base == pytest.approx(200 / 255 - 0.1, abs=1e-4)
    assert seen["bleeding into others"].value == pytest.approx(1)  # from 225 in the middle to 51, as the subject
    assert seen["drift of others"].ceiling == pytest.approx(10 / 255, abs=1e-4)
    assert [Score.of(row).faces_found for row in told.manifest.rows] == [1, 1, 1]
    limited = SETTINGS.model_copy(update={"max_bleeding": 0.9, "max_drift": 0.0})
    vetoed = score(drawn, made, tmp_path / "c", limited, SUBJECT, embed, "person", others=OTHERS).manifest
    assert [len(Score.of(row).vetoes) for row in vetoed.rows] == [0, 1, 1]
    assert vetoed.rows[2].data["learned"] is False


def measures(scores: manifest.Manifest, epoch: int) -> dict[str, Measure]:
    return {one.name: one for one in Score.of(scores.row(f"{epoch:04d}")).measures}


def test_a_score_is_read_back_as_it_was_and_an_old_one_too(grids, checkpoints, embed, tmp_path: Path) -> None:
    row = score(grids([51]), checkpoints([51]), tmp_path / "s", SETTINGS, SUBJECT, embed, "person").manifest.rows[1]
    read = manifest.read(tmp_path / "s").row("0001")
    assert Score.of(read) == Score.of(row)
    assert len({Score.of(read)}) == 1
    assert isinstance(Score.of(read).measures[0], Measure)
    old = {name: row.data[name] for name in ("epoch", "identity_distance", "faces_found", "chosen", "reason")}
    assert Score.of(Row("0001", "k", data=old)).measures == ()


def test_held_out_photos_are_the_measure_and_the_others_the_ceiling(grids, checkpoints, embed, tmp_path: Path) -> None:
    made, drawn = checkpoints([51]), grids([51])
    aside = score(
        drawn, made, tmp_path / "s", SETTINGS, [(0.3, 0.0)], embed, "person", trained=[(0.5, 0.0), (0.4, 0.0)]
    )
    likeness = measures(aside.manifest, 1)["identity distance"]
    assert (likeness.value, likeness.ceiling) == (pytest.approx(0.1), pytest.approx(0.15))
    losses = {1: (0.3, 0.2)}
    worse = score(drawn, made, tmp_path / "w", SETTINGS, SUBJECT, embed, "person", held_out_losses=losses).manifest
    assert Score.of(worse.rows[1]).vetoes == (
        "damage: the loss on held-out photos is 0.3000, above the untrained 0.2000",
    )


@dataclass(frozen=True)
class Redness:
    """An `Embedder` and a `Judge`: a picture's angle in the plane of red and blue; agreement is its red, if the prompt is a photo's."""

    identity: str = "red"
    name: str = "red enough"
    seen: list[Image.Image] = field(default_factory=list)

    def embed(self, picture: Image.Image) -> tuple[float, ...]:
        self.seen.append(picture)
        red, _, blue = picture.getpixel((0, 0))
        return (red / hypot(red, blue, 1), blue / hypot(red, blue, 1), 1 / hypot(red, blue, 1))

    def agreement(self, picture: Image.Image, prompt: str) -> float | None:
        return picture.getpixel((0, 0))[0] / 255 if "photo" in prompt else None


def test_embedders_and_judges_look_once_at_each_picture(grids, checkpoints, embed, tmp_path: Path) -> None:
    eye = Redness()
    pictures = trained(tmp_path / "set", (200, 0, 0))

    def judge(reds: list[int], eye: Redness):
        return score(
            *(grids(reds), checkpoints(reds), tmp_path / "scores", SETTINGS, (), embed, "product"),
            pictures=pictures,
            embedders={"DINOv2": eye},
            judges=[eye],
        )

    first = judge([102], eye).manifest
    assert len(eye.seen) == 9  # 8 drawn, 1 trained on
    assert measures(first, 1)["DINOv2 cosine"].value == pytest.approx(1, abs=0.01)
    assert Score.of(first.rows[1]).picture_distance == measures(first, 1)["distance by DINOv2"].value
    assert (measures(first, 1)["red enough"].value, measures(first, 1)["red enough"].base) == (
        0.4,
        pytest.approx(200 / 255, abs=1e-3),
    )
    assert judge([102], eye).report.computed == 0
    judge([102, 51], eye)
    assert len(eye.seen) == 13
    judge([102, 51], Redness("another", seen=eye.seen))
    assert len(eye.seen) == 13 + 13
    judge([90, 51], Redness("another", seen=eye.seen))  # an epoch that was trained anew
    assert len(eye.seen) == 13 + 13 + 4


def test_a_pick_is_the_chosen_one(grids, checkpoints, embed, tmp_path: Path) -> None:
    picked = SETTINGS.model_copy(update={"pick": 1})
    made = score(grids([102, 51]), checkpoints([102, 51]), tmp_path / "s", picked, SUBJECT, embed, "person").manifest
    one = Score.of(made.row("0001"))
    assert (one.chosen, one.picked, Score.of(made.row("0002")).runner_up) == (True, True, True)
    assert one.advice.startswith("keep training")


def test_the_chart_is_made_once_for_the_same_scores(grids, checkpoints, embed, tmp_path: Path) -> None:
    scores = score(grids([102]), checkpoints([102]), tmp_path / "s", SETTINGS, SUBJECT, embed, "person").manifest
    first = make_chart(scores, tmp_path / "s")
    assert first.manifest.path(first.manifest.rows[0]).read_bytes() == scores_plot(scores)
    assert make_chart(scores, tmp_path / "s").report.computed == 0
    picked = SETTINGS.model_copy(update={"pick": 1})
    other = score(grids([102]), checkpoints([102]), tmp_path / "s", picked, SUBJECT, embed, "person").manifest
    assert make_chart(other, tmp_path / "s").report.computed == 1
