"""Every setting there is: one frozen tree, a class a stage. Each field has a sentence, a unit and a range.

A stage is handed its own class and nothing else, so its memo's keys change with nothing else.
Defaults are those of an SD 1.5 person; `recipes.py` names other starting points, `subject.yaml` and the launchpad change single fields.
"""

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lora_pipeline.errors import SettingsError

NetworkType = Literal["lora", "dora", "lokr", "loha"]

LLM_INSTRUCTION = (
    "You write the caption with which a picture trains an image model. The {class} in it is called {trigger}. Answer with one caption of "
    "{min_words} to {max_words} words in plain English and nothing else. It begins with '{trigger} is' or '{trigger} does'. Say, as far "
    "as it can be seen: how the hair is worn, which way head and body are turned, the outfit, the setting, the environment behind, the "
    "mood and the light. Say nothing of what never changes about {trigger}, name nobody, guess nothing."
)
SUBJECT_WORDS = (
    *(
        "hair",
        "bangs",
        "ponytail",
        "eyes",
        "eyebrows",
        "eyelashes",
        "nose",
        "ears",
        "cheeks",
        "chin",
        "forehead",
        "skin",
    ),
    *("complexion", "freckles", "mole", "scar", "tattoo", "beard", "mustache", "moustache", "stubble"),
    *("fur", "tail", "paws", "muzzle", "snout", "whiskers"),
)
"""What people and animals are known by, as captioners say it."""
COVERED = (
    *("close", "medium", "full"),
    *("frontal", "three-quarter left", "three-quarter right", "profile left", "profile right"),
    *("up", "down"),
    *("bright", "soft", "dim"),
    "backgrounds",
)
"""What a coverage plan can ask for: framings, head yaw (left and right are the picture's), head pitch, light, and how many backgrounds.
Beside these, `expression <label>` for each label of the expression classifier."""


