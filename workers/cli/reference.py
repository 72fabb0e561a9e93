"""Writes the reference pages that the code itself can write: every setting, every key of the policy, its JSON Schema, ACLs, AsyncAPI.

python -m workers.cli.reference            write them to docs/reference/
python -m workers.cli.reference --check    write nothing; exit 1 and name the files that are not current
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from workers.policy import AlertsPolicy, AuditPolicy, Budget, CachePolicy, CompressPolicy, Model, Policy, Price, Rules, Tenant
from workers.runtime import rights
from workers.runtime.asyncapi import document
from workers.settings import Kafka, variables

FOLDER = Path(__file__).parents[2] / "docs" / "reference"
GENERATED = "<!-- Written by python -m workers.cli.reference; do not edit. -->"

PARTS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("The file", Policy),
    ("`models.NAME`", Model),
    ("`models.NAME.price`", Price),
    ("`defaults` and `features.NAME`", Rules),
    ("`cache`", CachePolicy),
    ("`compress`", CompressPolicy),
    ("`audit`", AuditPolicy),
    ("`budgets`", Budget),
    ("`alerts`", AlertsPolicy),
    ("`tenants.NAME`", Tenant),
)


def files() -> Iterator[tuple[str, str]]:
    """Name and text of every generated page."""
    yield "settings.md", settings_page()
    yield "policy.md", policy_page()
    yield "acls.md", acls_page()
    yield "policy.schema.json", json.dumps(policy_schema(), indent=2, ensure_ascii=False) + "\n"
    yield "asyncapi.json", json.dumps(document(), indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def policy_schema() -> dict[str, Any]:
    """The JSON Schema of a policy file, for editors. What refers from one key to another is checked by scrimp alone."""
    schema = Policy.model_json_schema()
    # A feature may name any part of the rules; all of them have a default.
    schema["properties"]["features"]["additionalProperties"] = {"$ref": "#/$defs/Rules"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def settings_page() -> str:
    """Every setting as a Markdown table."""
    rows = [(f"`{name}`", _default(field), _allowed(field), field.description or "") for name, field in variables()]
    return _page(
        "Settings",
        "Environment variables, or lines of a file `.env` in the working directory; the environment wins. A name that begins with "
        "`SCRIMP_` and does not stand here stops the process, and so does a wrong value. What concerns the business is in the "
        "[policy file](policy.md).",
        _table(("Name", "Default", "Values", "What it is for"), rows),
    )


def policy_page() -> str:
    """Every key of the policy file as Markdown tables."""
    sections = []
    for title, part in PARTS:
        rows = [(f"`{name}`", _default(field), _allowed(field), field.description or "") for name, field in part.model_fields.items()]
        sections.append(f"## {title}\n\n{part.__doc__}\n\n{_table(('Key', 'Default', 'Values', 'What it is for'), rows)}")
    return _page(
        "Policy file",
        "A YAML file named by `SCRIMP_POLICY_FILE`, read again when it changes. A file that is wrong stops the process at its start; "
        "while it runs, the file is refused and the old policy stays. [policy.schema.json](policy.schema.json) describes it to editors.",
        "\n".join(sections),
    )


def acls_page() -> str:
    """Who needs which rights on the broker, with the names that topics and groups have when nothing is set."""
    roles = rights.roles(Kafka())
    topics = roles.pop("topics")
    kinds = (("Read", "topic"), ("Read", "group"), ("Write", "topic"))
    assert {(right.operation, right.resource) for its in roles.values() for right in its} == set(kinds)
    operations = list(dict.fromkeys(right.operation for right in topics))
    rows = [(f"`{role}`", *(_names(its, *kind) for kind in kinds)) for role, its in roles.items()]
    return _page(
        "Rights on the broker",
        "What each process needs of a Kafka that has an authorizer, and no more. `scrimp topics acls` prints it as commands, with your own "
        "prefixes and the topics that your policy gives to tenants. How to set users up: [Kafka security](../kafka-security.md).",
        _table(("Role", *(f"{operation}, {kind}s" for operation, kind in kinds)), rows)
        + f"\n`topics` (`scrimp topics apply` and `check`, `scrimp doctor`) needs {', '.join(operations)} on every topic: "
        f"{_names(topics, operations[0], 'topic')}.\n\n"
        "`dead` is for `scrimp dead list`, `show` and `replay`, `ask` for whoever sends requests and reads responses. A process that runs "
        "several stages needs what each of them needs; `cache` without a Qdrant server remembers, too. Of a tenant's own "
        "`responses_topic`, `attribute` needs Write and every other stage Describe.\n",
    )


def _names(its: Sequence[rights.Right], operation: str, resource: str) -> str:
    return ", ".join(f"`{right.name}`" for right in its if (right.operation, right.resource) == (operation, resource))


def _page(title: str, about: str, body: str) -> str:
    return f"{GENERATED}\n\n# {title}\n\n{about}\n\n{body}"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    match field.default:
        case None | "" | () | SecretStr():
            return ""
        case bool(value):
            return f"`{str(value).lower()}`"
        case tuple(values):
            return f"`{', '.join(map(str, values))}`"
        case BaseModel():
            return "see below"
        case dict(value):
            return f"`{{{', '.join(f'{k}: {v}' for k, v in value.items())}}}`"
        case value:
            return f"`{value}`"


def _allowed(field: FieldInfo) -> str:
    kind = field.annotation
    inner = [a for a in get_args(kind) if a is not type(None)] if get_origin(kind) is not Literal else []
    if type(None) in get_args(kind) and len(inner) == 1:
        kind = inner[0]
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind) if value != "")
    return " and ".join(_bound(m) for m in field.metadata if isinstance(m, Ge | Gt | Le | Lt))


def _bound(limit: Ge | Gt | Le | Lt) -> str:
    match limit:
        case Ge():
            return f"at least {limit.ge}"
        case Gt():
            return f"above {limit.gt}"
        case Le():
            return f"at most {limit.le}"
        case Lt():
            return f"below {limit.lt}"


def stale(folder: Path = FOLDER) -> list[str]:
    """Pages in `folder` that are missing or not what the code says."""
    return [name for name, text in files() if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != text]


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m workers.cli.reference", description="Write the generated reference pages.")
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is not current")
    given = parser.parse_args(arguments)
    if given.check:
        for name in (old := stale(given.folder)):
            print(f"{given.folder / name} is not current: run python -m workers.cli.reference", file=sys.stderr)
        return 1 if old else 0
    given.folder.mkdir(parents=True, exist_ok=True)
    for name, text in files():
        (given.folder / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
