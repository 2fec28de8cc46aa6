"""A picture folder of sd-scripts: `<repeats>_<token> <class>`, with captions in side-car files.

`generate_dreambooth_subsets_config_by_subdirs` in config_util.py and `read_caption` in train_util.py of kohya-ss/sd-scripts.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from lora_pipeline.errors import SubjectError
from lora_pipeline.kohya.imported import Imported, Row, checked
from lora_pipeline.kohya.rules import BESIDE

NAME = re.compile(r"(\d+)_(.+)")
PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".avif", ".jxl"}  # IMAGE_EXTENSIONS of train_util.py
CAPTIONS = (".txt", ".caption")
"""The GUI's, and sd-scripts' own; the first that is there counts."""


def trigger_and_class(tokens: str) -> tuple[str, str]:
    """ "jx265 woman": the first word, and the others."""
    trigger, _, class_word = tokens.strip().partition(" ")
    return trigger, class_word.strip()


def read_folder(folder: Path) -> Imported:
    """A subject: photos, trigger word, class word, repeats, captions by hand.

    Args:
        folder: the pictures' own, or one above it (the GUI's project, or its `img`) that has one such folder.

    Raises:
        SubjectError: there is none, or more than one, or one of them cannot be read.
    """
    try:
        pictures, beside = _pictures(folder)
        rows = [*_rows(pictures), *beside]
        captions, told = _captions(pictures)
    except OSError as error:
        raise SubjectError(f"{folder} cannot be read: {error.strerror}") from None
    _, trigger, class_word = _parts(pictures)
    return Imported(
        pictures, "picture folder", "", (*rows, *told), pictures.resolve(), trigger, class_word, captions=captions
    )


def _pictures(folder: Path) -> tuple[Path, list[Row]]:
    folder = folder.absolute()
    if NAME.fullmatch(folder.name):
        return folder, []
    above = folder / "img" if (folder / "img").is_dir() else folder
    below = sorted(path for path in above.iterdir() if path.is_dir() and not path.name.startswith("."))
    named = [path for path in below if NAME.fullmatch(path.name)]
    if not named:
        raise SubjectError(
            f"{folder}: neither it nor a folder in it is named <repeats>_<token> <class>, such as '10_jx265 woman'; rename it, or use `lora-pipeline new`"
        )
    if len(named) > 1:
        raise SubjectError(
            f"{above} has {len(named)} picture folders ({', '.join(path.name for path in named)}), and a subject has one; import each by itself"
        )
    beside = [
        Row(f"{path.name}/", "", "no matter", "no repeats in its name: sd-scripts passes it over too")
        for path in below
        if path not in named
    ]
    if above != folder and any((folder / "reg").glob("*")):
        beside.append(Row("reg/", "", "by hand", BESIDE))
    return named[0], beside


def _parts(folder: Path) -> tuple[int, str, str]:
    found = NAME.fullmatch(folder.name)
    assert found is not None
    return int(found[1]), *trigger_and_class(found[2])


def _rows(folder: Path) -> Iterator[Row]:
    repeats, trigger, class_word = _parts(folder)
    value, fault = checked("encode.repeats", repeats)
    if fault:
        yield Row("<repeats>", repeats, "by hand", f"encode.repeats: {fault}; it stays the recipe's")
    else:
        yield Row("<repeats>", repeats, "set", sets=(("encode.repeats", value),))
    yield Row("<token>", trigger, "as here", "the trigger word")
    yield Row(
        "<class>", class_word, "as here" if class_word else "by hand", "the class word" if class_word else "say --class"
    )
    words = "sd-scripts trains on whole photos; take it out for crops in several framings, each of which counts as a picture"
    yield Row("(whole photos)", "", "set", words, (("crop.framings", ("whole",)),))
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith("."):
            yield Row(f"{path.name}/", "", "no matter", "sd-scripts does not look into it; no more is done here")
    yield Row("(subfolders)", "", "set", "sd-scripts looks into none", (("collect.subfolders", False),))


def _captions(folder: Path) -> tuple[dict[str, str], Iterator[Row]]:
    """Captions by file name, and a row of each thing that a person should know of them."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    photos = [path for path in files if path.suffix.lower() in PICTURES]
    sidecars = [path for path in files if path.suffix.lower() in CAPTIONS]
    if not photos:
        raise SubjectError(f"{folder} holds no pictures")
    captions: dict[str, str] = {}
    rows: list[Row] = []
    _, trigger, class_word = _parts(folder)
    without: list[str] = []
    for stem in dict.fromkeys(photo.stem for photo in photos):
        own = [path for suffix in CAPTIONS for path in sidecars if path.stem == stem and path.suffix.lower() == suffix]
        for path in own[1:]:
            rows.append(Row(path.name, "", "no matter", f"{own[0].name} is taken"))
        text, fault, words = _first_line(own[0]) if own else ("", "", "")
        if fault or words:
            rows.append(Row(own[0].name, "", "by hand" if fault else "as here", fault or words))
        if text:
            captions[f"{stem}.txt"] = text
        else:
            without.append(stem)
    stems = {photo.stem for photo in photos}
    rows += [Row(path.name, "", "by hand", "no photo has its name") for path in sidecars if path.stem not in stems]
    others = [path for path in files if path not in photos and path not in sidecars]
    rows += [Row(path.name, "", "no matter", "neither picture nor caption to sd-scripts") for path in others]
    if captions:
        rows.append(
            Row(
                "captions",
                len(captions),
                "set",
                "they become captions by hand; the first line of each, as in sd-scripts",
            )
        )
    unnamed = [name for name, text in captions.items() if trigger.lower() not in text.lower().replace(",", " ").split()]
    if unnamed:
        words = f"without the trigger word, for one {unnamed[0]}: '{trigger} {class_word}, ' is put first, which sd-scripts does not do"
        rows.append(Row("captions", len(unnamed), "by hand", words))
    if without:
        words = f"without a caption, for one {without[0]}: describe.captioner writes them, where sd-scripts would take '{f'{trigger} {class_word}'.strip()}'"
        rows.append(Row("photos", len(without), "by hand", words))
    return captions, iter(rows)


def _first_line(path: Path) -> tuple[str, str, str]:
    """A caption; or what is wrong with it; or what a person should know of it."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        return "", "it is not UTF-8 text: save it anew", ""
    if not lines or not lines[0].strip():
        return "", "its first line is empty: write a caption in it", ""
    more = any(line.strip() for line in lines[1:])
    return lines[0].strip(), "", "only its first line is a caption to sd-scripts, and is taken" if more else ""
