"""The service, and the bundle format that it shares with the workshop."""

import os

# Before anything imports ONNX Runtime: its official builds give the machine an id, keep events of each session in the
# user's home and hold an address to send them to. This is the switch that its makers offer for that.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
