"""Private keys never leave: Envoy redacts them in its dumps, and this is once more, for files from elsewhere too."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

REDACTED = "[redacted]"
_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_FIELDS = ("private_key", "privateKey", "session_ticket_keys", "password", "pkcs12")


def redact(document: Any) -> Any:
    """A copy without the fields that hold keys, and without PEM keys in any other text or base64 of text."""
    if isinstance(document, dict):
        return {name: _hidden(value) if name in _FIELDS else redact(value) for name, value in document.items()}
    if isinstance(document, list):
        return [redact(item) for item in document]
    if isinstance(document, str):
        return _text(document)
    return document


def _hidden(value: Any) -> Any:
    """Where a key comes from may be shown (a file's name); what it is may not."""
    if isinstance(value, dict):
        return {name: inner if name == "filename" else _hidden(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_hidden(item) for item in value]
    return REDACTED if value else value


def _text(text: str) -> str:
    if "PRIVATE KEY" in text:
        return _KEY.sub(REDACTED, text)
    if text.startswith("LS0tLS1CRUdJTi"):  # base64 of "-----BEGIN "
        try:
            if b"PRIVATE KEY" in base64.b64decode(text):
                return REDACTED
        except binascii.Error:
            return text
    return text
