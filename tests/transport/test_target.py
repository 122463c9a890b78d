"""Origins, proxies, and the environment's proxy settings."""

from __future__ import annotations

from typing import Any

import pytest

from gprochat_anyio.transport._target import Proxy, Target, ascii_host, environment_proxy, split_url


class TestTargets:
    @pytest.mark.parametrize(
        ("target", "authority"),
        [
            (Target("http", "site.test", 80), "site.test"),
            (Target("http", "site.test", 443), "site.test:443"),
            (Target("https", "site.test", 443), "site.test"),
            (Target("https", "::1", 443), "[::1]"),
            (Target("https", "::1", 8443), "[::1]:8443"),
        ],
    )
    def test_authority(self, target: Target, authority: str) -> None:
        assert target.authority == authority

    @pytest.mark.parametrize(
        ("url", "scheme", "host", "port"),
        [
            ("http://proxy.test", "http", "proxy.test", 80),
            ("HTTP://Proxy.Test:3128/", "http", "proxy.test", 3128),
            ("https://proxy.test", "https", "proxy.test", 443),
            ("socks5://[::1]", "socks5", "::1", 1080),
            ("socks5h://proxy.test:9", "socks5", "proxy.test", 9),
        ],
    )
    def test_a_proxys_url(self, url: str, scheme: str, host: str, port: int) -> None:
        proxy = Proxy.from_url(url)
        assert (proxy.scheme, proxy.host, proxy.port) == (scheme, host, port)
        assert (proxy.username, proxy.password, proxy.authorization) == (None, None, None)

    @pytest.mark.parametrize(
        ("credentials", "username", "password", "authorization"),
        [
            ("me:secret", "me", "secret", b"Basic bWU6c2VjcmV0"),
            ("me", "me", None, b"Basic bWU6"),
            ("m%40e:se%3Acret", "m@e", "se:cret", b"Basic bUBlOnNlOmNyZXQ="),
            (":", "", "", b"Basic Og=="),
        ],
    )
    def test_a_proxys_credentials(
        self, credentials: str, username: str, password: str | None, authorization: bytes
    ) -> None:
        proxy = Proxy.from_url(f"http://{credentials}@proxy.test")
        assert (proxy.username, proxy.password) == (username, password)
        assert proxy.authorization == authorization
        assert "secret" not in repr(proxy)

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "proxy.test:80",
            "//proxy.test",
            "ftp://me:secret@proxy.test",
            "http://",
            "http://me:secret@",
            "http://me:secret@proxy.test:port",
            "http://me:secret@proxy.test:99999",
            "http://me:secret@[::1",
            "http://me:secret@proxy test",
            "http://me:secret@proxy.test\n",
            None,
            b"http://proxy.test",
        ],
    )
    def test_invalid_proxy_urls(self, url: Any) -> None:
        with pytest.raises(ValueError, match=r"^proxy must be an absolute URL") as caught:
            Proxy.from_url(url)
        assert "secret" not in str(caught.value)

    def test_forwarding(self) -> None:
        for scheme, proxy, forwards in [
            ("http", "http", True),
            ("http", "https", True),
            ("http", "socks5", False),
            ("https", "http", False),
            ("https", "https", False),
            ("https", "socks5", False),
        ]:
            by = Proxy.from_url(f"{proxy}://proxy.test")
            assert Target(scheme, "site.test", 80, by).forwarded_by == (by if forwards else None)
        assert Target("http", "site.test", 80).forwarded_by is None

    def test_split_url_gives_the_port(self) -> None:
        assert split_url("url", "https://site.test/x", ("http", "https"))[1] == 443
        assert split_url("url", "http://site.test:0/", ("http",))[1] == 0

    def test_ascii_host(self) -> None:
        assert ascii_host("url", "site.test") == "site.test"
        assert ascii_host("url", "b\xfccher.test") == "xn--bcher-kva.test"
        with pytest.raises(ValueError, match=r"^url has an invalid host name"):
            ascii_host("url", "\u2603\ufffd.test")


class TestEnvironment:
    @pytest.fixture(autouse=True)
    def clean(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)

    @pytest.mark.parametrize(
        ("variables", "proxy"),
        [
            ({}, None),
            ({"HTTP_PROXY": "http://one.test:1"}, "one.test"),
            ({"http_proxy": "http://one.test:1"}, "one.test"),
            ({"http_proxy": "one.test:1"}, "one.test"),
            ({"HTTPS_PROXY": "http://one.test:1"}, None),
            ({"ALL_PROXY": "socks5://one.test:1"}, "one.test"),
            ({"ALL_PROXY": "http://all.test:1", "HTTP_PROXY": "http://one.test:1"}, "one.test"),
            ({"HTTP_PROXY": ""}, None),
            ({"HTTP_PROXY": "http://one.test:1", "NO_PROXY": "site.test"}, None),
            ({"HTTP_PROXY": "http://one.test:1", "NO_PROXY": ".test"}, None),
            ({"HTTP_PROXY": "http://one.test:1", "NO_PROXY": "*"}, None),
            ({"HTTP_PROXY": "http://one.test:1", "NO_PROXY": "site.test:80"}, None),
            ({"HTTP_PROXY": "http://one.test:1", "NO_PROXY": "site.test:81"}, "one.test"),
            ({"HTTP_PROXY": "http://one.test:1", "NO_PROXY": "other, test.site"}, "one.test"),
        ],
    )
    def test_names_a_proxy(
        self, variables: dict[str, str], proxy: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        found = environment_proxy("http", "site.test", 80)
        assert (found and found.host) == proxy

    def test_must_be_a_proxy_url(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTPS_PROXY", "ftp://me:secret@one.test")
        with pytest.raises(ValueError, match="proxy must be an absolute URL") as caught:
            environment_proxy("https", "site.test", 443)
        assert "secret" not in str(caught.value)
