"""`tulle apitoken` against a real control plane: a token for a person, and its end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.unit.cli.conftest import Shell


def test_a_token_for_a_person(shell: Shell, tmp_path: Path) -> None:
    """What is made can be handed over as a file, is listed without the token, and ends when it is revoked."""
    made = shell("apitoken", "create", "--user", "vera", "--group", "tulle:viewers", "--lifetime", "1h", "-o", "kubeconfig")
    assert made.returncode == 0, made.stderr
    (tmp_path / "vera").write_text(made.stdout)
    vera = replace(shell, env={**shell.env, "TULLE_KUBECONFIG": str(tmp_path / "vera")})
    assert vera("get", "vs").returncode == 0
    denied = vera("get", "secrets")
    assert denied.returncode == 1
    assert 'User "vera" cannot list resource "secrets"' in denied.stderr
    assert vera("apitoken", "create", "--user", "root", "--group", "system:masters").returncode == 1
    listed = shell("apitoken", "list").stdout.splitlines()
    row = next(line for line in listed if "vera" in line)
    assert "tulle:viewers" in row
    token = made.stdout.partition('token: "')[2].partition('"')[0]
    assert token.split(".")[2] not in "\n".join(listed)
    assert shell("apitoken", "revoke", row.split()[0]).returncode == 0
    gone = vera("get", "vs")
    assert gone.returncode == 1
    assert "Unauthorized" in gone.stderr
    assert token not in gone.stderr
    again = shell("apitoken", "revoke", row.split()[0])
    assert again.returncode == 1
    assert "no token has the id" in again.stderr


def test_the_token_alone(shell: Shell) -> None:
    """For a variable of a pipeline: nothing but the token on standard output."""
    made = shell("apitoken", "create", "--user", "ci")
    assert made.returncode == 0
    assert made.stdout.startswith("tulle-api.")
    assert made.stdout.count("\n") == 1
    assert shell("apitoken", "create").returncode == 64
    assert shell("apitoken", "create", "--user", "x", "--lifetime", "5000d").returncode != 0