class Section(BaseModel):
    """A frozen part of the tree. A misspelt key is refused with the nearest name."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _nearest_name(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            names = [field.alias or name for name, field in cls.model_fields.items()]
            for name in cast(Mapping[str, Any], given):
                if name not in names and name not in cls.model_fields:
                    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
                    hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(names)}"
                    raise ValueError(f"there is no setting '{name}'; {hint}")
        return given


class BaseSettings(Section):
    """Which base model everything is trained on and drawn with."""

    family: Annotated[
        str,
        Field(
            description="Name of the base model's family: sd15, sdxl, flux, sd35, flux2_klein, z_image or qwen_image."
        ),
    ] = "sd15"
    model: Annotated[
        str,
        Field(
            description="A diffusers folder, a single .safetensors file, a hub id, or 'bundled' for the small model that ships here."
        ),
    ] = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    revision: Annotated[
        str, Field(description="Commit of the hub id; empty for its newest. Ignored for a folder or file.")
    ] = ""
    vae: Annotated[
        str, Field(description="Another autoencoder (folder or hub id) in place of the model's own; empty for its own.")
    ] = ""
    clip_skip: Annotated[
        int,
        Field(
            ge=1,
            le=12,
            description="Which layer of sd15's text encoder is read, counted from its end, wherever it is read: 1 is the last, 2 the last but one (1 to 12).",
        ),
    ] = 1
    licence: Annotated[str, Field(description="Licence of the base model, written into the released card.")] = (
        "creativeml-openrail-m"
    )


class CollectSettings(Section):
    """Which files are photos."""

    max_megapixels: Annotated[
        float,
        Field(
            ge=1,
            le=2000,
            description="A picture with more pixels is refused as a decompression bomb (megapixels, 1 to 2000).",
        ),
    ] = 200.0
    subfolders: Annotated[
        bool, Field(description="Whether photos in folders under the photo folder are taken too.")
    ] = True
    video_frames: Annotated[
        int,
        Field(
            ge=0,
            le=1000,
            description="At most so many frames of each video become photos; 0 passes videos over (0 to 1000).",
        ),
    ] = 40
    video_window_s: Annotated[
        float,
        Field(ge=0.1, le=60, description="Of each stretch of a video, the sharpest frame counts (seconds, 0.1 to 60)."),
    ] = 1.0
    video_angle_deg: Annotated[
        float,
        Field(
            ge=1,
            le=60,
            description="Heads turned by less than this from each other show the same angle, of which a video's scene gives one frame (degrees, 1 to 60).",
        ),
    ] = 10.0


class CurateSettings(Section):
    """Which photos are good enough, and which are copies."""

    min_side_px: Annotated[
        int,
        Field(
            ge=0,
            le=16384,
            description="A photo whose short side, bars cut off, is shorter is dropped (pixels, 0 to 16384).",
        ),
    ] = 256
    min_true_side_px: Annotated[
        int,
        Field(
            ge=0,
            le=16384,
            description="A photo whose detail would fit into a shorter short side is dropped as blown up or out of focus (pixels, 0 to 16384).",
        ),
    ] = 128
    min_sharpness: Annotated[
        float,
        Field(
            ge=0,
            le=10000,
            description="Variance of the Laplacian at 512 px under which a photo is dropped as blurred (0 to 10000).",
        ),
    ] = 20.0
    min_brightness: Annotated[
        float, Field(ge=0, le=1, description="Mean luma under which a photo is dropped as too dark (0 to 1).")
    ] = 0.06
    max_brightness: Annotated[
        float, Field(ge=0, le=1, description="Mean luma over which a photo is dropped as too bright (0 to 1).")
    ] = 0.96
    min_contrast: Annotated[
        float,
        Field(
            ge=0,
            le=0.5,
            description="Standard deviation of the luma under which a photo is dropped as empty (0 to 0.5).",
        ),
    ] = 0.03
    max_clipped_shadows: Annotated[
        float,
        Field(ge=0, le=1, description="Share of pixels over which black ones make a photo underexposed (0 to 1)."),
    ] = 0.7
    max_clipped_highlights: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Share of pixels over which white ones make a photo overexposed (0 to 1); a product on white has many.",
        ),
    ] = 0.7
    max_noise: Annotated[
        float,
        Field(
            ge=0,
            le=255,
            description="Standard deviation of the noise over which a photo is dropped as noisy (levels of 255, 0 to 255).",
        ),
    ] = 20.0
    max_blocking: Annotated[
        float,
        Field(
            ge=0,
            le=100,
            description="Excess of steps between a JPEG's blocks, as a share of the mean step, over which a photo is dropped (0 to 100).",
        ),
    ] = 1.0
    max_plain: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Share of pixels like their neighbours over which a photo is dropped as a screenshot; 1 drops none, 0.6 suits cameras' photos (0 to 1).",
        ),
    ] = 1.0
    max_text: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Share of the area over which writing and watermarks drop a photo; 1 drops none, its lines are only recorded (0 to 1).",
        ),
    ] = 1.0
    min_colour: Annotated[
        float,
        Field(
            ge=0,
            le=255,
            description="How far colours lie from those of one tone, under which a photo is dropped as black and white or sepia; 0 drops none, 5 those alone (levels of 255, 0 to 255).",
        ),
    ] = 0.0
    quality_tokens: Annotated[
        bool,
        Field(
            description="Whether a photo that is weak, but no copy and not too small, is kept, and its captions say so (blurry, jpeg artifacts, …)."
        ),
    ] = False
    trim_bars: Annotated[bool, Field(description="Whether plain bars at the edges (letterbox, frame) are cut off.")] = (
        True
    )
    duplicate_distance: Annotated[
        int,
        Field(
            ge=0,
            le=32,
            description="Photos whose perceptual hashes, mirrored or not, differ in at most so many of 64 bits may be copies (bits, 0 to 32).",
        ),
    ] = 8
    keep_duplicates: Annotated[
        bool, Field(description="Whether all copies are kept; otherwise only the best of each group.")
    ] = False


class CropSettings(Section):
    """Which face is the subject's, and what is cut out around it."""

    detector: Annotated[
        Literal["dlib_hog", "dlib_cnn", "yolo", "insightface"],
        Field(
            description="Face detector: dlib_hog (CPU, ships), dlib_cnn (slow on a CPU, finds turned and half faces), yolo (GPU, needs weights) or insightface (tells identities too; its weights are for non-commercial research only)."
        ),
    ] = "dlib_hog"
    yolo_weights: Annotated[str, Field(description="Weights file for the yolo detector, such as face_yolov8n.pt.")] = ""
    yolo_person_weights: Annotated[
        str,
        Field(
            description="Weights file of an ultralytics YOLO that finds people, such as yolov8n.pt: full crops of a person reach from head to feet, and people whose faces are not seen count as others; empty: nobody is looked for but by the face."
        ),
    ] = ""
    insightface_models: Annotated[
        str,
        Field(
            description="Folder of the ONNX files for the insightface detector, such as ~/.insightface/models/buffalo_l."
        ),
    ] = ""
    search_px: Annotated[
        int,
        Field(
            ge=256,
            le=4096,
            description="Faces are searched for in the photo at this size of its long side (pixels, 256 to 4096).",
        ),
    ] = 1024
    head_pose: Annotated[
        bool,
        Field(
            description="Whether pitch and roll of the subject's head are measured too (degrees), by dlib's 68 landmarks, whose training pictures (iBUG 300-W) are for non-commercial research."
        ),
    ] = False
    expression_model: Annotated[
        str,
        Field(
            description="Folder or hub id of an image classifier that reads the subject's expression, any of transformers' image-classification; empty: none is asked."
        ),
    ] = ""
    expression_revision: Annotated[str, Field(description="Commit of that hub id; empty for its newest.")] = ""
    subject_model: Annotated[
        str,
        Field(
            description="Folder or hub id of a Grounding DINO that finds a pet or product by its name, such as IDEA-Research/grounding-dino-tiny; empty: the whole picture is the subject's."
        ),
    ] = ""
    subject_revision: Annotated[str, Field(description="Commit of that hub id; empty for its newest.")] = ""
    subject_prompt: Annotated[
        str, Field(description="What the pet or product is looked for as, such as 'a red mug'; empty: the class word.")
    ] = ""
    subject_score: Annotated[
        float,
        Field(
            gt=0,
            lt=1,
            description="A photo on which nothing scores more is left out (0 to 1, as Grounding DINO counts).",
        ),
    ] = 0.3
    segment_model: Annotated[
        str,
        Field(
            description="Folder or hub id of a SAM that cuts out what subject_model found, such as facebook/sam-vit-base: a mask beside each crop; empty: no mask."
        ),
    ] = ""
    segment_revision: Annotated[str, Field(description="Commit of that hub id; empty for its newest.")] = ""
    min_face_px: Annotated[
        int,
        Field(
            ge=8,
            le=2048,
            description="Faces of the subject smaller than this in the photo make no crop (pixels, 8 to 2048).",
        ),
    ] = 48
    same_person_distance: Annotated[
        float,
        Field(
            gt=0,
            le=1.5,
            description="Descriptors nearer than this are one person (Euclidean, 0 to 1.5; the library's own is 0.6).",
        ),
    ] = 0.6
    size_px: Annotated[
        int,
        Field(
            ge=64,
            le=2048,
            multiple_of=8,
            description="Side of the square crops: the training size (pixels, 64 to 2048).",
        ),
    ] = 512
    framings: Annotated[
        tuple[Literal["close", "medium", "full", "whole"], ...],
        Field(
            min_length=1,
            description="How much of the subject a crop shows: close (head), medium (chest), full (as much as there is), whole (all of it).",
        ),
    ] = ("close", "medium", "full")
    off_centre: Annotated[
        float,
        Field(
            ge=0,
            le=0.3,
            description="How far the subject is moved from the crop's centre, as a share of its side (0 to 0.3).",
        ),
    ] = 0.0
    max_enlargement: Annotated[
        float,
        Field(
            ge=1, le=8, description="A crop that would have to be enlarged more than this is not made (factor, 1 to 8)."
        ),
    ] = 1.5
    shape: Annotated[
        Literal["square", "bucket"],
        Field(
            description="square, or bucket: the shape and size of encode's bucket that is nearest to what the framing wants (full is upright)."
        ),
    ] = "square"
    placement: Annotated[
        Literal["centre", "thirds"],
        Field(
            description="centre, or thirds: the face on the third line that leaves the room on the side to which it looks, the eyes on the upper one."
        ),
    ] = "centre"
    avoid_others: Annotated[
        bool,
        Field(
            description="Whether a crop is moved so that other people's faces, text, and people found by yolo_person_weights lie outside, where the subject stays as whole as before."
        ),
    ] = False
    min_face_sharpness: Annotated[
        float,
        Field(
            ge=0,
            le=10000,
            description="Variance of the Laplacian of the subject's face, brought to 96 px of height, under which the photo is dropped as blurred there (0 to 10000).",
        ),
    ] = 20.0
    framing_shares: Annotated[
        dict[Literal["close", "medium", "full", "whole"], Annotated[float, Field(gt=0, le=1)]],
        Field(
            description="Share of the pictures by framing, such as {close: 0.5, medium: 0.3, full: 0.2} (0 to 1 each); empty takes every framing of every photo."
        ),
    ] = {}
    best: Annotated[
        int,
        Field(
            ge=0,
            le=100000,
            description="So many pictures are chosen: sharp faces, what the coverage plan lacks, unlike each other; 0 takes all (0 to 100000).",
        ),
    ] = 0
    coverage: Annotated[
        dict[str, Annotated[int, Field(ge=0, le=100000)]],
        Field(
            description=f"How many photos should show each of: {', '.join(COVERED)}, expression <label>; empty is no plan (0 to 100000)."
        ),
    ] = {}

    @model_validator(mode="after")
    def _asks_for_what_can_be(self) -> Self:
        if missing := sorted(set(self.framing_shares) - set(self.framings)):
            raise ValueError(f"framing_shares asks for {', '.join(missing)}, which framings does not cut")
        for name in self.coverage:
            if name not in COVERED and not name.startswith("expression "):
                near = difflib.get_close_matches(name, COVERED, n=1, cutoff=0.5)
                hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(COVERED)}, expression <label>"
                raise ValueError(f"coverage cannot ask for '{name}'; {hint}")
        return self

    @model_validator(mode="after")
    def _something_to_cut_out(self) -> Self:
        if self.segment_model and not self.subject_model:
            raise ValueError("segment_model cuts out what subject_model finds; name that too")
        return self


