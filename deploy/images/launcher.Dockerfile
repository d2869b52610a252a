# The image of the pipeline's steps: they start, watch and judge what others compute. No torch.
# Built by `make images` from build/images, which holds the wheel, the lists of requirements and these files.
ARG BASE=docker.io/library/python:3.12-slim

FROM ${BASE} AS build
COPY launcher.txt goldpath-*.whl /src/
RUN python -m venv /opt/goldpath \
 && /opt/goldpath/bin/pip install --no-cache-dir -r /src/launcher.txt \
 && /opt/goldpath/bin/pip install --no-cache-dir --no-deps /src/goldpath-*.whl

FROM ${BASE}
ARG BASE
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="goldpath launcher" \
      org.opencontainers.image.description="Steps of the goldpath pipelines: kfp, goldpath and clients" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/goldpath /opt/goldpath
# The root may be read-only: what is written goes below /tmp, which is then a volume. The user has no entry in
# /etc/passwd, so USER is what libraries ask for; there is no git, which MLflow would remark upon.
ENV PATH=/opt/goldpath/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    GIT_PYTHON_REFRESH=quiet \
    USER=goldpath \
    HOME=/tmp \
    TMPDIR=/tmp \
    XDG_CACHE_HOME=/tmp/.cache \
    XDG_CONFIG_HOME=/tmp/.config \
    GOLDPATH_HOME=/tmp/goldpath \
    HF_HOME=/tmp/.cache/huggingface \
    MPLCONFIGDIR=/tmp/.cache/matplotlib
# A number: with runAsNonRoot the kubelet refuses a user that it knows by name only.
USER 1000:1000
WORKDIR /tmp
CMD ["goldpath", "--help"]
