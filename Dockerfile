# The sources run as they are, so building means installing the libraries. BASE brings Node 26 and npm.
#   docker build -t entrepot .
#   docker build -t entrepot --build-arg BASE=registry.corp.example/node:26 --secret id=ca,src=corporate-ca.pem .
# Needs a builder that knows secrets: BuildKit, or Buildah and Podman (with --format docker, or the health check is lost).
ARG BASE=node:26-slim

FROM ${BASE} AS build
# Where npm finds the libraries, when not at its default registry.
ARG NPM_CONFIG_REGISTRY
WORKDIR /libraries
COPY package.json package-lock.json ./
# A secret is in no layer and no history. Only builds behind a proxy that opens TLS need this one.
RUN --mount=type=secret,id=ca \
    if [ -s /run/secrets/ca ]; then export NODE_EXTRA_CA_CERTS=/run/secrets/ca; fi; \
    npm ci --omit=dev --ignore-scripts --no-audit --no-fund
WORKDIR /program
COPY package.json LICENSE ./
COPY src src
COPY upstreams.d upstreams.d
COPY deploy/entrepot.yaml /configuration/entrepot.yaml
# In /configuration too, so that one more file can be mounted beside those that are shipped.
COPY upstreams.d /configuration/upstreams.d
# A checkout made under a strict umask is not readable to others, and that is whom the gateway runs as.
RUN chmod -R a+rX,go-w /libraries /program /configuration && chmod a+x src/main.ts

FROM ${BASE}
ARG BASE
LABEL org.opencontainers.image.title="Entrepot" \
      org.opencontainers.image.description="A gateway in front of every container registry a site pulls from" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${BASE}"
COPY --from=build /libraries/node_modules /app/node_modules
COPY --from=build /program /app
COPY --from=build /configuration /etc/entrepot
# 65532 is nobody's number on a usual host. A new volume takes its owner from this folder.
RUN mkdir -p /data /usr/local/bin && chown 65532:65532 /data \
    && ln -s /app/src/main.ts /usr/local/bin/entrepot

USER 65532:65532
# Without --config, entrepot.yaml of this folder is read: by `serve`, and by `docker exec NAME entrepot check` alike.
WORKDIR /etc/entrepot
VOLUME /data
EXPOSE 5000 5001 5002 5003 5004
# The admin listener, on loopback inside the container. Change this with `admin.address`.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["node", "-e", \
  "fetch('http://127.0.0.1:5080/readyz', { signal: AbortSignal.timeout(4000) }).then(({ ok }) => process.exit(ok ? 0 : 1), () => process.exit(1))"]
# No shell and no npm in between: they would keep SIGTERM to themselves.
ENTRYPOINT ["node", "/app/src/main.ts"]
CMD ["serve"]
