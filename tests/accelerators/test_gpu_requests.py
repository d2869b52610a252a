"""GPU requests: what they read as, what is refused and with which advice, and exact round trips."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest

from goldpath.accelerators import scanner
from goldpath.accelerators.profiles import BY_GPU, PROFILES, SHAPE, gpus_with, nvidia_spelling
from goldpath.accelerators.quantities import is_quantity, value
from goldpath.accelerators.requests import GpuRequest, parse
from goldpath.accelerators.terms import Capacity, Term
from goldpath.core.errors import SpecError
from goldpath.core.spec import Spec

H100 = "device.attributes['gpu.nvidia.com'].productName.matches('H100')"


@pytest.mark.parametrize(
    ("text", "canonical", "terms"),
    [
        ("none", "none", ()),
        ("  Whole * 4 ", "whole*4", (Term(kind="whole", count=4),)),
        ("whole:NVIDIA H100*2", "whole:NVIDIA-H100*2", (Term(kind="whole", product="NVIDIA-H100", count=2),)),
        ("mig:1g.10gb+me*2", "mig:1g.10gb.me*2", (Term(kind="mig", profile="1g.10gb.me", count=2),)),
        ("MIG:1G.10GB", "mig:1g.10gb", (Term(kind="mig", profile="1g.10gb"),)),
        ("mig:1g.24gb+me.all", "mig:1g.24gb.me.all", (Term(kind="mig", profile="1g.24gb.me.all"),)),
        ("shared:L4", "shared:L4", (Term(kind="whole", sharing="time", product="L4"),)),
        (
            "mig:1g.10gb+me.shared+whole",
            "mig:1g.10gb.me.shared+whole",
            (Term(kind="mig", sharing="time", profile="1g.10gb.me"), Term(kind="whole")),
        ),
        ("mps", "mps", (Term(kind="whole", sharing="mps"),)),
        (
            "mps: H100, 10Gi, 50%",
            "mps:H100,50%,10Gi",
            (Term(kind="whole", sharing="mps", product="H100", percent=50, memory="10Gi"),),
        ),
        (
            "mig:2g.20gb.mps:30%",
            "mig:2g.20gb.mps:30%",
            (Term(kind="mig", sharing="mps", profile="2g.20gb", percent=30),),
        ),
        ("mig:1g.5gb+whole+mig:1g.5gb*2", "mig:1g.5gb*3+whole", None),
        (
            f"dra: gpu.nvidia.com [ {H100} ] {{ memory >= 40Gi , multiprocessors>=100 }} * 2",
            f"dra:gpu.nvidia.com[{H100}]{{memory>=40Gi,multiprocessors>=100}}*2",
            (
                Term(
                    kind="dra",
                    device_class="gpu.nvidia.com",
                    selectors=(H100,),
                    capacity=(
                        Capacity(name="memory", operator=">=", quantity="40Gi"),
                        Capacity(name="multiprocessors", operator=">=", quantity="100"),
                    ),
                    count=2,
                ),
            ),
        ),
    ],
)
def test_a_request_is_read_and_written_in_one_way(
    text: str, canonical: str, terms: tuple[Term, ...] | None
) -> None:
    request = parse(text)
    assert str(request) == canonical
    assert terms is None or request.terms == terms
    assert parse(canonical) == request


def test_brackets_and_separators_in_the_strings_of_cel_belong_to_cel() -> None:
    tricky = r"""device.driver != ']+*;{"' && device.driver != "\"]" && device.driver != '''a']'''"""
    request = parse(f"dra:a.b[{tricky}][device.attributes['a.b'].list[0] == 1]*2+whole;share=x")
    assert [term.selectors for term in request.terms] == [
        (tricky, "device.attributes['a.b'].list[0] == 1"),
        (),
    ]
    assert (request.count, request.share) == (3, "x")
    assert parse(str(request)) == request


def test_a_raw_string_ends_at_its_quote_whatever_stands_before() -> None:
    assert scanner.closing(r"[r'\' + x]", 0) == 9
    assert scanner.closing(r"['\'' + x]", 0) == 9
    with pytest.raises(SpecError, match="is not closed"):
        scanner.closing(r"[bar'\' + x]", 0)


@pytest.mark.parametrize(
    "cel",
    [
        "device.attributes['gpu.nvidia.com'].?profile.orValue('') == '1g.5gb'",
        "device.attributes[?'gpu.nvidia.com'].hasValue()",
        "device.attributes['a.b'].list.exists(i, i == 'x') && device.attributes['a.b'].map.all(k, v, k != v)",
        "cel.bind(a, device.attributes['a.b'], a.x == 1)",
        "semver('1.2.3').isLessThan(device.attributes['gpu.nvidia.com'].driverVersion)",
        "'.?' != device.driver && type(device.driver) == string",
    ],
)
def test_cel_as_kubernetes_has_it_is_taken(cel: str) -> None:
    assert parse(f"dra:gpu.nvidia.com[{cel}]").terms[0].selectors == (cel,)


def test_options_hold_for_the_whole_request() -> None:
    request = parse(
        "mig:1g.5gb*2+mig:2g.10gb; same=parentUUID; same = resource.kubernetes.io/pcieRoot;share=team-a"
    )
    assert request.same == ("gpu.nvidia.com/parentUUID", "resource.kubernetes.io/pcieRoot")
    assert (request.share, request.count) == ("team-a", 3)
    assert str(request) == (
        "mig:1g.5gb*2+mig:2g.10gb;same=parentUUID;same=resource.kubernetes.io/pcieRoot;share=team-a"
    )
    assert parse("shared;interval=long").interval == "long"
    assert (parse("none").none, parse("auto").none, parse("auto").auto) == (True, False, True)


@pytest.mark.parametrize(
    ("text", "message", "remedy"),
    [
        ("", "it is empty", "Examples: none, auto, whole"),
        ("whole*0", "a count of 0 asks for nothing", "Write none"),
        ("whole*-1", "the count '-1' is not a whole number above 0", "whole*2"),
        ("whole*two", "the count 'two' is not", "whole*2"),
        ("whole*1.5", "the count '1.5' is not", "whole*2"),
        ("whole*", "the count '' is not", "whole*2"),
        ("whole*2*2", "has two counts", "Write one"),
        ("whole*129", "no node gives a count of 129", "1 to 128"),
        ("whole:", "nothing stands after whole:", "whole:H100"),
        ("whole:#1", "'#1' is no product", "H100"),
        ("whole+", "a + has nothing on one side", "whole:H100+mig"),
        ("H100", "'H100' is no kind", "Write whole:H100"),
        ("4", "'4' is no kind", "Write whole*4"),
        ("0", "'0' is no kind", "Write none"),
        ("nvidia.com/gpu", "is no kind", "Write whole"),
        ("nvidia.com/mig-1g.10gb", "is no kind", "Write mig:1g.10gb"),
        ("1g.10gb+me", "is no kind", "Write mig:1g.10gb"),
        ("hsared", "is no kind", "Did you mean shared?"),
        ("auto+whole", "'auto' is no kind|auto stands alone", ""),
        ("auto;share=a", "auto stands alone", "Leave the rest away"),
        ("none;share=a", "an option but no device", "Examples"),
        ("mig", "mig needs a profile", "A100-40GB: 1g.5gb"),
        ("mig:10gb", "is not shaped like a MIG profile", "A30: 1g.6gb"),
        ("mig:8g.10gb", "no GPU has the MIG profile 8g.10gb", "A30: 1g.6gb"),
        ("mig:A30:1g.10gb", "mig takes a profile alone, and A30 stands before it", "mig:PROFILE. A30 has 1g.6gb"),
        ("mig:1g.11gb", "no GPU has the MIG profile 1g.11gb", "H200: 1g.18gb"),
        ("mig:2g.10gb.me", "no GPU has the MIG profile 2g.10gb.me", "A100-40GB: 1g.5gb, 1g.5gb.me"),
        ("mig:1g.10gb:50%", "limits are for MPS", "mig:1g.10gb.mps:50%"),
        ("shared*2", "a share is access, not an amount", "whole*2"),
        ("mig:1g.10gb.shared*2", "a share is access", "whole*2"),
        ("mps+mps", "a share is access", "whole*2"),
        ("mps:0%", "0% of the threads", "1 to 100"),
        ("mps:150%", "150% of the threads", "1 to 100"),
        ("mps:10%,20%", "comes after another of its kind", "once"),
        ("mps:50%,H100", "neither a percentage nor a quantity", "mps:50%,10Gi"),
        ("mps:1k", "no memory limit for MPS", "at least 1Mi"),
        ("dra", "'' is no name of a DeviceClass", "kubectl get deviceclasses"),
        ("dra:GPU", "'GPU' is no name of a DeviceClass", "kubectl get deviceclasses"),
        ("dra:a.b[device.]", "does not parse at column", "Example: device.attributes"),
        ("dra:a.b[]", "does not parse", "Example: device.attributes"),
        ("dra:a.b[devise.driver == 'x']", "uses devise, which is not declared", "The one variable is `device`"),
        ("dra:a.b[device.driver == 'x]", "a string that begins with ' is not closed", "Close the quote"),
        ("dra:a.b[device.driver", "a [ is not closed", "dra:CLASS[EXPRESSION]"),
        ("dra:a.b{memory>=1Gi", "a { is not closed", "{memory>=40Gi}"),
        ("dra:a.b{memory>1Gi}", "is not NAME>=QUANTITY", "{memory>=40Gi}"),
        ("dra:a.b{}", "is not NAME>=QUANTITY", "{memory>=40Gi}"),
        ("dra:a.b{memory>=40GB}", "is not a Kubernetes quantity", "40Gi"),
        ("dra:a.b{memory>=1Gi,memory>=2Gi}", "the capacity memory is named twice", "once"),
        ("dra:a.b{-x>=1}", "names no attribute", "parentUUID"),
        ("dra:a.b{memory>=1Gi}[device.driver == 'x']", "stands after the end", "dra:CLASS[CEL]{CAPACITY}*COUNT"),
        ("whole;same=parentUUID", "at least two devices", "mig:1g.10gb*2"),
        ("whole*2;same=parentUUID;same=gpu.nvidia.com/parentUUID", "an attribute twice", "once"),
        ("whole*2;same=a-b", "names no attribute", "parentUUID"),
        ("whole;interval=long", "interval= is for a whole GPU in turns", "shared;interval=long"),
        ("shared;interval=ever", "interval=ever is unknown", "default, short, medium, long"),
        ("shared;share=A_b", "share=A_b is no name", "Lower-case"),
        ("shared;share=a;share=b", "share= is given twice", "once"),
        ("whole;nodes=2", "is none of same=, share=, interval=", "share=team-a"),
        ("whole*2;same=", "nothing stands after same=", "Example: mig:1g.10gb*2;same=parentUUID."),
        ("shared;share", "nothing stands after share=", "Example: shared;share=team-a."),
        ("shared;interval= ", "nothing stands after interval=", "Example: shared;interval=long."),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_what_would_be_right(text: str, message: str, remedy: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(text)
    assert any(part in caught.value.message for part in message.split("|"))
    assert remedy in caught.value.remedy
    assert "\n" not in caught.value.line()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Term(kind="whole", profile="1g.5gb"), "profile is nothing that whole has"),
        (lambda: Term(kind="dra", device_class="a", sharing="time"), "sharing is nothing that dra has"),
        (lambda: Term(kind="whole", percent=50), "percent is nothing that whole has"),
        (lambda: Term(kind="dra", device_class="a", selectors=(" true ",)), "cannot stand in [ ]"),
        (lambda: GpuRequest(terms=(Term(kind="whole"), Term(kind="whole", count=2))), "named twice"),
    ],
)
def test_a_value_without_a_text_of_its_own_cannot_be_built(build: object, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        build()  # type: ignore[operator]
    assert message in caught.value.message


def test_a_spec_takes_the_text_and_gives_it_back() -> None:
    class Train(Spec):
        gpu: GpuRequest = GpuRequest()

    made = Train.parse({"gpu": "whole * 2"})
    assert made.gpu.count == 2
    assert made.model_dump(mode="json") == {"gpu": "whole*2"}
    assert Train.model_validate(made.model_dump()) == made
    assert Train.parse({"gpu": "whole*2"}).digest() == made.digest() != Train().digest()
    with pytest.raises(SpecError, match="a count of 0"):
        Train.parse({"gpu": "whole*0"})


def _random_term(rng: random.Random) -> Term:
    kind = rng.choice(["whole", "mig", "dra"])
    sharing = "" if kind == "dra" else rng.choice(["", "", "time", "mps"])
    values: dict[str, object] = {"kind": kind, "sharing": sharing}
    values["count"] = 1 if sharing else rng.choice([1, 1, 2, rng.randint(1, 128)])
    if kind == "whole":
        values["product"] = rng.choice(["", "H100", "A100-80GB", "RTX-PRO-6000", "b.C_9"])
    if kind == "mig":
        values["profile"] = rng.choice(sorted(PROFILES))
    if sharing == "mps":
        values["percent"] = rng.choice([None, rng.randint(1, 100)])
        values["memory"] = rng.choice(["", "10Gi", "1.5G", "1e9"])
    if kind == "dra":
        cel = [
            "true",
            H100,
            "device.driver != ']'",
            'device.driver in ["+", ";*{"]',
            "device.attributes['a.b'].x[0] == {'a': 1}['a']",
        ]
        values["device_class"] = rng.choice(["gpu.nvidia.com", "mig.nvidia.com", "a", "gpu.amd.com"])
        values["selectors"] = tuple(rng.sample(cel, rng.randint(0, 2)))
        names = rng.sample(["memory", "multiprocessors", "a.b/memory"], rng.randint(0, 3))
        values["capacity"] = tuple(
            Capacity(name=name, operator=rng.choice([">=", "="]), quantity=rng.choice(["40Gi", "14", "1e3"]))
            for name in names
        )
    return Term.model_validate(values)


def _random_request(rng: random.Random) -> GpuRequest:
    if rng.random() < 0.05:
        return GpuRequest(auto=rng.random() < 0.5)
    terms = {term.counted(1): term for term in (_random_term(rng) for _ in range(rng.randint(1, 4)))}
    sliced = any(term.kind == "whole" and term.time_sliced for term in terms.values())
    many = sum(term.count for term in terms.values()) > 1
    return GpuRequest(
        terms=tuple(terms.values()),
        same=tuple(rng.sample(["gpu.nvidia.com/parentUUID", "a.b/c"], rng.randint(0, 2))) if many else (),
        share=rng.choice(["", "", "team-a"]),
        interval=rng.choice(["", "default", "short", "medium", "long"]) if sliced else "",
    )


@pytest.mark.parametrize("seed", range(20))
def test_every_request_is_what_its_text_says(seed: int) -> None:
    rng = random.Random(seed)
    seen = {}
    for _ in range(100):
        request = _random_request(rng)
        text = str(request)
        assert parse(text) == request
        assert str(parse(text)) == text
        assert GpuRequest.model_validate_json(request.model_dump_json()) == request
        assert seen.setdefault(text, request) == request, "two values have one text"


@pytest.mark.parametrize("seed", range(20))
def test_any_damage_to_a_text_gives_a_request_or_a_spec_error(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(100):
        text = list(str(_random_request(rng)))
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(text) + 1)
            text[at : at + rng.randint(0, 2)] = rng.choice("+*;:[]{}'\"\\%,=> 0aG.")
        try:
            request = parse("".join(text))
        except SpecError:
            continue
        assert parse(str(request)) == request


def test_profiles_are_spelled_for_kubernetes_and_for_nvidia() -> None:
    assert all(SHAPE.fullmatch(profile) for profile in PROFILES)
    assert nvidia_spelling("1g.10gb.me") == "1g.10gb+me"
    assert nvidia_spelling("1g.24gb.me.all") == "1g.24gb+me.all"
    assert nvidia_spelling("1g.24gb-me") == "1g.24gb-me"
    assert gpus_with("1g.10gb") == ("A100-40GB", "H100-PCIe", "H100", "A100-80GB")
    assert {"1g.18gb", "7g.141gb"} <= set(BY_GPU["H200"])


@pytest.mark.parametrize(
    ("text", "amount"),
    [("40Gi", 40 * 1024**3), ("500m", "0.5"), ("1e3", 1000),
     ("2E", 2 * 10**18), ("1Ei", 1024**6), ("1.5G", 15 * 10**8), ("100n", "1e-7")],
)  # fmt: skip
def test_quantities_have_the_value_that_kubernetes_gives_them(text: str, amount: int | str) -> None:
    assert value(text) == Decimal(amount)


@pytest.mark.parametrize("text", ["", "Gi", "40GB", "-1", "1 Gi", "1ki", "1e", "1" * 40])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    assert not is_quantity(text)
    with pytest.raises(ValueError, match="not a Kubernetes quantity"):
        value(text)


@pytest.mark.parametrize("text", ["1e9999999999", "1e-9999999999", "1e99999", "1e19", "9" * 20, "10E", "8Ei"])
def test_a_quantity_that_kubernetes_cannot_hold_is_refused(text: str) -> None:
    assert not is_quantity(text)
    for request in (f"mps:{text}", f"dra:a.b{{memory>={text}}}", f"dra:gpu.nvidia.com{{memory={text}}}"):
        with pytest.raises(SpecError, match="quantity"):
            parse(request)


@pytest.mark.parametrize(
    ("cel", "message"),
    [
        ("1", "gives a number"),
        ("'x'", "gives a string"),
        ("[true]", "gives a list"),
        ("{'a': true}", "gives a map"),
        ("null", "gives a null"),
        ("device", "gives a device"),
        ("device.driver", "gives a string"),
        ("device.capacity", "gives a map"),
        ("device.driver + 'x'", "gives a value"),
        ("(true ? 1 : 2)", "gives a number"),
        ("-device.attributes['a.b'].x", "gives a number"),
        ("size(device.attributes)", "gives a number"),
        ("device.driver.lowerAscii()", "gives a string"),
        ("nosuch(device)", "calls nosuch"),
        ("device.driver.nosuch() == 1", "calls nosuch"),
        ("device.nosuchfield == 1", "reads device.nosuchfield"),
        ("[1].exists(i, device.attribute['a.b'].x == i)", "reads device.attribute,"),
    ],
)
def test_cel_that_the_api_server_would_not_take_is_refused(cel: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(f"dra:gpu.nvidia.com[{cel}]")
    assert message in caught.value.message
    assert "Example: device.attributes" in caught.value.remedy


@pytest.mark.parametrize(
    "cel",
    [
        "!device.allowMultipleAllocations",
        "device.attributes['a.b'].flag",
        "true ? device.attributes['a.b'].flag : false",
        "has(device.attributes['a.b'].x) || device.driver in ['a', 'b']",
        "device.capacity['a.b'].memory.asInteger() > 1 && isQuantity('1Gi')",
        "sets.contains(device.attributes['a.b'].list, ['x']) == ip('::1').isLoopback()",
    ],
)
def test_cel_whose_result_may_be_true_is_taken(cel: str) -> None:
    assert parse(f"dra:gpu.nvidia.com[{cel}]").terms[0].selectors == (cel,)


@pytest.mark.parametrize("text", ["{true>=1}", "{in=1}", "{a.b/null>=1}"])
def test_a_word_of_cel_is_no_capacity(text: str) -> None:
    with pytest.raises(SpecError, match="a word of CEL's own"):
        parse(f"dra:gpu.nvidia.com{text}")


@pytest.mark.parametrize(
    ("device_class", "domain"),
    [("gpu.nvidia.com", "gpu.nvidia.com"), ("mig.nvidia.com", "gpu.nvidia.com"), ("a.b", "a.b")],
)
def test_a_capacity_is_one_with_and_without_its_domain(device_class: str, domain: str) -> None:
    with pytest.raises(SpecError, match="is named twice"):
        parse(f"dra:{device_class}{{{domain}/memory>=40Gi,memory=4Gi}}")
    assert parse(f"dra:{device_class}{{other.domain/memory>=40Gi,memory=4Gi}}")


def test_upper_case_is_read_in_all_parts_of_a_slice() -> None:
    assert str(parse("MIG:1G.10GB+ME")) == "mig:1g.10gb.me"
    assert str(parse("Mig:1g.10gb+Me.Shared+whole")) == "mig:1g.10gb.me.shared+whole"
    assert str(parse("mig:2g.20gb.MPS:50%")) == "mig:2g.20gb.mps:50%"
