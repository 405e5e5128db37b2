"""Gradients take the interface that leads to the other machines, and never the one of the ECS agent."""

import socket

import pytest

from functions.train.distributed import launcher, network_interface
from functions.train.distributed.launcher import ClusterLayout, launch_processes
from functions.train.distributed.network_interface import Interfaces, list_ipv4_interfaces, name_network_interface

MAIN, OWN = "10.0.0.7", "10.0.0.9"
AGENT = ("ecs-eth0", "169.254.172.2")
LOOPBACK, BRIDGE = ("lo", "127.0.0.1"), ("docker0", "172.17.0.1")


@pytest.mark.parametrize(
    ("interfaces", "main", "own", "expected"),
    [
        ([LOOPBACK, AGENT, ("eth0", OWN)], MAIN, OWN, "eth0"),  # a Batch container, which listed the agent's first
        ([LOOPBACK, AGENT, ("eth1", OWN)], None, OWN, "eth1"),  # the main machine, from its list of hosts
        ([LOOPBACK, AGENT, BRIDGE, ("ens5", OWN)], None, "127.0.1.1", "ens5"),  # whose name leads nowhere
        ([LOOPBACK, AGENT, ("eth0", "10.9.9.9"), ("eth1", OWN)], MAIN, OWN, "eth1"),  # the route decides
        ([LOOPBACK, ("ib0", OWN), ("eth0", "10.9.9.9")], MAIN, OWN, "ib0"),  # and not the names
        ([LOOPBACK, ("lan0", "169.254.3.4"), ("eth0", OWN)], None, None, "eth0"),  # link-local under another name
        ([LOOPBACK, AGENT, BRIDGE], MAIN, None, None),
        ([], None, None, None),
    ],
)
def test_interface_of_the_route(
    interfaces: Interfaces, main: str | None, own: str | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_interface, "list_ipv4_interfaces", lambda: interfaces)
    monkeypatch.setattr(network_interface, "get_own_address", lambda: own)
    routes = {MAIN: OWN, OWN: OWN, "127.0.1.1": "127.0.0.1"}
    monkeypatch.setattr(network_interface, "find_route_source", routes.get)
    told: dict[str, str] = {}
    name_network_interface(told, main)
    assert told.get("GLOO_SOCKET_IFNAME") == expected
    assert told["NCCL_SOCKET_IFNAME"] == (expected or "^lo,docker,ecs,veth,br-")


def test_what_the_user_names_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_interface, "list_ipv4_interfaces", lambda: [("eth0", OWN)])
    monkeypatch.setattr(network_interface, "get_own_address", lambda: OWN)
    monkeypatch.setattr(network_interface, "find_route_source", lambda _: OWN)
    told = {"NCCL_SOCKET_IFNAME": "^ecs"}
    name_network_interface(told, None)
    assert told == {"NCCL_SOCKET_IFNAME": "^ecs", "GLOO_SOCKET_IFNAME": "eth0"}
    both = {"NCCL_SOCKET_IFNAME": "a", "GLOO_SOCKET_IFNAME": "b"}
    name_network_interface(both, MAIN)
    assert both == {"NCCL_SOCKET_IFNAME": "a", "GLOO_SOCKET_IFNAME": "b"}


def test_kernel_is_asked_without_a_packet() -> None:
    assert dict(list_ipv4_interfaces())["lo"] == "127.0.0.1"
    assert network_interface.find_route_source("127.0.0.1") == "127.0.0.1"
    assert {name for name, _ in list_ipv4_interfaces()} <= {name for _, name in socket.if_nameindex()}


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (ClusterLayout(1, nodes=2, node_rank=1, main_address=MAIN), [MAIN]),
        (ClusterLayout(1, nodes=2), [None]),
        (ClusterLayout(2), []),  # one machine: nothing leaves it
    ],
)
def test_launcher_names_it_for_several_machines_alone(
    layout: ClusterLayout, expected: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []
    monkeypatch.setattr(launcher, "name_network_interface", lambda _, main: asked.append(main))
    monkeypatch.setattr(launcher, "run_torchrun_agent", lambda *_: 0)
    for name in (launcher.EXIT_FILE, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # put back afterwards
    launch_processes(layout, ["wine"])
    assert asked == expected
