"""A policy file means what it says, and a wrong one is refused with one line that names the key and says what would be right."""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.types import TIERS
from workers import policy
from workers.policy import Policy, PolicyError, PolicyFile, Rules, Tenant, load, parse

MODEL = "models: {mini: {litellm: openai/mini, context: 1000}}\n"
BASE = MODEL + "tiers: {light: [mini]}\nreference: mini\n"


def read(more: str = "", base: str = BASE) -> Policy:
    return parse(base + more, "p.yaml")


def told(more: str, base: str = BASE) -> str:
    with pytest.raises(PolicyError) as e:
        read(more, base)
    assert str(e.value).startswith("p.yaml: ")
    assert "\n" not in str(e.value)
    return str(e.value).removeprefix("p.yaml: ")


class TestErrors:
    @pytest.mark.parametrize(
        ("more", "line"),
        [
            ("modles: {}", "modles: no such key here; did you mean models?"),
            ("zzz: 1", "zzz: no such key here; see docs/reference/policy.md"),
            ("digest: 0123", "digest: no such key here; did you mean budgets?"),
            ("tenants: {acme: {hmac: K}}", "tenants.acme.hmac: no such key here; did you mean hmac_env?"),
            ("tenants: {acme: allow}", "tenants: acme: must be a mapping such as {max_in_flight: 8}"),
            ("tenants: {acme/eu: {}}", "tenants: acme/eu: no tenant's name holds '/'"),
            ("tenants: {unknown: maybe}", "tenants: unknown: must be allow or reject"),
            ("tenants: {unknown: {max_in_flight: 1}}", "tenants: unknown: must be allow or reject"),
            ("tenants: {acme: {max_in_flight: 0}}", "tenants.acme.max_in_flight: must be greater than or equal to 1"),
            (
                "tenants: {acme: {responses_topic: a b}}",
                "tenants.acme.responses_topic: must be a topic name of letters, digits, '.', '_', '-'",
            ),
            (
                "tenants: {acme: {hmac_env: s3cr3t-key}}",
                "tenants.acme.hmac_env: must be the name of an environment variable, never the secret itself",
            ),
            ("features: {f: {cache: {ttl: 5}}}", "features.f.cache.ttl: no such key here; did you mean ttl_s?"),
            ("features: {f: {max_tokens: {light: 0}}}", "features.f.max_tokens.light: must be greater than or equal to 1"),
            ("features: {f: {max_tokens: {cheap: 3}}}", "features.f.max_tokens.cheap: must be 'light', 'standard' or 'heavy'"),
            ("features: {f: }", "features.f: must be a mapping"),
            (
                "features: {f: {cache: {serve_threshold: 0.89}}}",
                "features.f.cache: serve_threshold must not be below candidate_threshold",
            ),
            ("defaults: 5", "defaults: must be a mapping"),
            ("defaults: {max_attempts: six}", "defaults.max_attempts: must be a valid integer, unable to parse string as an integer"),
            ("defaults: {audit: {rate: 2}}", "defaults.audit.rate: must be less than or equal to 1"),
            ("defaults: {compress: {rate: 0}}", "defaults.compress.rate: must be greater than 0"),
            ("budgets: [{scope: {}, window: day}]", "budgets.0: needs exactly one of limit_usd and limit_tokens"),
            (
                "budgets: [{scope: {}, window: day, limit_usd: 1, limit_tokens: 1}]",
                "budgets.0: needs exactly one of limit_usd and limit_tokens",
            ),
            (
                "budgets: [{scope: {team: a}, window: day, limit_usd: 1}]",
                "budgets.0.scope.team: must be 'tenant', 'feature', 'user' or 'experiment'",
            ),
            ("budgets: [{scope: {user: 42}, window: day, limit_usd: 1}]", "budgets.0.scope.user: must be a valid string"),
            (
                "budgets: [{scope: {tenant: ''}, window: day, limit_usd: 1}]",
                "budgets.0.scope.tenant: must be '*', or 1 to 128 characters as requests write them",
            ),
            ("budgets: [{scope: {}, window: week, limit_usd: 1}]", "budgets.0.window: must be 'minute', 'hour', 'day' or 'month'"),
            ("budgets: [{scope: {}, window: day, limit_usd: .nan}]", "budgets.0.limit_usd: must be a finite number"),
            ("budgets: [{scope: {}, window: day, limit_usd: -1}]", "budgets.0.limit_usd: must be greater than or equal to 0"),
            ("budgets: [{scope: {}, window: day, limit_usd: true}]", "budgets.0.limit_usd: must be a number"),
            ("budgets: [{scope: {}, window: day, limit_tokens: yes}]", "budgets.0.limit_tokens: must be a number, not yes or no"),
            ("budgets: [{scope: {}, window: day, limit_usd: lots}]", "budgets.0.limit_usd: must be a number"),
            ("timezone: Mars/Base", "timezone: 'Mars/Base' is not an IANA name such as Europe/Berlin"),
            ("timezone: ../etc/passwd", "timezone: '../etc/passwd' is not an IANA name such as Europe/Berlin"),
        ],
    )
    def test_a_wrong_key_or_value(self, more: str, line: str) -> None:
        assert told(more) == line

    @pytest.mark.parametrize(
        ("model", "line"),
        [
            ("{litellm: gpt, context: 1}", "litellm: must be provider/name as LiteLLM writes it, such as openai/gpt-4o-mini"),
            ("{litellm: openai/x}", "context: is missing"),
            ("{litellm: openai/x, context: 0}", "context: must be greater than 0"),
            ("{litellm: openai/x, context: 1, api_key: k}", "api_key: no such key here; did you mean api_key_env?"),
            (
                "{litellm: openai/x, context: 1, price: {input: 0.00000015, output: 1}}",
                "price.input: 1.5E-7 looks like a price per token; write dollars per million tokens",
            ),
            (
                "{litellm: openai/x, context: 1, price: {input: 0.00015, output: 0.0006}}",
                "price.input: 0.00015 looks like a price per token; write dollars per million tokens",
            ),
            (
                "{litellm: openai/x, context: 1, price: {input: 1, output: -1}}",
                "price.output: must be dollars per million tokens, from 0 to 10000",
            ),
            ("{litellm: openai/x, context: 1, price: {input: .inf, output: 1}}", "price.input: must be a finite number"),
            ("{litellm: openai/x, context: 1, price: {input: 1}}", "price.output: is missing"),
            (
                "{litellm: openai/x, context: 1, api_base: 'localhost:8000/v1'}",
                "api_base: must be http://host:port or https://host, with the path if there is one",
            ),
        ],
    )
    def test_a_wrong_model(self, model: str, line: str) -> None:
        assert told("", f"models: {{mini: {model}}}\ntiers: {{light: [mini]}}\nreference: mini\n") == f"models.mini.{line}"

    @pytest.mark.parametrize(
        ("base", "line"),
        [
            (MODEL + "tiers: {light: [maxi]}\nreference: mini", "tiers.light: no such model: maxi; known: mini"),
            (MODEL + "tiers: {cheap: [mini]}\nreference: mini", "tiers.cheap: must be 'light', 'standard' or 'heavy'"),
            (MODEL + "tiers: {light: mini}\nreference: mini", "tiers.light: must be a list"),
            (MODEL + "tiers: {light: []}\nreference: mini", "tiers: at least one tier must name a model"),
            (MODEL + "tiers: {light: [mini]}\nreference: maxi", "reference: no such model: maxi; known: mini"),
            (MODEL, "tiers: is missing"),
            ("modles: {}", "modles: no such key here; did you mean models?"),
            (f"{MODEL}\nmodels.x: {{}}\nrefrence: x", "models.x: no such key here; did you mean models?"),
            ("models: {}\ntiers: {}\nreference: x", "models: must not be empty"),
            ("", "must be a mapping with models, tiers and reference"),
            ("- a", "must be a mapping with models, tiers and reference"),
            ("a: {", "not YAML: line 1, column 5: expected the node content, but found '<stream end>'"),
            (BASE + "reference: mini", "not YAML: line 4, column 1: reference is given twice"),
            ("x: 2026-13-45", "not YAML: month must be in 1..12"),
            ("? [a]\n: 1", "not YAML: line 1, column 3: found unhashable key"),
            ("[" * 3000, "nested too deep to be a policy"),
        ],
    )
    def test_a_wrong_whole(self, base: str, line: str) -> None:
        assert told("", base) == line

    def test_a_secret_written_where_its_name_belongs_is_not_repeated(self) -> None:
        assert "hunter-2" not in told("tenants: {acme: {hmac_env: hunter-2}}")

    @given(st.text(max_size=60))
    def test_any_text_is_a_policy_or_one_line(self, text: str) -> None:
        try:
            parse(text, "p.yaml")
        except PolicyError as e:
            lines = str(e).splitlines()
        else:
            lines = ["good"]
        assert len(lines) == 1


