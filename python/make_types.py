#!/usr/bin/env python3
"""Writes src/martlet/types.py and src/martlet/operations.py from openapi.yaml. make_types.py [--check]

Needs PyYAML. With --check it writes nothing, and ends with 1 where a file is not what it would write.
"""

import json
import keyword
import pathlib
import sys

import yaml

HERE = pathlib.Path(__file__).resolve().parent
PACKAGE = HERE / "src" / "martlet"
PLAIN = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}


def is_operators(operation):
    """Whether an operation is for staff: clients' are the client's business, and pages are for browsers."""
    return operation["tags"][0] not in ("participation", "pages") and operation["operationId"] != "registerClient"


class Types:
    """TypedDicts of schemas, each with those that it needs before it."""

    def __init__(self, document):
        self.document = document
        self.written = {}

    def resolved(self, node):
        while "$ref" in node:
            target = self.document
            for part in node["$ref"].split("/")[1:]:
                target = target[part]
            node = target
        return node

    def of(self, node, name):
        """The annotation of a schema; objects with fields become classes."""
        if "$ref" in node:
            name = node["$ref"].rsplit("/", 1)[1]
            target = self.resolved(node)
            return self.of(target, name) if target is not node else name
        for word in ("oneOf", "anyOf"):
            if word in node:
                return " | ".join(dict.fromkeys(self.of(one, f"{name}{index or ''}") for index, one in enumerate(node[word])))
        if "enum" in node:
            return f"Literal[{', '.join(json.dumps(value) for value in node['enum'])}]"
        kinds = node.get("type")
        if isinstance(kinds, list):
            return " | ".join(self.of({**node, "type": kind}, name) for kind in kinds)
        if kinds == "array":
            return f"list[{self.of(node.get('items', {}), name.removesuffix('s'))}]"
        if kinds == "object" or "properties" in node:
            if "properties" in node:
                return self.object(node, name)
            values = node.get("additionalProperties")
            return f"dict[str, {self.of(values, name) if isinstance(values, dict) else 'Any'}]"
        return PLAIN.get(kinds, "Any")

    def object(self, node, name):
        if name in self.written:
            return name
        self.written[name] = ""
        required = set(node.get("required", []))
        fields = {}
        for field, schema in node["properties"].items():
            fields[field] = self.of(schema, name + "".join(part.title() for part in field.split("_"))), schema.get("description")
        text = self.fields(f"_{name}Required", "TypedDict", None, fields, required, node) if required else ""
        optional = set(fields) - required
        if required and optional:
            text += self.fields(name, f"_{name}Required, total=False", node.get("description"), fields, optional, node)
        elif required:
            text = text.replace(f"_{name}Required", name, 1)
        else:
            text = self.fields(name, "TypedDict, total=False", node.get("description"), fields, optional, node)
        # Those that it needs were written while its fields were read.
        del self.written[name]
        self.written[name] = text
        return name

    def fields(self, name, base, description, fields, wanted, node):
        lines = [f"class {name}({base}):"]
        for field, (kind, meaning) in fields.items():
            if field in wanted:
                assert field.isidentifier() and not keyword.iskeyword(field), field
                lines.append(f"    {field}: {kind}")
                if meaning:
                    lines.append(f"    {docstring(meaning)}")
        return "\n".join(lines) + "\n\n\n"


def docstring(text):
    text = " ".join(text.split()).replace("\\", "\\\\").replace('"""', "'''")
    return f'"""{text}{" " if text.endswith(chr(34)) else ""}"""'


def types(document):
    made = Types(document)
    for path in document["paths"].values():
        for method, operation in path.items():
            if method == "parameters" or not is_operators(operation):
                continue
            bodies = [made.resolved(operation["requestBody"])] if "requestBody" in operation else []
            for part in bodies + [made.resolved(answer) for answer in operation["responses"].values()]:
                for kind, media in part.get("content", {}).items():
                    if kind.endswith("json"):
                        made.of(media["schema"], operation["operationId"][0].upper() + operation["operationId"][1:])
    return (
        '"""The documents of the server\'s interface. Made of openapi.yaml by make_types.py; do not edit."""\n\n'
        "from __future__ import annotations\n\nfrom typing import Any, Literal, TypedDict\n\n\n"
        + "".join(made.written.values()).rstrip() + "\n"
    )


def operations(document):
    made = Types(document)
    lines = [
        '"""The operator\'s requests. Made of openapi.yaml by make_types.py; do not edit."""', "",
        "from __future__ import annotations", "", "from typing import NamedTuple", "", "",
        "class Operation(NamedTuple):", "    method: str", "    path: str", "    query: tuple[str, ...]",
        "    headers: tuple[str, ...]", "    summary: str", "", "", "OPERATIONS: dict[str, Operation] = {",
    ]
    for template, path in document["paths"].items():
        shared = [made.resolved(one) for one in path.get("parameters", [])]
        for method, operation in path.items():
            if method == "parameters" or not is_operators(operation):
                continue
            all_of_it = shared + [made.resolved(one) for one in operation.get("parameters", [])]
            named = {place: tuple(one["name"] for one in all_of_it if one["in"] == place) for place in ("query", "header")}
            summary = operation["summary"].replace('"', "'")
            lines.append(f'    "{operation["operationId"]}": Operation(')
            lines.append(f'        "{method.upper()}", "{template}", {named["query"]!r}, {named["header"]!r},'.replace("'", '"'))
            lines += [f'        "{summary}",', "    ),"]
    return "\n".join([*lines, "}"]) + "\n"


def main():
    document = yaml.safe_load((HERE.parent / "openapi.yaml").read_text())
    stale = []
    for name, text in (("types.py", types(document)), ("operations.py", operations(document))):
        path = PACKAGE / name
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(text)
    if "--check" in sys.argv and stale:
        sys.exit(f"{', '.join(stale)}: not what openapi.yaml says; run python/make_types.py")


if __name__ == "__main__":
    main()
