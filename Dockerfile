# One image for every role; its entry point is `streamer`. From the repository's root:
#   docker build --tag streamer .                                       for CPUs
#   docker build --tag streamer:cuda --build-arg TORCH_BACKEND= .       for NVIDIA GPUs
# TORCH_BACKEND picks PyTorch's build as uv names it: cpu, cu130, rocm7.2, …; empty is the build in
# the package index itself, which on Linux is the CUDA build that constraints.txt was tested with.
# The base's Python is the one that the tests run on; every node of a Ray cluster needs the same.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS dependencies
ARG TORCH_BACKEND=cpu
ENV UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never
WORKDIR /build
COPY constraints.txt ./
RUN pip install --no-cache-dir --constraint constraints.txt uv && uv venv /opt/streamer
# Without the sources: this large layer is made anew only when these two files change.
COPY pyproject.toml ./
RUN uv pip install --python /opt/streamer/bin/python --constraint constraints.txt \
        ${TORCH_BACKEND:+--torch-backend=${TORCH_BACKEND}} --requirements pyproject.toml

FROM dependencies AS wheel
COPY README.md LICENSE ./
COPY kernels kernels
COPY operators operators
COPY streamer streamer
RUN uv build --wheel --out-dir /wheel

FROM ${BASE}
ARG TORCH_BACKEND=cpu
# Triton compiles a small C file on a GPU machine. What a login shell would forget, it reads here.
RUN if [ "${TORCH_BACKEND}" != cpu ]; then \
        apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev \
        && rm -rf /var/lib/apt/lists/*; \
    fi \
    && echo 'PATH=/opt/streamer/bin:$PATH' > /etc/profile.d/streamer.sh \
    && useradd --uid 1000 --create-home streamer \
    && install --directory --owner streamer /home/streamer/.cache /home/streamer/.cache/huggingface
COPY --from=dependencies /opt/streamer /opt/streamer
RUN --mount=from=wheel,source=/wheel,target=/wheel \
    pip --python /opt/streamer/bin/python install --no-cache-dir --no-deps /wheel/*.whl
COPY configs/*.yaml /etc/streamer/
ENV PATH=/opt/streamer/bin:$PATH PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0
USER streamer
WORKDIR /home/streamer
EXPOSE 8000
ENTRYPOINT ["streamer"]
CMD ["--help"]
