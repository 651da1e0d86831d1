# syntax=docker/dockerfile:1

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked -p bellhop-worker -p bellhop-notifier --bins \
    && install -D -t /out target/release/worker target/release/notifier

FROM debian:bookworm-slim
# The certificates are for amqps:// and https:// to servers with public names.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin bellhop \
    && install --directory --owner 10001 --group 10001 /var/lib/bellhop
COPY --from=build /out/ /usr/local/bin/
# Every key there is, with its default.
COPY deploy/worker.toml deploy/notifier.toml /usr/share/doc/bellhop/
USER 10001:10001
# Where a notifier keeps its events, unless store.path or store.kind says otherwise.
WORKDIR /var/lib/bellhop
VOLUME /var/lib/bellhop
# notifier and worker; both listen on loopback unless they are told otherwise.
EXPOSE 8080 8081
CMD ["notifier", "run"]
