"""The released LoRA put on the Hugging Face hub: private, unless it is asked for otherwise."""

import datetime
from pathlib import Path

from lora_pipeline.errors import PipelineError
from lora_pipeline.records import Row
from lora_pipeline.stages.publish.place import Copy, remember

# lineage.json has the photos' names: it stays here, and the file's header leads back to it.
_STAYS = {"lineage"}


def push(row: Row, folder: Path, repo: str, public: bool, today: datetime.date) -> str:
    """Upload the released files in one commit; returns the address of it.

    The hub's address and the token are huggingface_hub's own: `HF_ENDPOINT`, and `HF_TOKEN` or `hf auth login`.

    Args:
        row: the released one.
        folder: the stage's.
        repo: `user/name`; made if it is not there.
        public: whether everybody may see it.

    Raises:
        PipelineError: the hub refuses or cannot be reached, or the repository is public and that was not asked for.
    """
    import httpx
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

    api = HfApi(library_name="lora-pipeline")
    adds = [
        CommitOperationAdd(file.path, folder / file.path)
        for role, file in sorted(row.files.items())
        if role not in _STAYS
    ]
    try:
        api.create_repo(repo, private=not public, exist_ok=True)
        if not public and not api.repo_info(repo).private:
            raise PipelineError(f"{repo} is there already, and public: make it private first, or say --public")
        commit = api.create_commit(repo, adds, commit_message=f"Epoch {row.data['epoch']}")
    except (
        HfHubHTTPError,
        HFValidationError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
        httpx.HTTPError,
        OSError,
    ) as error:
        raise PipelineError(
            f"{repo} could not be put on the hub: {error}; is there a token that may write (hf auth login)?"
        ) from None
    for role in ("lora", "webui"):
        if role in row.files:
            file = row.files[role]
            remember(folder, Copy(f"{api.endpoint}/{repo}/{file.path}", file.digest, str(row.data["run"]), str(today)))
    return commit.commit_url