class ConcealSettings(Section):
    """How other people's faces are hidden."""

    method: Annotated[
        Literal["gaussian", "pixelate", "solid", "inpaint", "swap"],
        Field(
            description="What a stranger's face is covered with: gaussian, pixelate, solid, inpaint (drawn over by a diffusion model, as the surroundings suggest) or swap (by one that is asked for a person)."
        ),
    ] = "gaussian"
    margin: Annotated[
        float,
        Field(
            ge=0, le=1, description="How far the cover reaches beyond the face's box, as a share of its side (0 to 1)."
        ),
    ] = 0.25
    strength: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="Blur radius or pixel size as a share of the face's side (0 to 1); other covers ignore it.",
        ),
    ] = 0.3
    inpaint_model: Annotated[
        str,
        Field(
            description="Diffusers folder or hub id of the model that draws for inpaint and swap; empty for the subject's base model."
        ),
    ] = ""
    inpaint_sampling_steps: Annotated[
        int, Field(ge=1, le=200, description="Denoising steps of a face that is drawn (1 to 200).")
    ] = 25
    inpaint_guidance_scale: Annotated[
        float, Field(ge=1, le=30, description="Guidance of a face that is drawn; 1 is none (1 to 30).")
    ] = 7.0


class DescribeSettings(Section):
    """Who writes the captions, and in which shape."""

    captioner: Annotated[
        Literal["measured", "blip", "blip2", "florence2", "wd14", "clip", "llm"],
        Field(
            description="measured (no model: framing, head angle, colours, light), blip, blip2, florence2, wd14 (tags), clip (phrases of a list) or llm (a vision model behind an OpenAI-compatible address)."
        ),
    ] = "measured"
    blip_model: Annotated[str, Field(description="Folder or hub id of the BLIP weights.")] = (
        "Salesforce/blip-image-captioning-base"
    )
    blip_revision: Annotated[str, Field(description="Commit of the hub id; empty for its newest.")] = ""
    blip2_model: Annotated[str, Field(description="Folder or hub id of the BLIP-2 weights.")] = (
        "Salesforce/blip2-opt-2.7b"
    )
    blip2_revision: Annotated[str, Field(description="Commit of the hub id; empty for its newest.")] = ""
    florence2_model: Annotated[
        str, Field(description="Folder or hub id of the Florence-2 weights, as transformers itself reads them.")
    ] = "florence-community/Florence-2-base"
    florence2_revision: Annotated[str, Field(description="Commit of the hub id; empty for its newest.")] = ""
    florence2_task: Annotated[
        Literal["caption", "detailed_caption", "more_detailed_caption"],
        Field(description="How much Florence-2 says: a sentence, two or three, or a paragraph."),
    ] = "detailed_caption"
    wd14_model: Annotated[
        str, Field(description="Folder or hub id of a WD14 tagger: model.onnx and selected_tags.csv.")
    ] = "SmilingWolf/wd-vit-tagger-v3"
    wd14_revision: Annotated[str, Field(description="Commit of the hub id; empty for its newest.")] = ""
    wd14_threshold: Annotated[
        float, Field(gt=0, le=1, description="Probability from which the tagger's general tags are taken (0 to 1).")
    ] = 0.35
    wd14_character_threshold: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="The same for its names of known characters (0 to 1); 1 takes none, short of certainty.",
        ),
    ] = 1.0
    clip_model: Annotated[str, Field(description="Folder or hub id of the CLIP weights that rank phrases.")] = (
        "openai/clip-vit-large-patch14"
    )
    clip_revision: Annotated[str, Field(description="Commit of the hub id; empty for its newest.")] = ""
    llm_address: Annotated[
        str,
        Field(
            pattern=r"^https?://[^@]+$",
            description="Base URL of an OpenAI-compatible service, up to and with /v1, without a login in it: a vLLM or Ollama of your own, or a paid one.",
        ),
    ] = "http://127.0.0.1:11434/v1"
    llm_model: Annotated[str, Field(description="The model's name there; one that sees pictures.")] = "qwen2.5vl"
    llm_key_env: Annotated[
        str,
        Field(
            min_length=1, description="Name of the environment variable that holds the service's key; it may be unset."
        ),
    ] = "LLM_API_KEY"
    llm_instruction: Annotated[
        str,
        Field(
            min_length=1,
            description="What the model is asked beside each picture; {trigger}, {class}, {min_words} and {max_words} are filled in.",
        ),
    ] = LLM_INSTRUCTION
    llm_openings: Annotated[
        tuple[str, ...],
        Field(
            description="The model's caption must begin with one of these; else it is asked once more, and then the first is put in front. Empty: as it likes."
        ),
    ] = ("{trigger} is", "{trigger} does")
    llm_attempts: Annotated[
        int,
        Field(ge=1, le=20, description="How often a request is made where the service is busy or fails (1 to 20)."),
    ] = 5
    llm_timeout_s: Annotated[
        float, Field(gt=0, le=3600, description="How long an answer may take (seconds, over 0 to 3600).")
    ] = 120.0
    llm_requests_per_minute: Annotated[
        float, Field(ge=0, le=100000, description="At most so many requests a minute (0 to 100000); 0 is no limit.")
    ] = 0.0
    llm_price_in: Annotated[
        float,
        Field(ge=0, le=100000, description="Price of a million tokens that are sent, in any currency (0 to 100000)."),
    ] = 0.0
    llm_price_out: Annotated[
        float, Field(ge=0, le=100000, description="Price of a million tokens that are answered (0 to 100000).")
    ] = 0.0
    front: Annotated[
        str,
        Field(
            pattern=r"\{trigger\}",
            description="What stands before a captioner's words, unless they begin with the trigger word themselves; {trigger} and {class} are filled in.",
        ),
    ] = "{trigger} {class}"
    min_words: Annotated[
        int,
        Field(
            ge=0, le=200, description="A shorter caption is a finding of a check, and an LLM is asked again (0 to 200)."
        ),
    ] = 0
    max_words: Annotated[int, Field(ge=3, le=200, description="A caption is cut after so many words (3 to 200).")] = 60
    folder_tags: Annotated[
        bool,
        Field(description="Whether the names of the folders in which a photo lies stand in a captioner's caption."),
    ] = False
    drop_constant: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="What captioners say of the subject (see subject_words) in more than this share of the photos is left out, so that the trigger word learns it (0 to 1); 0 leaves all in.",
        ),
    ] = 0.0
    subject_words: Annotated[
        tuple[str, ...],
        Field(
            description="A phrase is about the subject if it holds one of these words; empty: every phrase is (for a product, say)."
        ),
    ] = SUBJECT_WORDS
    blacklist: Annotated[
        tuple[str, ...], Field(description="Words and phrases that are taken out of captioners' captions.")
    ] = ()
    tag_order: Annotated[
        tuple[str, ...],
        Field(
            description="Phrases (between commas) that hold one of these words come first, in this order; the others stay as they were said."
        ),
    ] = ()
    angle_tokens: Annotated[
        bool, Field(description="Whether captioners' captions say the head's angle as measured: 'three-quarter left'.")
    ] = False
    expression_tokens: Annotated[
        bool,
        Field(
            description="Whether they say the face's expression as scored, where `crop` has scored it: 'neutral_90 sad_5'."
        ),
    ] = False

    @model_validator(mode="after")
    def _min_below_max(self) -> Self:
        if self.min_words > self.max_words:
            raise ValueError(f"min_words ({self.min_words}) is over max_words ({self.max_words})")
        return self


