"""The ledger's file: its tables, and how it is opened, made and refused."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from lbt_sim.errors import InputError, Place

__all__ = ["LEDGER_FILE", "connect", "damaged"]

LEDGER_FILE = "run.sqlite"
_APPLICATION_ID = 0x6C627473
_VERSION = 1
_SCHEMA = """
CREATE TABLE heads (id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, turns TEXT NOT NULL);
CREATE TABLE kinds (id INTEGER PRIMARY KEY, model TEXT NOT NULL, purpose TEXT NOT NULL, sampling TEXT NOT NULL,
  choices TEXT NOT NULL, UNIQUE (model, purpose, sampling, choices));
CREATE TABLE calls (
  id INTEGER PRIMARY KEY,
  round INTEGER NOT NULL, step TEXT NOT NULL, agent TEXT NOT NULL, item TEXT NOT NULL, sample INTEGER NOT NULL,
  key BLOB NOT NULL, shared INTEGER NOT NULL, kind INTEGER NOT NULL, head INTEGER NOT NULL, last TEXT NOT NULL,
  seed INTEGER, text TEXT NOT NULL, finish TEXT NOT NULL, logprobs TEXT, prompt_tokens INTEGER,
  cached_tokens INTEGER, completion_tokens INTEGER, reasoning TEXT, error TEXT, seconds REAL NOT NULL);
CREATE UNIQUE INDEX calls_path ON calls (round, step, agent, item, sample);
CREATE INDEX calls_key ON calls (key) WHERE seed IS NULL AND shared = 0;
CREATE TABLE events (path TEXT NOT NULL, kind TEXT NOT NULL, data TEXT NOT NULL, PRIMARY KEY (path, kind));
"""


def connect(file: Path, *, read_only: bool) -> sqlite3.Connection:
    """Opens a ledger's file; for writing, a new one is made.

    Raises:
        InputError: It cannot be opened or made, or is something else.
    """
    uri = f"{file.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
    connection = None
    try:
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        _check_or_make(connection, file, read_only=read_only)
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, sqlite3.Error):
            raise InputError(
                f"the ledger cannot be opened: {error}",
                where=Place(str(file)),
                remedy="Is this a run folder, whole, and on a disk that is not full or read-only? "
                "A run folder holds scenario.yaml, manifest.json, run.sqlite.",
            ) from error
        raise
    return connection


def _check_or_make(connection: sqlite3.Connection, file: Path, *, read_only: bool) -> None:
    """Refuses what is no ledger; makes the tables of a new one, all of them or none."""
    found = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    # Any other program's database is left alone: only an empty file becomes a ledger.
    empty = (found, version) == (0, 0) and not connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    if empty and not read_only:
        connection.executescript(
            f"PRAGMA journal_mode=WAL; BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id={_APPLICATION_ID}; "
            f"PRAGMA user_version={_VERSION}; COMMIT;"
        )
    elif empty:
        raise InputError(
            "the ledger is empty: the run was stopped before its first call",
            where=Place(str(file)),
            remedy="`lbt-sim resume` starts it.",
        )
    elif found != _APPLICATION_ID:
        raise InputError(
            "this is a database, but not a run's ledger",
            where=Place(str(file)),
            remedy="Give a run folder: it holds scenario.yaml, manifest.json and run.sqlite.",
        )
    elif version != _VERSION:
        raise InputError(
            f"this is not a ledger of this version (found version {version}, expected {_VERSION})",
            where=Place(str(file)),
            remedy="Read it with the lbt-sim version named in its manifest.json.",
        )
    if not read_only:
        connection.executescript("PRAGMA synchronous=NORMAL; PRAGMA temp_store=MEMORY;")


def damaged(file: Path, error: sqlite3.Error) -> InputError:
    """What is told when SQLite finds a ledger corrupt."""
    return InputError(
        f"the ledger is damaged: {error}",
        where=Place(str(file)),
        remedy="Put a copy of it back. What can be saved: sqlite3 run.sqlite .recover | sqlite3 saved.sqlite",
    )
