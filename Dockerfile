# Image of a worker's jobs: a clone with its environment (docs/kubernetes.md).
#   docker build -t registry.example.com/atelier:1 .
# A worker fetches the commit to run by git, so the image needs building again only for other
# packages. It holds no data, no base and no keys.
FROM python:3.11-slim

RUN apt-get update && apt-get install -y --no-install-recommends git openssh-client && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 atelier && mkdir /atelier && chown atelier /atelier
USER atelier
WORKDIR /atelier
ENV PATH=/home/atelier/venv/bin:$PATH PYTHONUNBUFFERED=1 DVC_NO_ANALYTICS=1 HF_HUB_DISABLE_TELEMETRY=1
RUN python -m venv /home/atelier/venv

COPY --chown=atelier . .
RUN pip install --no-cache-dir -c constraints.txt -e '.[scale]'
# Where volumes are mounted: a folder that Kubernetes makes would belong to root.
RUN mkdir -p artifacts/resume artifacts/cache .dvc/cache weights

CMD ["atelier", "doctor"]
