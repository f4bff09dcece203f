"""Delta ADS as dialogues: what one proxy says, and what it is answered."""

from __future__ import annotations

from collections.abc import Callable

from tests.playbook.dialogue import (
    CLUSTER,
    ENDPOINT,
    LISTENER,
    NAME,
    ROUTE,
    SECRET,
    VIRTUAL_HOST,
    Book,
    Dialogue,
    cluster,
    endpoints,
    thing,
)
from tulle.core.encoded import Encoded
from tulle.xds.events import Acked, Refused, Subscribed, Synced
from tulle.xds.messages import Send
from tulle.xds.status import Nack


def talk(*resources: Encoded, known: Callable[[str, str, str], bool] = lambda proxy, type_url, name: True) -> Dialogue:
    book = Book()
    book.tell(*resources)
    return Dialogue(book, known=known)


def started() -> Dialogue:
    """A proxy that has a cluster with endpoints, a listener, its table and a virtual host, all acknowledged."""
    it = talk(
        cluster("a"),
        endpoints("a"),
        thing(LISTENER, "l", refs=[(ROUTE, "t")]),
        thing(ROUTE, "t", refs=[(VIRTUAL_HOST, "t")]),
        thing(VIRTUAL_HOST, "t/a"),
    )
    assert it.asks(CLUSTER) == ["CDS+a#1"]
    assert it.acks(CLUSTER, 1) == []
    assert it.asks(ENDPOINT, "a") == ["EDS+a#2"]
    assert it.acks(ENDPOINT, 2) == []
    assert it.asks(LISTENER) == ["LDS+l#3"]
    assert it.acks(LISTENER, 3) == []
    assert it.asks(ROUTE, "t") == ["RDS+t#4"]
    assert it.acks(ROUTE, 4) == []
    assert it.asks(VIRTUAL_HOST, "t") == ["VHDS+t/a#5"]
    assert it.stream.synced == 0
    assert it.acks(VIRTUAL_HOST, 5) == []
    assert it.stream.synced == 1
    return it


def test_start_of_a_proxy() -> None:
    """Would fail if a proxy that starts were not given its configuration in Envoy's order, or were called synced too early."""
    it = started()
    assert [action.type_url for action in it.log if isinstance(action, Acked)] == [
        CLUSTER,
        ENDPOINT,
        LISTENER,
        ROUTE,
        VIRTUAL_HOST,
    ]
    assert [action for action in it.log if isinstance(action, Synced)][-1] == Synced(1)


def test_a_wildcard_is_told_as_such() -> None:
    """Would fail if the node could not learn from its Envoy what to ask upstream."""
    it = talk(cluster("a"))
    it.asks(CLUSTER)
    assert Subscribed(CLUSTER, ("*",), ()) in it.log


def test_make_before_break() -> None:
    """Would fail if a route could arrive before its cluster's endpoints are in, or a cluster go before the route to it."""
    it = started()
    said = it.told(cluster("b"), endpoints("b"), thing(VIRTUAL_HOST, "t/a", "to b"), gone=[(CLUSTER, "a"), (ENDPOINT, "a")])
    assert said == ["CDS+b#6"]
    assert it.acks(CLUSTER, 6) == [], "the endpoints of b are not even asked for"
    assert it.asks(ENDPOINT, "b") == ["EDS+b#7"]
    assert it.acks(ENDPOINT, 7) == ["VHDS+t/a#8"]
    assert it.acks(VIRTUAL_HOST, 8) == ["CDS-a#9", "EDS-a#10"]
    assert it.acks(CLUSTER, 9) == []
    assert it.stream.synced == 1
    assert it.drops(ENDPOINT, "a") == []
    assert it.acks(ENDPOINT, 10) == []
    assert it.stream.synced == 2


