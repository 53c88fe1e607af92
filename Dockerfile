# latentdem on a CPU, for photographs: without the extras.
#
#     docker build -t latentdem .
#     docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/photos" latentdem deblur photo.jpg

FROM python:3.11-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY . /source
RUN LATENTDEM_CUDA=OFF pip wheel --no-deps --wheel-dir /wheel /source

FROM python:3.11-slim
COPY constraints.txt /
RUN --mount=type=bind,from=build,source=/wheel,target=/wheel \
    pip install --no-cache-dir --constraint /constraints.txt \
    --extra-index-url https://download.pytorch.org/whl/cpu /wheel/*.whl
# Any user may run it, also one without a home.
ENV HOME=/tmp
WORKDIR /photos
ENTRYPOINT ["latentdem"]
CMD ["--help"]
