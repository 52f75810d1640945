# The slim service: no torch, no compiler, no root. Build and run:
#   make image && docker run --rm -p 8000:8000 understudy

FROM python:3.11-slim AS install
WORKDIR /build
RUN python -m venv /venv
# First the dependencies alone: this layer is built again only when one of them changes.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN /venv/bin/pip install --no-cache-dir --constraint constraints.txt setuptools \
 && mkdir service export \
 && /venv/bin/pip install --no-cache-dir --constraint constraints.txt --no-build-isolation .

FROM python:3.11-slim
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin understudy
WORKDIR /app
COPY --from=install /venv /venv
COPY service ./service
COPY models ./models
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
STOPSIGNAL SIGTERM
CMD ["python", "-m", "service", "serve", "--host", "0.0.0.0"]