class TestMeaning:
    def test_the_shipped_policy_is_good(self) -> None:
        shipped = load(None)
        assert all(shipped.tiers[tier] for tier in TIERS)
        assert shipped.defaults == Rules()

    def test_the_documented_example(self) -> None:
        given = parse(
            """
models:
  mini:   {litellm: openai/gpt-4o-mini, api_base: null, api_key_env: OPENAI_API_KEY, context: 128000,
           price: {input: 0.15, cached_input: 0.075, output: 0.60}}
  middle: {litellm: openai/gpt-4o, context: 128000}
  large:  {litellm: anthropic/claude-opus-4-6, context: 200000}
tiers:    {light: [mini], standard: [middle], heavy: [large]}
reference: large
timezone: UTC
defaults: {max_tokens: {light: 300, standard: 800, heavy: 2000}, max_tokens_cap: {light: 1000, standard: 4000, heavy: 8000},
           max_attempts: 6, cascade: true,
           cache: {semantic: true, candidate_threshold: 0.90, serve_threshold: 0.95, ttl_s: 86400, share: auto},
           compress: {rate: 0.5}, audit: {rate: 0.01}}
features:
  support-bot: {cache: {share: tenant}, cascade: false}
budgets:
  - {scope: {tenant: acme}, window: day, limit_usd: 5.00, on_exceed: reject}
  - {scope: {tenant: acme}, window: minute, limit_tokens: 100000, on_exceed: reject}
  - {scope: {feature: digest}, window: month, limit_usd: 100, degrade_at: 0.8, on_exceed: wait}
tenants: {unknown: allow, acme: {hmac_env: ACME_KEY, responses_topic: acme.responses, max_in_flight: 8}}
""",
            "example",
        )
        assert given.models["mini"].price is not None
        assert given.models["mini"].price.input == Decimal("0.15")
        assert given.budgets[0].limit_usd == Decimal(5)
        assert given.rules("support-bot").cache.share == "tenant"

    def test_money_is_what_the_author_typed(self) -> None:
        budget = read("budgets: [{scope: {}, window: day, limit_usd: 0.1}]").budgets[0]
        assert budget.limit_usd == Decimal("0.1")

    def test_zero_is_a_limit_and_absent_is_none(self) -> None:
        zero, other = read("budgets: [{scope: {}, window: day, limit_usd: 0}, {scope: {}, window: day, limit_tokens: 0}]").budgets
        assert (zero.limit_usd, zero.limit_tokens, other.limit_usd, other.limit_tokens) == (Decimal(0), None, None, 0)
        assert read().budgets == ()

    def test_a_provider_is_the_first_part_of_the_name(self) -> None:
        given = parse(BASE.replace("openai/mini", "bedrock/us.anthropic/x"), "p.yaml")
        assert given.models["mini"].provider == "bedrock"


