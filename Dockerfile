# One image for coordinator, workers and viewers.
#
#   docker build -t fccl .                            CPU: torch of 200 MB
#   docker build -t fccl --build-arg TORCH_INDEX= .   whatever torch PyPI has: on Linux, with CUDA

FROM python:3.11-slim-bookworm AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/fccl
ENV PATH=/opt/fccl/bin:$PATH
WORKDIR /src
COPY constraints.txt ./
# Install torch first, so that packages that depend on it find the pinned build.
RUN pip install -q -c constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch
# Then the dependencies of pyproject.toml: these layers are rebuilt only when it changes.
COPY pyproject.toml ./
RUN python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' >dependencies.txt \
    && pip install -q -c constraints.txt -r dependencies.txt

FROM build AS package
COPY . ./
RUN pip install -q --no-deps --prefix /opt/package .

FROM python:3.11-slim-bookworm
RUN groupadd --gid 1000 fccl \
    && useradd --uid 1000 --gid 1000 --home-dir /cache --no-create-home fccl \
    && install -d -o 1000 -g 1000 /fccl /fccl/runs /cache /state
COPY --from=build /opt/fccl /opt/fccl
COPY --from=package /opt/package /opt/fccl
COPY docker/entrypoint.sh /usr/local/bin/fccl-entrypoint
# USER and LOGNAME: libraries ask for a name, and the user id may be any (docker/entrypoint.sh).
ENV PATH=/opt/fccl/bin:$PATH PYTHONUNBUFFERED=1 USER=fccl LOGNAME=fccl HOME=/cache \
    FCCL_CACHE=/cache/fccl HF_HOME=/cache/huggingface MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /fccl
USER fccl
ENTRYPOINT ["fccl-entrypoint"]
CMD ["fccl", "--help"]
