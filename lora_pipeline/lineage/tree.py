"""A lineage in words: a tree of what a thing was made of, and a tree of what was made of it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from lora_pipeline.lineage.graph import Entry, Graph
from lora_pipeline.lineage.things import RANK

_FEW = 6
"""Of more grid pictures than so many beside each other, the first is told, and how many there are."""


def lines(graph: Graph) -> list[str]:
    """Both trees of each thing that was asked about, for a terminal. What a branch has told already is not told again."""
    told: list[str] = []
    for uid in graph.asked:
        one = graph.entries[uid]
        told += ["", *heading(one)] if told else heading(one)
        for words, others in (("made of", graph.parents), ("went into", graph.children)):
            reached: set[str] = set()
            below = _branches(graph, others.get(uid, ()), others, reached)
            counted = _counted(graph.entries[other].kind for other in reached) if below else _nothing(one, words)
            told += ["", f"{words}: {counted}", *below]
    return told


def heading(one: Entry) -> list[str]:
    """What was asked about: its words, its whole digest, where it lies, and with what it was made."""
    told = [f"{label(one)}, of {one.subject or 'a subject that was forgotten'}", f"  sha256 {one.digest}"]
    if one.path is not None:
        told.append(f"  {one.path}{'' if one.path.exists() else ' (no longer there)'}")
    for making in one.makings:
        version = f", code version {making.code_version}" if making.code_version else ""
        told.append(f"  made by {making.stage}, {making.made_at}{version}{_with_what(making.environment)}")
    return told


def label(one: Entry) -> str:
    """A thing in a few words."""
    facts = one.facts
    more: list[str] = []
    if facts.get("faces hidden"):
        more.append(f"{facts['faces hidden']} {'face' if facts['faces hidden'] == 1 else 'faces'} hidden")
    if one.kind == "caption" and "text" in facts:
        more.append(f"by {facts.get('source')}: {facts['text']}")
    if facts.get("repeats"):
        more.append(f"seen {facts['repeats']}× an epoch")
    if one.kind == "example" and facts.get("hidden"):
        more.append(f"{facts['hidden']:.0%} kept out of the loss")
    if one.kind == "training set":
        more.append(f"{facts.get('pictures')} pictures")
    if one.kind == "run" and facts.get("epochs"):
        more.append(f"{facts['epochs']} epochs, seed {facts.get('seed')}, on {facts.get('base')}")
    if one.kind == "grid picture" and "prompt" in facts:
        more.append(f"seed {facts.get('seed')}: {facts['prompt']}")
    if one.kind == "score" and "reason" in facts:
        by = "by a person: " if facts.get("picked") else "by the rule: " if facts.get("chosen") else ""
        more.append(f"{by}{facts['reason']}")
    if one.kind == "release" and one.path is not None:
        more.append(one.path.name)
    return ", ".join([f"{one.kind} {one.id or '(forgotten)'}", *more])


def _with_what(environment: Mapping[str, object]) -> str:
    if not environment:
        return ""
    versions = environment.get("versions")
    torch = versions.get("torch") if isinstance(versions, dict) else None
    return f", on {environment.get('device')}" + (f", torch {torch}" if torch else "")


def _counted(kinds: Iterable[str]) -> str:
    counts = sorted(Counter(kinds).items(), key=lambda counted: RANK[counted[0]])
    return ", ".join(f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in counts)


def _nothing(one: Entry, words: str) -> str:
    if words == "went into":
        return "nothing"
    return "nothing: it was there first" if one.kind in {"photo", "regularisation picture"} else "no photo"


def _branches(graph: Graph, uids: Sequence[str], others: Mapping[str, Sequence[str]], told: set[str]) -> list[str]:
    """The tree below some things, which are told with their digests."""
    shown: list[str] = []
    pictures = [uid for uid in uids if graph.entries[uid].kind == "grid picture"]
    folded = pictures[1:] if len(pictures) > _FEW else []
    single = [uid for uid in uids if uid not in folded]
    told.update(folded)
    for number, uid in enumerate(single, start=1):
        last = number == len(single)
        one, further = graph.entries[uid], others.get(uid, ())
        again = uid in told and bool(further)
        line = f"{label(one)}  ({one.digest[:16]})" + (" …, as above" if again else "")
        if folded and uid == pictures[0]:
            line += f" and {len(folded)} like it"
        shown.append(f"{'└─ ' if last else '├─ '}{line}")
        if not again:
            told.add(uid)
            shown += [f"{'   ' if last else '│  '}{below}" for below in _branches(graph, further, others, told)]
    return shown
