"""The trained runs that are judged: of which drawn subject, from which of her photos, with what changed of the recipe `bundled_person`."""

import datetime
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from benchmarks.choice.prompts import validation_phrases
from lora_pipeline.demo.photos import PhotoTruth, draw_subject_photos, subject_truth
from lora_pipeline.demo.world import ClassWord
from lora_pipeline.store import Store
from lora_pipeline.subject import FILE, Consent, Subject, Use, new

TRIGGER = "jx265"
CLASS_WORD: ClassWord = "woman"
FEW, ALONE = 6, 6
FRESH = 200
"""Fresh pictures of each epoch, for the truth."""
PROMPTS, SEEDS = 48, (1, 2, 3, 4)
"""Of the pipeline's own pictures, 192 an epoch, each from a noise of its own, so that the choice is about as sure as the truth. (By 36, six prompts
that face the camera from six noises, 8 of the 12 runs were right. By 96 from two noises they were no more: how much better an epoch is than
another hangs on the noise as much as on the prompt.)"""

ANN, BEA, CLEO, DORA = 30, 32, 35, 33
"""Seeds of four drawn women, red, grey, grey and brown of hair. ANN is the bundled subject. Of the seeds 30 to 36, 31 was left out, from whom
drawn strangers lie nearest (0.45 in the median), and 34 and 36 were not needed."""

Photos = Literal["all", "few", "groups"]
"""The whole folder; so many good photos of her alone; or the good ones with strangers in frame and as few of her alone."""


@dataclass(frozen=True)
class Run:
    """One training run.

    Args:
        name: of the run, and of its subject's folder.
        seed: of the drawn subject.
        photos: which of her photos it is given.
        changes: to the recipe: section, field, value.
    """

    name: str
    seed: int
    photos: Photos = "all"
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


# With few photos each is seen more often, so that an epoch has about as many steps as the recipe's.
RUNS = (
    Run("plain", ANN),
    Run("plain_other_seed", BEA, changes={"fit": {"seed": 7}}),
    Run("plain_dim_16", CLEO, changes={"fit": {"network_dim": 16, "network_alpha": 16}}),
    Run("plain_dim_64", DORA, changes={"fit": {"network_dim": 64, "network_alpha": 64, "seed": 3}}),
    Run("too_short_and_cold", BEA, changes={"encode": {"repeats": 1}, "fit": {"epochs": 2, "unet_lr": 2e-5}}),
    Run("short", CLEO, changes={"encode": {"repeats": 2}, "fit": {"epochs": 4}}),
    Run("too_long", ANN, changes={"encode": {"repeats": 24}, "fit": {"epochs": 10, "lr_scheduler": "constant"}}),
    Run("too_hot", CLEO, changes={"fit": {"epochs": 3, "unet_lr": 1e-2, "lr_scheduler": "constant"}}),
    Run("far_too_hot", DORA, changes={"fit": {"epochs": 3, "unet_lr": 5e-2, "lr_scheduler": "constant"}}),
    Run("hot", BEA, changes={"fit": {"unet_lr": 6e-3, "lr_scheduler": "constant"}}),
    Run("too_few_photos", DORA, "few", {"encode": {"repeats": 60}}),
    Run("unmasked_blur", ANN, "groups", {"encode": {"repeats": 28}, "fit": {"masked_loss": False}}),
)


def prepare(run: Run, store: Store) -> str:
    """Draw a run's photos, unless they are there, and write its `subject.yaml` as `lora-pipeline new` would. Returns the subject's name."""
    folder = store.subject(run.name)
    photos = folder / "photos"
    if not photos.exists():
        aside = folder / "photos.part"
        shutil.rmtree(aside, ignore_errors=True)
        draw_subject_photos(aside, run.seed)
        for name in set(subject_truth(run.seed)) - set(given(run)):
            (aside / name).unlink()
        aside.rename(photos)
    (folder / FILE).unlink(missing_ok=True)  # a benchmark that goes on takes the changes that stand here now
    consent = Consent(
        given_by="nobody",
        given_on=datetime.date(2026, 1, 1),
        scope="the person is drawn and does not exist",
        uses=get_args(Use),
    )
    told = [f"{{trigger}} {{class}}, {phrases}\n" for phrases in validation_phrases(PROMPTS, FRESH)]
    (folder / "prompts.txt").write_text("".join(told), encoding="utf-8")
    subject = {
        "name": run.name,
        "kind": "person",
        "photos": "photos",
        "trigger": TRIGGER,
        "class": CLASS_WORD,
        "recipe": "bundled_person",
        "consent": consent,
        "settings": {**run.changes, "grade": {"prompts_file": "prompts.txt", "seeds": SEEDS}},
    }
    new(store, Subject.model_validate(subject))
    return run.name


def given(run: Run) -> list[str]:
    """Names of the photos that a run is given."""
    truths = subject_truth(run.seed)
    good = [one for one in truths.values() if _good(one)]
    alone = [one.name for one in good if len(one.faces) == 1]
    together = [one.name for one in good if len(one.faces) > 1]
    return {"all": list(truths), "few": alone[:FEW], "groups": together + alone[:ALONE]}[run.photos]


def _good(photo: PhotoTruth) -> bool:
    return photo.readable and photo.scene is not None and photo.duplicate_of is None and not photo.blurred


def default_folder() -> Path:
    """Where the runs lie if no folder is named; git ignores it."""
    return Path(__file__).with_name("work")
