# The image contains only the program and its C library, and runs as a non-root user.
#
#   docker build -t kube-audit-proxy .
#   docker run --rm kube-audit-proxy serve --help
#
# For several architectures, with the same digest for the same commit, and with a bill of materials:
#
#   docker buildx build --platform=linux/amd64,linux/arm64 --sbom=true --provenance=true \
#       --build-arg=SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) --build-arg=REVISION=$(git rev-parse HEAD) \
#       --output=type=registry,name=REGISTRY/kube-audit-proxy:0.1.0,rewrite-timestamp=true .
#
# Each architecture is built on its own builder, or emulated: aws-lc, jemalloc and zstd are compiled from C.
# deploy/image/build builds an image without a registry.

FROM rust:1.95-slim-bookworm AS build
# For aws-lc and jemalloc.
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY .cargo ./.cargo
COPY benches ./benches
COPY config ./config
COPY crates ./crates
COPY fuzz ./fuzz
COPY src ./src
COPY tools ./tools
# One cache of compiled crates for each architecture.
ARG TARGETARCH
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,id=kube-audit-proxy-target-${TARGETARCH} \
    cargo build --release --locked --no-default-features --bin kube-audit-proxy \
    && cp target/release/kube-audit-proxy /kube-audit-proxy

FROM gcr.io/distroless/cc-debian12:nonroot
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="kube-audit-proxy" \
      org.opencontainers.image.description="Reverse proxy in front of kube-apiserver that writes Kubernetes audit events" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/kube-audit-proxy/kube-audit-proxy" \
      org.opencontainers.image.documentation="https://github.com/kube-audit-proxy/kube-audit-proxy/blob/main/docs/deployment.md"
COPY --from=build /kube-audit-proxy /usr/local/bin/kube-audit-proxy
USER 65532:65532
EXPOSE 6443 8081
ENTRYPOINT ["/usr/local/bin/kube-audit-proxy"]
