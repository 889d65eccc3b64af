"""What an explorer may be told."""

from typing import Any

import pytest

from spectralize.errors import ConfigError
from spectralize.explorer.context import BoundedSession, Explorer
from spectralize.explorer.settings import read_settings
from spectralize.reader import Store
from tests.explorer.asking import AWAY, PASSWORD


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"HOST": "0.0.0.0"}, "bound to 0.0.0.0, others reach it: set SPECTRALIZE_EXPLORER_PASSWORD, or SPECTRALIZE_"),
        ({"HOST": "::"}, "bound to ::, others reach it: set"),
        ({"HOST": "myhost"}, "bound to myhost, others reach it: set"),
        (
            {"HOST": "0.0.0.0", "PASSWORD": "hunter2hunt"},
            "SPECTRALIZE_EXPLORER_PASSWORD must have at least 12 characters",
        ),
        ({"HOST": "a b"}, "SPECTRALIZE_EXPLORER_HOST: must be an address or a name"),
        ({"PORT": "http"}, "SPECTRALIZE_EXPLORER_PORT: "),
        ({"PORT": "65536"}, "SPECTRALIZE_EXPLORER_PORT: "),
        ({"PROXY_HEADER": "X_Remote"}, "SPECTRALIZE_EXPLORER_PROXY_HEADER: "),
        (
            {"TRUSTED_PROXIES": "10.0.0.0/8 0.0.0.0/0"},
            "SPECTRALIZE_EXPLORER_TRUSTED_PROXIES: must not be the whole internet",
        ),
        ({"TRUSTED_PROXIES": "proxy"}, "SPECTRALIZE_EXPLORER_TRUSTED_PROXIES: "),
        ({"HOSTS": "audio.example:80"}, "SPECTRALIZE_EXPLORER_HOSTS: must be names without ports"),
        ({"SECRET_KEY": "hunter2hunter2"}, "SPECTRALIZE_EXPLORER_SECRET_KEY: must have at least 32 characters"),
        ({"PASSWORD": "hunter2hunter2", "PASSWORD_FILE": "/x"}, "set one of them"),
        ({"PASSWORD_FILE": "/none"}, "SPECTRALIZE_EXPLORER_PASSWORD_FILE: /none: cannot be read"),
    ],
)
def test_wrong_settings_are_one_line(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_settings({f"SPECTRALIZE_EXPLORER_{name}": value for name, value in environment.items()})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "airflow", "https://user:pw@airflow", "https://a/?x=1", "http:///x", "https://a b/"]
)
def test_links_lead_to_airflow_only(url: str) -> None:
    with pytest.raises(ConfigError, match=r"SPECTRALIZE_AIRFLOW_URL: must be an address"):
        read_settings({"SPECTRALIZE_AIRFLOW_URL": url})
    assert read_settings({"SPECTRALIZE_AIRFLOW_URL": "https://a.example/air/"}).airflow_url == "https://a.example/air"


def test_secrets_stay_out_of_sight(tmp_path: Any) -> None:
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    settings = read_settings(
        {
            "SPECTRALIZE_DSN": AWAY,
            "SPECTRALIZE_EXPLORER_PASSWORD_FILE": str(tmp_path / "password"),
            "SPECTRALIZE_EXPLORER_SECRET_KEY": "k" * 32,
            "SPECTRALIZE_EXPLORER_PASSWORD": "",
        }
    )
    assert settings.password is not None
    assert settings.password.get_secret_value() == PASSWORD
    for secret in ("topsecret", PASSWORD, "kkk"):
        assert secret not in f"{settings!r} {settings} {Explorer(settings, Store(BoundedSession(settings)))!r}"
    (tmp_path / "password").write_text("one\ntwo\n")
    with pytest.raises(ConfigError, match="must hold one line"):
        read_settings({"SPECTRALIZE_EXPLORER_PASSWORD_FILE": str(tmp_path / "password")})
