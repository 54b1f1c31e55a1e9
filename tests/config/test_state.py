"""Which database, and what must be said with a shared one."""

from __future__ import annotations

import pytest


def test_without_a_word_it_is_a_file_in_the_data_dir(compile_text, tmp_path):
    made = compile_text("data_dir: there\n").database
    assert made.url == f"sqlite:///{tmp_path}/there/gateway.db"
    assert (made.journal_keep, made.usage_days, made.sums_days) == (86_400.0, 90, 731)


def test_a_relative_file_is_meant_from_the_working_directory(compile_text, tmp_path):
    assert compile_text('database: {url: "sqlite:///some.db"}\n').database.url == f"sqlite:///{tmp_path}/some.db"
    assert compile_text('database: {url: "sqlite:////var/some.db"}\n').database.url == "sqlite:////var/some.db"


def test_the_environment_overrides_the_file(compile_text):
    text = f'database: {{url: "sqlite:///some.db"}}\nsecret: {"s" * 32}\n'
    assert compile_text(text, DATABASE_URL="postgresql://u:p@db/gateway").database.url == "postgresql://u:p@db/gateway"


def test_postgresql_needs_a_secret_that_every_replica_knows(compile_text, problems_of):
    text = 'database: {url: "postgresql://u:p@db/gateway"}\n'
    (problem,) = problems_of(text)
    assert "secret: is needed with PostgreSQL" in problem
    assert "LLM_GATEWAY_SECRET" in problem
    assert compile_text(text, LLM_GATEWAY_SECRET="s" * 32).database.url.startswith("postgresql:")


def test_postgresql_means_replicas_so_that_budgets_need_redis(compile_text, problems_of):
    budget = "tenants: {acme: {budgets: [{usd: 1}]}}\n"
    shared = 'database: {url: "postgresql://u:p@db/gateway"}\n'
    assert compile_text(budget)
    assert any("tenants.acme.budgets" in each for each in problems_of(budget + shared, LLM_GATEWAY_SECRET="s" * 32))


@pytest.mark.parametrize("url", ["mysql://u:p@db/gateway", "gateway.db", "postgresql:///gateway", "sqlite://"])
def test_other_addresses_are_refused(problems_of, url):
    (problem,) = problems_of(f'database: {{url: "{url}"}}\n')
    assert "database.url" in problem


def test_a_password_is_never_shown(compile_text, problems_of):
    url = "postgresql://u:hidden-word@db/gateway"
    assert "hidden-word" not in repr(compile_text("{}", DATABASE_URL=url, LLM_GATEWAY_SECRET="s" * 32).database)
    assert not any("hidden-word" in each for each in problems_of("{}", DATABASE_URL=url))
