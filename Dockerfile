# Stages: serve (the service, no torch), train (everything offline, with the demo's data inside), serve-gpu (CUDA).
#   docker build --target serve -t segue:serve .
#   docker build --target train -t segue:train .        --build-arg TORCH_INDEX_URL=… takes another build of PyTorch
#   docker build --target serve-gpu -t segue:serve-gpu .
ARG PYTHON_VERSION=3.11

# Dependencies come first, from the metadata alone: a change of code or prose does not fetch them again.
FROM python:${PYTHON_VERSION}-slim AS dependencies
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/segue
ENV PATH=/opt/segue/bin:$PATH
WORKDIR /src
COPY pyproject.toml LICENSE ./
RUN touch README.md && pip install '.[index]'

FROM dependencies AS build
COPY app app
COPY scripts scripts
RUN pip install --no-deps --force-reinstall .

# ── The service ──────────────────────────────────────────────────────────────────────────────────────────────────────
FROM python:${PYTHON_VERSION}-slim AS serve
ENV PATH=/opt/segue/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    SEGUE_HOST=0.0.0.0 SEGUE_PORT=8000 SEGUE_DATA_DIR=/var/lib/segue/data SEGUE_ARTIFACTS_DIR=/var/lib/segue/model_artifacts
# New volumes take over the owner of the folder that they cover.
RUN mkdir -p /var/lib/segue/data /var/lib/segue/model_artifacts && chown -R 10001:10001 /var/lib/segue
COPY --from=build /opt/segue /opt/segue
WORKDIR /var/lib/segue
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['SEGUE_PORT'] + '/readyz', timeout=2)"]
CMD ["python", "-m", "app"]

# ── Training, and the demo's data taken along, so that it needs no network when it runs ──────────────────────────────
FROM dependencies AS train
ARG TORCH_INDEX_URL=
RUN pip install ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} '.[train]'
COPY app app
COPY scripts scripts
RUN pip install --no-deps --force-reinstall .
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /var/lib/segue
RUN python -m scripts.prepare --dataset ml-100k --output data/ml-100k --min-item-events 1 --min-user-events 3 \
    && mkdir -p runs model_artifacts && chown -R 10001:10001 /var/lib/segue
USER 10001:10001
CMD ["python", "-m", "scripts.demo", "artifact"]

# ── The service on a GPU: onnxruntime and onnxruntime-gpu overwrite each other, so one goes before the other comes ───
FROM build AS build-gpu
RUN pip uninstall --yes onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]>=1.22,<2'

FROM serve AS serve-gpu
COPY --from=build-gpu /opt/segue /opt/segue
ENV SEGUE_DEVICE=cuda
