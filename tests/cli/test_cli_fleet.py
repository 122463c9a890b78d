"""Fleets of the configuration file, and the commands that ask them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.raw_site import raw_site, replying

from gprochat_anyio import Fleet
from gprochat_anyio.cli._config import read_config
from gprochat_anyio.cli._config_file import ConfigError
from gprochat_anyio.cli._main import gprochat
from gprochat_anyio.cli._options import complete_site
from gprochat_anyio.cli._sites import named_site

SITES = '[sites.a]\nurl = "http://a"\n[sites.b]\nurl = "http://b"\n'


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.touch(0o600)
    monkeypatch.setenv("GPROCHAT_CONFIG", str(path))
    return path


def test_is_a_site_with_members(file: Path) -> None:
    file.write_text(f'default = "all"\n{SITES}[fleets.all]\nsites = ["b", "a"]\n')
    config = read_config()
    assert config.fleets == {"all": ("b", "a")}
    assert config.names == ("a", "b", "all")
    site = named_site(config, "all", {"secret_key": "k"})
    assert (site.label, site.inside, site.url) == ("all", False, "http://b http://a")
    assert [(member.name, member.secret_key) for member in site.members] == [("b", "k"), ("a", "k")]
    client = site.client()
    assert isinstance(client, Fleet)
    assert client.url == "http://a http://b"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('fleets = "x"', 1, "fleets must be tables"),
        ("fleets.all = 1", 1, r"a fleet is a table: \[fleets.all\]"),
        ("[fleets.all]\nsite = 1", 2, "unknown key 'site'"),
        (f'{SITES}[fleets.a]\nsites = ["a"]', 5, "a is a site already"),
        ("[fleets.all]\nsites = []", 2, "sites must be a list of names"),
        ('[fleets.all]\nsites = "a"', 2, "sites must be a list of names"),
        ('[fleets.all]\nsites = ["c"]', 2, r"there is no \[sites.c\]"),
        ("[fleets.all]\nsites = [1]", 2, r"there is no \[sites.1\]"),
        (f'{SITES}[fleets.all]\nsites = ["a", "a"]', 6, "a must be listed once"),
    ],
)
def test_that_is_invalid(file: Path, text: str, line: int, message: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match=rf"line {line}: {message}"):
        read_config()


def test_is_completed(file: Path) -> None:
    file.write_text(f'{SITES}[fleets.all]\nsites = ["b", "a"]\n')
    found = complete_site(None, None, "a")  # type: ignore[arg-type]
    assert [(item.value, item.help) for item in found] == [("a", "http://a"), ("all", "b, a")]


def test_is_asked(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    (tmp_path / "in.txt").write_text("hi\n")
    with raw_site(replying("here")) as site:
        file.write_text(
            f'[sites.a]\nurl = "http://127.0.0.1:1"\n[sites.b]\nurl = "{site.url}"\n'
            '[fleets.all]\nsites = ["a", "b"]\n'
        )
        for _ in range(3):
            result = CliRunner().invoke(gprochat, ["ask", "--site", "all", "hi"])
            assert (result.exit_code, result.stdout.strip()) == (0, "here")
        arguments = ["batch", str(tmp_path / "in.txt"), "--out", str(out), "--site", "all"]
        assert CliRunner().invoke(gprochat, arguments).exit_code == 0
        assert json.loads(out.read_text())["text"] == "here"
        result = CliRunner().invoke(gprochat, ["chat", "--site", "all", "--no-log"], input="hi\n")
        assert "here" in result.stdout


def test_that_is_down_says_so_of_each_site(file: Path) -> None:
    sites = "".join(f'[sites.{n}]\nurl = "http://127.0.0.1:{n}"\n' for n in (1, 2))
    file.write_text(f'{sites}[fleets.all]\nsites = ["1", "2"]\n')
    result = CliRunner().invoke(gprochat, ["ask", "--site", "all", "hi"])
    assert result.exit_code == 3
    assert "127.0.0.1:1" in result.stderr
    assert "127.0.0.1:2" in result.stderr


def test_is_not_checked_as_a_whole(file: Path) -> None:
    file.write_text(f'{SITES}[fleets.all]\nsites = ["b", "a"]\n')
    result = CliRunner().invoke(gprochat, ["check", "--site", "all"])
    assert result.exit_code == 2
    assert "all is a fleet: check its sites one by one, --site b and --site a" in result.stderr
