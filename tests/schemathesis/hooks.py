"""What Schemathesis can't know of this API from its description."""

import json

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    """Any text is some lines: the answer lists the bad ones, which don't stop the others."""
    return value.encode()


@schemathesis.hook
def filter_case(context, case):
    """What isn't text can't be sent as lines, so that it can't be refused either."""
    return case.media_type != "application/x-ndjson" or isinstance(case.body, str)


@schemathesis.hook
def map_body(context, body):
    """To JSON Schema 1.0 is an integer; a message has to write 1."""
    if isinstance(body, dict):
        return {name: map_body(context, value) for name, value in body.items()}
    if isinstance(body, list):
        return [map_body(context, value) for value in body]
    if isinstance(body, float) and body.is_integer():
        return int(body)
    return body


@schemathesis.hook
def before_call(context, case, kwargs):
    """A cursor is what an answer gave, with the same parameters: no schema can tell."""
    if case.query and case.meta and case.meta.generation.mode == schemathesis.GenerationMode.POSITIVE:
        case.query.pop("cursor", None)
