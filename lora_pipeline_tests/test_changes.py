"""Changes for one run, as the terminal takes them."""

from pathlib import Path

from lora_pipeline.changes import by_asset, prompts_from
from lora_pipeline.settings import Settings


def test_a_file_of_prompts_takes_the_place_of_a_list_for_both_assets_of_the_grades(tmp_path: Path) -> None:
    file = tmp_path / "mine: #1, 'best'.txt"
    with_list = Settings().changed({"grade": {"prompt_list": "living"}}, "test")
    wanted = {"prompt_list": "none", "prompts_file": str(file)}
    assert by_asset(with_list, prompts_from(file)) == {"validation_grids": wanted, "checkpoint_scores": wanted}
