"""06xx: files and documents that cannot be read, and fields that are not as their kind has them."""

from __future__ import annotations

from tulle.core.analyze.codes.code import Code, error


def _schema(code: str, reasons: str, title: str, explanation: str, hint: str) -> Code:
    """istioctl has one code for all of them."""
    return error(code, reasons, title, explanation, hint, istio="IST0106")


CODES = (
    _schema(
        "TUL0601", "BadYaml", "Neither YAML nor JSON", "The text does not parse.", "mend the text at the place that is named"
    ),
    _schema("TUL0602", "BadEncoding", "The text is not UTF-8", "Files are read as UTF-8.", "save the file as UTF-8"),
    _schema("TUL0603", "TooLarge", "Too much", "Anchors and aliases expand to far more than was written.", "write it out"),
    _schema(
        "TUL0604",
        "NotAnObject",
        "The document is no object",
        "A document has apiVersion, kind and metadata at its top.",
        "separate documents by a line ---",
    ),
    _schema(
        "TUL0605",
        "Duplicate",
        "Twice in one place",
        "A key, a name or a port stands twice where it may stand once.",
        "remove or rename one of the two",
    ),
    _schema(
        "TUL0606",
        "DuplicateObject",
        "The object is in the files twice",
        "Two documents have the same kind, namespace and name; the later would replace the earlier.",
        "remove or rename one of the two",
    ),
    _schema(
        "TUL0607",
        "UnknownField",
        "The field does not exist",
        "The kind has no field of that name at that place. It would be ignored, and so it is refused.",
        "correct the name; the indentation may put a field into the wrong object",
    ),
    _schema("TUL0608", "Required", "Something is missing", "A field that must be there is not.", "add it"),
    _schema(
        "TUL0609", "WrongType", "A value of the wrong type", "A number, a text, a list or an object is needed.", "correct it"
    ),
    _schema("TUL0610", "BadEnum", "Not one of the allowed words", "The field takes only certain words.", "use one of them"),
    _schema(
        "TUL0611", "BadFormat", "A value of the wrong form", "A text does not have the form that the field needs.", "correct it"
    ),
    _schema("TUL0612", "BadName", "A name that cannot be one", "Names of objects, ports and headers have rules.", "correct it"),
    _schema("TUL0613", "BadHost", "A host that cannot be one", "A host name or an address is needed.", "correct it"),
    _schema("TUL0614", "BadPath", "A path that cannot be one", "Paths are absolute and normal.", "correct it"),
    _schema("TUL0615", "BadRegex", "A wrong regular expression", "Expressions are RE2's and match the whole text.", "correct it"),
    _schema("TUL0616", "BadLabel", "A wrong label or annotation", "Keys and values have Kubernetes' form.", "correct it"),
    _schema(
        "TUL0617",
        "BadNamespace",
        "A wrong namespace",
        "The namespace is no DNS label, or stands where there is none.",
        "correct or remove it",
    ),
    _schema("TUL0618", "OneOf", "Fields that exclude each other", "Of some fields only one may be written.", "remove the others"),
    _schema("TUL0619", "OutOfRange", "A number out of range", "The number is too small or too large.", "correct it"),
    _schema("TUL0620", "TooFew", "Too few items", "The list or map needs more.", "add some"),
    _schema("TUL0621", "TooMany", "Too many items", "The list or map takes fewer.", "remove some, or split the object"),
    _schema("TUL0622", "TooShort", "A text that is too short", "The text may not be empty, or needs more.", "write more"),
    _schema("TUL0623", "TooLong", "A text that is too long", "The text has a bound.", "write less"),
    _schema("TUL0624", "Invalid", "A rule of the kind is broken", "Fields do not fit together.", "read the message"),
    _schema(
        "TUL0625",
        "NamespaceMismatch",
        "Another namespace than --namespace says",
        "The command said -n, and the object names another namespace.",
        "leave out -n, or correct the object",
    ),
    _schema(
        "TUL0626",
        "BadAnnotation",
        "An annotation that cannot be read",
        "Annotations of tulle.dev have a form.",
        "let the node agent write it, or correct it",
    ),
    _schema(
        "TUL0627", "BadAddress", "An address that cannot be one", "An address that others can reach is needed.", "correct it"
    ),
)
