"""The description of the HTTP API: OpenAPI 3.1 for programs, and a page of it for people that needs no script."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from html import escape
from typing import Any

from headstart import __version__

TEXT = {
    "image": "The bytes of an image file.",
    "task": 'The Hugging Face task: {"inputs": an image in base64, or a list of them, "parameters": {"top_k": n}}.',
}
ERRORS = {
    "400": "The request cannot be read.",
    "401": "The token is missing.",
    "403": "Host or origin is not allowed.",
    "404": "There is no such model or route.",
    "413": "The body has too many bytes, images or values.",
    "415": "The Content-Type cannot be read.",
    "422": "The image cannot be read.",
    "503": "Busy, or not ready; Retry-After says when to come again.",
}


def openapi(names: Sequence[str]) -> dict[str, Any]:
    """Return the OpenAPI description of a server of models with these names."""
    paths: dict[str, Any] = {"/predict": {"post": _predict()}} if len(names) == 1 else {}
    paths |= {f"/predict/{name}": {"post": _predict()} for name in names}
    paths["/models"] = {"get": _get("The models: classes, SHA-256, readiness, whether images drift; and the limits.")}
    paths["/health"] = {"get": _get("200 where all models are ready, else 503. Needs no token.")}
    paths["/metrics"] = {"get": _get("Metrics as Prometheus reads them.", "text/plain")}
    paths["/v2"] = {"get": _get("Open Inference Protocol v2: the server.")}
    paths["/v2/health/live"] = {"get": _get("Whether the server runs. Needs no token.")}
    paths["/v2/health/ready"] = {"get": _get("Whether all models are ready. Needs no token.")}
    for name in names:
        paths[f"/v2/models/{name}"] = {"get": _get("Inputs and outputs of the model.")}
        paths[f"/v2/models/{name}/ready"] = {"get": _get("Whether the model is ready.")}
        paths[f"/v2/models/{name}/infer"] = {"post": _infer()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "headstart serve", "version": __version__},
        "paths": paths,
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _responses(description: str, media_type: str = "application/json") -> dict[str, Any]:
    failed = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
    errors = {
        status: {"description": text, "content": {"application/json": {"schema": failed}}}
        for status, text in ERRORS.items()
    }
    return {"200": {"description": description, "content": {media_type: {}}}, **errors}


def _get(summary: str, media_type: str = "application/json") -> dict[str, Any]:
    return {"summary": summary, "responses": _responses(summary, media_type)}


def _predict() -> dict[str, Any]:
    number = {"type": "integer", "minimum": 1}
    switch = {"type": "string", "enum": ["0", "1"]}
    parameters = {
        "top_k": (number, "How many classes to name: 5, or all with full=1; of several labels an image all."),
        "full": (switch, "1: also the prediction set, none of these, the OOD score, and the SHA-256 of the model."),
        "explain": (switch, "1, with full=1: also where the model looked."),
    }
    task = {
        "type": "object",
        "properties": {"inputs": {"type": ["string", "array"]}, "parameters": {"type": "object"}},
        "required": ["inputs"],
    }
    return {
        "summary": "Predict the class of an image, or its labels, or those of each image of a list.",
        "parameters": [
            {"name": name, "in": "query", "schema": schema, "description": text}
            for name, (schema, text) in parameters.items()
        ],
        "requestBody": {
            "required": True,
            "content": {
                "image/*": {"schema": {"type": "string", "format": "binary"}, "description": TEXT["image"]},
                "application/json": {"schema": task, "description": TEXT["task"]},
            },
        },
        "responses": _responses(
            '[{"label", "score"}], most probable first, of several labels an image with "threshold" and "holds"; a '
            "list of these for a list of images."
        ),
    }


def _infer() -> dict[str, Any]:
    return {
        "summary": "Open Inference Protocol v2, with its binary tensor extension: `pixels` or `image` in.",
        "requestBody": {"required": True, "content": {"application/json": {}, "application/octet-stream": {}}},
        "responses": _responses('{"model_name", "model_version", "outputs"}'),
    }


def api_page(description: dict[str, Any], address: str, needs_token: bool) -> str:
    """Return the description as a page, with an example to paste: ``address`` is that by which the server was asked."""
    path = next(path for path, methods in description["paths"].items() if "post" in methods)
    token = '-H "Authorization: Bearer $HEADSTART_TOKEN" ' if needs_token else ""
    url = shlex.quote(address + path)  # the address is that of a Host header
    example = f"curl --data-binary @new.jpg -H 'Content-Type: image/jpeg' {token}{url}"
    routes = "".join(
        f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation['summary'])}</p>"
        f"{_table('Parameter', _parameters(operation))}{_table('Body', _bodies(operation))}"
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>headstart serve: API</title></head>'
        "<body><h1>API</h1><p>For programs: <a href='/openapi.json'>openapi.json</a>. "
        "With a token, send <code>Authorization: Bearer TOKEN</code>.</p>"
        f"<pre>{escape(example)}</pre>"
        f"{routes}<h2>Errors</h2><p>Each is <code>{{&quot;error&quot;: text}}</code>.</p>"
        f"{_table('Status', ERRORS)}</body></html>"
    )


def _parameters(operation: dict[str, Any]) -> dict[str, str]:
    return {parameter["name"]: parameter["description"] for parameter in operation.get("parameters", ())}


def _bodies(operation: dict[str, Any]) -> dict[str, str]:
    content = operation.get("requestBody", {}).get("content", {})
    return {kind: value.get("description", "") for kind, value in content.items()}


def _table(heading: str, rows: dict[str, str]) -> str:
    if not rows:
        return ""
    cells = "".join(f"<tr><td><code>{escape(k)}</code></td><td>{escape(v)}</td></tr>" for k, v in rows.items())
    return f"<table><thead><tr><th>{heading}</th><th></th></tr></thead><tbody>{cells}</tbody></table>"
