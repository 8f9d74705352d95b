# syntax=docker/dockerfile:1
#
# docker build -t wavewn .                     for NVIDIA GPUs (the last stage)
# docker build -t wavewn:cpu --target cpu .    without CUDA, several GB smaller
#
# Mount your folder on /data; caches (kernels compiled for your model and GPU, fonts) live on the
# volume /cache. What to run first: docker run --gpus all wavewn bench --device cuda

# What all stages share. g++ serves the native engine, torch.compile, and pesq, which comes as C
# source.
FROM python:3.11-slim-bookworm AS runtime
# Debian keeps only the newest build of a package, so a pinned version would soon not be found.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libsndfile1 \
    && rm -rf /var/lib/apt/lists/*
# World-writable with the sticky bit, as /tmp: under `docker run --user` any user may come. USER
# stands in for the name that such a user has not got.
RUN useradd --no-create-home --home-dir /cache --uid 1000 --user-group wavewn \
    && mkdir -p /cache /data \
    && chmod 1777 /cache /data
ENV HOME=/cache \
    USER=wavewn \
    XDG_CACHE_HOME=/cache/xdg \
    NUMBA_CACHE_DIR=/cache/numba \
    MPLCONFIGDIR=/cache/matplotlib \
    TORCHINDUCTOR_CACHE_DIR=/cache/torchinductor \
    TRITON_CACHE_DIR=/cache/triton \
    PYTHONUNBUFFERED=1
VOLUME /cache
WORKDIR /data
ENTRYPOINT ["wavewn"]
CMD ["--help"]


# pip fetches cmake and ninja by itself.
FROM runtime AS builder
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .


FROM runtime AS cpu
# The same versions exist here as `+cpu`, which pip ranks above PyPI's plain (CUDA) builds.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# The wheel bounds its own dependencies; there is nothing here to pin.
# hadolint ignore=DL3013
RUN --mount=type=bind,from=builder,source=/wheels,target=/wheels \
    set -- /wheels/*.whl \
    && pip install --no-cache-dir --extra-index-url "${TORCH_INDEX}" "$1[eval,h5]"
USER 1000:1000


# PyPI's torch brings its CUDA libraries with it, and the extra cuda13 the compiler of the cuda
# engine's kernels (NVRTC), so the plain Python image is enough: the driver comes from the host
# through the NVIDIA container toolkit (`docker run --gpus all`). Kernels are compiled at their first
# use, for some seconds, and kept under XDG_CACHE_HOME.
FROM runtime AS gpu
# hadolint ignore=DL3013
RUN --mount=type=bind,from=builder,source=/wheels,target=/wheels \
    set -- /wheels/*.whl \
    && pip install --no-cache-dir "$1[cuda13,eval,h5]"
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000:1000