class EncodeSettings(Section):
    """Sizes and repeats of the training pictures."""

    resolution_px: Annotated[
        int,
        Field(
            ge=64,
            le=2048,
            multiple_of=8,
            description="Training size: the side of a square of a bucket's area (pixels, 64 to 2048).",
        ),
    ] = 512
    bucket_step_px: Annotated[
        int,
        Field(ge=8, le=256, multiple_of=8, description="Sides of buckets are multiples of this (pixels, 8 to 256)."),
    ] = 64
    bucket_min_px: Annotated[
        int,
        Field(ge=0, le=4096, description="Shortest side of a bucket; 0 is half the training size (pixels, 0 to 4096)."),
    ] = 0
    bucket_max_px: Annotated[
        int,
        Field(
            ge=0, le=4096, description="Longest side of a bucket; 0 is double the training size (pixels, 0 to 4096)."
        ),
    ] = 0
    bucket_area: Annotated[
        Literal["nearest", "at_most"],
        Field(
            description="Whether a bucket's area is as near to the square's as its step allows, or never over it (as in sd-scripts)."
        ),
    ] = "nearest"
    bucket_no_upscale: Annotated[
        bool,
        Field(
            description="Whether a picture is never enlarged: its bucket is cut from it, whatever the shortest and longest side."
        ),
    ] = False
    merge_small_buckets: Annotated[
        bool,
        Field(description="Whether a bucket that fills no batch joins the one whose aspect ratio is nearest."),
    ] = True
    repeats: Annotated[
        int, Field(ge=1, le=1000, description="How often each picture is seen in an epoch (1 to 1000).")
    ] = 10
    flip: Annotated[bool, Field(description="Whether each picture is also seen mirrored, its mask too.")] = False
    caption_prefix: Annotated[str, Field(description="Words put before each caption, with a space; empty is none.")] = (
        ""
    )
    caption_suffix: Annotated[str, Field(description="Words put after each caption, with a space; empty is none.")] = ""

    regularisation_folder: Annotated[
        str,
        Field(
            description="Folder of pictures of others of the class, seen as often as the subject's together; empty is none."
        ),
    ] = ""
    regularisation_pool: Annotated[
        bool,
        Field(
            description="Whether pictures of other subjects of the same kind and class are regularisation pictures too; of a person only if `consent.regularisation` says so."
        ),
    ] = False
    regularisation_generated: Annotated[
        int,
        Field(
            ge=0,
            le=10000,
            description="So many regularisation pictures are drawn by the base model, of 'a photo of a {class}'; 0 is none (0 to 10000).",
        ),
    ] = 0
    regularisation_sampling_steps: Annotated[
        int, Field(ge=1, le=200, description="Denoising steps of a picture that the base model draws (1 to 200).")
    ] = 25
    regularisation_guidance_scale: Annotated[
        float,
        Field(ge=1, le=30, description="Guidance of a picture that the base model draws; 1 is none (1 to 30)."),
    ] = 7.0
    prior_loss_weight: Annotated[
        float, Field(ge=0, le=10, description="What a regularisation picture's loss is multiplied by (0 to 10).")
    ] = 1.0

    @model_validator(mode="after")
    def _sides_in_order(self) -> Self:
        if self.bucket_min_px > self.resolution_px or 0 < self.bucket_max_px < self.resolution_px:
            raise ValueError(
                f"resolution_px ({self.resolution_px}) must lie between bucket_min_px ({self.bucket_min_px}) and bucket_max_px ({self.bucket_max_px})"
            )
        return self


