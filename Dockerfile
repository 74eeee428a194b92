# hsfuse as a command:
#   docker build -t hsfuse .                                CPU
#   docker build --build-arg TORCH=cuda -t hsfuse:cuda .    CUDA, which PyPI's torch brings; run it with --gpus all
#   docker run --rm -v "$PWD:/data" hsfuse fuse hsi.hdr s2.tif fused.tif
FROM python:3.12-slim AS build
WORKDIR /source
RUN python -m pip install --no-cache-dir build
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY hsfuse hsfuse
COPY srf srf
COPY models models
RUN python -m build --wheel --outdir /wheels

FROM python:3.12-slim
ARG TORCH=cpu
COPY constraints.txt /tmp/constraints.txt
COPY --from=build /wheels /tmp/wheels
# GDAL's code that rasterio's wheel doesn't bring, and what compiles hsfuse's Triton kernels where there is a GPU.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libexpat1 $([ "$TORCH" = cuda ] && echo gcc libc6-dev) \
    && rm -rf /var/lib/apt/lists/*
RUN case "$TORCH" in \
      cpu) index="--extra-index-url https://download.pytorch.org/whl/cpu" ;; \
      cuda) index="" ;; \
      *) echo "TORCH is cpu or cuda, not $TORCH" >&2; exit 2 ;; \
    esac \
    && wheel="$(ls /tmp/wheels/*.whl)" \
    && python -m pip install --no-cache-dir $index -c /tmp/constraints.txt "${wheel}[products,stac,xarray,zarr]" \
    && rm -rf /tmp/wheels /tmp/constraints.txt \
    && hsfuse --version
RUN useradd --create-home hsfuse
USER hsfuse
WORKDIR /data
ENTRYPOINT ["hsfuse"]
CMD ["--help"]
