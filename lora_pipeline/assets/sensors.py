"""What starts runs by itself: a sensor when photos arrive, change or go, and a nightly schedule. Both are off until switched on."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypedDict

import dagster as dg

from lora_pipeline import flow, people, recall, subject, verdicts
from lora_pipeline.assets.partitions import register
from lora_pipeline.assets.resources import House
from lora_pipeline.errors import PipelineError
from lora_pipeline.manifest import key_of
from lora_pipeline.stages.collect import find, glance
from lora_pipeline.store import DigestCache, Store

JOB = "photos_to_lora"

LIBRARY_EVERY_S = 300
"""A photo library is asked this often whether anything changed, while its answers are the same."""


class Seen(TypedDict):
    """What the sensor remembers of a subject: how its files looked at the last tick, and the content it last started a run for; of a photo
    library what it last said, and when (seconds since 1970) it said so twice running, else 0."""

    look: str
    started: str
    runs: int
    library: str
    quiet_s: float


NOTHING = Seen(look="", started="", runs=0, library="", quiet_s=0)


@dg.sensor(name="subject_folders", minimum_interval_seconds=15, default_status=dg.DefaultSensorStatus.RUNNING)
def subject_folders(context: dg.SensorEvaluationContext, house: House) -> dg.SkipReason:
    """Makes a partition of each new subject folder. Starts no run."""
    new = register(context.instance, house.store)
    return dg.SkipReason(f"new: {', '.join(new)}" if new else "no new subject folder")


@dg.sensor(name="photos_changed", job_name=JOB, minimum_interval_seconds=30)
def photos_changed(context: dg.SensorEvaluationContext, house: House) -> dg.SensorResult:
    """Rebuilds a subject when its photos, captions, subject.yaml or a person's decisions change.

    A folder or a photo library counts when it looks the same (names, sizes, times) at two ticks, so that files still being
    copied wait. One run a change: the run key holds the content's digest and a number that grows with each change. A subject
    that cannot be read, or whose library is out of reach, is told, and tried again at the next tick.
    """
    store = house.store
    register(context.instance, store)
    memory: dict[str, Seen] = json.loads(context.cursor) if context.cursor else {}
    now: dict[str, Seen] = {name: {**NOTHING, **memory.get(name, NOTHING)} for name in subject.names(store)}
    requests: list[dg.RunRequest] = []
    troubles: list[str] = []
    # All libraries at once: a tick may take a minute, and one that is out of reach takes its time.
    with ThreadPoolExecutor() as pool:
        asked = {name: pool.submit(asked_library, store, name, seen) for name, seen in now.items()}
    for name, answer in asked.items():
        try:
            seen = now[name] = answer.result()
            files = watched(store, name)
            look = key_of(look_of(files), seen["library"])
            if look != seen["look"]:
                seen["look"] = look
                continue
            content = key_of(content_of(store, name, files), seen["library"])
            # What a person has run by hand since the last tick needs no second run.
            if content != seen["started"] and not up_to_date(store, name):
                seen["runs"] += 1
                run_key = f"{name}:{content[:16]}:{seen['runs']}"
                requests.append(dg.RunRequest(run_key=run_key, partition_key=name))
            seen["started"] = content
        except PipelineError as error:
            troubles.append(f"{name}: {error}")
            context.log.warning(troubles[-1])
    skip_reason = "; ".join(troubles) if troubles and not requests else None
    return dg.SensorResult(run_requests=requests, skip_reason=skip_reason, cursor=json.dumps(now))


def asked_library(store: Store, name: str, seen: Seen) -> Seen:
    """What is remembered of a subject, with what its photo library says now, if it has one and it is time to ask. Raises PipelineError."""
    library = subject.load(store, name).origin
    if isinstance(library, Path):
        return {**seen, "library": "", "quiet_s": 0}
    now_s = time.time()
    if 0 <= now_s - seen["quiet_s"] < LIBRARY_EVERY_S:
        return {**seen}
    said = glance(library)
    return {**seen, "library": said, "quiet_s": now_s if said == seen["library"] else 0}


@dg.schedule(name="nightly", job_name=JOB, cron_schedule="0 2 * * *")
def nightly(context: dg.ScheduleEvaluationContext, house: House) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Rebuilds at two at night each subject of which something is not up to date."""
    register(context.instance, house.store)
    stale: list[str] = []
    troubles: list[str] = []
    for name in subject.names(house.store):
        try:
            stale += [] if up_to_date(house.store, name) else [name]
        except PipelineError as error:
            troubles.append(f"{name}: {error}")
            context.log.warning(troubles[-1])
    if not stale:
        yield dg.SkipReason("; ".join(troubles) or "every subject is up to date")
    for name in stale:
        yield dg.RunRequest(run_key=f"{name}:{context.scheduled_execution_time.date()}", partition_key=name)


def watched(store: Store, name: str) -> list[Path]:
    """The files whose change rebuilds a subject: photos, captions by hand, subject.yaml, what a person decided of photos and faces, what is
    forgotten. Of a photo library there are none: it is asked. Raises SubjectError.
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
    """Whether a run would compute nothing. Raises PipelineError if that cannot be told."""
    return all(standing.fresh for standing in flow.status(flow.work(store, name)))