def test_endpoints_of_a_changed_cluster_are_sent_again() -> None:
    """Would fail if Envoy were left warming a changed cluster: it waits for endpoints that it does not ask for again."""
    it = started()
    assert it.told(cluster("a", "2")) == ["CDS+a#6", "EDS+a#7"]
    assert it.acks(CLUSTER, 6) == []
    assert it.acks(ENDPOINT, 7) == []
    assert it.stream.synced == 2


def test_an_endpoint_change_is_one_response() -> None:
    """Would fail if a changed endpoint cost more than one resource and one round trip."""
    it = started()
    assert it.told(endpoints("a", "2")) == ["EDS+a#6"]
    assert it.acks(ENDPOINT, 6) == []
    assert it.stream.synced == 2


def test_a_later_layer_stands_in_the_place_of_an_earlier() -> None:
    """Would fail if callers for whom something holds had what holds for all, or changes that do not concern them were told."""
    book = Book(("mesh", "callers"))
    book.tell(cluster("a", "everybody's"), cluster("b"), layer="mesh")
    book.tell(cluster("a", "theirs"), layer="callers")
    it = Dialogue(book)

    def has() -> str:
        sent = [action for action in it.log if isinstance(action, Send) for one in action.resources if one.name == "a"]
        return sent[-1].resources[0].value.decode()

    assert it.asks(CLUSTER) == ["CDS+a+b#1"]
    assert has() == "theirs"
    assert it.acks(CLUSTER, 1) == []
    assert it.told(cluster("a", "everybody's new"), layer="mesh") == []
    assert it.told(gone=[(CLUSTER, "a")], layer="callers") == ["CDS+a#2"]
    assert has() == "everybody's new"
    assert it.acks(CLUSTER, 2) == []
    assert it.told(cluster("a", "theirs again"), layer="callers") == ["CDS+a#3"]


def test_names_come_last() -> None:
    """Would fail if the node's DNS could answer for a service that the proxy cannot reach yet."""
    it = started()
    it.asks(NAME, "*")
    assert it.acks(NAME, 6) == []
    assert it.told(thing(NAME, "b"), thing(VIRTUAL_HOST, "t/b"), cluster("b"), endpoints("b")) == ["CDS+b#7"]
    assert it.acks(CLUSTER, 7) == []
    assert it.asks(ENDPOINT, "b") == ["EDS+b#8"]
    assert it.acks(ENDPOINT, 8) == ["VHDS+t/b#9"]
    assert it.acks(VIRTUAL_HOST, 9) == ["NDS+b#10"]
    assert it.told(gone=[(NAME, "b"), (VIRTUAL_HOST, "t/b"), (CLUSTER, "b"), (ENDPOINT, "b")]) == []
    assert it.acks(NAME, 10) == ["NDS-b#11"]
    assert it.acks(NAME, 11) == ["VHDS-t/b#12"]
    assert it.acks(VIRTUAL_HOST, 12) == ["CDS-b#13", "EDS-b#14"]


def test_revisions_coalesce() -> None:
    """Would fail if a slow proxy were sent every revision that it missed, or a mix of two."""
    it = started()
    assert it.told(cluster("b"), endpoints("b")) == ["CDS+b#6"]
    for content in ("2", "3", "4"):
        assert it.told(thing(VIRTUAL_HOST, "t/a", content), endpoints("a", content)) == []
    assert it.asks(ENDPOINT, "b") == ["EDS+b#7"]
    assert it.acks(CLUSTER, 6) == []
    assert it.acks(ENDPOINT, 7) == ["EDS+a#8"]
    assert it.stream.synced == 2
    assert it.acks(ENDPOINT, 8) == ["VHDS+t/a#9"]
    assert it.acks(VIRTUAL_HOST, 9) == []
    assert it.stream.synced == 5


def test_a_proxy_that_is_always_behind_gets_routes() -> None:
    """Would fail if endpoints that change all the time could keep a changed route away for ever."""
    it = started()
    assert it.told(endpoints("a", "2"), thing(VIRTUAL_HOST, "t/a", "2")) == ["EDS+a#6"]
    assert it.told(endpoints("a", "3")) == []
    assert it.acks(ENDPOINT, 6) == ["VHDS+t/a#7"]


