"""Addresses: which of them the whole world reaches, and which lie inside somewhere.

By the IANA registries of special-purpose addresses; written out, since what `ipaddress` knows of
them differs between versions of Python.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

_INSIDE_4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's metadata under a public number
        "169.254.0.0/16",  # link-local; most clouds' metadata
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",  # documentation, as are 198.51.100 and 203.0.113
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved; broadcast
    )
)
_WORLD_6 = IPv6Network("2000::/3")
_INSIDE_6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocols; Teredo
        "2001:db8::/32",  # documentation, as is 3fff::/20
        "2002::/16",  # 6to4: an IPv4 address behind a relay
        "3fff::/20",
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")
_ISATAP = 0x00005EFE  # in the third quarter: the last one is an IPv4 address


def unwrap(text: str) -> IPv4Address | IPv6Address:
    """The address that is reached: of an IPv4 address written as IPv6, or behind NAT64, that one.

    Raises: ValueError when the text is not an address.
    """
    address = ip_address(text)
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an unwrapped address is reached from anywhere, and is one machine's own."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _INSIDE_4)
    isatap = int(address) >> 32 & 0xFDFFFFFF == _ISATAP
    return address in _WORLD_6 and not isatap and not any(address in inside for inside in _INSIDE_6)
