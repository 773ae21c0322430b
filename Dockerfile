# syntax=docker/dockerfile:1
# AdQuill as an image: `docker build -t adquill .` bakes the default model in; with
# `--build-arg MODEL=none` the image is small and models are mounted at /models.
ARG RUST_VERSION=1.95

FROM rust:${RUST_VERSION}-slim-bookworm AS build
WORKDIR /build
# Dependencies first, in a layer of their own: it is rebuilt only when they change.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs \
    && cargo build --release --locked \
    && rm -r src
COPY config config
COPY src src
RUN touch src/main.rs src/lib.rs && cargo build --release --locked

FROM python:3.11-slim-bookworm AS model
ARG MODEL=smollm2-135m-instruct
COPY --from=build /build/target/release/adquill /usr/local/bin/adquill
RUN mkdir /models \
    && if [ "$MODEL" != none ]; then ADQUILL_MODELS__CACHE_DIR=/models adquill models pull "$MODEL"; fi

FROM debian:bookworm-slim
RUN groupadd --gid 65532 adquill \
    && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin adquill
COPY --from=build /build/target/release/adquill /usr/local/bin/adquill
COPY --from=model --chown=65532:65532 /models /models
ENV ADQUILL_HTTP__ADDR=0.0.0.0:8080 \
    ADQUILL_MODELS__CACHE_DIR=/models \
    ADQUILL_LOG__FORMAT=json
USER 65532:65532
EXPOSE 8080
VOLUME ["/models"]
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 CMD ["adquill", "healthcheck"]
# A container listens on every address: give API keys (auth.keys), or `--insecure` behind a gateway that checks.
ENTRYPOINT ["adquill"]
CMD ["serve"]
