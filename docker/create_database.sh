#!/usr/bin/env bash
# Create one database with an owner who is no superuser. PostgreSQL's images run this once, on an empty data folder.
# DATABASE names both, DATABASE_PASSWORD is the owner's, EXTENSIONS lists what only a superuser may install.
set -euo pipefail

# The password goes from the environment into psql: on a command line, every process could read it.
psql --set ON_ERROR_STOP=1 --no-psqlrc --username "$POSTGRES_USER" --dbname postgres --set database="$DATABASE" <<'SQL'
\getenv password DATABASE_PASSWORD
create role :"database" login password :'password';
create database :"database" owner :"database";
SQL

for extension in ${EXTENSIONS:-}; do
    psql --set ON_ERROR_STOP=1 --no-psqlrc --username "$POSTGRES_USER" --dbname "$DATABASE" \
        --set extension="$extension" <<<'create extension if not exists :"extension";'
done
