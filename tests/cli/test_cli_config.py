"""The configuration file, and the choice of a site."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import platformdirs
import pytest
from click.testing import CliRunner, Result
from support.raw_site import RawSite, raw_site, replying

from gprochat_anyio.cli._config import config_path, read_config
from gprochat_anyio.cli._config_file import ConfigError
from gprochat_anyio.cli._main import gprochat
from gprochat_anyio.cli._site import Site
from gprochat_anyio.cli._sites import kept_site

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX modes")


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.touch(0o600)
    monkeypatch.setenv("GPROCHAT_CONFIG", str(path))
    return path


class TestFile:
    def test_is_in_the_platforms_folder(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("GPROCHAT_CONFIG")
        folder = platformdirs.user_config_path("gprochat", appauthor=False)
        assert config_path() == folder / "config.toml"

    @pytest.mark.parametrize("named", [None, ""])
    def test_may_be_missing(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: str | None
    ) -> None:
        monkeypatch.delenv("GPROCHAT_CONFIG")
        if named is not None:
            monkeypatch.setenv("GPROCHAT_CONFIG", named)
        monkeypatch.setattr(platformdirs, "user_config_path", lambda *_, **__: tmp_path)
        config = read_config()
        assert (config.sites, config.default, config.log) == ({}, None, True)
        with pytest.raises(ConfigError, match=r"does not exist yet; create it with \[sites.a\]"):
            config.site("a")
        with pytest.raises(ConfigError, match=r"does not exist yet; create it with \[models.a\]"):
            config.model("a", ("echo",))
        assert config.to_be_made == ", which does not exist yet"

    def test_that_the_environment_names_is_there(self, file: Path) -> None:
        file.unlink()
        with pytest.raises(ConfigError, match=r"GPROCHAT_CONFIG names .*, which does not exist"):
            read_config()

    def test_that_cannot_be_read(self, file: Path) -> None:
        file.unlink()
        file.mkdir()
        with pytest.raises(ConfigError, match=r"cannot read .*config.toml: "):
            read_config()

    def test_is_read(self, file: Path) -> None:
        file.write_text(
            'default = "work"\nlog = false\n[sites.work]\nurl = "https://w"\nsecret_key = "k"\n'
            'password = "p"\nproxy = "http://x"\ntimeouts = { idle = 5, total = inf }\n'
            '[sites.home]\nurl = "http://h"\n'
        )
        config = read_config()
        assert (config.default, config.log, list(config.sites)) == ("work", False, ["work", "home"])
        work = config.site("work")
        assert tuple(work)[:4] == ("https://w", "k", "p", "http://x")
        assert work.timeouts == {"idle": 5, "total": float("inf")}
        assert config.site("home").password is None
        assert repr(work) == "<NamedSite https://w>"

    @pytest.mark.parametrize(
        ("text", "line", "said"),
        [
            ("a = 1\nb = \n", 2, "invalid value; texts are in quotes"),
            ("sites = 1", 1, "tables"),
            ("\nsecret = 1", 2, "unknown key 'secret'"),
            ("log = 1", 1, "true or false"),
            ("log = true\ndefault = 'x'", 2, r"no \[sites.x\]"),
            ("default = ['x']", 1, "default must be the name"),
            ("[sites]\na = 1", 2, r"\[sites.a\]"),
            ("[sites.a]\nurl = 'u'\n[sites.b]\nurl = 1", 4, "url must be a text"),
            ("[sites.a]\nurl = 'u'\nsecretkey = 'k'", 3, "known are url, secret_key"),
            ("\n[sites.a]\nsecret_key = 'k'", 2, "needs a url"),
            ("[sites.a]\nurl = 'u'\ntimeouts = 5", 3, "must be a table"),
            ("[sites.a]\nurl = 'u'\ntimeouts = { idel = 5 }", 3, "unknown key 'idel'"),
            ("[sites.a]\nurl = 'u'\n[sites.a.timeouts]\nidle = -1", 4, "seconds"),
            ("[sites.a]\nurl = 'u'\ntimeouts.idle = nan", 3, "seconds"),
            ("[sites.a]\nurl = 'u'\ntimeouts.idle = true", 3, "seconds"),
            ("[sites.a]\nurl = 'u'\ntimeouts.idle = '1'", 3, "seconds"),
            ('sites = {a = {url = ""}}', 1, "needs a url"),
        ],
    )
    def test_errors_name_the_line(self, file: Path, text: str, line: int, said: str) -> None:
        file.write_text(text)
        with pytest.raises(ConfigError, match=f"config.toml, line {line}: .*{said}"):
            read_config()

    def test_that_ends_too_early(self, file: Path) -> None:
        file.write_text("a = [")
        with pytest.raises(ConfigError, match=r"config.toml: .*end of document"):
            read_config()

    def test_that_is_nested_too_deeply(self, file: Path) -> None:
        file.write_text("a = " + "[" * 10_000)
        with pytest.raises(ConfigError, match=r"config.toml: it is nested too deeply"):
            read_config()

    def test_of_another_encoding(self, file: Path) -> None:
        file.write_bytes(b"a = 1\nb = '\xe9'")
        with pytest.raises(ConfigError, match=r"config.toml, line 2: .*not UTF-8"):
            read_config()

    @posix
    @pytest.mark.parametrize(
        ("key", "mode", "warned"),
        [("secret_key", 0o644, 1), ("password", 0o640, 1), ("password", 0o600, 0), ("x", 0o644, 0)],
    )
    def test_with_secrets_is_for_its_owner(
        self, file: Path, capsys: pytest.CaptureFixture[str], key: str, mode: int, warned: int
    ) -> None:
        secret = "" if key == "x" else f"{key} = 's3cret'"
        file.write_text(f"[sites.a]\nurl = 'u'\n{secret}")
        file.chmod(mode)
        read_config()
        err = capsys.readouterr().err
        assert err.count("chmod 600") == warned
        assert "s3cret" not in err


def ask(*arguments: str, **env: str) -> Result:
    return CliRunner().invoke(gprochat, ["ask", "Hi", *arguments], env=env)


class TestPrecedence:
    @pytest.fixture
    def site(self, file: Path) -> Iterator[RawSite]:
        with raw_site(replying("ok")) as site:
            file.write_text(
                f"default = 'work'\n[sites.work]\nurl = '{site.url}'\npassword = 'of the file'\n"
                f"timeouts = {{ total = 20 }}\n[sites.open]\nurl = '{site.url}/open'\n"
            )
            yield site

    @pytest.mark.parametrize(
        ("arguments", "env", "sent"),
        [
            ([], {}, "of the file"),
            (["--site=work"], {}, "of the file"),
            ([], {"GPROCHAT_PASSWORD": "of the environment"}, "of the environment"),
            (["--site=work", "--password=given"], {"GPROCHAT_PASSWORD": "x"}, "given"),
            # Settings of another site are not sent to this one.
            (
                ["--site=work"],
                {"GPROCHAT_URL": "http://x", "GPROCHAT_PASSWORD": "x"},
                "of the file",
            ),
            (["--site=open"], {"GPROCHAT_URL": "http://x", "GPROCHAT_PASSWORD": "x"}, None),
        ],
    )
    def test_options_environment_file(
        self, site: RawSite, arguments: list[str], env: dict[str, str], sent: str | None
    ) -> None:
        result = ask(*arguments, **env)
        assert (result.stdout, result.stderr) == ("ok\n", "")
        assert site.bodies[0]["pass"] == sent

    def test_a_url_takes_nothing_from_the_file(self, site: RawSite) -> None:
        assert ask("--url", site.url).exit_code == 0
        assert ask(GPROCHAT_URL=site.url).exit_code == 0
        assert [body["pass"] for body in site.bodies] == [None, None]

    def test_limits_come_from_the_file(self, file: Path) -> None:
        text = "[sites.slow]\nurl = 'http://127.0.0.1:9'\ntimeouts = { total = 0 }\n"
        file.write_text(text)
        assert "(--timeout-total)" in ask("--site=slow").stderr
        assert ask("--site=slow", "--timeout-total=10").exit_code == 3

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--site=nobody"], "no site 'nobody', only work, open; add [sites.nobody]"),
            (["--site=work", "--url=http://x"], "not both"),
            (["--site=work", "--model=echo"], "--model and --site exclude each other"),
        ],
    )
    def test_invalid_options(self, site: RawSite, arguments: list[str], said: str) -> None:
        result = ask(*arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert said in result.stderr

    def test_an_unneeded_file_is_not_read(self, file: Path) -> None:
        file.write_text("nonsense\n")
        result = ask()
        assert result.exit_code == 2
        assert result.stderr.startswith(f"gprochat: {file}, line 1: ")
        with raw_site(replying("ok")) as site:
            assert ask("--url", site.url).exit_code == 2, "it may say `log = false`"
            assert ask("--url", site.url, "--no-log").exit_code == 0

    def test_a_batch_takes_a_site(self, site: RawSite, tmp_path: Path) -> None:
        prompts = tmp_path / "prompts.txt"
        prompts.write_text("Hello\n")
        out = str(tmp_path / "out.jsonl")
        arguments = ["batch", str(prompts), "--out", out, "--quiet", "--site=work"]
        assert CliRunner().invoke(gprochat, arguments).exit_code == 0
        assert site.bodies[0]["pass"] == "of the file"

    def test_a_kept_chat_gets_what_belongs_to_its_site(
        self, site: RawSite, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = read_config()
        command = gprochat.get_command(None, "chat")  # type: ignore[arg-type]
        assert command is not None
        ctx = command.make_context("chat", [])
        monkeypatch.setenv("GPROCHAT_PASSWORD", "of the environment")
        assert kept_site(ctx, config, "work", "http://moved").url == site.url
        assert kept_site(ctx, config, "gone", "http://x").password == "of the environment"
        monkeypatch.setenv("GPROCHAT_URL", "http://y")
        assert kept_site(ctx, config, "work", "http://moved").password == "of the file"
        assert kept_site(ctx, config, None, "http://x").password is None
        assert kept_site(ctx, config, None, "http://y").password == "of the environment"
        model = kept_site(ctx, config, None, "http://y", "openai/m")
        assert (model.password, model.label, model.url) == (None, "openai/m", "http://y")


def test_a_site_shows_no_secret() -> None:
    site = Site("http://x", None, "s3cret", "s3cret", "http://s3cret@y")
    assert repr(site) == "<Site http://x>"


class TestCompletion:
    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_is_a_script(self, shell: str) -> None:
        result = CliRunner().invoke(gprochat, ["completion", shell], prog_name="gprochat")
        assert result.exit_code == 0
        assert f"_GPROCHAT_COMPLETE={shell}_complete" in result.stdout

    def complete(self, words: str, last: str) -> str:
        env = {"_GPROCHAT_COMPLETE": "bash_complete", "COMP_WORDS": words}
        env["COMP_CWORD"] = str(len(words.split()) - bool(last))
        return CliRunner().invoke(gprochat, prog_name="gprochat", env=env).stdout

    def test_knows_commands_and_sites(self, file: Path) -> None:
        file.write_text("[sites.work]\nurl = 'u'\n[sites.home]\nurl = 'u'\n")
        assert self.complete("gprochat ch", "ch") == "plain,chat\nplain,check\n"
        assert self.complete("gprochat ask --site w", "w") == "plain,work\n"
        assert self.complete("gprochat help ch", "ch") == "plain,chat\nplain,check\n"

    @pytest.mark.parametrize("words", ["batch", "batch in.txt --out", "serve --certfile"])
    def test_completes_paths_of_files(self, words: str) -> None:
        assert self.complete(f"gprochat {words} x", "x") == "file,x\n"

    def test_ignores_an_invalid_file(self, file: Path) -> None:
        file.write_text("nonsense")
        assert self.complete("gprochat ask --site w", "w").strip() == ""


def test_there_is_no_other_command() -> None:
    assert CliRunner().invoke(gprochat, ["nonsense"]).exit_code == 2


def test_warnings_are_lines_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    others: list[object] = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *_, **__: others.append(message))
    with warnings.catch_warnings(action="default"):
        result = CliRunner().invoke(
            gprochat, ["ask", "Hi", "--url=http://x.invalid", "--password=p", "--timeout-total=0"]
        )
        warnings.warn("another", UserWarning, stacklevel=1)
    assert result.stderr.startswith(
        "gprochat: the password is sent to http://x.invalid unencrypted"
    )
    assert list(map(str, others)) == ["another"]
