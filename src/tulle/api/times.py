"""Points in time as Kubernetes writes them: RFC 3339."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from tulle.api.values import Words

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
_MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)", re.ASCII)
_A_TIME = 'a time such as "2026-01-31T23:59:59Z"'
_A_MICRO_TIME = 'a time with six digits of a second, such as "2026-01-31T23:59:59.000000Z"'


def _is_time(value: str, pattern: re.Pattern[str]) -> bool:
    if not pattern.fullmatch(value):
        return False
    try:
        datetime.fromisoformat(value[:19])
        return value.endswith("Z") or (int(value[-5:-3]) < 24 and int(value[-2:]) < 60)
    except ValueError:
        return False


def _time(value: str) -> str:
    if not _is_time(value, _TIME):
        raise PydanticCustomError("needed", _A_TIME)
    return value


def _micro_time(value: str) -> str:
    if not _is_time(value, _MICRO_TIME):
        raise PydanticCustomError("needed", _A_MICRO_TIME)
    return value


Time = Annotated[str, AfterValidator(_time), Words(_A_TIME), Field(json_schema_extra={"format": "date-time"})]
MicroTime = Annotated[str, AfterValidator(_micro_time), Words(_A_MICRO_TIME), Field(json_schema_extra={"format": "date-time"})]
