"""No address, block, subnet or VNI is ever given twice; what is free is found; an address rests before reuse."""

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.network import ipam
from controller.network.ipam import Cidr
from controller.scheduler.addresses import AddressBook, Claim

SUBNETS = [Cidr.parse("10.64.0.0/26"), Cidr.parse("10.64.4.0/27")]
HOSTS = st.sampled_from(["h1", "h2", "h3"])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["claim", "fail", "lost"]), HOSTS, st.integers(0, 1000)), max_size=120))
def test_claims_never_overlap(steps: list[tuple[str, str, int]]) -> None:
    book = AddressBook(28)
    live: list[Claim] = []
    owner: dict[int, str] = {}
    for action, host, pick in steps:
        if action == "claim":
            claim = book.claim("s", SUBNETS, host)
            if claim is None:
                assert book.exhausted("s", SUBNETS, host)
                continue
            assert claim.address in claim.block
            assert any(claim.address in subnet for subnet in SUBNETS)
            assert claim.address not in {each.address for each in live}
            assert owner.setdefault(claim.block.base, host) == host, "a block belongs to one host"
            live.append(claim)
        elif live:
            claim = live.pop(pick % len(live))
            keep_block = not claim.new_block or any(each.block == claim.block for each in live)
            book.give_back(claim, address_taken=action == "lost", block_taken=keep_block)
            if not keep_block:
                owner.pop(claim.block.base, None)


@given(st.sets(st.integers(0, 15)), st.integers(0, 15))
def test_next_address_goes_round_and_skips_what_is_used(used: set[int], last: int) -> None:
    block = Cidr.parse("10.64.0.0/28")
    taken = {block.base + offset for offset in used}
    found = ipam.next_address(block, taken, (), block.base + last)
    order = [(last + 1 + step) % 16 for step in range(16)]
    expected = next((block.base + offset for offset in order if offset not in used), None)
    assert found == expected


@given(st.sets(st.integers(0, 2**32 - 1), max_size=50))
def test_names_and_macs_are_unique(addresses: set[int]) -> None:
    assert len({ipam.mac_of(each) for each in addresses}) == len(addresses)
    assert {ipam.parse_address(ipam.port_name(each).replace("-", ".")) for each in addresses} == addresses


def test_a_subnet_never_gives_its_first_and_last_address() -> None:
    book = AddressBook(28)
    subnets = [Cidr.parse("10.64.0.0/27")]
    claims = [book.claim("s", subnets, "h") for _ in range(31)]
    given_out = {ipam.address_text(each.address) for each in claims if each is not None}
    assert len(given_out) == 30
    assert not {"10.64.0.0", "10.64.0.31"} & given_out


def test_vnis_and_subnets_run_out_politely() -> None:
    assert ipam.next_vni(()) == 4096
    assert ipam.next_vni({ipam.VNI_LAST}) == 4096
    whole = Cidr.parse("10.64.0.0/21")
    assert str(ipam.next_subnet(whole, 22, {whole.base})) == "10.64.4.0/22"
    assert ipam.next_subnet(whole, 22, set(whole.parts(22))) is None
