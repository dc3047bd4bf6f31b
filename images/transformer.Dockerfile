# KServe's transformer: packs the project's files into the prompt. No torch, no numba: the wheel holds the compiled loops.
# Build from the repository's root, after `images/wheels.sh`: docker build -f images/transformer.Dockerfile .
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE}
RUN groupadd --gid 1000 infill \
    && useradd --uid 1000 --gid 1000 --no-create-home --home-dir /cache --shell /usr/sbin/nologin infill \
    && mkdir /cache \
    && chown 1000:1000 /cache
# cpu or cuda selects the lock and the wheels.
ARG TORCH=cpu
# `store,transformer,stages` also holds what replaces secrets, for `telemetry: feedback`; 70 MB more.
ARG EXTRAS=store,transformer
# Nothing comes from the network: the wheelhouse holds every package of the lock. Packages' tests are left out; byte
# code is compiled here, since the file system is read-only later. One instruction: no layer holds pip (ADR 0020).
RUN --mount=type=bind,source=dist/wheels,target=/wheels \
    --mount=type=bind,source=requirements,target=/requirements \
    python3.11 -m venv /opt/infill \
    && /opt/infill/bin/pip install --quiet --no-index --no-cache-dir --disable-pip-version-check --no-compile \
        --find-links "/wheels/${TORCH}" --constraint "/requirements/${TORCH}.txt" "infill[${EXTRAS}]" \
    # Packages for KServe's client and the tokenizers' downloads, which this server does not need.
    && /opt/infill/bin/pip uninstall --yes --quiet grpcio-tools hf-xet huggingface-hub pillow \
    && /opt/infill/bin/pip uninstall --yes --quiet pip setuptools \
    # The compiled loops need a C library no older than that of the machine on which `images/wheels.sh` ran.
    && /opt/infill/bin/python -B -c 'import infill.context.kernels, infill.context.scoring' \
    && find /opt/infill/lib -type d -name tests -prune -exec rm -rf {} + \
    && python3.11 -m compileall -q --invalidation-mode unchecked-hash -x 'py312' /opt/infill/lib
ARG VERSION=0.1.0
ARG COMMIT=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="infill-transformer" \
      org.opencontainers.image.description="Context-packing KServe transformer of Infill" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}" \
      org.opencontainers.image.created="${CREATED}"
# The root file system is read-only at run time: all writes go to /tmp and /cache, which the pod mounts.
ENV PATH=/opt/infill/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/cache \
    HF_HOME=/cache/huggingface \
    MPLCONFIGDIR=/cache/matplotlib \
    XDG_CACHE_HOME=/cache
USER 1000:1000
WORKDIR /tmp
EXPOSE 8080
ENTRYPOINT ["python", "-m", "serving.transformer"]
