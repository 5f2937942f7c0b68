# tpumake with both environments ready, for hosts that can't run tpu_mlir (glibc older than 2.35, or
# not Linux):
#
#   docker build --build-arg UID=$(id -u) -t tpumake .
#   docker run --rm -v "$PWD:/tree" tpumake make yolo11n_int8
#
# The vendors' own image works as the base, too: --build-arg BASE=sophgo/tpuc_dev:v3.1
ARG BASE=ubuntu:22.04
FROM ${BASE}

# python3 is 3.10 in both bases, and serves the helpers and the toolchain.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        ca-certificates git make python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

# The environments lie outside the tree, which is mounted over. They hold copies of what they were
# made from, so a checkout with the same locks finds them ready, whatever its files' times.
ENV VENV=/opt/tpumake/venv TOOLCHAIN=/opt/tpumake/toolchain LANG=C.UTF-8
ARG UID=1000
RUN useradd --uid ${UID} --non-unique --create-home builder \
    && mkdir -p /opt/tpumake /tree \
    && chown builder: /opt/tpumake /tree
USER builder
WORKDIR /tree
COPY --chown=builder Makefile models.mk ./
COPY --chown=builder mk mk
COPY --chown=builder requirements requirements
COPY --chown=builder scripts scripts
# uv's cache is of no use in an image whose environments are complete.
RUN make setup && rm -rf ~/.cache

CMD ["make", "help"]
