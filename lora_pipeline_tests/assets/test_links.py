"""Each materialization links to both sides."""

import re
from pathlib import Path

import dagster as dg
import pytest

from lora_pipeline import manifest
from lora_pipeline.assets.links import READS, made_from, went_into
from lora_pipeline.definitions import FLOW, defs
from lora_pipeline.demo.photos import draw_subject_photos
from lora_pipeline.flow import Work
from lora_pipeline.lineage import graph
from lora_pipeline.records import Row
from lora_pipeline.settings import Settings
from lora_pipeline.store import Store, digest_file
from lora_pipeline.subject import Subject, new

# Asked for while modules are loaded: once some other test has made and closed an instance, Dagster would want that one back.
repository = defs.get_repository_def()


def subject(photos: Path) -> Subject:
    given = {"name": "dog", "kind": "pet", "photos": photos, "trigger": "zx1", "class": "dog", "recipe": "sd15_pet"}
    return Subject.model_validate(given)


def linked(shown: dg.MarkdownMetadataValue) -> list[str]:
    return re.findall(r"\]\(/assets/(\w+)\?view=partitions&partition=dog\)", str(shown.value))


@pytest.mark.parametrize("asset", FLOW, ids=lambda asset: asset.key.to_user_string())
def test_an_asset_links_to_what_it_reads_and_to_what_reads_it(asset: dg.AssetsDefinition, tmp_path: Path) -> None:
    noun = asset.key.to_user_string()
    work = Work(Store(tmp_path), subject(tmp_path), Settings())
    graph = repository.asset_graph
    before = {key.to_user_string() for key in graph.get(asset.key).parent_keys}
    after = {key.to_user_string() for key in graph.get(asset.key).child_keys}
    assert set(linked(made_from(noun, work))) == before
    assert set(linked(went_into(noun, work))) == after - {"epoch_checkpoint"}  # lora_checkpoints writes it
    assert set(READS) == {one.key.to_user_string() for one in FLOW}


def test_the_link_says_what_was_read(tmp_path: Path) -> None:
    work = Work(Store(tmp_path), subject(tmp_path), Settings())
    made = manifest.write(work.folder("collect"), [Row("a.jpg", "k"), Row("b.jpg", "k", "failed", "empty")])
    assert f": 1 kept, data version `{made.digest[:16]}`" in str(made_from("curated_photos", work).value)


def test_a_materialization_has_both_and_the_record_has_the_photos(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("LORA_PIPELINE_HOME", str(tmp_path))
    photos = tmp_path / "photos"
    photos.mkdir()
    draw_subject_photos(photos)
    for file in sorted(photos.iterdir())[2:]:
        file.unlink()
    store = Store(tmp_path / "data")
    new(store, subject(photos))
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("subject", ["dog"])
        done = dg.materialize(
            FLOW[:1], instance=instance, partition_key="dog", resources={"house": defs.resources["house"]}
        )
        (event,) = done.asset_materializations_for_node("source_photos")
    assert set(linked(event.metadata["went into"])) == {"curated_photos"}
    assert "the photos of the subject" in str(event.metadata["made from"].value)
    digest = digest_file(sorted(photos.iterdir())[0])
    (photo,) = graph(store, digest).of_kind("photo")
    assert photo.makings[0].environment["device"]
