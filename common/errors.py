"""Three classes of failure; only the loops catch them.

``Retryable`` clears up by itself or by a retry (a peer is away). ``Terminal`` needs a person to change
something; its message names the cause and the cure. Anything else is a bug: the process dies loudly and
its supervisor restarts it.
"""


class SphereError(Exception):
    """Base of every failure that this project raises on purpose."""


class Retryable(SphereError):
    """The same call may succeed later; the caller keeps its object dirty and backs off."""


class Terminal(SphereError):
    """The same call will fail until its input changes; report it where the user looks."""


class ConfigError(Terminal):
    """A configuration file is missing, malformed, or has an unknown or impossible value."""
