# The image of every Airflow and Spark service in docker-compose.yaml, and of the explorer. One image for all, because the Spark
# driver (in the scheduler) and the executors must have the same Python, the same libraries and the same Java.
FROM python:3.11-slim-bookworm

# Spark needs a Java runtime. Slim images leave out the folder that Debian's Java packages may link their manual into.
# hadolint ignore=DL3008
RUN mkdir -p /usr/share/man/man1 \
    && apt-get update \
    && apt-get install --yes --no-install-recommends openjdk-17-jre-headless \
    && rm -rf /var/lib/apt/lists/*

# The lock before the code, so that a change of code keeps this layer. It is the developers' lock, tools included: one set of
# versions is tested here and runs there. Two packages (pyspark and its client) come as source, and need no compiler.
WORKDIR /opt/spectralize
COPY requirements/dev.txt requirements/uv.txt requirements/
RUN python -m venv /tmp/uv \
    && /tmp/uv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/uv.txt \
    && /tmp/uv/bin/uv venv --no-cache --python /usr/local/bin/python /opt/venv \
    && VIRTUAL_ENV=/opt/venv /tmp/uv/bin/uv pip sync --no-cache --compile-bytecode --require-hashes requirements/dev.txt \
    && rm -rf /tmp/uv

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    AIRFLOW_HOME=/opt/airflow \
    NUMBA_CACHE_DIR=/var/cache/numba

# What the services write to. A named volume takes over the owner of the folder that it is mounted on.
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin spectralize \
    && install -d -o spectralize -g spectralize /opt/airflow /opt/airflow/logs /var/cache/numba /var/lib/spark

# librosa compiles functions at its first use, which takes 20 s: here once, instead of in every new container.
USER spectralize
RUN python -c "import librosa, numpy; librosa.feature.melspectrogram(y=numpy.zeros(4096, numpy.float32), sr=22050)"

# Code, SQL and configuration are baked in and belong to root: a container runs exactly what its image holds. Editable, so
# that DAGs, command line and the zip for the executors all read the one copy of sql/ and config/ here.
USER root
COPY . .
RUN python3.11 -m pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check \
        --no-deps --no-build-isolation --editable . \
    && python -m compileall -q dags docker plugins spark_jobs src

USER spectralize
CMD ["spectralize", "--help"]
