"""The workers. Before anything else: ONNX Runtime, which Qdrant's client and the encoder bring along, reports home to its makers from the
moment of its import, and only the environment keeps it from that. Nothing fails here."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
