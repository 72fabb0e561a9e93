"""The schema: what `upgrade` makes is what `tables.py` says, once, however many upgrade."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from tests.unit.ledger.scenario import execute
from workers.ledger.database import make_engine
from workers.ledger.migrate import LedgerNotReady, check, upgrade
from workers.ledger.tables import metadata
from workers.outcomes import Unavailable

SQLITE_SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE tbl_name != 'alembic_version' ORDER BY type, name"
POSTGRES_SCHEMA = """
    SELECT 'column' AS what, table_name || '.' || column_name AS name,
           concat_ws(' ', data_type, udt_name, is_nullable, column_default, is_identity) AS definition
      FROM information_schema.columns WHERE table_schema = 'public' AND table_name != 'alembic_version'
    UNION ALL SELECT 'constraint', conname, pg_get_constraintdef(oid) FROM pg_constraint
      WHERE connamespace = 'public'::regnamespace AND conname NOT LIKE 'alembic%'
    UNION ALL SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename != 'alembic_version'
    UNION ALL SELECT 'option', relname, array_to_string(reloptions, ',') FROM pg_class
      WHERE relnamespace = 'public'::regnamespace AND reloptions IS NOT NULL
    ORDER BY 1, 2"""


async def schema(url: str) -> list[tuple[str, ...]]:
    """Everything the database says about its tables, without the layout of the statements that made them."""
    rows = await execute(url, SQLITE_SCHEMA if "sqlite" in url else POSTGRES_SCHEMA)
    return [tuple(" ".join(str(value).replace("(", " ( ").split()) for value in row) for row in rows]


async def test_the_migrations_make_the_tables_of_the_code(empty_url: str) -> None:
    engine = make_engine(empty_url, 1)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    wanted = await schema(empty_url)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.drop_all)
    await engine.dispose()
    await upgrade(empty_url)
    assert {w[1] for w in wanted} >= {"attempt_state_ck", "request_kept_ix"} or "sqlite" in empty_url
    assert await schema(empty_url) == wanted


async def test_alembic_finds_nothing_to_add(empty_url: str) -> None:
    await upgrade(empty_url)
    engine = make_engine(empty_url, 1)

    def differences(connection: sa.Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()


async def test_to_upgrade_again_changes_nothing(empty_url: str) -> None:
    first = await upgrade(empty_url)
    before = await schema(empty_url)
    assert await upgrade(empty_url) == first
    assert await schema(empty_url) == before
    await check(empty_url)


async def test_several_upgrade_at_once(empty_url: str) -> None:
    revisions = await asyncio.gather(*(upgrade(empty_url) for _ in range(8)))
    assert len(set(revisions)) == 1
    await check(empty_url)


async def test_a_database_without_a_ledger(empty_url: str) -> None:
    with pytest.raises(LedgerNotReady, match="`scrimp ledger upgrade` makes one"):
        await check(empty_url)


async def test_to_check_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(LedgerNotReady, match="there is no ledger at"):
        await check(f"sqlite+aiosqlite:///{tmp_path / 'none.db'}")
    assert not await asyncio.to_thread((tmp_path / "none.db").exists)


async def test_a_ledger_that_is_newer(empty_url: str) -> None:
    await upgrade(empty_url)
    await execute(empty_url, "UPDATE alembic_version SET version_num = '9999'")
    for refuses in (check, upgrade):
        with pytest.raises(LedgerNotReady, match=r"newer \(9999\) than this program"):
            await refuses(empty_url)


async def test_a_ledger_that_is_older(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    revision = await upgrade(empty_url)
    monkeypatch.setattr("alembic.script.ScriptDirectory.get_current_head", lambda self: "9998")
    with pytest.raises(LedgerNotReady, match=rf"older \({revision}\) than this program \(9998\); run `scrimp ledger upgrade`"):
        await check(empty_url)


async def test_every_message_is_one_line(empty_url: str) -> None:
    with pytest.raises(LedgerNotReady) as told:
        await check(empty_url)
    assert "\n" not in str(told.value)


async def test_a_database_that_cannot_be_reached() -> None:
    for reaches in (check, upgrade):
        with pytest.raises(Unavailable, match="ledger"):
            await reaches("postgresql+asyncpg://scrimp@127.0.0.1:1/none")
