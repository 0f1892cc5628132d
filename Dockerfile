# napari-msp as a BIDS App, without a window. Build from a checkout:
#
#   docker build -t napari-msp .
#   docker build -t napari-msp --build-arg TORCH_INDEX=https://pypi.org/simple .    # with CUDA
#
# Run, with folders by their whole paths, which exist beforehand (Apptainer: see
# docs/how-to/cohort.md):
#
#   docker run --rm --user "$(id -u):$(id -g)" -v /data/heads:/bids:ro -v /data/out:/out napari-msp \
#       /bids /out participant --model msp-teaching --target all
#
# A worker of a Dask cluster, with the same folders under the same paths:
#
#   docker run --rm --network host -v ... --entrypoint dask napari-msp worker tcp://SCHEDULER:8786
FROM python:3.12-slim-bookworm

LABEL org.opencontainers.image.title="napari-msp" \
    org.opencontainers.image.licenses="BSD-3-Clause"

# As docs/how-to/install.md installs it. Running without a window needs no system packages.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /opt/napari-msp
# torch first: it is large and seldom changes, so later builds find this layer made.
RUN pip install torch==2.13.0 --index-url "$TORCH_INDEX"
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install -c constraints.txt ".[cohort]"

# Whoever runs it may be nobody, with no home to keep a cache in; Apptainer brings the user's own.
ENV HOME=/tmp MPLBACKEND=Agg
# A worker's profile grows for an hour, and nobody looks at it.
ENV DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False
WORKDIR /tmp
ENTRYPOINT ["napari-msp", "cohort"]
CMD ["--help"]
