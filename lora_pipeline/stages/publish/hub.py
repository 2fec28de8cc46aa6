"""The released LoRA put on the Hugging Face hub: private, unless it is asked for otherwise."""

import datetime
from pathlib import Path

from lora_pipeline.errors import PipelineError
from lora_pipeline.records import Row
from lora_pipeline.stages.publish.place import Copy, remember
from lora_pipeline.stages.publish.release import IMAGES

# lineage.json has every setting and the photos' digests: it stays here, and the file's header leads back to it.
_STAYS = {"lineage"}


def push(row: Row, folder: Path, repo: str, public: bool, today: datetime.date) -> str:
    """Upload the released files in one commit; returns the address of it.

    The hub's address and the token are huggingface_hub's own: `HF_ENDPOINT`, and `HF_TOKEN` or `hf auth login`.

    Args:
        row: the released one.
        folder: the stage's.
        repo: `user/name`; made if it is not there.
        public: whether everybody may see it; one that is there and private stays so.

    Raises:
        PipelineError: the hub refuses or cannot be reached, or the repository is public and that was not asked for.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(library_name="lora-pipeline")
    adds = {file.path: folder / file.path for role, file in sorted(row.files.items()) if role not in _STAYS}
    try:
        api.create_repo(repo, private=not public, exist_ok=True)
        there = api.model_info(repo)
        if not public and not there.private:
            raise PipelineError(f"{repo} is there already, and public: make it private first, or say --public")
        # Pictures of an earlier release, which perhaps may not be shown any more.
        old = [one.rfilename for one in there.siblings or () if one.rfilename.startswith(f"{IMAGES}/")]
        changes = [
            *(CommitOperationAdd(name, path) for name, path in adds.items()),
            *(CommitOperationDelete(name) for name in old if name not in adds),
        ]
        commit = api.create_commit(repo, changes, commit_message=f"Epoch {row.data['epoch']}")
    except PipelineError:
        raise
    except (
        Exception
    ) as error:  # of requests, httpx, httpx2 or hf_xet: which of them carries it differs by huggingface_hub's version
        raise PipelineError(
            f"{repo} could not be put on the hub: {error} (is there a token that may write? hf auth login)"
        ) from None
    for role in ("lora", "webui"):
        if role in row.files:
            file = row.files[role]
            remember(folder, Copy(f"{api.endpoint}/{repo}/{file.path}", file.digest, str(row.data["run"]), str(today)))
    return commit.commit_url
