"""Whether a package that a backend needs can be imported here: being installed isn't enough where it was compiled."""

import logging
from functools import cache
from importlib import import_module

log = logging.getLogger(__name__)


@cache
def works(module: str) -> bool:
    """Import a module, once; False when that fails, whatever the reason, which goes to the log (-v)."""
    try:
        import_module(module)
    except Exception as error:
        reason = [*str(error).splitlines(), ""][0]
        log.debug("%s can't be used: %s: %s", module, type(error).__name__, reason)
        return False
    return True
