"""A runner whose import kills the process that imports it, as a broken library would."""

import os
import signal

os.kill(os.getpid(), signal.SIGKILL)
