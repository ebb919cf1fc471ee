from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from lbt_sim.cli.show import show
from lbt_sim.errors import InputError

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(show)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def test_it_shows_a_run_without_colours_in_a_pipe(run_folder):
    result = run(run_folder)
    assert result.exit_code == 0
    assert "a small run" in result.stdout
    assert "\x1b" not in result.stdout


def test_colours_on_request(run_folder):
    assert "\x1b[" in run(run_folder, "--color").stdout


def test_options_reach_the_page(run_folder):
    result = run(run_folder, "--agent", "literal", "--round", 2, "--limit", 1)
    assert "calls 1 to 1 of 4" in result.stdout


def test_no_run_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="there is no ledger"):
        run(tmp_path)


def test_help_has_an_example():
    assert "lbt-sim show runs/" in run("--help").stdout
