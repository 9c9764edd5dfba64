"""The description of the interface as a page: what other servers load from a network, written out here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

Schema = Mapping[str, Any]
HEAD = (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}: the interface</title>\n'
    '<script src="/theme.js"></script>\n<link rel="icon" href="/icon.svg">\n<link rel="stylesheet" href="/app.css">\n'
    '</head>\n<body class="reference">\n<main>\n'
)


def reference_page(schema: Schema) -> str:
    """Every path with what it takes and what it answers.

    Args:
        schema: An OpenAPI description.
    """
    info = schema["info"]
    title = escape(info["title"])
    text = "".join(f"<p>{in_code(part)}</p>" for part in info["description"].split("\n\n"))
    routes = [(method, path, route) for path, methods in schema["paths"].items() for method, route in methods.items()]
    listed = "".join(
        f'<li><a href="#{anchor(m, p)}"><code>{m.upper()} {escape(p)}</code></a> {escape(r["summary"])}</li>'
        for m, p, r in routes
    )
    body = "\n".join(route_section(schema, method, path, route) for method, path, route in routes)
    return (
        f'{HEAD.format(title=title)}<p class="back"><a href="/">Back to the search</a></p><h1>The interface</h1>{text}'
        f'<p>For programs: <a href="/openapi.json">openapi.json</a></p><ul class="routes">{listed}</ul>\n{body}\n'
        "</main>\n</body>\n</html>\n"
    )


def route_section(schema: Schema, method: str, path: str, route: Schema) -> str:
    """One path and method."""
    takes = [row for parameter in route.get("parameters", ()) for row in parameter_rows(parameter)]
    takes += list(body_rows(schema, route))
    answer = route["responses"].get("200", {}).get("content", {}).get("application/json", {}).get("schema")
    refused = "".join(
        f"<li><b>{status}</b> {escape(response['description'])}</li>"
        for status, response in route["responses"].items()
        if status != "200"
    )
    return (
        f'<section id="{anchor(method, path)}"><h2><code>{method.upper()} {escape(path)}</code></h2>'
        f"<p>{escape(route.get('description', ''))}</p>"
        + (f"<h3>Takes</h3>{table(takes)}" if takes else "")
        + (f"<h3>Answers</h3>{table(list(field_rows(schema, resolved(schema, answer))))}" if answer else "")
        + f"<details><summary>Refusals</summary><ul>{refused}</ul></details></section>"
    )


def parameter_rows(parameter: Schema) -> Iterator[tuple[str, str, str]]:
    """A parameter of the address."""
    kind = parameter["schema"]
    yield parameter["name"], kind_of(kind) + default(kind, required=parameter["required"]), described(parameter)


def body_rows(schema: Schema, route: Schema) -> Iterator[tuple[str, str, str]]:
    """The fields of a form."""
    for content in route.get("requestBody", {}).get("content", {}).values():
        form = resolved(schema, content["schema"])
        for name, field in form["properties"].items():
            yield name, kind_of(field) + default(field, required=name in form.get("required", ())), described(field)


def field_rows(schema: Schema, model: Schema, depth: int = 0) -> Iterator[tuple[str, str, str]]:
    """The fields of an answer, those of its parts indented below them."""
    for name, field in model.get("properties", {}).items():
        yield "\u2003" * depth + name, kind_of(field), described(field)
        inner = resolved(schema, field.get("items", field))
        values = field.get("additionalProperties")
        if isinstance(values, Mapping) and "$ref" in values:
            inner = resolved(schema, values)
        yield from field_rows(schema, inner, depth + 1)


def resolved(schema: Schema, part: Schema) -> Schema:
    """A part of the description, or what it refers to."""
    if "$ref" not in part:
        return part
    found: Schema = schema["components"]["schemas"][part["$ref"].rsplit("/", 1)[-1]]
    return found


def kind_of(field: Schema) -> str:
    """A type in words."""
    if "anyOf" in field:
        return " or ".join(kind_of(choice) for choice in field["anyOf"])
    if "$ref" in field:
        return "object"
    if field.get("format") == "binary" or "contentMediaType" in field:
        return "file"
    if field.get("type") == "array":
        return f"list of {kind_of(field['items'])}" if "items" in field else "list"
    return str(field.get("type", "anything"))


def default(field: Schema, *, required: bool) -> str:
    """What holds where nothing is given."""
    if required:
        return ", required"
    return "" if field.get("default") is None else f", else {field['default']}"


def described(field: Schema) -> str:
    """What a field is, where that is told."""
    return str(field.get("description", ""))


def table(rows: list[tuple[str, str, str]]) -> str:
    """Names, types and descriptions."""
    lines = "".join(
        f"<tr><th scope=row><code>{escape(name)}</code></th><td>{escape(kind)}</td><td>{escape(text)}</td></tr>"
        for name, kind, text in rows
    )
    return f'<div class="scroll"><table class="figures"><tbody>{lines}</tbody></table></div>'


def in_code(text: str) -> str:
    """Plain text in which `this` is code; escaped."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))


def anchor(method: str, path: str) -> str:
    """The element id of a path."""
    return escape(f"{method}{path.replace('/', '-')}")
