"""02xx: rules that contradict each other, that nothing reaches, or that lead nowhere."""

from __future__ import annotations

from tulle.core.analyze.codes.code import error, info, warning

CODES = (
    warning(
        "TUL0201",
        "Conflict",
        "Another object has this host and goes first",
        "Of several VirtualServices with one host a sidecar follows one: that with the most specific host, then the "
        "oldest. HTTPRoutes with the Service as parent go before all of them.",
        "put the rules into one object",
        kinds="VirtualService",
        istio="IST0109",
    ),
    warning(
        "TUL0202",
        "Conflict",
        "An older DestinationRule says it already",
        "Several DestinationRules of one host add up, and for what two of them say the older counts.",
        "put both into one DestinationRule",
        kinds="DestinationRule",
    ),
    warning(
        "TUL0203",
        "UnreachableRule",
        "Nothing reaches this rule",
        "The first rule that matches decides. Every request for which this one would hold is taken by an earlier one.",
        "put the narrower rule first, and the one for all the rest last",
        istio="IST0130",
    ),
    info(
        "TUL0204",
        "IneffectiveMatch",
        "Nothing is left for this match",
        "Every request for which this match would hold is taken by an earlier one; other matches of its rule are reached.",
        "remove the match, or put the rule before the earlier one",
        istio="IST0131",
    ),
    error(
        "TUL0205",
        "WeightSumZero",
        "All weights are 0",
        "No destination has a share of the requests.",
        "give at least one destination a weight above 0",
    ),
    warning(
        "TUL0206",
        "WeightSumZero",
        "No backend has a weight",
        "A rule of a route without a backend whose weight is above 0 answers every request 500.",
        "give at least one backend a weight above 0",
    ),
    warning(
        "TUL0207",
        "WeightSum",
        "The weights do not sum to 100",
        "Weights are shares of their sum, so that 1 and 1 is half each. Where they look like percent and do not sum to "
        "100, one of them is usually wrong.",
        "write weights that sum to 100",
    ),
    warning(
        "TUL0208",
        "NoHttpPort",
        "HTTP rules for a port that is not declared as HTTP",
        "HTTP rules only hold on ports whose protocol is known to be HTTP.",
        "write appProtocol: http at the Service's port, or name the port http (or http-...)",
    ),
    warning(
        "TUL0209",
        "NoMatchingHost",
        "The Gateway serves none of these hosts",
        "A VirtualService is for a Gateway with whose hosts it has none in common. It has no effect there.",
        "make the hosts agree; in the Gateway `namespace/host` also limits the namespace of the VirtualService",
        istio="IST0132",
    ),
    error(
        "TUL0210",
        "NoMatchingListenerHostname",
        "No listener has one of these hostnames",
        "A route counts for the hostnames that it and a listener have in common, and there is none.",
        "make spec.hostnames and the listener's hostname agree",
    ),
    error(
        "TUL0211",
        "NotAllowedByListeners",
        "The Gateway does not take routes of this namespace",
        "A listener takes routes of the namespaces (and kinds) that its allowedRoutes says; without it, those of its own "
        "namespace.",
        "write allowedRoutes.namespaces.from: All (or Selector) at the listener",
    ),
    error(
        "TUL0212",
        "BadWeight",
        "A weight is negative",
        "A weight is a share, 0 or more.",
        "write 0 or more",
    ),
    warning(
        "TUL0213",
        "Conflict",
        "Two ServiceEntries say different things of one host",
        "ServiceEntries of one host are one service. Where they name one port with different protocols, or resolve it in "
        "different ways, only one of them can hold. A host that is a Service's own name belongs to the Service.",
        "put the host into one ServiceEntry",
        kinds="ServiceEntry",
    ),
    warning(
        "TUL0214",
        "PortClash",
        "Two ServiceEntries want all traffic of one TCP port",
        "TCP traffic has no host name. Without addresses, and with resolution NONE, a ServiceEntry with a TCP port takes all "
        "that goes to that port, and only one can.",
        "write spec.addresses",
        istio="IST0134",
    ),
    warning(
        "TUL0215",
        "SubsetEmpty",
        "No workload has the labels of this subset",
        "A subset is those workloads of the host that have all of its labels. Requests for an empty one are answered 503.",
        "correct the labels, or start a workload that has them",
        istio="IST0173",
    ),
    warning(
        "TUL0216",
        "Conflict",
        "An older route has the same match",
        "Of routes of one parent with one hostname and the same match, the oldest decides.",
        "put both into one route, or tell the matches apart",
        kinds="HTTPRoute GRPCRoute",
    ),
    warning(
        "TUL0217",
        "NoTcpPort",
        "Rules for connections to a host that has only HTTP",
        "The rules under tls and tcp hold on ports that are not declared as HTTP; those under http hold on the others.",
        "write the rules under http, or do not declare the port as HTTP",
    ),
    warning(
        "TUL0218",
        "AddressClash",
        "An address of a Sidecar's egress listener is asked for twice",
        "What is called at one address and port is told apart by HTTP's Host or the server name of TLS, and by nothing else.",
        "give each listener an address or a port of its own, and one host where no name is told",
    ),
    warning(
        "TUL0219",
        "NothingBehind",
        "Nothing is behind a listener of a Sidecar",
        "An egress listener with an address of its own leads to those of its hosts that have its port, or one port alone.",
        "write the port of a service, and a host that is one",
    ),
    warning(
        "TUL0220",
        "NoUdpPort",
        "A UDPRoute for a Service without a UDP port",
        "A UDPRoute whose parent is a Service is for the UDP ports of that, and it has none.",
        "name a Service with a port of protocol UDP, or write a TCPRoute",
    ),
)
