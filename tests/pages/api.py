"""The page docs/api.md: `python -m tests.pages.api` prints it, out of the service's own document and errors.

It reads the document. It knows nothing of what a route does.
"""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from service.app import create_app
from service.errors import HttpError, ServiceError
from service.settings import Settings
from tests.running import ROOT

Schema = Mapping[str, Any]

HEAD = """# The API

Every route with its fields, the shapes of answers, and all errors. `python -m tests.pages.api > docs/api.md` writes
this page out of what the service says of itself (`GET /openapi.json`), and a test compares both. What the tasks
mean, and how the dialects differ, stands in the [README](../README.md#the-api); a browser that is online shows the
same at `/docs`.

"""

ERRORS = """## Errors

In our own dialect `application/problem+json` (RFC 9457) with `title`, `status`, `detail`, `request_id` and, where
fields are wrong, `errors`; the others have their own clients' shapes (Hugging Face `error`, OpenAI `error.message`,
v2 `error`). No answer holds a trace or a text. Beside these: 404 and 405 of paths and methods that no route has,
and 408, 413, 414, 417 and 431 where a request breaks a bound of the connection before a route sees it.

| status | | when |
|--:|---|---|
"""


def document() -> Schema:
    """OpenAPI's."""
    return create_app(Settings(models=ROOT / "models")).api.openapi()


def page() -> str:
    found = document()
    shapes: Mapping[str, Schema] = found["components"]["schemas"]
    asked = dict[str, list[str]]()  # shape of the request -> its routes
    titles = dict[str, str]()
    plain = list[str]()
    for path, methods in found["paths"].items():
        for method, route in methods.items():
            line = f"`{method.upper()} {path}`"
            body = route.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            if body:
                titles.setdefault(_named(body), route["summary"])
                asked.setdefault(_named(body), []).append(f"{line} {_answers(route)}")
            else:
                plain.append(f"| {line} | {route['summary']} | {_answers(route)} |")
    parts = [HEAD, "## Asked by POST\n\n"]
    for shape, lines in asked.items():
        parts += [f"### {titles[shape]}\n\n", *(f"- {line}\n" for line in lines), "\n", *_table(shapes[shape]), "\n"]
    parts += ["## Asked by GET\n\n| | | answer |\n|---|---|---|\n", *(f"{line}\n" for line in plain), "\n"]
    parts += ["## Shapes\n\n"]
    for name in sorted(shapes.keys() - asked.keys()):
        parts += [
            f"### {name}\n\n",
            f"{shapes[name].get('description', '').strip()}\n\n".lstrip(),
            *_table(shapes[name]),
            "\n",
        ]
    return "".join([*parts, ERRORS, *_errors()])


def _answers(route: Schema) -> str:
    content = route["responses"]["200"].get("content", {})
    schemas = [found.get("schema") for found in content.values()]
    return f"answers {_type(schemas[0])}" if schemas and schemas[0] else "answers"


def _named(schema: Schema) -> str:
    return str(schema["$ref"]).rpartition("/")[2]


def _table(schema: Schema) -> Iterator[str]:
    """Of an object its fields; of anything else what it is."""
    fields: Mapping[str, Schema] = schema.get("properties", {})
    if not fields:
        yield "No fields.\n" if schema.get("type") == "object" else f"{_type(schema)}\n"
        return
    yield "| field | | unset | |\n|---|---|---|---|\n"
    for name, field in fields.items():
        needed = name in schema.get("required", ())
        unset = "needed" if needed else _value(field.get("default"))
        yield f"| `{name}` | {_type(field)} | {unset} | {field.get('description', '')} |\n"


def _value(value: object) -> str:
    spelt = {None: "", True: "`true`", False: "`false`"}
    return spelt[value] if value is None or isinstance(value, bool) else f"`{value}`"


def _type(schema: Schema) -> str:
    if "$ref" in schema:
        name = _named(schema)
        return f"[{name}](#{name.lower()})"
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(_type(one) for one in schema[several] if one.get("type") != "null"))
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items') or {})}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return str(schema.get("type", "anything"))


def _errors() -> Iterator[str]:
    kinds = [kind for kind in _kinds(ServiceError) if kind not in (ServiceError, HttpError)]
    for kind in sorted(kinds, key=lambda kind: (kind.status, kind.title)):
        yield f"| {kind.status} | {kind.title} | {' '.join((kind.__doc__ or '').split())} |\n"
    ours = "A fault of the service: its log has it under the request id."
    yield f"| {ServiceError.status} | {ServiceError.title} | {ours} |\n"


def _kinds(kind: type[ServiceError]) -> Iterator[type[ServiceError]]:
    """Those of the service, and not those of tests."""
    if kind.__module__ == ServiceError.__module__:
        yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


if __name__ == "__main__":
    sys.stdout.write(page())