class FitSettings(Section):
    """The training run."""

    seed: Annotated[
        int,
        Field(
            ge=0, le=2**31 - 1, description="Seed of the noise, the timesteps, the order and the LoRA's first weights."
        ),
    ] = 42
    epochs: Annotated[int, Field(ge=1, le=1000, description="Epochs; each leaves a LoRA file (1 to 1000).")] = 10
    batch_size: Annotated[int, Field(ge=1, le=256, description="Pictures a batch (1 to 256).")] = 2
    gradient_accumulation_steps: Annotated[
        int, Field(ge=1, le=1000, description="Batches whose gradients are summed up before an update (1 to 1000).")
    ] = 1
    num_processes: Annotated[
        int,
        Field(
            ge=1,
            le=1024,
            description="Processes that train together, each on a graphics card of its own and with its own batch, over all machines (1 to 1024).",
        ),
    ] = 1
    num_cpu_threads_per_process: Annotated[
        int,
        Field(
            ge=0,
            le=1024,
            description="CPU threads of each process that trains; 0 is as many as torch thinks good (0 to 1024).",
        ),
    ] = 0
    held_out_share: Annotated[
        float,
        Field(
            ge=0,
            le=0.5,
            description="Share of the photos that train nothing, so that each epoch's loss on them can be told; 0 is none (0 to 0.5).",
        ),
    ] = 0.0
    network_type: Annotated[
        NetworkType,
        Field(
            description="dora also learns how long each output's weights are; only diffusers draws it as trained. lokr and loha say more with as many numbers; load_lora_weights of diffusers does not read them for most models."
        ),
    ] = "lora"
    network_dim: Annotated[int, Field(ge=1, le=1024, description="Rank of the LoRA (1 to 1024).")] = 32
    network_alpha: Annotated[
        float, Field(gt=0, le=1024, description="The LoRA's output is scaled by alpha / dim (0 to 1024).")
    ] = 16.0
    network_conv_dim: Annotated[
        int,
        Field(
            ge=0,
            le=1024,
            description="Rank on a U-Net's convolutions larger than 1x1; its other layers outside the transformers then get network_dim. 0 is none of these (0 to 1024).",
        ),
    ] = 0
    network_conv_alpha: Annotated[
        float,
        Field(gt=0, le=1024, description="Alpha of network_conv_dim, as network_alpha of network_dim (0 to 1024)."),
    ] = 1.0
    network_factor: Annotated[
        int,
        Field(
            ge=-1,
            le=1024,
            description="How high and wide the first of lokr's two matrices may be, so that a greater one makes a smaller file; -1 is near the root of the weight's sides (-1 to 1024).",
        ),
    ] = -1
    rank_stabilised: Annotated[
        bool, Field(description="Whether the LoRA's output is scaled by alpha / sqrt(dim) in place of alpha / dim.")
    ] = False
    network_dropout: Annotated[
        float, Field(ge=0, lt=1, description="Share of the LoRA's input that is zeroed at each look (0 to under 1).")
    ] = 0.0
    optimizer_type: Annotated[
        Literal["AdamW", "AdamW8bit", "Prodigy", "Adafactor", "Lion", "AdamWScheduleFree"],
        Field(
            description="Optimiser. Prodigy finds its own rate: set unet_lr to 1. AdamWScheduleFree has no course: after its warm-up the rate is unet_lr."
        ),
    ] = "AdamW"
    unet_lr: Annotated[float, Field(gt=0, le=1, description="Learning rate of the denoiser's LoRA (0 to 1).")] = 1e-4
    text_encoder_lr: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Learning rate of the text encoders' LoRA, on the same course; 0 does not train them (0 to 1).",
        ),
    ] = 0.0
    text_encoder_2_lr: Annotated[
        float | None,
        Field(
            ge=0,
            le=1,
            description="Learning rate of the second text encoder's LoRA (SDXL, SD 3.5); 0 does not train it (0 to 1; empty: as text_encoder_lr).",
        ),
    ] = None
    lr_scheduler: Annotated[
        Literal["constant", "linear", "cosine", "cosine_with_restarts", "polynomial"],
        Field(description="Course of the learning rate over the run, after the warm-up."),
    ] = "cosine_with_restarts"
    lr_scheduler_num_cycles: Annotated[
        int, Field(ge=1, le=100, description="Cycles of cosine_with_restarts (1 to 100).")
    ] = 3
    lr_scheduler_power: Annotated[
        float, Field(gt=0, le=10, description="Power of polynomial; 1 is a straight line (0 to 10).")
    ] = 1.0
    lr_warmup_steps: Annotated[
        int, Field(ge=0, le=100000, description="Steps over which the learning rate rises from 0 (0 to 100000).")
    ] = 0
    weight_decay: Annotated[float, Field(ge=0, le=1, description="The optimiser's weight decay (0 to 1).")] = 0.01
    max_grad_norm: Annotated[
        float, Field(ge=0, le=1000, description="Gradients are clipped to this norm; 0 is never (0 to 1000).")
    ] = 1.0
    min_snr_gamma: Annotated[
        float, Field(ge=0, le=100, description="Gamma of the min-SNR loss weight; 0 is no weight (0 to 100).")
    ] = 5.0
    debiased_estimation_loss: Annotated[
        bool,
        Field(description="Whether losses are weighed by 1 / sqrt(SNR), or by 1 / (SNR + 1) for a v-prediction model."),
    ] = False
    loss_type: Annotated[
        Literal["l2", "huber", "smooth_l1"],
        Field(description="How an error of the prediction is counted; huber and smooth_l1 forgive outliers."),
    ] = "l2"
    huber_schedule: Annotated[
        Literal["snr", "exponential", "constant"],
        Field(description="How the threshold of huber and smooth_l1 falls from 1 to huber_c as the noise grows."),
    ] = "snr"
    huber_c: Annotated[
        float,
        Field(gt=0, le=1, description="Threshold of huber and smooth_l1 at the strongest noise (0 to 1)."),
    ] = 0.1
    noise_offset: Annotated[
        float, Field(ge=0, le=1, description="Strength of the noise offset; 0 is none (0 to 1).")
    ] = 0.0
    noise_offset_random_strength: Annotated[
        bool, Field(description="Whether each look draws its noise offset's strength, from 0 to noise_offset.")
    ] = False
    adaptive_noise_scale: Annotated[
        float,
        Field(
            ge=-10,
            le=10,
            description="Times the absolute mean of a latent channel is added to the noise offset's strength (-10 to 10).",
        ),
    ] = 0.0
    timestep_sampling: Annotated[
        Literal["uniform", "sigmoid", "logit_normal", "shift"],
        Field(
            description="How noise levels are drawn; all but uniform are for flow-matching models. logit_normal is sd-scripts' sigma with weighting_scheme logit_normal."
        ),
    ] = "uniform"
    sigmoid_scale: Annotated[
        float,
        Field(gt=0, le=10, description="Scale of the normal number that sigmoid and shift begin with (0 to 10)."),
    ] = 1.0
    discrete_flow_shift: Annotated[
        float | None,
        Field(
            gt=0,
            le=100,
            description="How far shift and logit_normal go towards noise; 1 is not at all (0 to 100; empty: as the base model's own scheduler).",
        ),
    ] = None
    logit_mean: Annotated[
        float,
        Field(ge=-10, le=10, description="Mean of logit_normal; higher is less noise (-10 to 10)."),
    ] = 0.0
    logit_std: Annotated[float, Field(gt=0, le=10, description="Standard deviation of logit_normal (0 to 10).")] = 1.0
    shuffle_caption: Annotated[
        bool, Field(description="Whether a caption's tags (between commas) come in another order at each look.")
    ] = False
    keep_tokens: Annotated[
        int,
        Field(
            ge=0, le=1000, description="So many tags at a caption's beginning are never moved or dropped (0 to 1000)."
        ),
    ] = 0
    caption_dropout_rate: Annotated[
        float, Field(ge=0, le=1, description="Share of looks at which the caption is empty (0 to 1).")
    ] = 0.0
    caption_tag_dropout_rate: Annotated[
        float, Field(ge=0, le=1, description="Share of a caption's tags that are left out at each look (0 to 1).")
    ] = 0.0
    masked_loss: Annotated[bool, Field(description="Whether hidden faces are kept out of the loss.")] = True
    face_loss_weight: Annotated[
        float,
        Field(
            ge=1,
            le=10,
            description="How many times the loss counts within the box of the subject's face, so that more is learnt of it than of its surroundings; 1 is as often as anywhere (1 to 10).",
        ),
    ] = 1.0
    gradient_checkpointing: Annotated[
        bool, Field(description="Whether memory is saved by computing activations twice.")
    ] = False
    blocks_to_swap: Annotated[
        int,
        Field(
            ge=0,
            le=1000,
            description="So many blocks of a transformer wait in the computer's memory and are on the graphics card only while they are computed; needs gradient_checkpointing (0 to 1000).",
        ),
    ] = 0
    retry_with_less_memory: Annotated[
        bool,
        Field(
            description="Whether a run that runs out of memory begins again, once, with gradient checkpointing and half the batch at double accumulation."
        ),
    ] = False
    base_precision: Annotated[
        Literal["fp32", "bf16", "fp16", "int8", "nf4"],
        Field(
            description="Number format in which the base model's denoiser is held while training; the LoRA stays float32. int8 and nf4 are bitsandbytes', on a graphics card."
        ),
    ] = "fp32"
    mixed_precision: Annotated[
        Literal["no", "bf16", "fp16"], Field(description="Number format of the forward pass; no is float32.")
    ] = "no"
    state_every_steps: Annotated[
        int,
        Field(
            ge=0,
            le=100000,
            description="Steps between saves of the state from which an interrupted run continues, which each epoch's end saves too; 0 is none (0 to 100000).",
        ),
    ] = 0
    state_every_minutes: Annotated[
        float,
        Field(
            ge=0,
            le=1440,
            description="Minutes after which that state is saved again, at the next step's end; 0 is none (0 to 1440).",
        ),
    ] = 10.0
    sample_prompt: Annotated[
        str,
        Field(
            description="Prompt of the sample picture of each epoch; {trigger} and {class} are filled in. Empty is none."
        ),
    ] = "a photo of {trigger} {class}"

    @model_validator(mode="after")
    def _adds_to_something(self) -> Self:
        if self.adaptive_noise_scale and not self.noise_offset:
            raise ValueError("adaptive_noise_scale adds to noise_offset, which is 0: set noise_offset too")
        return self

    @model_validator(mode="after")
    def _text_encoders_go_along(self) -> Self:
        # diffusers, when it loads a text encoder's DoRA, leaves its magnitudes out
        if self.learns_texts and self.network_type != "lora":
            raise ValueError(
                f"text encoders learn a lora alone, which network_type {self.network_type} is not: set {self._text_rates_told} to 0"
            )
        if self.optimizer_type == "Prodigy" and not {*self.text_encoder_lrs} <= {0, self.unet_lr}:
            raise ValueError(
                f"Prodigy finds one rate for all that is trained: set {self._text_rates_told} to 0 or to unet_lr ({self.unet_lr:g})"
            )
        return self

    @property
    def text_encoder_lrs(self) -> tuple[float, float]:
        """Learning rates of the first and the second text encoder, where there are so many."""
        second = self.text_encoder_2_lr
        return self.text_encoder_lr, self.text_encoder_lr if second is None else second

    @property
    def learns_texts(self) -> bool:
        """Whether any text encoder is trained."""
        return any(self.text_encoder_lrs)

    @property
    def _text_rates_told(self) -> str:
        return "text_encoder_lr" if self.text_encoder_2_lr is None else "text_encoder_lr and text_encoder_2_lr"

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        lycoris = self.network_type in {"lokr", "loha"}
        if lycoris and self.network_dropout:
            raise ValueError(f"network_dropout is not defined for {self.network_type}: set it to 0")
        if lycoris and self.base_precision == "nf4":
            raise ValueError(
                f"network_type {self.network_type} cannot be put on a base in nf4: set base_precision to int8"
            )
        if self.blocks_to_swap and not self.gradient_checkpointing:
            raise ValueError("blocks_to_swap saves nothing without gradient_checkpointing: switch that on too")
        if self.blocks_to_swap and self.base_precision in {"int8", "nf4"}:
            raise ValueError(
                f"blocks_to_swap is not for a base in {self.base_precision}: set base_precision to bf16, or blocks_to_swap to 0"
            )
        return self


