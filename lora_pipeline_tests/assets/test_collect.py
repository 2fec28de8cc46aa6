"""What `source_photos` shows of where the photos come from: the folders' names, and which frames of a video were taken."""

from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from lora_pipeline.assets.collect import source_photos
from lora_pipeline.assets.resources import House
from lora_pipeline.demo.world import Scene, draw, random_identity
from lora_pipeline.store import Store
from lora_pipeline.subject import Subject, new

av = pytest.importorskip("av", reason="the package av (PyAV) is not installed")


def test_tags_and_frames_are_shown(tmp_path: Path) -> None:
    photos, store = tmp_path / "photos", Store(tmp_path / "data")
    (photos / "beach").mkdir(parents=True)
    picture = draw(random_identity(np.random.default_rng(3), "woman"), Scene("close", size_px=(320, 320))).picture
    for name in ("a.png", "beach/b.png", "beach/c.png"):
        picture.save(photos / name)
    with av.open(str(photos / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=2)
        stream.width, stream.height, stream.pix_fmt = 320, 320, "yuv420p"
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
    given = {"name": "ann", "kind": "style", "photos": photos, "trigger": "ohwx", "class": "style"}
    new(store, Subject.model_validate({**given, "recipe": "bundled_pet"}))
    resources = {"house": House(data=str(store.data))}
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions("subject", ["ann"])
        result = dg.materialize([source_photos], partition_key="ann", resources=resources, instance=instance)
        (event,) = result.get_asset_materialization_events()

    def rows(title: str) -> list[list[str]]:
        table = event.materialization.metadata[title]
        assert isinstance(table, dg.TableMetadataValue)
        return [[str(value) for value in record.data.values()] for record in table.records]

    assert rows("tags, by the folders' names") == [["beach", "2"]]
    ((video, second, yaw, sharpness),) = rows("frames of videos")
    assert (video, second) in {("clip.mp4", "0.000"), ("clip.mp4", "0.500")}
    assert abs(int(yaw.removesuffix("°"))) < 17
    assert float(sharpness) > 0
