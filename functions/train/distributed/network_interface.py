"""Which network interface the processes of several machines exchange gradients over.

A container of a multi-node job of AWS Batch sees several: `eth0` or `eth1` of the VPC, `ecs-eth0` with a link-local
address, which only the ECS agent answers on, `docker0` and `lo`. NCCL and Gloo take the first that is up, and where
that is `ecs-eth0` the other machines cannot connect (NVIDIA/nccl, issue 859). So the one is named that leads to the
main machine, unless the user has named one.
"""

import fcntl
import ipaddress
import socket
import struct
from collections.abc import MutableMapping, Sequence
from contextlib import suppress

NCCL_VARIABLE, GLOO_VARIABLE = "NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"
LOCAL_PREFIXES = ("lo", "docker", "ecs", "veth", "br-")  # of interfaces that do not leave the machine
NCCL_EXCLUSION = "^lo,docker,ecs,veth,br-"  # NCCL's form for all others; Gloo has none
SIOCGIFADDR = 0x8915  # Linux: the IPv4 address of an interface
PROBE_PORT = 29500  # of a socket that is connected without a packet, to ask the kernel for its route
Interfaces = Sequence[tuple[str, str]]  # name and IPv4 address


def name_network_interface(environment: MutableMapping[str, str], main_address: str | None) -> None:
    """Set the variables of NCCL and Gloo that the user has not set; `main_address` is None on the main machine.

    Where no interface can be told, NCCL is told which to leave out, and Gloo keeps its own choice.
    """
    if NCCL_VARIABLE in environment and GLOO_VARIABLE in environment:
        return
    name = choose_interface(list_ipv4_interfaces(), main_address)
    environment.setdefault(NCCL_VARIABLE, name or NCCL_EXCLUSION)
    if name:
        environment.setdefault(GLOO_VARIABLE, name)


def choose_interface(interfaces: Interfaces, main_address: str | None) -> str | None:
    """Choose the interface of the route to the main machine; there, that of its own name, or the only one left.

    The route of the kernel counts, and not the names: an interface may have any.
    """
    usable: dict[str | None, str] = {address: name for name, address in interfaces if is_usable(name, address)}
    for target in filter(None, (main_address, get_own_address())):
        if (source := find_route_source(target)) in usable:
            return usable[source]
    return next(iter(usable.values()), None)


def is_usable(name: str, address: str) -> bool:
    """Return whether an interface may lead to other machines: neither loopback, link-local nor a container's bridge."""
    parsed = ipaddress.ip_address(address)
    return not (parsed.is_loopback or parsed.is_link_local or name.startswith(LOCAL_PREFIXES))


def list_ipv4_interfaces() -> Interfaces:
    """List the interfaces of this machine that have an IPv4 address, in the kernel's order."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # it has no IPv4 address
                answer = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                found.append((name, socket.inet_ntoa(answer[20:24])))
    return found


def find_route_source(address: str) -> str | None:
    """Find the address of this machine from which the kernel would send to `address`; nothing is sent."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, PROBE_PORT))
        return str(probe.getsockname()[0])
    return None


def get_own_address() -> str | None:
    """Return the address of this machine's own name, which ECS writes into the container's list of hosts."""
    with suppress(OSError):
        return socket.gethostbyname(socket.gethostname())
    return None
