"""A plain chat with an OpenAI-shaped server, by the short way.

LiteLLM's configuration of the provider says what to send and reads what comes back; between them is one POST on connections that are kept
and reused. LiteLLM's own handler does the same at twice the CPU time and more (`docs/decisions/0012`).

Connections follow LiteLLM's settings (certificates, user agent) and the environment's proxies. Nothing is sent twice. An answer of 400 or
more is raised as the provider's error class of LiteLLM, anything that breaks below as aiohttp's error.
"""

from __future__ import annotations

import json
from base64 import b64encode
from functools import lru_cache
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx
from yarl import URL


class _Unheard:
    """LiteLLM's configurations tell a log object what came back."""

    def post_call(self, **_: Any) -> None:
        """Prompts and answers reach no log."""


class Chat:
    """`litellm` is the module, imported. Connections open with the first `send`, and again with the first one after `close`."""

    def __init__(self, litellm: Any) -> None:
        self._litellm = litellm
        self._config = lru_cache(maxsize=1024)(self._ask_config)
        self._serves = lru_cache(maxsize=1024)(self._ask_serves)
        self._session: aiohttp.ClientSession | None = None

    def serves(self, model: str) -> bool:
        """Whether OpenAI serves this model at `/chat/completions`; some only at `/responses`, which LiteLLM's `completion` knows."""
        return self._serves(model)

    async def send(self, model: str, messages: list[dict[str, Any]], *, api_base: str | None, api_key: str, **asked: Any) -> Any:
        """LiteLLM's `ModelResponse`. Does not end by itself: the caller bounds the time."""
        config = self._config(model)
        # `drop_params`: what is dropped here is a wish whose value this model does not take.
        options = config.map_openai_params(asked, {}, model, drop_params=True)
        what: dict[str, Any] = {"model": model, "messages": messages, "optional_params": options, "litellm_params": {}}
        address = self._litellm.main._resolve_openai_api_base(api_base)  # the configuration's own default lacks the /v1
        headers = config.validate_environment(headers={}, api_key=api_key, api_base=address, **what)
        url = config.get_complete_url(address, api_key, model, options, {})
        body = config.transform_request(headers=headers, **what)
        response = await self._post(url, headers, json.dumps(body).encode())
        if response.status_code >= 400:
            error = httpx.HTTPStatusError("refused", request=httpx.Request("POST", url), response=response)
            raise config.get_error_class(response.text, response.status_code, response.headers) from error
        return config.transform_response(
            raw_response=response,
            model_response=self._litellm.ModelResponse(choices=[]),  # else it makes one, only to be replaced
            logging_obj=_Unheard(),
            request_data=body,
            encoding=None,
            **what,
        )

    async def close(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def _post(self, url: str, headers: dict[str, str], body: bytes) -> httpx.Response:
        if self._session is None:
            self._session = self._open()
        proxy, password = _proxy(url)
        tunnel = url.startswith("https:")  # then the proxy sees the headers of its own request alone
        async with self._session.post(
            url,
            headers=headers if tunnel else headers | password,
            data=body,
            proxy=proxy,
            proxy_headers=password if proxy and tunnel else None,
        ) as got:
            return httpx.Response(got.status, headers=got.raw_headers, content=await got.read())

    def _open(self) -> aiohttp.ClientSession:
        http = self._litellm.llms.custom_httpx.http_handler
        return aiohttp.ClientSession(
            # How many calls there are at once is ours to say. uvicorn, below most servers of one's own, closes what is idle after 5 s: for
            # all we know, a call on a connection just closed was served, and counts at its worst case.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=4, ssl=http.get_ssl_configuration()),
            headers=http.get_default_headers() | {"Accept-Encoding": "gzip, deflate"},
            cookie_jar=aiohttp.DummyCookieJar(),  # one tenant's call leaves nothing for the next
            auto_decompress=False,  # httpx does it, by the same header
            timeout=aiohttp.ClientTimeout(),
        )

    def _ask_config(self, model: str) -> Any:
        return self._litellm.utils.ProviderConfigManager.get_provider_chat_config(model=model, provider=self._litellm.LlmProviders.OPENAI)

    def _ask_serves(self, model: str) -> bool:
        info, _ = self._litellm.main.responses_api_bridge_check(model=model, custom_llm_provider="openai")
        return bool(info.get("mode") != "responses")


@lru_cache(maxsize=1024)
def _proxy(url: str) -> tuple[URL | None, dict[str, str]]:
    """The environment's proxy for this address, and the header with which it lets us in. aiohttp's `trust_env` would look for it, and in
    ~/.netrc, in a thread for every call."""
    address = URL(url)
    named = getproxies().get(address.scheme)
    if named is None or proxy_bypass(address.host or ""):
        return None, {}
    proxy = URL(named)
    if proxy.user is None:
        return proxy, {}
    password = b64encode(f"{proxy.user}:{proxy.password or ''}".encode()).decode()
    return proxy.with_user(None), {"Proxy-Authorization": f"Basic {password}"}
