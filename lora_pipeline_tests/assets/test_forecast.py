"""The forecast where a person sees it: the check that stops a run before it trains, the comparison afterwards, the terminal's words."""

import json
from dataclasses import asdict, replace

import dagster as dg
import pytest
from PIL import Image

from lora_pipeline import flow
from lora_pipeline.assets.checks import training_within_limits
from lora_pipeline.assets.encode import training_set
from lora_pipeline.assets.fit import lora_checkpoints, what_was_forecast
from lora_pipeline.assets.resources import House
from lora_pipeline.manifest import Item, Made, refresh
from lora_pipeline.pictures import save
from lora_pipeline.records import Caption, Crop
from lora_pipeline.stages.fit import Forecast
from lora_pipeline.stages.fit.fit import planned
from lora_pipeline.stages.fit.forecast import cost_key
from lora_pipeline.stages.fit.reports import EpochReport, StepReport, to_line
from lora_pipeline.store import Store
from lora_pipeline.subject import Subject, new
from lora_pipeline.summary import outlook
from lora_pipeline_tests.stages.fit.test_costs import MEASURED as A_CARD

MEASURED = replace(
    A_CARD,
    batch_size=2,
    area_px=64 * 64,
    seconds_one=9.0,
    seconds_batch=10.0,
    epoch_end_s=0.0,
    batch_mib=4000.0,
    most_mib=4000.0,
)


def picture(name, folder):
    save(Image.new("RGB", (64, 64), name), folder / f"{name}.png")
    save(Image.new("L", (64, 64), 255), folder / f"{name}.mask.png")
    crop = Crop(photo=name, framing="whole", region=(0, 0, 64, 64), width_px=64, height_px=64)
    return Made(crop.data(), {"picture": f"{name}.png", "mask": f"{name}.mask.png"})


def caption(name, _):
    return Made(Caption(name, f"zx1 vase, {name}", "hand").data())


@pytest.fixture(scope="module")
def work(tmp_path_factory, tiny_base):
    """Four pictures of a vase, an hour at most, and a run of another subject that cost the same: 10 s a step of 2."""
    home = tmp_path_factory.mktemp("home")
    settings = {
        "base": tiny_base.model_dump(),
        "encode": {"resolution_px": 64, "bucket_step_px": 16, "repeats": 1},
        "fit": {"network_dim": 4, "epochs": 4},
        "forecast": {"max_hours": 1, "watts": 360},
    }
    given = {"name": "vase", "kind": "product", "photos": home, "trigger": "zx1", "class": "vase", "settings": settings}
    store = Store(home / "data")
    new(store, Subject.model_validate({**given, "recipe": "sd15_product"}))
    work = flow.work(store, "vase")
    names = ("red", "green", "blue", "white")
    items = [Item(name, [name], name) for name in names]
    refresh(work.folder("conceal"), items, picture, settings=None, code_version="1")
    refresh(work.folder("describe"), items, caption, settings=None, code_version="1")
    made = flow.take(next(step for step in flow.STEPS if step.verb == "encode"), work).manifest
    prompt = work.subject.fill(work.settings.fit.sample_prompt)
    job, trained = planned(made, work.folder("fit"), work.settings.fit, work.settings.base, prompt)
    run = store.work("jug", "fit") / "runs" / "earlier"
    run.mkdir(parents=True)
    told = Forecast("earlier", cost_key(job, trained), "tried", MEASURED, 2, 1, 2, 10.0, 20.0, 4000.0)
    (run / "forecast.json").write_text(json.dumps(asdict(told)))
    steps = [StepReport(step, 1, 2 * step, 0.1, 1e-3, 10.0, ("a", "b"), memory_mib=4400.0) for step in (1, 2)]
    (run / "steps.jsonl").write_text("".join(f"{to_line(one)}\n" for one in steps))
    (run / "epochs.jsonl").write_text(to_line(EpochReport(1, "x", "", {}, 0.1, 1e-3, 10.0, 4)) + "\n")
    return work


def materialize(work, assets, epochs):
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions("subject", ["vase"])
        return dg.materialize(
            assets,
            instance=instance,
            partition_key="vase",
            resources={"house": House(data=str(work.store.data))},
            run_config={"ops": {"lora_checkpoints": {"config": {"epochs": epochs}}}},
            raise_on_error=False,
        )


def test_a_run_whose_training_would_last_too_long_stops_at_the_training_set(work):
    """The epochs are those of the launchpad: the subject's own four would take a minute and twenty seconds."""
    result = materialize(work, [training_set, lora_checkpoints], epochs=1000)
    checks = {one.check_name: one for one in result.get_asset_check_evaluations()}
    assert checks["set_complete"].passed
    assert not checks["training_within_limits"].passed
    # 1000 epochs of 2 steps of 10 s
    assert "training would last 5.6 hours, over forecast.max_hours 1; fit.epochs: 180 would" in str(
        checks["training_within_limits"].description
    )
    assert not result.asset_materializations_for_node("lora_checkpoints")


def test_training_that_is_asked_for_alone_is_stopped_too(work):
    result = materialize(work, [lora_checkpoints], epochs=1000)
    (fault,) = [event for event in result.all_events if event.is_step_failure]
    assert "over forecast.max_hours 1" in fault.step_failure_data.user_failure_data.description
    assert not list(work.folder("fit").glob("runs/*/steps.jsonl"))


def test_within_its_limits_the_check_tells_the_forecast(work):
    checked = training_within_limits(work)
    assert checked.passed
    assert str(checked.description) == (
        "8 steps of 10 s, 1.3 minutes, 0.01 kWh, memory 4,400 of 8,000 MiB (as run earlier went; a card)"
    )


def test_without_consent_no_step_is_tried(work):
    person = replace(work, subject=work.subject.model_copy(update={"kind": "person", "consent": None}))
    checked = training_within_limits(person)
    assert not checked.passed
    assert "no consent is recorded" in str(checked.description)


def test_the_terminal_tells_the_forecast_and_what_is_against_it(work):
    good, words = outlook(work, flow.forecast(work))
    assert good
    assert words.startswith("vase: 8 steps of 10 s, 1.3 minutes")
    long = replace(work, settings=work.settings.changed({"fit": {"epochs": 1000}}, "x"))
    good, words = outlook(long, flow.forecast(long))
    assert not good
    assert words.splitlines()[1].startswith("training would last 5.6 hours")
    assert outlook(work, None) == (True, "vase: nothing is left to train, all 4 epochs are there")


def test_a_checkpoint_shows_what_was_forecast_and_what_happened(work):
    shown = what_was_forecast(work.store.work("jug", "fit") / "runs" / "earlier")
    rows = [record.data for record in shown["forecast and what happened"].records]
    assert rows[2] == {"what": "memory (MiB)", "forecast": "4,000", "happened": "4,400", "off by": "+10%"}
    assert shown["forecast of memory (MiB) off by (%)"] == 10.0
    assert what_was_forecast(work.folder("fit")) == {}