class ForecastSettings(Section):
    """What a training run may take before it begins, and what it costs."""

    max_hours: Annotated[
        float,
        Field(
            ge=0,
            le=10000,
            description="Training that is forecast to last longer does not begin; 0 is no limit (hours, 0 to 10000).",
        ),
    ] = 0.0
    max_cost: Annotated[
        float,
        Field(
            ge=0,
            le=100000,
            description="Training that is forecast to cost more does not begin; 0 is no limit (money, as the prices, 0 to 100000).",
        ),
    ] = 0.0
    price_per_hour: Annotated[
        float, Field(ge=0, le=10000, description="Rent of the machine; 0 is none (money an hour, 0 to 10000).")
    ] = 0.0
    watts: Annotated[
        float,
        Field(
            ge=0,
            le=100000,
            description="What the machine draws while it trains, to forecast energy; 0 is not known (watts, 0 to 100000).",
        ),
    ] = 0.0
    price_per_kwh: Annotated[
        float, Field(ge=0, le=1000, description="Price of that energy; 0 is none (money a kilowatt-hour, 0 to 1000).")
    ] = 0.0

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if self.price_per_kwh and not self.watts:
            raise ValueError("price_per_kwh is of energy, which is not known: set watts too")
        if self.max_cost and not (self.price_per_hour or self.price_per_kwh):
            raise ValueError("max_cost needs a price: set price_per_hour, or watts and price_per_kwh")
        return self


