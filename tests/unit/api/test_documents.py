"""Files into documents: places, several in a file, and what does not parse."""

from __future__ import annotations

import json

import pytest

from tulle.api.documents import read_documents

TWO = """\
# a comment before
apiVersion: v1
kind: Service
metadata:
  name: reviews
  labels: {"example.com/tier": gold, day: 2024-01-31, at: 12:30}
spec:
  ports:
  - name: http
    port: 9080
  - {name: admin, port: 0x10}
--- # and another
apiVersion: v1
kind: Namespace
metadata: {name: shop}
"""


def place(text: str, path: str, document: int = 0) -> str:
    documents, problems = read_documents(text, "f.yaml")
    assert not problems
    return str(documents[document].locate(path))


@pytest.mark.parametrize(
    ("path", "document", "where"),
    [
        ("", 0, "f.yaml:2:1"),
        ("metadata.name", 0, "f.yaml:5:3"),
        ('metadata.labels["example.com/tier"]', 0, "f.yaml:6:12"),
        ("spec.ports[0].port", 0, "f.yaml:10:5"),
        ("spec.ports[1]", 0, "f.yaml:11:5"),
        ("spec.ports[1].port", 0, "f.yaml:11:19"),
        ("spec.ports[7].port", 0, "f.yaml:8:3"),
        ("spec.selector.app", 0, "f.yaml:7:1"),
        ("metadata.name", 1, "f.yaml:15:12"),
    ],
)
def test_places(path: str, document: int, where: str) -> None:
    """A message would point to the wrong line, or a missing field to nowhere."""
    assert place(TWO, path, document) == where


def test_scalars_are_kubernetes_scalars() -> None:
    """A date or a time of day would arrive as something that is no string; numbers would differ from kubectl's."""
    text = (
        "{a: 2024-01-31, b: 12:30, c: 0x10, d: 010, e: 1e3, f: .5, g: 1_000, h: yes, i: ~, j: 'yes', k: !!str 5, l: 8_, m: 1.2.3}"
    )
    documents, problems = read_documents(text, "-")
    assert not problems
    assert documents[0].raw == {
        "a": "2024-01-31",
        "b": "12:30",
        "c": 16,
        "d": 8,
        "e": 1000.0,
        "f": 0.5,
        "g": 1000,
        "h": True,
        "i": None,
        "j": "yes",
        "k": "5",
        "l": 8,
        "m": "1.2.3",
    }


def test_keys_are_strings() -> None:
    """`8080: {mode: STRICT}` must be the key "8080", as it is for kubectl."""
    documents, _ = read_documents("{8080: a, true: b}", "-")
    assert documents[0].raw == {"8080": "a", "true": "b"}


def test_aliases_and_merges() -> None:
    """Files that avoid repetition with anchors would be refused or read wrongly."""
    text = "base: &b {x: 1, y: 2}\none: {<<: *b, y: 3}\ntwo: {<<: [{z: 4}, *b]}\nthree: *b\n"
    documents, problems = read_documents(text, "f")
    assert not problems
    assert documents[0].raw["one"] == {"x": 1, "y": 3}
    assert documents[0].raw["two"] == {"z": 4, "x": 1, "y": 2}
    assert documents[0].raw["three"] == {"x": 1, "y": 2}
    assert str(documents[0].locate("one.x")) == "f:1:11"


def test_lists_are_unfolded() -> None:
    """`kubectl get -o yaml` prints lists; applying them must apply what is in them, with the lines of the items."""
    text = "apiVersion: v1\nkind: List\nitems:\n- kind: Service\n  spec: {}\n- kind: Namespace\n"
    documents, problems = read_documents(text, "f")
    assert not problems
    assert [document.raw["kind"] for document in documents] == ["Service", "Namespace"]
    assert str(documents[0].locate("spec")) == "f:5:3"
    typed, _ = read_documents("apiVersion: networking.istio.io/v1\nkind: GatewayList\nitems: [{metadata: {name: a}}]", "f")
    assert typed[0].raw["kind"] == "Gateway"
    assert typed[0].raw["apiVersion"] == "networking.istio.io/v1"


