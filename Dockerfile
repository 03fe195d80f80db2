# lateen with all extras, installed from its wheel, for a CPU:
#
#   docker build -t lateen .
#   docker run --rm -v lateen-cache:/cache -v "$PWD:/work" lateen demo --quick
#
# or for CUDA (run with --gpus all); the driver is the host's:
#
#   docker build -t lateen:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

FROM python:${PYTHON}-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY constraints.txt /tmp/
# torch first and from its own index: what PyPI has for Linux brings CUDA's libraries in any case.
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" "$(grep '^torch==' /tmp/constraints.txt)"
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    pip install --no-cache-dir --constraint /tmp/constraints.txt "$(ls /dist/*.whl)[all]" \
    && pip check
RUN useradd --create-home lateen && mkdir /cache /work && chown lateen /cache /work
# Features, indexes and what is fetched from the hub outlive the container where /cache is a volume.
ENV LATEEN_CACHE=/cache/lateen HF_HOME=/cache/huggingface
USER lateen
WORKDIR /work
VOLUME /cache
ENTRYPOINT ["lateen"]
CMD ["--help"]
