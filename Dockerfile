# The image contains only the program and its C library, and runs as a non-root user.
#
#   docker build -t kube-audit-proxy .
#   docker run --rm kube-audit-proxy serve --help

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
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --no-default-features --bin kube-audit-proxy \
    && cp target/release/kube-audit-proxy /kube-audit-proxy

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /kube-audit-proxy /usr/local/bin/kube-audit-proxy
EXPOSE 6443 8081
ENTRYPOINT ["/usr/local/bin/kube-audit-proxy"]