def test_one_bad_document_does_not_hide_the_others() -> None:
    """A mistake in one document would hide what else is in the file, mistakes included."""
    text = "a: 1\n---\nb: [1\n---\nc: 3\n---\nd: 4\nd: 5\n---\ne: 6\n"
    documents, problems = read_documents(text, "f")
    assert [document.raw for document in documents] == [{"a": 1}, {"c": 3}, {"e": 6}]
    assert [(problem.location.line if problem.location else 0, problem.reason) for problem in problems] == [
        (4, "BadYaml"),
        (8, "Duplicate"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("a:\n\tb: 1\n", 2, 1, "spaces instead of the tab"),
        ("a: b: c\n", 1, 5, "quotes around a value"),
        ("a: 'x\n", 2, 1, "closes it"),
        ("a: *nowhere\n", 1, 4, "an anchor"),
        ("a: @x\n", 1, 4, "quotes around a value that starts with @"),
        ("- 1\n- 2\n", 1, 1, "needed an object"),
        ("just text\n", 1, 1, "needed an object"),
        ("a: !!python/object:os.system x\n", 1, 4, "without a tag"),
        ("a: !mine {b: 1}\n", 1, 4, "without a tag"),
        ("a: .nan\n", 1, 4, "needed a number"),
        ("{[1]: 2}\n", 1, 2, "as a key"),
        ("a: &x [*x]\n", 1, 4, "without loops"),
        ("a: \x07\n", 1, 4, "control character U+0007"),
        ('{"a": 1, "a": 2}', 1, 10, '"a" again'),
        ('{"a": 1e999}', 1, 7, "needed a number"),
    ],
)
def test_what_does_not_parse_is_placed_and_explained(text: str, line: int, column: int, words: str) -> None:
    """A person would get the parser's words alone, or no place."""
    documents, problems = read_documents(text, "f.yaml")
    assert not documents
    assert len(problems) == 1
    location = problems[0].location
    assert location is not None
    assert (location.line, location.column) == (line, column), str(problems[0])
    assert words in problems[0].message
    assert "needed" in problems[0].message


def test_bytes_that_are_not_utf8() -> None:
    """A file in another encoding would end in a traceback."""
    for data in (b"a: 1\nb: x\xe9\n", "a: 1".encode("utf-16")):
        documents, problems = read_documents(data, "f")
        assert not documents
        assert problems[0].reason == "BadEncoding"
    _, problems = read_documents(b"a: 1\nb: x\xe9\n", "f")
    assert str(problems[0].location) == "f:2:5"
    assert read_documents(b"\xef\xbb\xbfa: 1", "f")[0][0].raw == {"a": 1}


def test_bombs_are_bounded() -> None:
    """A small file would take all memory, or all of the stack."""
    lines = ["a: &a [x,x,x,x,x,x,x,x,x,x]"]
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]")
    assert [problem.reason for problem in read_documents("\n".join(lines), "f")[1]] == ["TooLarge"]
    for opening in ("[", "{a: ", "- "):
        documents, problems = read_documents(opening * 100_000, "f")
        assert not documents
        assert "levels of nesting" in problems[0].message


def test_json_is_read() -> None:
    """JSON that is no YAML (tabs, surrogate pairs, long keys) would be refused."""
    value = {"kind": "X", "text": "\U0001f600 / \t", "big": 1e3, "list": [{"a": None}], "k" * 2000: 1}
    for text in (json.dumps(value), json.dumps(value, indent="\t"), "\n" + json.dumps(value, indent=2)):
        documents, problems = read_documents(text, "f.json")
        assert not problems
        assert documents[0].raw == value
    text = '{\n\t"kind": "\\ud83d\\ude00",\n\t"kind": 1}'
    assert [problem.reason for problem in read_documents(text, "f.json")[1]] == ["Duplicate"]


def test_nothing_is_nothing() -> None:
    """Comments and empty documents would be mistakes."""
    for text in ("", "\n", "# only a comment\n", "---\n---\n# x\n--- # y\n", "---", "%YAML 1.1\n---\n"):
        assert read_documents(text, "f") == ([], [])


def test_a_separator_inside_a_block_separates() -> None:
    """As in YAML: `---` at a line's start ends a document even inside of a block of text; indented it does not."""
    documents, problems = read_documents("a: |\n  ---\n  x\n---\nb: 1\n", "f")
    assert not problems
    assert [document.raw for document in documents] == [{"a": "---\nx\n"}, {"b": 1}]


def test_ipv6_in_flow_lists() -> None:
    """kubectl reads `[2001:db8::]`; libyaml alone does not."""
    documents, problems = read_documents("a: [1.2.3.4, 001:db8::]\nb: {c: fe80::, d: 1}\n", "f")
    assert not problems
    assert documents[0].raw == {"a": ["1.2.3.4", "001:db8::"], "b": {"c": "fe80::", "d": 1}}
