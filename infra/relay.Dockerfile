# The relay as a process that stays. Built from the checkout by `make deploy` where a stage file has a service for the
# relay: see docs/operations/relay-service.md.
#
# The base image is named by its tag. To have it named by its digest, look the digest up where you can reach the
# registry, and put @sha256:... behind the tag.
FROM public.ecr.aws/docker/library/python:3.13-slim

WORKDIR /app
COPY layers/dependencies/requirements.txt dependencies.txt
COPY layers/relay_dependencies/requirements.txt relay_dependencies.txt
RUN pip install --no-cache-dir --no-deps --only-binary :all: --require-hashes \
    -r dependencies.txt -r relay_dependencies.txt
COPY layers/tidegate/python/ ./
COPY functions/ functions/
RUN python -m compileall -q .

# Nobody: it writes one file, which is in /tmp.
USER 65534:65534
ENV PYTHONUNBUFFERED=1
ENTRYPOINT ["python", "-m", "functions.relay"]