def test_subscribing_to_what_changed_meanwhile() -> None:
    """Would fail if a name asked for in the middle of a wave stayed at the version of that wave."""
    it = talk(cluster("a"), endpoints("a"), cluster("b"), endpoints("b"))
    it.asks(CLUSTER)
    it.told(endpoints("b", "2"))
    assert it.asks(ENDPOINT, "a", "b") == ["EDS+a+b#2"]
    it.acks(CLUSTER, 1)
    assert it.acks(ENDPOINT, 2) == ["EDS+b#3"]


def test_nack_is_an_answer() -> None:
    """Would fail if one bad cluster stopped everything after it, or its error were forgotten or stuck."""
    it = started()
    said = it.told(cluster("bad"), endpoints("bad"), cluster("good"), endpoints("good"), thing(VIRTUAL_HOST, "t/a", "2"))
    assert said == ["CDS+bad+good#6"]
    assert it.nacks(CLUSTER, 6, "Error adding/updating cluster(s) bad: no") == ["CDS+good#7"]
    assert Refused(Nack(CLUSTER, ("bad",), "Error adding/updating cluster(s) bad: no", 2)) in it.log
    assert it.acks(CLUSTER, 7) == []
    assert it.asks(ENDPOINT, "good") == ["EDS+good#8"]
    assert it.acks(ENDPOINT, 8) == ["VHDS+t/a#9"]
    it.acks(VIRTUAL_HOST, 9)
    assert it.stream.synced == 2
    (status,) = [status for status in it.stream.status() if status.type_url == CLUSTER]
    assert status.refused == {"bad": "Error adding/updating cluster(s) bad: no"}
    assert it.told(endpoints("a", "9")) == ["EDS+a#10"], "the refused cluster is not sent again while it is the same"
    it.acks(ENDPOINT, 10)
    said = it.told(cluster("bad", "better"))
    assert said == ["CDS+bad#11"]
    it.acks(CLUSTER, 11)
    (status,) = [status for status in it.stream.status() if status.type_url == CLUSTER]
    assert status.refused == {}


def test_one_bad_resource_does_not_stop_its_neighbours() -> None:
    """Would fail if a proxy stayed without any of its routes because of one, when Envoy does not say which."""
    it = talk(*(endpoints(name) for name in "abcde"))
    assert it.asks(ENDPOINT, *"abcde") == ["EDS+a+b+c+d+e#1"]
    assert it.nacks(ENDPOINT, 1, "no") == ["EDS+a+b#2"]
    assert it.acks(ENDPOINT, 2) == ["EDS+c+d#3"]
    assert it.nacks(ENDPOINT, 3, "no") == ["EDS+c#4"]
    assert it.acks(ENDPOINT, 4) == ["EDS+d#5"]
    assert not [action for action in it.log if isinstance(action, Acked | Refused)], "not before it is clear"
    assert it.nacks(ENDPOINT, 5, "no") == ["EDS+e#6"]
    assert it.log[-2] == Refused(Nack(ENDPOINT, ("d",), "d: no", 1))
    it.acks(ENDPOINT, 6)
    assert Acked(ENDPOINT, 1) in it.log
    assert it.stream.synced == 1
    assert it.stream.status()[0].refused == {"d": "d: no"}
    assert it.told(*(endpoints(name, "2") for name in "ade")) == ["EDS+a+d+e#7"]


def test_a_proxy_that_does_not_ask_is_not_waited_for_for_ever() -> None:
    """Would fail if a proxy that never subscribes to a cluster's endpoints were cut off from all further routes."""
    it = started()
    it.told(cluster("b"), endpoints("b"), thing(VIRTUAL_HOST, "t/a", "2"))
    assert it.acks(CLUSTER, 6) == []
    assert it.stream.outstanding == (ENDPOINT,)
    assert it.waits() == ["VHDS+t/a#7"]


