// See spectrum_tables.hpp.

#include "spectrum_tables.hpp"

#include <cmath>
#include <stdexcept>
#include <utility>

namespace wavewn {

const SpectrumSet spectrum_sets[SPECTRUM_SETS] = {
    {InstructionSet::avx512, &avx512::spectrum, &few_avx2::spectrum},
    {InstructionSet::avx2, &avx2::spectrum, &few_avx2::spectrum},
    {InstructionSet::portable, &portable::spectrum, &few_portable::spectrum},
};

namespace {

constexpr int RADICES[] = {4, 2, 3, 5};

}  // namespace

bool can_transform(std::int64_t length) {
    if (length < 4 || length > 1 << 20 || length % 2) return false;
    for (const int radix : RADICES)
        while (length % radix == 0) length /= radix;
    return length == 1;
}

TransformTables::TransformTables(std::int64_t length) {
    if (!can_transform(length)) throw std::invalid_argument("no transform of that length");
    const auto turns = [](std::int64_t k, std::int64_t n, std::vector<float>& to) {
        const double share = static_cast<double>(k) / static_cast<double>(n);
        const double angle = -2 * 3.14159265358979323846 * share;
        to.push_back(static_cast<float>(std::cos(angle)));
        to.push_back(static_cast<float>(std::sin(angle)));
    };
    transform_.length = length;
    std::int64_t n = length / 2, s = 1;
    for (const int radix : RADICES)
        for (; n % radix == 0; n /= radix) {
            std::vector<float> own;
            for (std::int64_t p = 0; p < n / radix; ++p)
                for (int k = 1; k < radix; ++k) turns(p * k, n, own);
            transform_.stages[transform_.count++] = {radix, n / radix, s, own.data()};
            turns_.push_back(std::move(own));
            s *= radix;
        }
    std::vector<float> halves;
    for (std::int64_t k = 0; k <= length / 4; ++k) turns(k, length, halves);
    transform_.halves = halves.data();
    turns_.push_back(std::move(halves));
}

SparseMatrix::SparseMatrix(const float* from, std::int64_t inputs, std::int64_t outputs) {
    std::vector<std::int64_t> begins;
    for (std::int64_t out = 0; out < outputs; ++out) {
        std::int64_t first = inputs, end = 0;
        for (std::int64_t in = 0; in < inputs; ++in)
            if (from[in * outputs + out] != 0.0f) {
                first = std::min(first, in);
                end = in + 1;
            }
        begins.push_back(static_cast<std::int64_t>(weights_.size()));
        rows_.push_back({std::min(first, end), std::max<std::int64_t>(end - first, 0), nullptr});
        for (std::int64_t in = first; in < end; ++in) weights_.push_back(from[in * outputs + out]);
    }
    for (std::size_t out = 0; out < rows_.size(); ++out)
        rows_[out].weights = weights_.data() + begins[out];
}

void check_numbers(bool good) {
    if (!good) throw std::invalid_argument("a chunk leaves what it is given");
}

void check_kept(const Kept& kept, std::int64_t channels, std::int64_t state_floats) {
    check_numbers(kept.rows >= 0 && kept.rows <= kept.held && kept.held < MOST_ROWS);
    check_numbers(kept.state >= 0 && kept.state <= state_floats);
    check_numbers(kept.held * channels <= state_floats - kept.state);
}

}  // namespace wavewn
