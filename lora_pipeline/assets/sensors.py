"""What starts runs by itself: a sensor when photos arrive, change or go, and a nightly schedule. Both are off until switched on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

import dagster as dg

from lora_pipeline import flow, people, recall, subject, verdicts
from lora_pipeline.assets.partitions import register
from lora_pipeline.assets.resources import House
from lora_pipeline.errors import PipelineError
from lora_pipeline.manifest import key_of
from lora_pipeline.stages.collect import find
from lora_pipeline.store import DigestCache, Store

JOB = "photos_to_lora"


class Seen(TypedDict):
    """What the sensor remembers of a subject: how its files looked at the last tick, and the content it last started a run for."""

    look: str
    started: str
    runs: int


@dg.sensor(name="subject_folders", minimum_interval_seconds=15, default_status=dg.DefaultSensorStatus.RUNNING)
def subject_folders(context: dg.SensorEvaluationContext, house: House) -> dg.SkipReason:
    """Makes a partition of each new subject folder. Starts no run."""
    new = register(context.instance, house.store)
    return dg.SkipReason(f"new: {', '.join(new)}" if new else "no new subject folder")


@dg.sensor(name="photos_changed", job_name=JOB, minimum_interval_seconds=30)
def photos_changed(context: dg.SensorEvaluationContext, house: House) -> dg.SensorResult:
    """Rebuilds a subject when its photos, captions, subject.yaml or a person's decisions change.

    A folder counts when it looks the same (names, sizes, times) at two ticks, so that files still being copied wait. One
    run a change: the run key holds the content's digest and a number that grows with each change.
    """
    store = house.store
    register(context.instance, store)
    memory: dict[str, Seen] = json.loads(context.cursor) if context.cursor else {}
    now: dict[str, Seen] = {}
    requests: list[dg.RunRequest] = []
    for name in subject.names(store):
        try:
            files = watched(store, name)
        except PipelineError as error:
            context.log.warning(str(error))
            continue
        seen = memory.get(name, Seen(look="", started="", runs=0))
        look = look_of(files)
        if look != seen["look"]:
            now[name] = Seen(look=look, started=seen["started"], runs=seen["runs"])
            continue
        content, runs = content_of(store, name, files), seen["runs"]
        # What a person has run by hand since the last tick needs no second run.
        if content != seen["started"] and not up_to_date(store, name):
            runs += 1
            requests.append(dg.RunRequest(run_key=f"{name}:{content[:16]}:{runs}", partition_key=name))
        now[name] = Seen(look=look, started=content, runs=runs)
    return dg.SensorResult(run_requests=requests, cursor=json.dumps(now))


@dg.schedule(name="nightly", job_name=JOB, cron_schedule="0 2 * * *")
def nightly(context: dg.ScheduleEvaluationContext, house: House) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Rebuilds at two at night each subject of which something is not up to date."""
    register(context.instance, house.store)
    stale = [name for name in subject.names(house.store) if not up_to_date(house.store, name)]
    if not stale:
        yield dg.SkipReason("every subject is up to date")
    for name in stale:
        yield dg.RunRequest(run_key=f"{name}:{context.scheduled_execution_time.date()}", partition_key=name)


def watched(store: Store, name: str) -> list[Path]:
    """The files whose change rebuilds a subject: photos, captions by hand, subject.yaml, what a person decided of photos and faces, what is
    forgotten. Raises SubjectError.

    A photo library is not asked at each tick whether anything changed in it: `nightly` does that.
    """
    its = subject.load(store, name)
    folder = store.subject(name)
    if not isinstance(its.origin, Path):
        photos = []
    elif its.origin.is_file():  # a zip or a video
        photos = [its.origin]
    else:
        photos = [found.path for found in find(its.origin, its.whole_settings().collect.subfolders)]
    decided = [folder / file for file in (subject.FILE, verdicts.FILE, people.FILE, recall.FORGOTTEN)]
    return sorted([*photos, *folder.glob("captions/**/*.txt"), *(file for file in decided if file.exists())])


def look_of(files: list[Path]) -> str:
    """Names, sizes and times: cheap to ask for at each tick."""
    looks: list[list[str | int]] = []
    for file in files:
        try:
            stat = file.stat()
        except OSError:
            continue  # gone between listing and looking: the next tick sees it
        looks.append([str(file), stat.st_size, stat.st_mtime_ns])
    return key_of(looks)


def content_of(store: Store, name: str, files: list[Path]) -> str:
    """Names and digests; a file whose size and time are known is not read again."""
    cache = DigestCache(store.work(name, "sensor") / "digests.json")
    content: list[list[str]] = []
    for file in files:
        try:
            content.append([str(file), cache.digest(file)])
        except OSError:
            content.append([str(file), ""])  # unreadable: `collect` says so in a row
    cache.save()
    return key_of(content)


def up_to_date(store: Store, name: str) -> bool:
    """Whether a run would compute nothing. A subject that cannot be read is left for a person."""
    try:
        return all(standing.fresh for standing in flow.status(flow.work(store, name)))
    except PipelineError:
        return True
