"""Formats of access logs: what a proxy takes, and what a log must not have."""

from __future__ import annotations

import pytest

from tulle.api.log_format import why_not_format


@pytest.mark.parametrize(
    "text",
    [
        "",
        "100%%",
        '[%START_TIME(%Y-%m-%dT%H:%M:%S.%3f)%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH):40%" %RESPONSE_CODE%\n',
        "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)% %DYNAMIC_METADATA(envoy.filters.http.rbac:a_b)% %FILTER_STATE(a.b:PLAIN):10%",
    ],
)
def test_formats_that_are_fine(text: str) -> None:
    """Broken: a format that people bring along would be refused."""
    assert why_not_format(text) == ""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("%REQ(AUTHORIZATION)%", "needed no authorization"),
        ("%REQ(x-user?Cookie)%", "needed no cookie"),
        ("%RESP(SET-COOKIE):10%", "needed no set-cookie"),
        ("%QUERY_PARAM(token)%", "needed a command"),
        ("%ENVIRONMENT(SECRET)%", "needed a command"),
        ("%RESPONSE_COD%", "needed a command"),
        ("%RESPONSE_CODE(1)%", "needed %RESPONSE_CODE%"),
        ("%REQ%", "needed an argument"),
        ("100%", "needed a command"),
        ("%req(a)%", "needed a command"),
        ("%COMMON_DURATION(a)%", "needed an argument"),
        ("a\x00b", "control character"),
    ],
)
def test_formats_that_are_not(text: str, found: str) -> None:
    """Broken: a proxy would refuse every change because of one format, or write down what lets its reader in."""
    assert found in why_not_format(text)
