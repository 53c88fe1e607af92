// Conjugate gradients on vectors of floats, from zero, until <r, M r> of the residual r and the preconditioner M is
// small enough.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

namespace latentdem {

double inner_product(const float *a, const float *b, std::int64_t count);

// to = a + factor b
void combine(const float *a, float factor, const float *b, std::int64_t count, float *to);

class ConjugateGradients {
  public:
    void resize(std::int64_t count) {
        for (std::vector<float> *const vector : {&direction_, &image_, &conditioned_})
            vector->assign(static_cast<std::size_t>(count), 0.0f);
    }

    // apply(vector, image) is the symmetric positive definite map, condition(residual, conditioned) the preconditioner.
    // `residual` has the right-hand side, and in the end what `solution` leaves of it.
    template <class Apply, class Condition>
    void solve(float *solution, float *residual, double allowed, std::int64_t iterations, const Apply &apply,
               const Condition &condition) {
        const std::int64_t count = static_cast<std::int64_t>(direction_.size());
        float *const direction = direction_.data(), *const image = image_.data();
        float *const conditioned = conditioned_.data();
        constexpr double tiny = std::numeric_limits<float>::min();
        std::fill_n(solution, count, 0.0f);
        condition(residual, direction);
        double power = inner_product(residual, direction, count);
        for (std::int64_t done = 0; done < iterations && power > allowed; ++done) {
            apply(direction, image);
            const float step = static_cast<float>(power / std::max(inner_product(direction, image, count), tiny));
            combine(solution, step, direction, count, solution);
            combine(residual, -step, image, count, residual);
            condition(residual, conditioned);
            const double before = power;
            power = inner_product(residual, conditioned, count);
            combine(conditioned, static_cast<float>(power / std::max(before, tiny)), direction, count, direction);
        }
    }

  private:
    std::vector<float> direction_, image_, conditioned_;
};

} // namespace latentdem
