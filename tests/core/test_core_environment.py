"""What pods are told, from more than one place, and what names images."""

from __future__ import annotations

import re
from pathlib import Path

import botocore.session
import pytest

from goldpath.core import environment, images
from goldpath.core.errors import SpecError
from goldpath.core.steps import step


def test_what_the_secret_says_wins_over_the_settings() -> None:
    first, second = (
        environment.variables(source)["AWS_ENDPOINT_URL"]
        for source in (environment.STORAGE, environment.SETTINGS)
    )
    assert first == "AWS_ENDPOINT_URL"
    assert second != first, "the API server refuses two variables of one name"
    both = {first: "http://secret", second: "http://settings"}
    environment.settle(both)
    assert both["AWS_ENDPOINT_URL"] == "http://secret"
    one = {second: "http://settings"}
    environment.settle(one)
    assert one["AWS_ENDPOINT_URL"] == "http://settings"


def test_jobs_read_the_storage_and_no_more() -> None:
    settings = environment.variables(environment.SETTINGS, jobs=True)
    assert set(settings) == {"AWS_ENDPOINT_URL", "AWS_REGION"}
    assert "HF_TOKEN" in environment.variables(environment.STORAGE, jobs=True)
    assert environment.variables(environment.TRACKING, jobs=True) == {}


def test_the_region_reaches_the_client_of_s3(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step sets what it was told before it does anything."""
    monkeypatch.setenv("GOLDPATH_STEP", "tune")  # put back afterwards
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv(environment.variables(environment.SETTINGS)["AWS_REGION"], "eu-north-1")
    with step("tune"):
        assert botocore.session.Session().get_config_variable("region") == "eu-north-1"


def test_certificates_are_trusted_where_they_are_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "CERTIFICATES_AT", str(tmp_path))
    given = {"SSL_CERT_FILE": "/mine"}
    environment.settle(given)
    assert given == {"SSL_CERT_FILE": "/mine"}
    (tmp_path / "ca.crt").touch()
    environment.settle(given)
    bundle = str(tmp_path / "ca.crt")
    assert given == {"SSL_CERT_FILE": "/mine", "REQUESTS_CA_BUNDLE": bundle, "AWS_CA_BUNDLE": bundle}


@pytest.mark.parametrize(
    "image",
    [
        "trainer",
        "goldpath/trainer:0.1.0",
        "localhost:5000/team/trainer",
        "Registry.example/a-b/c_d/e.f:V1.0-rc.1",
        "ghcr.io/team/trainer:1@sha256:" + "a" * 64,
    ],
)
def test_an_image_is_named_as_registries_name_it(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOLDPATH_TRAINER_IMAGE", image)
    assert images.trainer() == image


@pytest.mark.parametrize(
    "image",
    ["bad image", "Team/Trainer", "a:b:c", "a/", "/a", "a@sha256:12", "https://a/b", "a:", "a\n", "-a"],
)
def test_what_names_no_image_is_refused(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOLDPATH_IMAGE", image)
    with pytest.raises(SpecError, match="^" + re.escape("GOLDPATH_IMAGE is ")):
        images.launcher()
