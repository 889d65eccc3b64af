#!/usr/bin/env bash
# Create one database with an owner who is no superuser, and a role that only reads it. PostgreSQL's images run this once, on an
# empty data folder; run again by hand, it adds what is missing.
# DATABASE names database and owner, DATABASE_PASSWORD is the owner's, EXTENSIONS lists what only a superuser may install.
# READER, if given, is the role that reads, READER_PASSWORD its password.
set -euo pipefail

run_psql() { psql --set ON_ERROR_STOP=1 --no-psqlrc --quiet --username "${POSTGRES_USER:-postgres}" --dbname "$@"; }

# Passwords go from the environment into psql: on a command line, every process could read them.
run_psql postgres --set database="$DATABASE" <<'SQL'
\getenv password DATABASE_PASSWORD
select not exists (select from pg_roles where rolname = :'database') as is_missing \gset
\if :is_missing
    create role :"database" login password :'password';
\endif
select not exists (select from pg_database where datname = :'database') as is_missing \gset
\if :is_missing
    create database :"database" owner :"database";
\endif
SQL

for extension in ${EXTENSIONS:-}; do
    run_psql "$DATABASE" --set extension="$extension" <<<'create extension if not exists :"extension";'
done

if [ -n "${READER:-}" ]; then
    # It reads what is the owner's, also what migrations will create, and has a place to write nowhere: what everybody has otherwise
    # is the owner's. Not by pg_read_all_data, which reads the hashes of passwords, too.
    run_psql "$DATABASE" --set reader="$READER" <<'SQL'
\getenv password READER_PASSWORD
select not exists (select from pg_roles where rolname = :'reader') as is_missing \gset
\if :is_missing
    begin;
    create role :"reader" login password :'password';
    select format('grant usage on schema %1$I to %2$I; grant select on all tables in schema %1$I to %2$I', nspname, :'reader')
    from pg_namespace where nspowner = (select oid from pg_roles where rolname = :'DBNAME') \gexec
    alter default privileges for role :"DBNAME" grant usage on schemas to :"reader";
    alter default privileges for role :"DBNAME" grant select on tables to :"reader";
    alter role :"reader" set default_transaction_read_only = on;
    alter role :"reader" set statement_timeout = '30s';
    revoke temporary on database :"DBNAME" from public;
    revoke create on schema public from public;
    commit;
\endif
SQL
fi
