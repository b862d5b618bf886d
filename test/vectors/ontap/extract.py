"""Writes flexcache.json: what ONTAP's REST API takes for FlexCache volumes, for the test server of test/ontap-server.ts.

Fields, their types and limits are read from the schemas of NetApp's own client, the PyPI package netapp-ontap (BSD 3-Clause),
which is generated from ONTAP's API description:  pip install netapp-ontap==9.19.1.0 && python extract.py
Query parameters, required properties and error codes are not in the schemas; they stand below, from the pages
docs.netapp.com/us-en/ontap-restapi-9151/{post,delete}-storage-flexcache-flexcaches*.html and patch-storage-volumes-.html.
"""
import json
import pathlib

from marshmallow import fields
from netapp_ontap.resources import Flexcache, Job, Volume


def kind(field):
    if isinstance(field, fields.Nested):
        return "object"
    if isinstance(field, fields.List):
        return "array"
    if isinstance(field, fields.Boolean):
        return "boolean"
    return "string" if isinstance(field, fields.Str) else "integer"


def properties(schema_class, allowed, only=None):
    """Paths that may be sent, with their types. `allowed` is the schema's list of names."""
    found = {}
    schema = schema_class()
    for name, field in schema.fields.items():
        if only is not None and name not in only:
            continue
        nested = [entry[len(name) + 1:] for entry in allowed if entry.startswith(name + ".")]
        if name not in allowed and not nested:
            continue
        key = field.data_key or name
        inner = field.inner if isinstance(field, fields.List) else field
        found[key] = kind(field)
        if isinstance(inner, fields.Nested):
            child = type(inner.schema)
            wanted = nested or (child.patchable_fields if "patch" in schema_class.__name__ else child.postable_fields)
            for path, what in properties(child, wanted).items():
                found[f"{key}{'[]' if isinstance(field, fields.List) else ''}.{path}"] = what
    return found


flexcache = type(Flexcache._schema())
volume = type(Volume._schema())
nas = type(Volume._schema().fields["nas"].schema)
states = ["queued", "running", "paused", "success", "failure"]  # of Job.state; the schema keeps them in a closure
RETURN_TIMEOUT = {"name": "return_timeout", "type": "integer", "minimum": 0, "maximum": 120}
path = Flexcache._path
document = {
    "source": "netapp-ontap 9.19.1.0 (PyPI) and docs.netapp.com/us-en/ontap-restapi-9151; see extract.py",
    "jobStates": states,
    "operations": [
        {
            "method": "POST",
            "path": path,
            "query": [RETURN_TIMEOUT, {"name": "return_records", "type": "boolean"}],
            "required": ["name", "origins[].volume.name", "origins[].svm.name", "svm.name"],
            "properties": properties(flexcache, flexcache.postable_fields,
                                     ["name", "origins", "svm", "path", "size", "aggregates", "guarantee"]),
            "nameLength": [1, 203],
            "asynchronous": True,
        },
        {
            "method": "GET",
            "path": path,
            "fields": sorted(f for f in flexcache.gettable_fields if "links" not in f),
            "asynchronous": False,
        },
        {
            "method": "DELETE",
            "path": path + "/{uuid}",
            "query": [RETURN_TIMEOUT],
            "errors": {"notUnmounted": "524546", "notAFlexCache": "66846879"},
            "asynchronous": True,
        },
        {
            "method": "GET",
            "path": Volume._path,
            "fields": ["name", "nas.path", "state", "svm.name", "uuid"],
            "asynchronous": False,
        },
        {
            "method": "PATCH",
            "path": Volume._path + "/{uuid}",
            "query": [RETURN_TIMEOUT],
            "properties": {"nas": "object", **{f"nas.{k}": v for k, v in properties(nas, nas.patchable_fields).items()
                                               if "." not in k}},
            "asynchronous": True,
        },
        {
            "method": "GET",
            "path": Job._path + "/{uuid}",
            "fields": sorted(f for f in type(Job._schema()).gettable_fields if "links" not in f),
            "asynchronous": False,
        },
    ],
}
target = pathlib.Path(__file__).with_name("flexcache.json")
target.write_text(json.dumps(document, indent=2) + "\n")
