"""What people are told of a rollout, in the JSON that Slack's incoming webhooks take. Pure."""

from __future__ import annotations

from typing import Any

from tulle.core.rollout.decide import Note

Raw = dict[str, Any]

# What is told at all, and how bad it is.
_SEVERITIES = {"Started": "info", "Succeeded": "info", "Paused": "warn", "RolledBack": "error"}
_RANKS = {"info": 0, "warn": 1, "error": 2}
_COLORS = {"info": "good", "warn": "warning", "error": "danger"}
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def wanted(severity: str, note: Note) -> bool:
    """Whether an alert of a severity is for this."""
    return note.reason in _SEVERITIES and _RANKS[_SEVERITIES[note.reason]] >= _RANKS[severity]


def message(namespace: str, name: str, target: str, weight: int, note: Note) -> Raw:
    """The message: `text` for whoever shows nothing else, an attachment with a colour for Slack."""
    severity = _SEVERITIES.get(note.reason, "info")
    said = note.message.translate(_ESCAPES)
    fields = {"Service": target, "Candidate": f"{weight}%", "Severity": severity}
    return {
        "text": f"Rollout {namespace}/{name}: {note.reason}: {said}",
        "attachments": [
            {
                "color": _COLORS[severity],
                "title": f"{note.reason}: {namespace}/{name}",
                "text": said,
                "fields": [{"title": title, "value": value, "short": True} for title, value in fields.items()],
            }
        ],
    }
