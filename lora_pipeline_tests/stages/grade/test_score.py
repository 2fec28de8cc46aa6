from pathlib import Path

import pytest
from PIL import Image

from lora_pipeline import manifest
from lora_pipeline.errors import PipelineError
from lora_pipeline.models.faces import SeenFaces
from lora_pipeline.records import File, Row, Score
from lora_pipeline.settings import GradeSettings
from lora_pipeline.stages.grade import draw_grids, look, make_grid, score
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
