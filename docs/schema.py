"""Writes protocol.schema.json, the JSON Schema of the whole protocol, from its structs: `python docs/schema.py`."""

from __future__ import annotations

import json
from inspect import cleandoc
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from execsrv.protocol import METHODS, NOTIFICATIONS, ErrorObject, Failure, MessageId
from execsrv.protocol.methods import struct_named

PAGE = Path(__file__).with_name("protocol.schema.json")


def written() -> str:
    """The schema as it should be. It matches one message; `$defs` has all parameters, results and notifications."""
    called = [struct for method in METHODS.values() for struct in (method.params, method.result)]
    notified = {name: struct_named(struct) for name, struct in NOTIFICATIONS.items()}
    (id, failure, *_), parts = msgspec.json.schema_components(
        [MessageId, Failure, ErrorObject, *dict.fromkeys([*notified.values(), *called])], ref_template="#/$defs/{name}"
    )

    def message(**members: Any) -> dict[str, Any]:
        return {"type": "object", "properties": members, "required": list(members)}

    def ref(struct: type[Struct]) -> dict[str, str]:
        return {"$ref": f"#/$defs/{struct.__name__}"}

    requests = {}
    for name, method in METHODS.items():
        request = requests[f"request {name}"] = message(id=id, method={"const": name}, params=ref(method.params))
        if not any(field.required for field in msgspec.structs.fields(method.params)):
            request["required"].remove("params")
    responses = {f"response {name}": message(id=id, result=ref(method.result)) for name, method in METHODS.items()}
    initialized = message(method={"const": "initialized"})
    told = {
        f"notification {name}": message(method={"const": name}, params=ref(struct)) for name, struct in notified.items()
    }
    messages = {**requests, **responses, "error": failure, "notification initialized": initialized, **told}
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "execsrv",
        "description": "The messages of both dialects, as execsrv speaks them.",
        "anyOf": [{"title": title, **part} for title, part in messages.items()],
        "$defs": dict(sorted(parts.items())),
    }
    return json.dumps(_alike(schema), indent=1) + "\n"


def _alike(part: Any) -> Any:
    """Return a part of a schema as every version of msgspec would have it.

    Some leave the indents of texts, and some name the words that may be names in a table.
    """
    if isinstance(part, dict):
        return {name: _alike(value) for name, value in part.items() if name != "propertyNames" or "enum" not in value}
    if isinstance(part, list):
        return [_alike(value) for value in part]
    return cleandoc(part) if isinstance(part, str) else part


if __name__ == "__main__":
    PAGE.write_text(written())
