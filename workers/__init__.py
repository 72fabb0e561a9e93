"""The workers. Before anything else, what libraries read from the environment at their import, and nowhere else:

ONNX Runtime, which Qdrant's client and the encoder bring along, reports home to its makers unless it is told not to. OpenBLAS, in numpy,
lets a thread for each CPU spin for a while after every product of an embedded cache's search: half the CPU of the stage, and no search
the faster for it. Who sets these variables is obeyed. Nothing fails here.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
