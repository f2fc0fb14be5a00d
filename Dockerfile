# The registry as a container: `docker build -t memcube .`, then `docker compose up`.

FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY protocol protocol
COPY signing signing
COPY client client
COPY registry registry
COPY alembic alembic
# Nothing is compiled at run time by a user who may not write: so nothing is left half-compiled either.
RUN python -m venv /opt/memcube \
    && /opt/memcube/bin/pip install --no-compile --constraint constraints.txt '.[registry,s3,hub]' \
    && /opt/memcube/bin/pip uninstall --yes pip setuptools

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="memcube registry" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin memcube \
    && install --directory --owner memcube --group memcube --mode 0700 /data
COPY --from=build /opt/memcube /opt/memcube
ENV PATH=/opt/memcube/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MEMCUBE_REGISTRY_HOST=0.0.0.0 \
    MEMCUBE_REGISTRY_PORT=7070 \
    MEMCUBE_REGISTRY_DATA_DIR=/data
USER 10001:10001
VOLUME ["/data"]
EXPOSE 7070
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ['MEMCUBE_REGISTRY_PORT']}/readyz\", timeout=4)"]
ENTRYPOINT ["memcube-registry"]
CMD ["serve"]
