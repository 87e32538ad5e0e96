"""The paglets that a launch configuration starts with a host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paglets.config.startup import StartupAgentConfig, bundled_launch_config_text, load_launch_config
from paglets.core.allowance import AllowanceBalance
from paglets.core.policies import DeactivationPolicy, DeactivationRequest
from paglets.core.runtime_values import ResidentLifecycle
from tests.agents.actor import Actor
from tests.agents.residents import ID, REPORT, ResidentState
from tests.runtime.relay.conftest import KEY
from tests.runtime.services import handle_of, launch, service
from tests.support import HostFactory, events_of, free_port

EAGER = ResidentLifecycle.EAGER
NAME = "tests.agents.residents:Starter"
STARTER = StartupAgentConfig(class_name=NAME, init={"by": "file"}, state={"calls": 5})


def test_it_is_created_woken_or_left_alone(hosts: HostFactory) -> None:
    host = hosts(launch_config=launch(agents=(STARTER,)))
    (created,) = events_of(host, "startup-agent-create")
    assert (created.agent_id, created.data) == ("starter", {"source": "launch-config"})
    state = host.get_state("starter", ResidentState)
    assert (state.greeting, state.calls, state.log) == ("proposed", 5, ["created {'by': 'file'}"])

    # Woken by the start of the host already.
    host.shutdown()
    host = hosts(launch_config=launch(agents=(STARTER,)))
    (skipped,) = events_of(host, "startup-agent-skip")
    assert skipped.data == {"reason": "already-active", "use": "", "class": NAME}

    # Asleep, and woken by nothing else.
    host.deactivate("starter", DeactivationRequest(policy=DeactivationPolicy()))
    host.shutdown()
    host = hosts(launch_config=launch(agents=(STARTER,)))
    (woken,) = events_of(host, "startup-agent-activate")
    assert (woken.agent_id, woken.data) == ("starter", {"source": "launch-config"})
    assert host.get_state("starter", ResidentState).log[-1] == "activated activate"


def test_those_without_an_id_and_not_alone_are_created_each_time(hosts: HostFactory) -> None:
    several = StartupAgentConfig(class_name=f"{Actor.__module__}:Actor")
    fixed = StartupAgentConfig(class_name=NAME, agent_id="mine", singleton=False)
    host = hosts(launch_config=launch(agents=(several, several, fixed, fixed)))
    assert len(events_of(host, "startup-agent-create")) == 3
    (failed,) = events_of(host, "startup-agent-failed")
    assert failed.data == {"use": "", "class": NAME}
    assert "mine" in failed.error


def test_what_cannot_be_started_is_told_and_keeps_nothing_else_from_it(hosts: HostFactory) -> None:
    entries = (
        StartupAgentConfig(class_name=NAME, enabled=False),
        StartupAgentConfig(use="old-alias"),
        StartupAgentConfig(),
        StartupAgentConfig(class_name="tests.agents.not_there:Nobody"),
        StartupAgentConfig(class_name="tests.agents.raises:Nobody"),
        StartupAgentConfig(class_name=NAME, state={"calls": "many"}),
        STARTER,
    )
    host = hosts(launch_config=launch(agents=entries))
    (skipped,) = events_of(host, "startup-agent-skip")
    assert skipped.data["reason"] == "disabled"
    failed = events_of(host, "startup-agent-failed")
    assert [event.data["use"] for event in failed] == ["old-alias", "", "", "", ""]
    assert all(event.error for event in failed)
    assert host.get_proxy("starter") is not None


def test_one_that_moved_is_not_created_a_second_time(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha", launch_config=launch(agents=(STARTER,))), hosts("beta")
    alpha.dispatch("starter", beta.address)
    alpha.shutdown()
    alpha = hosts("alpha", port=alpha.port, launch_config=launch(agents=(STARTER,)))
    (skipped,) = events_of(alpha, "startup-agent-skip")
    assert skipped.data["reason"] == "elsewhere"
    assert alpha.get_proxy("starter", include_inactive=True) is None


def test_services_are_up_before_sleepers_wake_and_agents_start(hosts: HostFactory) -> None:
    """The order is the same for a host that listens and for one that is connected to a hub."""
    port = free_port()
    hub = hosts("hub", api_key=KEY, port=port, public_url=f"http://127.0.0.1:{port}")
    ways: dict[str, dict[str, Any]] = {
        "listens": {"api_key": KEY},
        "connects": {"api_key": KEY, "connect_to": hub.address},
    }
    for name, options in ways.items():
        first = hosts(name, **options)
        sleeper = first.create(Actor)
        first.shutdown()
        config = launch(service(lifecycle=EAGER), agents=(STARTER,))
        host = hosts(name, launch_config=config, **options)
        order = [
            (event.kind, event.agent_id)
            for event in events_of(host, "resident-service-declare", "resident-service-create", "activate", "create")
            if event.agent_id in (ID, sleeper.agent_id, "starter")
        ]
        assert order == [
            ("resident-service-declare", ID),
            ("resident-service-create", ID),
            ("create", ID),
            ("activate", sleeper.agent_id),
            ("create", "starter"),
        ]
        assert handle_of(host).record.host_url == host.address
        with host.lease_service_handle(handle_of(host)):
            assert host.resident_services()[0]["leases"] == 1
        lease = hub.lease_service_handle(handle_of(host))
        assert host.resident_services()[0]["leases"] == 1
        lease.release()
        assert host.resident_services()[0]["leases"] == 0


def test_the_bundled_file_works_as_far_as_its_classes_are_there(hosts: HostFactory, tmp_path: Path) -> None:
    path = tmp_path / "launch.toml"
    path.write_text(bundled_launch_config_text())
    config = load_launch_config(path)
    names = [entry.class_name for entry in config.resident_services]
    host = hosts(launch_config=config)
    failed = [event.data["class"] for event in events_of(host, "resident-service-failed")]
    declared = [record.metadata["paglets.resident_service"]["agent_class_name"] for record in host.lookup_services()]
    assert sorted(failed + declared) == sorted(names)
    assert len(failed) == len(set(failed))
    assert events_of(host, "preload-refused") == []
    assert all(shown["state"] != "failed" for shown in host.resident_services())


def test_what_the_file_gives_them_to_use_up(hosts: HostFactory, tmp_path: Path) -> None:
    (tmp_path / "launch.toml").write_text(f"""
[[startup_agents]]
class = "{NAME}"
allowance = {{ max_hops = 2, lifetime = "1h" }}

[[resident_services]]
class = "tests.agents.residents:Resident"
allowance = {{ max_clones = 0 }}
""")
    host = hosts(launch_config=load_launch_config(tmp_path / "launch.toml"))
    given = host.allowance("starter")
    assert (given.hops_left, given.clones_left) == (2, None)
    assert given.expires_at is not None
    handle_of(host).call(REPORT)
    assert host.allowance(ID) == AllowanceBalance(clones_left=0)
