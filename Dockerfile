# A model behind HTTP: see docs/how-to/serve.md.
#
#   docker build -t headstart-serve .
#   docker run --read-only -p 127.0.0.1:8000:8000 -e HEADSTART_TOKEN -v "$PWD/models:/models:ro" headstart-serve /models/model
#
# It listens on all interfaces of the container, so it does not start without a token (HEADSTART_TOKEN) or --insecure.

FROM python:3.13-slim AS build
ARG EXTRAS=serve
WORKDIR /src
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src src
RUN python -m venv /opt/headstart
RUN /opt/headstart/bin/pip install --no-cache-dir --no-compile ".[${EXTRAS}]"

FROM python:3.13-slim
COPY --from=build /opt/headstart /opt/headstart
ENV PATH=/opt/headstart/bin:/usr/local/bin:/usr/bin:/bin
ENV PYTHONDONTWRITEBYTECODE=1
ENV HEADSTART_CACHE=/tmp/headstart
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --start-interval=2s CMD ["python", "-c", "from http.client import HTTPConnection as C; c = C('127.0.0.1', 8000, timeout=4); c.request('GET', '/health'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["headstart", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["/models/model"]
