"""What the API description can't tell Schemathesis."""

import json

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    """Any text is a valid body: the response lists the bad lines, which don't stop the others."""
    return value.encode()


@schemathesis.hook
def filter_case(context, case):
    """Only text can be sent as lines, so other bodies can't be rejected."""
    return case.media_type != "application/x-ndjson" or isinstance(case.body, str)


@schemathesis.hook
def map_body(context, body):
    """In JSON Schema, 1.0 is an integer, but messages must contain 1."""
    if isinstance(body, dict):
        return {name: map_body(context, value) for name, value in body.items()}
    if isinstance(body, list):
        return [map_body(context, value) for value in body]
    if isinstance(body, float) and body.is_integer():
        return int(body)
    return body


@schemathesis.hook
def before_call(context, case, kwargs):
    """A cursor must come from a response to the same parameters, which no schema can express."""
    if case.query and case.meta and case.meta.generation.mode == schemathesis.GenerationMode.POSITIVE:
        case.query.pop("cursor", None)
