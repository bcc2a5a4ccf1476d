"""Where Reverb's servers listen.

A room of its own, since what it does is unusual and must be found. Reverb's
server has no authentication, takes every interface of the machine, and gRPC
lets a second server start on a port that is taken and shares the connections
out between the two. There is no option against it, and a run must not open its
replay to the network by itself. So `bind` stands between the server and the C
library while it starts, where the platform is known; elsewhere it warns.
`address` is for those who only need to speak of addresses.
"""
