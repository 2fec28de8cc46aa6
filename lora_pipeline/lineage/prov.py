"""A lineage as W3C PROV: things are entities, what a stage did with one settings and one code version is an activity, this program is the agent.

The PROV-JSON Serialization, W3C Member Submission, 24 April 2013.
"""

import json
from importlib.metadata import version
from typing import Any

from lora_pipeline.lineage.graph import Entry, Graph, Making
from lora_pipeline.manifest import key_of

NAMESPACE = "urn:lora-pipeline:"


def prov_json(graph: Graph) -> str:
    """The document, as JSON. A thing is `lp:<uid>`; its file is named by its digest alone, without a path of this machine."""
    agent = "lp:lora-pipeline"
    activities: dict[str, Any] = {}
    generated: dict[str, Any] = {}
    used: dict[str, Any] = {}
    associated: dict[str, Any] = {}
    for uid, one in graph.entries.items():
        # A photo was there before: taking it in did not make it.
        for making in one.makings if one.kind != "photo" else ():
            activity = _activity(making, one)
            activities[activity] = _told_of(making)
            associated[f"_:by-{activity[3:]}"] = {"prov:activity": activity, "prov:agent": agent}
            generated[f"_:made-{uid[:16]}-{activity[3:]}"] = {
                "prov:entity": f"lp:{uid}",
                "prov:activity": activity,
                "prov:time": making.made_at,
            }
            for parent in graph.parents.get(uid, ()):
                used[f"_:used-{parent[:16]}-{activity[3:]}"] = {
                    "prov:activity": activity,
                    "prov:entity": f"lp:{parent}",
                }
    derived = {
        f"_:of-{child[:16]}-{parent[:16]}": {"prov:generatedEntity": f"lp:{child}", "prov:usedEntity": f"lp:{parent}"}
        for child, parents in graph.parents.items()
        for parent in parents
    }
    document = {
        "prefix": {"lp": NAMESPACE, "prov": "http://www.w3.org/ns/prov#", "xsd": "http://www.w3.org/2001/XMLSchema#"},
        "entity": {f"lp:{uid}": _entity(one) for uid, one in graph.entries.items()},
        "activity": activities,
        "agent": {
            agent: {
                "prov:type": {"$": "prov:SoftwareAgent", "type": "prov:QUALIFIED_NAME"},
                "lp:version": version("lora-pipeline"),
            }
        },
        "wasGeneratedBy": generated,
        "used": used,
        "wasDerivedFrom": derived,
        "wasAssociatedWith": associated,
    }
    return json.dumps({name: part for name, part in document.items() if part}, indent=1, ensure_ascii=False) + "\n"


def _activity(making: Making, one: Entry) -> str:
    """One item made by one stage: all of a stage's items in one would say that each was made of all."""
    return f"lp:{making.stage}-{key_of(one.uid, making.made_at, dict(making.settings))[:16]}"


def _entity(one: Entry) -> dict[str, Any]:
    facts = {
        f"lp:{name.replace(' ', '_')}": value
        for name, value in one.facts.items()
        if isinstance(value, str | int | float)
    }
    return {
        "prov:label": f"{one.kind} {one.id}",
        "prov:type": f"lp:{one.kind.replace(' ', '_')}",
        "lp:subject": one.subject,
        "lp:sha256": one.digest,
        **facts,
    }


def _told_of(making: Making) -> dict[str, Any]:
    told: dict[str, Any] = {"prov:endTime": making.made_at, "prov:type": f"lp:{making.stage}"}
    if making.code_version:
        told["lp:code_version"] = making.code_version
    if making.settings:
        told["lp:settings"] = json.dumps(making.settings, sort_keys=True)
    if making.environment:
        told["lp:environment"] = json.dumps(making.environment, sort_keys=True)
    return told
