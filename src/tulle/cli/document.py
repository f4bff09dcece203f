"""Objects as JSON and YAML, written so that a person can edit them and `tulle apply` read them again."""

from __future__ import annotations

import json
from typing import Any


def dump(document: Any, form: str) -> str:
    """`form` is `json` or `yaml`; ends with a newline."""
    if form == "json":
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    import yaml

    class Dumper(yaml.SafeDumper):
        """Indents lists below their key, and writes texts of several lines as blocks."""

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            super().increase_indent(flow, False)

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    return yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=130)
