"""Secrets never reach what is written down or shown."""

from __future__ import annotations

import json
import logging

import pytest

from unveil.errors import InputError
from unveil.redaction import public_address, redact, redact_tree
from unveil.workflow.job import job

SECRET = "hunter2"


@pytest.mark.parametrize(
    "text",
    [
        f"https://account.blob.core.windows.net/c/a.tif?se=2026&sig={SECRET}",
        f"https://api.example/a.tif?subscription-key={SECRET}&x=1: 403",
        f"HTTPConnectionPool(host='h', port=80): Max retries exceeded with url: /a?sig={SECRET}",
        f"snakemake --wrapper-prefix https://me:{SECRET}@git.example/wrappers --cores 2",
        f"snakemake --wrapper-prefix https://me:x@{SECRET}@git.example/wrappers",
        f"snakemake --storage-s3-secret-key {SECRET} --storage-s3-access-key '{SECRET} {SECRET}'",
        f"snakemake --config api_key={SECRET} password='{SECRET}'",
        f"{{'subscription-key': '{SECRET}', \"token\": \"{SECRET}\"}}",
        f"Authorization: Bearer {SECRET}",
        f"AWS_SECRET_ACCESS_KEY={SECRET} snakemake",
    ],
)
def test_secrets_are_cut_out_of_texts(text):
    assert SECRET not in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "no access token (connection refused)",
        "snakemake --cores 2 --configfile mine.yaml -- search",
        "https://server.example/a/b.tif: the server answers 404 Not Found",
        "what is left? B02, B03; key 'bands', value = 3",
        "preset planetary-computer: monkey=1",
    ],
)
def test_other_texts_stay_as_they_are(text):
    assert redact(text) == text


@pytest.mark.parametrize(
    ("href", "public"),
    [
        ("https://h.example/a.tif", "https://h.example/a.tif"),
        ("s3://eodata/a b.jp2", "s3://eodata/a b.jp2"),
        ("https://me:pw@h.example:8443/a.tif#x", "https://h.example:8443/a.tif"),
        ("https://h.example/get?file=a.tif&subscription-key=K", "https://h.example/get?file=a.tif"),
        ("https://h.example/a.tif?se=1&sp=r&sv=2&sr=c&skoid=x&sig=K", "https://h.example/a.tif"),
        ("https://h.example/a.tif?X-Amz-Signature=K&X-Amz-Date=1&X%2DAmz-Expires=9",
         "https://h.example/a.tif"),
        ("https://h.example/a.tif?Expires=1&Signature=K&Key-Pair-Id=J", "https://h.example/a.tif"),
        ("https://h.example/wcs?se=north&st=1", "https://h.example/wcs?se=north&st=1"),
    ],
)  # fmt: skip
def test_addresses_are_kept_without_what_only_their_owner_may_know(href, public):
    assert public_address(href) == public


@pytest.mark.parametrize("unit", ["a", "a.", "token", "token-", "://", "?a", "a=", "--", "'", "@"])
def test_texts_of_great_length_are_redacted_in_time(unit):
    """A text of twice the size takes twice the steps: nothing here is quadratic."""
    redact(unit * (200_000 // len(unit)))


def test_values_under_key_like_names_are_cut_out_of_documents():
    config = {"a": [f"https://x/?sig={SECRET}"], "api_key": SECRET, "b": {"n": 3, "on": True}}
    assert redact_tree(config) == {"a": ["https://x/?..."], "api_key": "***", "b": config["b"]}
    assert SECRET not in json.dumps(redact_tree({"token": {"deep": [SECRET]}}))


def test_errors_are_redacted_wherever_the_secret_stands():
    address = f"https://me:{SECRET}@h.example/a.tif?sig={SECRET}"
    error = InputError(f"from {address}", file=address, field=address, remedy=f"see {address}")
    assert SECRET not in str(error) and "https://h.example/a.tif" in str(error)


def test_logs_of_jobs_are_redacted_tracebacks_too(tmp_path, capfd):
    path, root = tmp_path / "log", logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        with pytest.raises(SystemExit), job(path) as logger:
            logger.info("asking %s", f"https://h/a?sig={SECRET}")
            raise RuntimeError(f"https://me:{SECRET}@h/b")
    finally:
        root.handlers[:], _ = before, root.setLevel(level)
    text = path.read_text() + capfd.readouterr().err
    assert "https://h/a?..." in text and "Traceback" in text and SECRET not in text