class TestRules:
    def test_defaults_are_laid_over_the_built_in_ones(self) -> None:
        given = read("defaults: {max_tokens: {light: 7}, cache: {ttl_s: 60}}").defaults
        assert given.max_tokens == {"light": 7, "standard": 800, "heavy": 2000}
        assert (given.cache.ttl_s, given.cache.serve_threshold, given.max_attempts) == (60, 0.95, 6)

    def test_a_feature_overrides_only_what_it_names(self) -> None:
        given = read(
            "defaults: {max_attempts: 3, cache: {ttl_s: 60}}\n"
            "features: {f: {max_tokens_cap: {heavy: 9}, cache: {share: user}, stop: [END]}}"
        )
        rules = given.rules("f")
        assert (rules.max_attempts, rules.cache.ttl_s, rules.cache.share, rules.stop) == (3, 60, "user", ("END",))
        assert rules.max_tokens_cap == {"light": 1000, "standard": 4000, "heavy": 9}
        assert given.rules("another") == given.defaults

    def test_two_policies_do_not_share_their_rules(self) -> None:
        one, other = read("features: {f: {max_attempts: 1}}"), read("features: {f: {max_attempts: 2}}")
        assert [p.rules("f").max_attempts for p in (one, other, one)] == [1, 2, 1]

    @given(st.dictionaries(st.sampled_from(["light", "standard", "heavy"]), st.integers(1, 10_000)))
    def test_every_tier_has_a_figure_whatever_is_left_out(self, figures: dict[str, int]) -> None:
        rules = read(f"features: {{f: {{max_tokens: {figures}}}}}").rules("f")
        assert set(rules.max_tokens) == set(TIERS)
        assert rules.max_tokens == {**Rules().max_tokens, **figures}


