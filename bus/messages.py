"""Every message on the bus: the contract between the rooms.

Two planes. **control**: the controller binds a ROUTER; gateways, codec workers and clients each
connect one DEALER. **media**: each codec worker binds a ROUTER; gateways and clients connect one
DEALER to each worker that carries their calls. Every ZeroMQ message is one frame of msgpack: a
frozen Struct of one of the tagged unions at the end of control_messages.py and media_messages.py.
``docs/bus.md`` tells the same as prose.

Units, everywhere:

- *position*: samples at 8 kHz, counted from the call's start (outbound: of all that the client has
  spoken in this call; inbound: of call time). A PCM sample at 24 kHz has position index // 3.
- *stream position*: samples at 8 kHz within one Media Stream, from ``media.timestamp``.
- *ordinal*: which Media Stream of the call, from 1; a call gets a new one when it is redirected,
  and goes on from 1,000 times the epoch after the controller's restart.
- *generation*: ``ordinal << 16 | moves``: counted up by the gateway each time it moves the call
  to another worker; each new stream starts a new range, which is higher. Every media message
  carries its call and generation; a receiver drops what is older than the newest it has seen for
  that call.
- payload: raw mu-law (G.711), 8 kHz, one byte a sample. pcm: PCM16 little-endian mono 24 kHz.
- times: seconds, float. Deadlines travel as time left (ttl), since clocks differ between hosts.
"""

from .adapter_messages import *  # noqa: F403  # this module is where all of them are named
from .call_records import *  # noqa: F403  # the same
from .control_messages import *  # noqa: F403  # the same
from .gateway_messages import *  # noqa: F403  # the same
from .media_messages import *  # noqa: F403  # the same
from .wire import *  # noqa: F403  # the same
