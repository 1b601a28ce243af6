"""The dataset in Croissant, the vocabulary in which tools describe datasets to each other (version 1.1)."""

from __future__ import annotations

from typing import Any

from symile_m3.plan import Plan
from symile_m3.shards import DatasetIndex
from symile_m3.shards.layout import DATA

CROISSANT = "croissant.json"

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_SPDX = "https://spdx.org/licenses/"
_SPDX_IDS = ("Apache-2.0", "CC-BY-4.0", "MIT", "Unicode-3.0")
_CITATION = (
    "@inproceedings{saporta2024symile, title={Contrasting with Symile: Simple Model-Agnostic Representation "
    "Learning for Unlimited Modalities}, author={Saporta, Adriel and Puli, Aahlad and Goldstein, Mark and "
    "Ranganath, Rajesh}, booktitle={NeurIPS}, year={2024}}"
)
# Member -> its record set, the field of its content, what that is, and the encoding of the files.
_MEMBERS = {
    "jpg": ("images", "image", "sc:ImageObject", "image/jpeg"),
    "flac": ("speech", "audio", "sc:AudioObject", "audio/flac"),
    "txt": ("texts", "text", "sc:Text", "text/plain"),
    "json": ("records", "json", "sc:Text", "application/json"),
}


def croissant(plan: Plan, index: DatasetIndex, title: str) -> dict[str, Any]:
    """The description: every shard with its checksum, the files in them by kind, and the records they hold.

    Each member of the samples is a record set of its own; the key of a sample joins them.
    """
    licences = sorted({medium.recipe.licence for medium in plan.images + plan.clips})
    shards = [
        {
            "@type": "cr:FileObject",
            "@id": shard.name,
            "name": shard.name,
            "contentUrl": f"{DATA}/{shard.name}",
            "contentSize": f"{shard.filesize} B",
            "encodingFormat": "application/x-tar",
            "sha256": shard.sha256,
        }
        for shard in index.shards
    ]
    file_sets = [
        {
            "@type": "cr:FileSet",
            "@id": f"{member}-files",
            "name": f"{member}-files",
            "containedIn": [{"@id": shard.name} for shard in index.shards],
            "encodingFormat": encoding,
            "includes": f"*.{member}",
        }
        for member, (_, _, _, encoding) in _MEMBERS.items()
    ]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": "symile-m3",
        "alternateName": title,
        "description": (
            f"Triples of an image of one of {len(plan.lexicon)} classes, speech in one of "
            f"{len(plan.lexicon.languages)} languages, and a text of {plan.config.words} words, of which "
            "only the word in the spoken language names the image."
        ),
        "license": [f"{_SPDX}{licence}" if licence in _SPDX_IDS else licence for licence in licences],
        "inLanguage": list(plan.lexicon.languages),
        "keywords": ["multimodal", "contrastive learning", "Symile", "WebDataset"],
        "citeAs": _CITATION,
        "version": "1.0.0",
        "sameAs": f"urn:symile-m3:{plan.fingerprint}",
        "distribution": shards + file_sets,
        "recordSet": [_record_set(member) for member in _MEMBERS],
    }


def _record_set(member: str) -> dict[str, Any]:
    name, content, data_type, _ = _MEMBERS[member]
    filename = {"fileProperty": "filename"}
    fields: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("key", "sc:Text", {"extract": filename, "transform": {"regex": r"^(.*)\.[a-z]+$"}}),
        ("split", "sc:Text", {"extract": filename, "transform": {"regex": r"^([a-z]+)-"}}),
        (content, data_type, {"extract": {"fileProperty": "content"}}),
    )
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "key": {"@id": f"{name}/key"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{name}/{field}",
                "name": f"{name}/{field}",
                "dataType": kind,
                "source": {"fileSet": {"@id": f"{member}-files"}, **source},
            }
            for field, kind, source in fields
        ],
    }
