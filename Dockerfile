# Two images of one repository; deploy/README.md says how to build, run and check them.
#   service (default)  what serves: no torch, no pip, no compiler, no root, and nothing in it need be writable
#   export             the workshop with torch, to teach and distil
# BASE has Python >= 3.11 with venv. A digest (python@sha256:...) makes the whole image reproducible.
# A package index or certificates of your own reach pip as a secret, which no layer keeps:
#   docker build --secret id=pip.conf,src=pip.conf .
ARG BASE=python:3.11-slim

FROM ${BASE} AS tools
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY deploy/locks ./deploy/locks
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf python3 -m venv /tools \
 && /tools/bin/pip install --require-hashes --only-binary :all: --requirement deploy/locks/tools.txt

# Our own engine, several times as quick as ONNX Runtime; NATIVE=0 leaves it out, for a base without apt. Which
# instructions it uses is decided where it runs.
FROM tools AS native
ARG NATIVE=1
RUN mkdir wheels \
 && if [ "$NATIVE" = 1 ]; then \
      apt-get update \
      && headers=$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))') \
      && if [ -e "$headers/Python.h" ]; then dev=; else dev=python3-dev; fi \
      && apt-get install --yes --no-install-recommends g++ $dev; \
    fi
COPY native ./native
RUN if [ "$NATIVE" = 1 ]; then \
      PATH=/tools/bin:$PATH /tools/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir wheels ./native; \
    fi

# First the dependencies alone: they are installed again only when one of them changes.
FROM tools AS install
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf python3 -m venv --without-pip /venv \
 && /tools/bin/pip --python /venv/bin/python install --require-hashes --only-binary :all: --requirement deploy/locks/service.txt
COPY --from=native /build/wheels ./wheels
COPY pyproject.toml README.md LICENSE ./
COPY service ./service
RUN mkdir export \
 && /tools/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir wheels . \
 && /tools/bin/pip --python /venv/bin/python install --no-index --no-deps wheels/*.whl \
 && /tools/bin/cyclonedx-py environment /venv/bin/python --pyproject pyproject.toml --output-reproducible --output-file sbom.cdx.json

# torch has no hash here: which build of the pinned version it is (CPU, CUDA) is the index's business.
FROM tools AS export
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY service ./service
COPY export ./export
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf python3 -m venv /venv \
 && /venv/bin/pip install --constraint constraints.txt setuptools \
 && /venv/bin/pip install --constraint constraints.txt --no-build-isolation '.[export]'
LABEL org.opencontainers.image.title="understudy-export" \
      org.opencontainers.image.description="Distils BERT classifiers into BiLSTM students"
ENV PATH=/venv/bin:$PATH HOME=/work PYTHONUNBUFFERED=1
WORKDIR /work
USER 10001:10001
ENTRYPOINT ["python", "-m", "export"]
CMD ["--help"]

FROM ${BASE} AS service
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="understudy" \
      org.opencontainers.image.description="BERT classifiers distilled into BiLSTM students, served over HTTP" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# By number, since a cluster that insists on runAsNonRoot cannot look up a name. Nothing is kept, so there is no home.
ENV PATH=/venv/bin:$PATH HOME=/nonexistent PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
COPY --from=install /venv /venv
COPY --from=install /build/sbom.cdx.json ./
COPY models ./models
USER 10001:10001
EXPOSE 8000
# Not by urllib, which would ask the proxy of HTTP_PROXY.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["python", "-c", \
    "import http.client, os, sys; service = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('UNDERSTUDY_PORT') or 8000), timeout=2); service.request('GET', '/readyz'); sys.exit(service.getresponse().status != 200)"]
# As process 1 it handles SIGTERM itself and has no children but its workers, so there is no init in between.
STOPSIGNAL SIGTERM
CMD ["python", "-m", "service", "serve", "--host", "0.0.0.0"]
