"""THE provider-shaped server. See `server.py`; the faults are listed in `faults.py`."""

from tests.provider.calls import Call
from tests.provider.faults import KINDS, Fault
from tests.provider.server import Provider, provider

__all__ = ["KINDS", "Call", "Fault", "Provider", "provider"]
