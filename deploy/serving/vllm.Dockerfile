# vLLM with an LMCache that fits it, as a user without rights:
#   docker build -f deploy/serving/vllm.Dockerfile -t goldpath/vllm:0.32.0-lmcache0.5.6 deploy/serving
ARG VLLM_VERSION=0.32.0
ARG VLLM_IMAGE=vllm/vllm-openai:v${VLLM_VERSION}
FROM ${VLLM_IMAGE}
ARG VLLM_VERSION=0.32.0
ARG LMCACHE_VERSION=0.5.6
RUN python3 -m pip install --no-cache-dir "lmcache==${LMCACHE_VERSION}" "vllm==${VLLM_VERSION}"
RUN mkdir -p /home/goldpath && chown 1000:1000 /home/goldpath
ENV HOME=/home/goldpath USER=goldpath PYTHONHASHSEED=0 LMCACHE_TRACK_USAGE=false VLLM_NO_USAGE_STATS=1
USER 1000:1000
ENTRYPOINT ["vllm", "serve"]