def test_a_type_that_is_not_answered_does_not_stop_the_others_for_ever() -> None:
    """Would fail if an Envoy that holds back its answer (it does while a cluster warms) got no routes and endpoints any more."""
    it = started()
    assert it.told(cluster("a", "2"), thing(VIRTUAL_HOST, "t/a", "2")) == ["CDS+a#6", "EDS+a#7"]
    assert it.acks(ENDPOINT, 7) == []
    assert it.stream.outstanding == (CLUSTER,)
    assert it.waits() == ["VHDS+t/a#8"]
    assert it.stream.outstanding == (VIRTUAL_HOST,)
    it.acks(VIRTUAL_HOST, 8)
    assert it.stream.synced == 1
    assert it.told(cluster("a", "3"), endpoints("a", "3"), thing(VIRTUAL_HOST, "t/a", "3")) == ["EDS+a#9"]
    assert it.acks(ENDPOINT, 9) == ["VHDS+t/a#10"]
    assert it.acks(VIRTUAL_HOST, 10) == []
    assert it.stream.synced == 1
    assert it.acks(CLUSTER, 6) == ["CDS+a#11", "EDS+a#12"]
    it.acks(CLUSTER, 11)
    it.acks(ENDPOINT, 12)
    assert it.stream.synced == 3


def test_reconnect_sends_only_what_differs() -> None:
    """Would fail if a reconnect cost the whole configuration, or something that went meanwhile stayed with the proxy."""
    same, changed = cluster("same"), cluster("changed", "2")
    it = talk(same, endpoints("same"), changed, endpoints("changed"), thing(SECRET, "s"))
    said = it.asks(CLUSTER, having={"same": same.version, "changed": "old", "gone": "old"})
    assert said == ["CDS+changed#1"]
    said = it.asks(
        ENDPOINT, "same", "changed", having={"same": endpoints("same").version, "changed": endpoints("changed").version}
    )
    assert said == ["EDS+changed#2"], "not for its own sake: its cluster changed"
    assert it.asks(SECRET, "s", having={"s": thing(SECRET, "s").version, "not asked for": "1"}) == []
    it.acks(ENDPOINT, 2)
    assert it.acks(CLUSTER, 1) == []
    assert it.settles() == ["CDS-gone#3"], "not before it had time to say which routes it has"
    it.acks(CLUSTER, 3)
    assert it.stream.synced == 1


def test_what_does_not_exist_is_said() -> None:
    """Would fail if Envoy could wait for ever for a resource that does not exist."""
    it = talk(cluster("a"))
    assert it.asks(ENDPOINT, "x") == ["EDS?x#1"]
    it.acks(ENDPOINT, 1)
    assert it.told(endpoints("x")) == ["EDS+x#2"]
    it.acks(ENDPOINT, 2)
    assert it.told(gone=[(ENDPOINT, "x")]) == ["EDS-x#3"]
    it.acks(ENDPOINT, 3)
    assert it.told(endpoints("x", "2")) == ["EDS+x#4"]


def test_an_empty_wildcard_is_answered() -> None:
    """Would fail if a proxy without listeners never became ready: Envoy waits for the first answer."""
    it = talk(cluster("a"))
    assert it.asks(LISTENER) == ["LDS#1"]
    it.acks(LISTENER, 1)
    assert it.told(thing(LISTENER, "l")) == ["LDS+l#2"]


def test_asking_again_and_dropping() -> None:
    """Would fail if a client that dropped a resource and asks again got nothing, or heard of what it dropped."""
    it = talk(endpoints("a"), endpoints("b"))
    assert it.asks(ENDPOINT, "a", "b") == ["EDS+a+b#1"]
    it.acks(ENDPOINT, 1)
    assert it.asks(ENDPOINT, "a") == ["EDS+a#2"]
    it.acks(ENDPOINT, 2)
    assert it.drops(ENDPOINT, "a") == []
    assert it.told(endpoints("a", "2")) == []
    assert it.asks(ENDPOINT, "a") == ["EDS+a#3"]


