"""A training set without pictures: latents and text embeddings drawn from a seed, in the files that `encode` writes."""

import numpy as np
import pytest

from lora_pipeline.manifest import Item, Made, refresh
from lora_pipeline.records import Example


@pytest.fixture(scope="session")
def make_training_set():
    """A function that writes a training set of so many pictures into a folder and gives its manifest."""

    def make_set(
        folder,
        pictures=3,
        repeats=2,
        mirrored=False,
        hide=True,
        buckets=((64, 64),),
        seed=0,
        channels=4,
        tokens=24,
        width=32,
        framing=None,
    ):
        def make(number, folder):
            from safetensors.numpy import save_file

            rng = np.random.default_rng((seed, number))
            bucket = buckets[number % len(buckets)]
            shape = (channels, bucket[1] // 8, bucket[0] // 8)
            tensors = {}
            for side in ("", "_mirrored") if mirrored else ("",):
                tensors[f"latents{side}"] = rng.standard_normal(shape, dtype=np.float32)
                tensors[f"visible{side}"] = np.ones((1, *shape[1:]), np.float32)
                if hide and number == 0:
                    tensors[f"visible{side}"][:, :3, :3] = 0
            if framing is not None:
                tensors["framing"] = np.array(framing, np.float32)
            save_file(tensors, folder / f"{number}.latents.safetensors")
            states = rng.standard_normal((tokens, width), dtype=np.float32)
            save_file({"encoder_hidden_states": states}, folder / f"{number}.text.safetensors")
            example = Example(photo=f"photo{number}.png", bucket=bucket, repeats=repeats, caption="a photo", hidden=0.0)
            return Made(
                example.data(), {"latents": f"{number}.latents.safetensors", "text": f"{number}.text.safetensors"}
            )

        items = [
            Item(f"photo{number}.png#0@close", [number, pictures, repeats, mirrored, seed], number)
            for number in range(pictures)
        ]
        return refresh(folder, items, make, settings=None, code_version="1").manifest

    return make_set