class TestTenants:
    @pytest.mark.parametrize(
        ("tenants", "acme", "stranger"),
        [
            ("", True, True),
            ("tenants: {}", True, True),
            ("tenants: {unknown: allow}", True, True),
            ("tenants: {unknown: reject}", False, False),
            ("tenants: {acme: {max_in_flight: 8}}", True, False),
            ("tenants: {acme: }", True, False),
            ("tenants: {acme: {}, unknown: allow}", True, True),
            ("tenants: {acme: {}, unknown: reject}", True, False),
        ],
    )
    def test_who_is_let_in(self, tenants: str, acme: bool, stranger: bool) -> None:
        given = read(tenants)
        assert (given.tenant("acme") is not None, given.tenant("stranger") is not None) == (acme, stranger)

    def test_a_tenant_that_calls_itself_unknown_is_one_of_them(self) -> None:
        assert read("tenants: {acme: {}}").tenant("unknown") is None
        assert read("tenants: {acme: {}, unknown: allow}").tenant("unknown") == Tenant()

    def test_what_is_said_of_a_tenant(self) -> None:
        tenant = read("tenants: {acme: {hmac_env: ACME_KEY, responses_topic: acme.responses}}").tenant("acme")
        assert tenant == Tenant(hmac_env="ACME_KEY", responses_topic="acme.responses")


class TestFile:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "policy.yaml"
        path.write_text(BASE)
        return path

    def test_a_change_is_taken(self, path: Path) -> None:
        file = PolicyFile(path, pytest.fail)
        path.write_text(BASE + "timezone: Europe/Berlin")
        assert file().timezone == "UTC"
        file.poll()
        assert file().timezone == "Europe/Berlin"

    def test_a_change_as_kubernetes_makes_it_is_taken(self, tmp_path: Path) -> None:
        """A mounted ConfigMap: the file is a link through `..data`, which is swapped for another folder; the old one goes."""

        def put(version: str, text: str) -> None:
            folder, swap, data = tmp_path / f"..{version}", tmp_path / "..data_tmp", tmp_path / "..data"
            folder.mkdir()
            (folder / "policy.yaml").write_text(text)
            before = data.resolve() if data.exists() else None
            swap.symlink_to(folder.name)
            swap.replace(data)
            if before is not None:
                (before / "policy.yaml").unlink()
                before.rmdir()

        put("1", BASE)
        mounted = tmp_path / "policy.yaml"
        mounted.symlink_to("..data/policy.yaml")
        file = PolicyFile(mounted, pytest.fail)
        assert file().timezone == "UTC"
        put("2", BASE + "timezone: Europe/Berlin")
        file.poll()
        assert file().timezone == "Europe/Berlin"

    def test_the_same_content_is_the_same_policy(self, path: Path) -> None:
        file = PolicyFile(path, pytest.fail)
        before = file()
        os.utime(path, (1, 1))
        file.poll()
        assert file() is before

    @pytest.mark.parametrize("spoil", ["write", "deep", "delete", "bytes", "folder"])
    def test_a_bad_one_is_refused_once_and_the_old_one_stays(self, path: Path, spoil: str) -> None:
        refused: list[PolicyError] = []
        file = PolicyFile(path, refused.append)
        before = file()
        path.unlink()
        if spoil == "write":
            path.write_text(BASE + "modles: {}")
        elif spoil == "deep":
            path.write_text("{" * 3000)
        elif spoil == "bytes":
            path.write_bytes(b"\xff\xfe")
        elif spoil == "folder":
            path.mkdir()
        for _ in range(3):
            file.poll()
        assert file() is before
        assert len(refused) == 1
        assert str(path) in str(refused[0])

    def test_another_fault_is_told_anew_and_a_good_one_is_taken(self, path: Path) -> None:
        refused: list[PolicyError] = []
        file = PolicyFile(path, refused.append)
        for text in ("a: {", "- b", "- b", BASE + "timezone: Europe/Berlin", "- b"):
            path.write_text(text)
            file.poll()
        assert len(refused) == 3
        assert file().timezone == "Europe/Berlin"

    def test_a_bad_one_at_start_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(PolicyError, match=r"^SCRIMP_POLICY_FILE: .* cannot be read: No such file"):
            PolicyFile(tmp_path / "none.yaml", pytest.fail)

    def test_the_shipped_one_is_never_read_again(self) -> None:
        file = PolicyFile(None, pytest.fail)
        before = file()
        file.poll()
        assert file() is before

    def test_the_digest_names_the_content(self, path: Path) -> None:
        assert load(path).digest == policy.parse(BASE, "x").digest != read("timezone: UTC").digest


def test_a_policy_does_not_change() -> None:
    given: Any = read()
    with pytest.raises(ValueError, match="frozen"):
        given.reference = "other"