def test_dropping_a_name_under_a_wildcard() -> None:
    """Would fail if a client that keeps its wildcard were left in doubt about a name that it no longer asks for by name."""
    it = talk(cluster("a"))
    assert it.asks(CLUSTER, "*", "a", "x") == ["CDS+a?x#1"]
    it.acks(CLUSTER, 1)
    assert it.drops(CLUSTER, "a", "x") == ["CDS+a?x#2"]
    it.acks(CLUSTER, 2)
    assert it.drops(CLUSTER, "*") == []
    assert it.told(cluster("a", "2")) == []


def test_virtual_hosts_by_table_and_by_name() -> None:
    """Would fail if VHDS by route table, or on demand by name, did not follow the table."""
    it = talk(thing(VIRTUAL_HOST, "80.x/a"), thing(VIRTUAL_HOST, "80.y/a"))
    assert it.asks(VIRTUAL_HOST, "80.x") == ["VHDS+80.x/a#1"]
    it.acks(VIRTUAL_HOST, 1)
    assert it.told(thing(VIRTUAL_HOST, "80.x/b"), thing(VIRTUAL_HOST, "80.y/b")) == ["VHDS+80.x/b#2"]
    it.acks(VIRTUAL_HOST, 2)
    assert it.asks(VIRTUAL_HOST, "80.y/b") == ["VHDS+80.y/b#3"]
    it.acks(VIRTUAL_HOST, 3)
    assert it.told(gone=[(VIRTUAL_HOST, "80.x/a"), (VIRTUAL_HOST, "80.y/a"), (VIRTUAL_HOST, "80.y/b")]) == [
        "VHDS-80.x/a-80.y/b#4"
    ]
    it.acks(VIRTUAL_HOST, 4)
    assert it.asks(VIRTUAL_HOST, "80.y/none") == ["VHDS?80.y/none#5"]
    it.acks(VIRTUAL_HOST, 5)
    assert it.asks(VIRTUAL_HOST, "80.empty") == ["VHDS?80.empty/#6"]
    it.acks(VIRTUAL_HOST, 6)
    assert it.drops(VIRTUAL_HOST, "80.x") == []
    assert it.told(thing(VIRTUAL_HOST, "80.x/b", "2")) == []


def table(name: str, content: str = "1") -> Encoded:
    return thing(ROUTE, name, content, [(VIRTUAL_HOST, name)])


def test_virtual_hosts_as_envoy_asks_for_them() -> None:
    """Would fail if Envoy, which asks for virtual hosts once and without names, got those of a table that it does not have, or
    not those of a table that comes later.
    """
    it = talk(table("80.x"), table("90.x"), thing(VIRTUAL_HOST, "80.x/a"), thing(VIRTUAL_HOST, "90.x/a"), table("70.x"))
    assert it.asks(ROUTE, "80.x") == ["RDS+80.x#1"]
    assert it.asks(VIRTUAL_HOST) == [], "not before the table is taken"
    assert it.acks(ROUTE, 1) == ["VHDS+80.x/a#2"]
    it.acks(VIRTUAL_HOST, 2)
    assert it.asks(ROUTE, "90.x") == ["RDS+90.x#3"]
    assert it.acks(ROUTE, 3) == ["VHDS+90.x/a#4"]
    it.acks(VIRTUAL_HOST, 4)
    assert it.asks(ROUTE, "70.x") == ["RDS+70.x#5"]
    assert it.acks(ROUTE, 5) == ["VHDS?70.x/#6"], "there are none, which is an answer too"
    it.acks(VIRTUAL_HOST, 6)
    assert it.told(thing(VIRTUAL_HOST, "80.x/a", "2"), thing(VIRTUAL_HOST, "60.x/a")) == ["VHDS+80.x/a#7"]
    it.acks(VIRTUAL_HOST, 7)
    assert it.stream.synced == 2


