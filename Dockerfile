# tuner for CPUs: ONNX Runtime and OpenVINO.
#
#   docker build -t tuner .
#   docker run --rm --user $(id -u):$(id -g) -v $PWD:/work tuner run studies/demo.yaml
FROM python:3.11-slim

COPY pyproject.toml README.md LICENSE /opt/tuner/
COPY search_spaces /opt/tuner/search_spaces
COPY objectives /opt/tuner/objectives
COPY tuner /opt/tuner/tuner
# Whoever runs it owns the files in /work; caches need a home that anybody may write.
RUN pip install --no-cache-dir '/opt/tuner[openvino]' \
    && mkdir -m 1777 /cache
ENV HOME=/cache
WORKDIR /work
USER 65534
ENTRYPOINT ["tuner"]
CMD ["--help"]
