// Volumes in the frustum of one camera, seen from another one: resampled in its frustum, or where its rays hit.
#pragma once

#include <cstdint>

namespace latentdem {

namespace frustum {
constexpr float kNearest = 1.0f / 6; // NEAREST in latentdem_ext/reference/frustum.py
}

struct FrustumShape {
    std::int64_t batch, channels, depth, height, width;
    int threads; // at most this many
};

struct FrustumCameras {
    const float *matrix;    // batch x 3 x 4, see latentdem_ext/reference/frustum.py
    const float *distances; // batch x 2
};

// resampled: batch x channels x depth x height x width, as volume.
void frustum_resample(const FrustumShape &shape, const FrustumCameras &cameras, const float *volume, float *resampled);

// grad_volume may be null; grad_cameras: batch x 14, those of the matrix and of the distances.
void frustum_resample_backward(const FrustumShape &shape, const FrustumCameras &cameras, const float *volume,
                               const float *grad, float *grad_volume, double *grad_cameras);

// One channel, the opacity. hit: batch x 4 x height x width.
void frustum_hits(const FrustumShape &shape, const FrustumCameras &cameras, const float *opacity, float *hit);

// grad_opacity may be null.
void frustum_hits_backward(const FrustumShape &shape, const FrustumCameras &cameras, const float *opacity,
                           const float *grad, float *grad_opacity, double *grad_cameras);

} // namespace latentdem
