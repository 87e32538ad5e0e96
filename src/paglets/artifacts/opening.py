"""How files of others are opened: those that somebody may put another thing in the place of."""

from __future__ import annotations

import os
from typing import Final

#: No symbolic link is followed, no child inherits the descriptor, no line end is translated: where a system knows that.
PLAIN: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
#: For reading; what is a pipe by now is not waited for.
READ_PLAIN: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | PLAIN