def test_virtual_hosts_of_a_table_that_went_and_came_back() -> None:
    """Would fail if a listener that is removed and added again had an empty table, or a dropped table's hosts were sent."""
    it = talk(table("80.x"), thing(VIRTUAL_HOST, "80.x/a"))
    it.asks(ROUTE, "80.x")
    it.asks(VIRTUAL_HOST)
    it.acks(ROUTE, 1)
    it.acks(VIRTUAL_HOST, 2)
    assert it.drops(ROUTE, "80.x") == []
    assert it.told(thing(VIRTUAL_HOST, "80.x/a", "2")) == []
    assert it.asks(ROUTE, "80.x") == ["RDS+80.x#3"]
    assert it.acks(ROUTE, 3) == ["VHDS+80.x/a#4"]


def test_virtual_hosts_after_a_reconnect() -> None:
    """Would fail if a reconnect sent all virtual hosts again, or missed those that changed or went meanwhile."""
    same, changed = thing(VIRTUAL_HOST, "80.x/same"), thing(VIRTUAL_HOST, "80.x/changed", "2")
    has = {"80.x/same": same.version, "80.x/changed": "old", "80.x/gone": "old"}
    it = talk(table("80.x"), same, changed)
    assert it.asks(ROUTE, "80.x", having={"80.x": table("80.x").version}) == []
    assert it.asks(VIRTUAL_HOST, having=has) == ["VHDS+80.x/changed#1"]
    assert it.acks(VIRTUAL_HOST, 1) == []
    assert it.settles() == ["VHDS-80.x/gone#2"]
    it = talk(table("80.x"), same, changed)
    assert it.asks(VIRTUAL_HOST, having=has) == []
    assert it.asks(ROUTE, "80.x", having={"80.x": table("80.x").version}) == ["VHDS+80.x/changed#1"]
    assert it.settles() == []
    assert it.acks(VIRTUAL_HOST, 1) == ["VHDS-80.x/gone#2"]


def test_a_proxy_that_is_not_known_yet() -> None:
    """Would fail if a proxy that connects before its WorkloadEntry is seen had to reconnect, or lost all when it went."""
    book = Book()
    book.seen["default/curl"] = ()
    book.tell(cluster("a"))
    it = Dialogue(book)
    assert it.asks(CLUSTER) == []
    assert it.stream.held
    del book.seen["default/curl"]
    assert it.told(thing(LISTENER, "l")) == ["CDS+a#1"]
    it.acks(CLUSTER, 1)
    assert it.asks(LISTENER) == ["LDS+l#2"]
    it.acks(LISTENER, 2)
    assert it.stream.synced == 2
    book.seen["default/curl"] = ()
    assert it.told(gone=[(LISTENER, "l")]) == []
    del book.seen["default/curl"]
    assert it.told(cluster("b")) == ["CDS+b#3"]
    assert it.acks(CLUSTER, 3) == ["LDS-l#4"]


def test_what_is_not_known_yet_is_not_denied() -> None:
    """Would fail if a node told its Envoy that something does not exist before the control plane has said so."""
    known: set[str] = set()
    it = talk(cluster("a"), known=lambda proxy, type_url, name: name in known)
    assert it.asks(ENDPOINT, "x") == []
    assert it.asks(LISTENER) == []
    known |= {"x", "*"}
    assert it.told(gone=[(ENDPOINT, "x")]) == ["EDS?x#1"]
    assert it.acks(ENDPOINT, 1) == ["LDS#2"]


def test_stale_answers_are_ignored() -> None:
    """Would fail if an answer to an old response opened a gate."""
    it = started()
    it.told(cluster("b"), endpoints("b"), thing(VIRTUAL_HOST, "t/a", "2"))
    it.asks(ENDPOINT, "b")
    assert it.acks(CLUSTER, 1) == []
    assert it.acks(ENDPOINT, 7) == []
    assert it.acks(CLUSTER, 6) == ["VHDS+t/a#8"]