class GradeSettings(Section):
    """The validation pictures and how they are judged."""

    prompts: Annotated[
        tuple[str, ...],
        Field(
            min_length=1,
            max_length=64,
            description="Validation prompts; {trigger} and {class} are filled in (1 to 64).",
        ),
    ] = (
        "a photo of {trigger} {class}, close portrait, facing the camera",
        "a photo of {trigger} {class}, medium shot, wearing a red shirt",
        "a photo of {trigger} {class}, full body, on a beach",
        "an oil painting of {trigger} {class}",
    )
    prompt_list: Annotated[
        Literal["none", "objects", "living", "portraits"],
        Field(
            description="A list that ships here, in place of prompts: objects, living (people, pets) or portraits, which has a negative prompt too."
        ),
    ] = "none"
    prompts_file: Annotated[
        str,
        Field(
            description="A file of prompts in place of prompts, one a line, or DreamBooth's own; a relative path is under the subject's folder. Empty is none."
        ),
    ] = ""
    varied_prompts: Annotated[
        int,
        Field(
            ge=0,
            le=200,
            description="So many prompts more, made out of those there are by a grammar, always the same ones (0 to 200).",
        ),
    ] = 0
    llm_prompts: Annotated[
        int,
        Field(
            ge=0,
            le=64,
            description="So many prompts more, written by the language model of describe.llm_address (model, key and price as there), which is sent words alone: the prompts there are, trigger and class word. Asked once, then remembered; 0 asks nobody (0 to 64).",
        ),
    ] = 0
    other_prompts: Annotated[
        tuple[str, ...],
        Field(
            max_length=64,
            description="Prompts of others of the class, without {trigger}: what they show should stay as the base model draws it (0 to 64).",
        ),
    ] = (
        "a photo of a {class}, close portrait, facing the camera",
        "a photo of a {class}, full body, on a beach",
    )
    negative_prompt: Annotated[
        str, Field(description="What the pictures are drawn away from; empty is the unconditional prompt.")
    ] = ""
    seeds: Annotated[
        tuple[int, ...],
        Field(min_length=1, max_length=64, description="A picture a prompt is drawn from each seed (1 to 64 seeds)."),
    ] = (1, 2)
    seeds_apart: Annotated[
        int,
        Field(
            ge=0,
            le=10000,
            description="So much is added to the seeds from one prompt to the next. With 0 all prompts share their first noises, which shows what a prompt changes; with noises of their own, as many pictures tell better which epoch is best (0 to 10000).",
        ),
    ] = 0
    strengths: Annotated[
        tuple[Annotated[float, Field(gt=0, le=2)], ...],
        Field(
            min_length=1,
            max_length=16,
            description="Each picture is drawn with the LoRA at each of these strengths; 1 is as trained, by which epochs are judged, and is among them (over 0 to 2).",
        ),
    ] = (1.0,)
    sampling_steps: Annotated[int, Field(ge=1, le=200, description="Denoising steps a picture (1 to 200).")] = 25
    guidance_scale: Annotated[
        float, Field(ge=1, le=30, description="Classifier-free guidance; 1 is none (1 to 30).")
    ] = 7.0
    sampler: Annotated[
        Literal["base", "ddim", "euler", "euler_a", "heun", "dpmsolver++", "unipc"],
        Field(
            description="Which sampler draws the pictures, by sd-scripts' names; base is the base model's own, and the only one of models that match flows."
        ),
    ] = "base"
    size_px: Annotated[
        int,
        Field(
            ge=64, le=2048, multiple_of=8, description="Side of the square validation pictures (pixels, 64 to 2048)."
        ),
    ] = 512
    batch_size: Annotated[int, Field(ge=1, le=64, description="Pictures drawn at once (1 to 64).")] = 4
    overfit_tolerance: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="A later epoch must be nearer to the subject by more than this distance to be preferred to an earlier one; 0 takes the nearest (0 to 1).",
        ),
    ] = 0.0
    clip_model: Annotated[
        str,
        Field(
            description="A CLIP (folder or hub id) that scores how pictures follow their prompts, and likeness; empty is none."
        ),
    ] = ""
    dino_model: Annotated[
        str, Field(description="A DINOv2 (folder or hub id) that scores the likeness of things; empty is none.")
    ] = ""
    max_copies: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="An epoch is vetoed if a greater share of its pictures are copies of training pictures; 1 vetoes none (0 to 1).",
        ),
    ] = 0.1
    min_prompt_kept: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="An epoch is vetoed if it follows its prompts less than this share of how the base model does; 0 vetoes none (0 to 1).",
        ),
    ] = 0.85
    max_bleeding: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="An epoch is vetoed if others, drawn without the trigger, went further of the way from the base model's to the subject than this; 1 vetoes none, as suits training without regularisation pictures (0 to 1).",
        ),
    ] = 1.0
    max_drift: Annotated[
        float,
        Field(
            ge=0,
            le=100,
            description="An epoch is vetoed if others, drawn without the trigger, are farther from the base model's than so many times what another seed changes; 0 vetoes none (0 to 100).",
        ),
    ] = 1.5
    max_damage: Annotated[
        float,
        Field(
            ge=1,
            le=100,
            description="An epoch is vetoed if sharpness, noise or saturation are so many times the base model's or more, or so many times less (1 to 100).",
        ),
    ] = 2.0
    pick: Annotated[
        int,
        Field(
            ge=0,
            le=1000,
            description="The epoch that a person has chosen, whatever the scores say; 0 leaves it to the rule (0 to 1000).",
        ),
    ] = 0

    @model_validator(mode="after")
    def _of_others(self) -> Self:
        for prompt in self.other_prompts:
            if "{trigger}" in prompt:
                raise ValueError(f"other_prompts are of others than the subject, so without {{trigger}}: '{prompt}'")
        return self

    @model_validator(mode="after")
    def _as_trained_among_them(self) -> Self:
        if 1.0 not in self.strengths:
            raise ValueError("strengths: epochs are judged by the LoRA as it was trained: let 1 be among them")
        return self

    @model_validator(mode="after")
    def _prompts_from_one_place(self) -> Self:
        if self.prompt_list != "none" and self.prompts_file:
            raise ValueError("prompt_list and prompts_file each take the place of prompts: set one of them")
        return self


