# The image of the pods that compute: TRL, PEFT, torch. Its torch brings CUDA; the node brings NVIDIA's driver.
# Built by `make images` from build/images, which holds the wheel, the lists of requirements and these files.
ARG BASE=docker.io/library/python:3.12-slim

FROM ${BASE} AS build
COPY lock.txt goldpath-*.whl /src/
# Further packages, such as deepspeed for the sharding zero3: built without its kernels, which no training here uses.
ARG WITH=
RUN python -m venv /opt/goldpath \
 && /opt/goldpath/bin/pip install --no-cache-dir -r /src/lock.txt \
 && if [ -n "${WITH}" ]; then \
      /opt/goldpath/bin/pip install --no-cache-dir setuptools wheel \
      && DS_BUILD_OPS=0 /opt/goldpath/bin/pip install --no-cache-dir --no-build-isolation ${WITH}; \
    fi \
 && /opt/goldpath/bin/pip install --no-cache-dir --no-deps /src/goldpath-*.whl

FROM ${BASE}
ARG BASE
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="goldpath trainer" \
      org.opencontainers.image.description="Training and evaluation of goldpath: torch, TRL, PEFT, accelerate" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/goldpath /opt/goldpath
# The root may be read-only: what is written goes below /tmp, which is then a volume.
ENV PATH=/opt/goldpath/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    TMPDIR=/tmp \
    XDG_CACHE_HOME=/tmp/.cache \
    XDG_CONFIG_HOME=/tmp/.config \
    GOLDPATH_HOME=/tmp/goldpath \
    HF_HOME=/tmp/.cache/huggingface \
    MPLCONFIGDIR=/tmp/.cache/matplotlib \
    TRITON_CACHE_DIR=/tmp/.cache/triton \
    TORCHINDUCTOR_CACHE_DIR=/tmp/.cache/inductor \
    CUDA_CACHE_PATH=/tmp/.cache/cuda
# A number: with runAsNonRoot the kubelet refuses a user that it knows by name only.
USER 1000:1000
WORKDIR /tmp
CMD ["goldpath", "--help"]
