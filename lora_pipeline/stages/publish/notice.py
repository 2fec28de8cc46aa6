"""What a base model's licence wants to go along with whatever is made of it."""

import re

from lora_pipeline.stages.publish.card import BaseFacts

FILE = "NOTICE.txt"
FLUX_LICENCE = "flux-1-dev-non-commercial-license"
FLUX_LICENCE_PAGE = "https://huggingface.co/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md"

_FLUX_HUB = "black-forest-labs/FLUX.1-dev"
# FLUX.1 [dev] Non-Commercial License, section 3: a the licence itself and who grants it, b the words between the quotation marks, c that
# the model was modified, e that nobody there vouches for it.
_FLUX = """The FLUX.1 [dev] Model is licensed by Black Forest Labs. Inc. under the FLUX.1 [dev] Non-Commercial License. Copyright Black Forest Labs. Inc.
IN NO EVENT SHALL BLACK FOREST LABS, INC. BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH USE OF THIS MODEL.

The files beside this notice are a Derivative of the FLUX.1 [dev] Model: a LoRA, which modifies it.
The license: {page}
Any rights to use the FLUX.1 [dev] Model and this Derivative are granted directly by Black Forest Labs, Inc. to whoever receives them, pursuant to that license, and for non-commercial purposes only.
This Derivative is no official product of Black Forest Labs, Inc., which has not endorsed, approved or validated it.
"""


def notice(base: BaseFacts) -> str | None:
    """The text that must lie beside the released files; None where the licence asks for none."""
    said = re.sub(r"[^a-z0-9]+", "-", base.licence.lower())
    if said.startswith("flux-1-dev") or base.model == _FLUX_HUB:
        return _FLUX.format(page=FLUX_LICENCE_PAGE)
    return None
