"""The graph as Dagster sees it."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from lora_pipeline.assets.launchpad import given, launchpad
from lora_pipeline.assets.stage import POOL
from lora_pipeline.definitions import FLOW, defs
from lora_pipeline.flow import STEPS
from lora_pipeline.settings import CropSettings, FitSettings, Section, Settings

# Asked for while modules are loaded: once some other test has made and closed an instance, Dagster would want that one back.
repository = defs.get_repository_def()

GPU = {"captions", "training_set", "lora_checkpoints", "validation_grids"}


def test_the_assets_stand_in_the_order_of_the_flow() -> None:
    assert [asset.key.to_user_string() for asset in FLOW] == [step.noun for step in STEPS]
    for number, asset in enumerate(FLOW):
        before = {other.key for other in FLOW[:number]}
        assert {dep.asset_key for spec in asset.specs for dep in spec.deps} <= before


def test_every_asset_has_a_code_version_a_partition_and_a_sentence() -> None:
    for asset in FLOW:
        (spec,) = asset.specs
        assert spec.code_version
        assert isinstance(spec.partitions_def, dg.DynamicPartitionsDefinition)
        assert spec.description
        assert spec.automation_condition is not None


def test_what_needs_the_gpu_claims_its_one_slot() -> None:
    assert {asset.key.to_user_string() for asset in FLOW if asset.op.pool == POOL} == GPU
    assert {asset.key.to_user_string() for asset in FLOW if asset.op.tags.get("lora_pipeline/gpu")} == GPU


def test_what_starts_runs_by_itself_is_off() -> None:
    on = {sensor.name for sensor in repository.sensor_defs if sensor.default_status == dg.DefaultSensorStatus.RUNNING}
    assert on == {"subject_folders"}  # it makes partitions, and starts nothing
    assert all(schedule.default_status == dg.DefaultScheduleStatus.STOPPED for schedule in repository.schedule_defs)


def test_checks_that_make_training_pointless_block() -> None:
    blocking = {spec.name for asset in FLOW for spec in asset.check_specs if spec.blocking}
    assert {
        "consent_recorded",
        "enough_photos",
        "one_identity",
        "no_empty_caption",
        "finite_loss",
        "checkpoint_loads",
    } <= blocking


@pytest.mark.parametrize("section", [field.annotation for field in Settings.model_fields.values()])
def test_the_launchpad_offers_every_field_with_its_sentence(section: type[Section]) -> None:
    config = launchpad(section)
    assert set(config.model_fields) == set(section.model_fields)
    for name, field in config.model_fields.items():
        assert not field.is_required()
        assert field.description == section.model_fields[name].description


def test_only_what_was_filled_in_is_a_change() -> None:
    crop = launchpad(CropSettings)
    assert given(crop(detector="yolo", framings=["close"])) == {"detector": "yolo", "framings": ["close"]}  # type: ignore[call-arg]
    assert given(launchpad(FitSettings)()) == {}


def test_dagster_refuses_a_misspelt_key_before_the_run() -> None:
    job = defs.resolve_job_def("photos_to_lora")
    config = {"ops": {"lora_checkpoints": {"config": {"network_dm": 8}}}}
    with pytest.raises(dg.DagsterInvalidConfigError, match="network_dim"):
        dg.validate_run_config(job, config)


@pytest.mark.slow
def test_dagster_finds_the_definitions_clean(tmp_path: Path) -> None:
    """What `dagster definitions validate` says at the top of a checkout: no error, no warning."""
    there = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate"],
        cwd=there,
        env={**os.environ, "DAGSTER_HOME": str(tmp_path), "LORA_PIPELINE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert "Validation successful" in told
    # The command itself is on its way out in favour of another tool's.
    assert not [line for line in told.splitlines() if "Warning" in line and "superseded" not in line], told
