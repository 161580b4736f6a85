"""Redacts secrets in every text that goes into an error, a report or a log."""

from __future__ import annotations

import os
import re

STRUCK = "***"
# The user and password of a URL, and the signature of a presigned one.
_USER = re.compile(r"(?<=://)[^/@\s\"']+@")
_SIGNED = re.compile(
    r"(?i)(?<=[?&])((?:x-(?:amz|goog)-)?(?:signature|credential|security-token|sig|token|password|secret|\w*key)=)"
    r"[^&\s\"']+"
)
_SECRET_NAME = re.compile(r"(?i)secret|token|passw|passphrase|credential|access_?key|api_?key|private_?key")
# Shorter values, such as `1` or `true`, are settings; struck out they would make every text unreadable.
_MIN_SECRET_CHARS = 8


def redacted(text: str) -> str:
    """Return the text without credentials in URLs, and without the values of environment variables that are secrets by name."""
    if "://" in text:
        text = _SIGNED.sub(rf"\1{STRUCK}", _USER.sub(f"{STRUCK}@", text))
    for name, value in os.environ.items():
        if len(value) >= _MIN_SECRET_CHARS and value in text and _SECRET_NAME.search(name):
            text = text.replace(value, STRUCK)
    return text