class PublishSettings(Section):
    """The released file."""

    precision: Annotated[Literal["fp32", "fp16", "bf16"], Field(description="Number format of the released LoRA.")] = (
        "fp16"
    )


class CheckSettings(Section):
    """Where the asset checks stop a run."""

    min_photos: Annotated[
        int, Field(ge=1, le=100000, description="Kept photos under which training is pointless (1 to 100000).")
    ] = 5
    min_subject_share: Annotated[
        float,
        Field(ge=0, le=1, description="Share of kept photos that must show the subject's face, for a person (0 to 1)."),
    ] = 0.5
    max_same_caption: Annotated[
        float,
        Field(ge=0, le=1, description="Share of the photos that may have one and the same caption (0 to 1)."),
    ] = 0.5
    max_trigger_tokens: Annotated[
        int,
        Field(
            ge=1, le=75, description="Tokens that a trigger word may be split into by the base's tokenizer (1 to 75)."
        ),
    ] = 5


class Settings(Section):
    """The whole tree."""

    base: BaseSettings = BaseSettings()
    collect: CollectSettings = CollectSettings()
    curate: CurateSettings = CurateSettings()
    crop: CropSettings = CropSettings()
    conceal: ConcealSettings = ConcealSettings()
    describe: DescribeSettings = DescribeSettings()
    encode: EncodeSettings = EncodeSettings()
    fit: FitSettings = FitSettings()
    forecast: ForecastSettings = ForecastSettings()
    grade: GradeSettings = GradeSettings()
    publish: PublishSettings = PublishSettings()
    check: CheckSettings = CheckSettings()

    def changed(self, changes: Mapping[str, Any], source: str) -> Self:
        """These settings with some fields replaced.

        Args:
            changes: section → field → value, as written in `subject.yaml` or the launchpad.
            source: where they were written, for the message.

        Raises:
            SettingsError: a key is unknown (with the nearest name), or a value out of range.
        """
        tree: dict[str, Any] = self.model_dump()
        for section, fields in changes.items():
            if section in tree and isinstance(fields, Mapping):
                tree[section] = {**tree[section], **cast(Mapping[str, Any], fields)}
            else:
                tree[section] = fields
        try:
            return type(self).model_validate(tree)
        except ValidationError as error:
            raise SettingsError(f"{source}: {sentences(error)}") from None


def sentences(error: ValidationError) -> str:
    """A pydantic error in words: where, what, and what was given."""
    told: list[str] = []
    for fault in error.errors():
        where = ".".join(str(part) for part in fault["loc"])
        words = str(fault["msg"]).removeprefix("Value error, ")
        given = "" if isinstance(fault["input"], dict) else f" (given: {fault['input']!r})"
        told.append(f"{where}: {words}{given}" if where else words)
    return "; ".join(told)
