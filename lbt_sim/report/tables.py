"""Tidy tables of a run or a study: what its ledgers hold, as Parquet files, for analyses of one's own.

Runs are read one after the other and written as row groups, so that memory holds one run and the rows that are not
written yet. `python -m lbt_sim.report.tables` prints the page that documents them.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lbt_sim.errors import InputError, Place
from lbt_sim.executions import recorded
from lbt_sim.ledger import LEDGER_FILE
from lbt_sim.report.table_findings import findings
from lbt_sim.report.table_kinds import Table
from lbt_sim.report.table_rows import Block, RunOf, blocks_of
from lbt_sim.report.table_schema import TABLES, arrow_schema, tables_page
from lbt_sim.study.analysis import analyse
from lbt_sim.study.digest import digest
from lbt_sim.study.folder import is_study, load_results, open_study
from lbt_sim.study.record import RunResult
from lbt_sim.transcript.read import RunRecord

__all__ = ["write_tables"]


def write_tables(folder: Path, out: Path) -> list[Path]:
    """Writes the tables of `docs/tables.md`, one Parquet file each: all of them, or none.

    The same folder gives the same bytes.

    Args:
        folder: Of a run or of a study, finished or not.
        out: The folder for the files; made where it is not there. Tables of these names in it are replaced.

    Returns:
        The files, in the order of the page.

    Raises:
        InputError: There is nothing to read in `folder`, or `out` cannot be written.
    """
    if is_study(folder):
        study = open_study(folder)
        factors = tuple(dict.fromkeys(factor for one in study.conditions for factor in one.levels))
        blocks: Iterator[Block] = itertools.chain(_blocks(_runs_of_study(folder)), _findings(folder))
    else:
        factors, blocks = (), _blocks([_run_alone(folder)])
    try:
        return _write(blocks, out, factors)
    except OSError as error:
        raise InputError(
            f"the tables cannot be written: {error.strerror or error}",
            where=Place(str(error.filename or out), key="-o"),
            remedy="With -o, name a folder that is there, or can be made, and that you may write to.",
        ) from error


def _blocks(runs: Iterable[RunOf]) -> Iterator[Block]:
    known: set[str] = set()
    for run in runs:
        yield from blocks_of(run, known)


def _findings(folder: Path) -> Iterator[Block]:
    for table, row in findings(analyse(load_results(folder))):
        # A list would stand for a column of rows.
        yield Block(table, 1, {name: [value] for name, value in row.items()})


def _write(blocks: Iterable[Block], out: Path, factors: Sequence[str]) -> list[Path]:
    out.mkdir(parents=True, exist_ok=True)
    files = {name: out / f"{name}.parquet" for name in TABLES}
    parts = {name: file.with_name(f"{file.name}.part") for name, file in files.items()}
    try:
        with ExitStack() as stack:
            tables = {
                name: stack.enter_context(_TableFile(table, parts[name], factors)) for name, table in TABLES.items()
            }
            for block in blocks:
                tables[block.table].add(block)
        for name, file in files.items():
            parts[name].replace(file)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    return list(files.values())


# --- which runs there are -----------------------------------------------------------------------------------


def _runs_of_study(folder: Path) -> Iterator[RunOf]:
    """Every planned run, condition by condition, then by seed."""
    study, results = open_study(folder), load_results(folder)
    for condition in study.conditions:
        for seed in study.seeds:
            name = study.folder_of(condition.name, seed)
            path = folder / name
            result = results.runs.get((condition.name, seed))
            if result is not None:
                yield RunOf(name, condition, seed, result.status, path, result)
            elif (path / LEDGER_FILE).is_file():
                yield RunOf(name, condition, seed, "unfinished", path, _digest(path, condition.name, seed))
            else:
                yield RunOf(name, condition, seed, "missing", path, None)


def _digest(path: Path, condition: str, seed: int) -> RunResult | None:
    """What an unfinished run has so far; None where its ledger cannot be read."""
    try:
        return digest(path, condition, seed, path.name, "failed")
    except InputError:
        return None


def _run_alone(path: Path) -> RunOf:
    """A run that is no study's.

    Raises:
        InputError: There is no run in the folder, or one that has asked nothing yet.
    """
    with RunRecord(path) as record:
        status, seed = record.status, record.run.get("seed")
    error = None
    if not status:
        last = next(reversed(recorded(path)), {})
        status = "failed" if last.get("how") == "failed" else "unfinished"
        error = str(last.get("error") or "") or None if status == "failed" else None
    name = path.resolve().name
    result = digest(path, "", 0 if seed is None else seed, name, "done" if status == "done" else "failed", error)
    return RunOf(name, None, seed, status, path, result)


# --- a table's file -----------------------------------------------------------------------------------------


class _TableFile:
    """A table that is being written: rows are gathered by column until they make a row group."""

    def __init__(self, table: Table, file: Path, factors: Sequence[str]) -> None:
        from pyarrow.parquet import ParquetWriter

        self._schema = arrow_schema(table, factors)
        self._columns: dict[str, list[Any]] = {name: [] for name in self._schema.names}
        self._most = table.rows
        self._rows = 0
        self._writer = ParquetWriter(file, self._schema, compression="zstd", use_dictionary=True)

    def __enter__(self) -> _TableFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()

    def add(self, block: Block) -> None:
        """Takes rows; a column that a block does not have is null in them."""
        for name, values in self._columns.items():
            given = block.columns.get(name)
            if isinstance(given, list):
                values.extend(given)
            else:
                values.extend([given] * block.rows)
        self._rows += block.rows
        if self._rows >= self._most:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            arrays = [
                _array(values, field.type) for values, field in zip(self._columns.values(), self._schema, strict=True)
            ]
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema), row_group_size=self._rows)
        for values in self._columns.values():
            values.clear()
        self._rows = 0


def _array(values: Sequence[Any], type_: Any) -> Any:
    import pyarrow as pa

    try:
        return pa.array(values, type_)
    except UnicodeEncodeError:  # half characters, which UTF-8 cannot hold, become question marks
        return pa.array([_whole(value) for value in values], type_)


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_whole(one) for one in value]
    return {name: _whole(one) for name, one in value.items()} if isinstance(value, Mapping) else value


if __name__ == "__main__":
    sys.stdout.write(tables_page())
