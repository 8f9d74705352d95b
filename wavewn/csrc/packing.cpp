// See packing.hpp.

#include "packing.hpp"

#include <cstring>
#include <new>

namespace wavewn {

namespace {

// The float16 of a number that is one: rounding was done before.
std::uint16_t half_of(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000);
    const int exponent = static_cast<int>(bits >> 23 & 0xFF) - 112;
    const std::uint32_t fraction = (bits & 0x7FFFFF) | 0x800000;
    if (exponent < -10) return sign;
    if (exponent <= 0) return static_cast<std::uint16_t>(sign | fraction >> (14 - exponent));
    return static_cast<std::uint16_t>(sign | exponent << 10 | (fraction >> 13 & 0x3FF));
}

// The packed matrix: block after block of at most BLOCK_VECTORS vectors of outputs; in a block
// [inputs / group][vectors][16][group].
template <class T, class Value>
std::vector<T> blocks(const Sources& rows, const Sources& columns, int group, Value value) {
    std::vector<T> packed;
    packed.reserve(rows.size() * columns.size());
    constexpr std::size_t widest = 16 * BLOCK_VECTORS;
    const auto step = static_cast<std::size_t>(group);
    for (std::size_t begin = 0; begin < columns.size(); begin += widest) {
        const std::size_t end = begin + widest < columns.size() ? begin + widest : columns.size();
        for (std::size_t row = 0; row < rows.size(); row += step)
            for (std::size_t column = begin; column < end; ++column)
                for (std::size_t i = row; i < row + step; ++i) {
                    const bool there = rows[i] != NOTHING && columns[column] != NOTHING;
                    packed.push_back(there ? value(rows[i], columns[column]) : T(0));
                }
    }
    return packed;
}

}  // namespace

Sources in_order(int count, int multiple) {
    Sources sources;
    for (int i = 0; i < padded(count, multiple); ++i) sources.push_back(i < count ? i : NOTHING);
    return sources;
}

Sources gate_columns(int residual, int layers) {
    Sources sources;
    for (int layer = 0; layer < layers; ++layer)
        for (int begin = 0; begin < residual; begin += 16)
            for (int half = 0; half < 2; ++half)
                for (int i = begin; i < begin + 16; ++i)
                    sources.push_back(
                        i < residual ? (2 * layer + half) * residual + i : NOTHING);
    return sources;
}

Sources tap_rows(int channels, int taps, int multiple) {
    Sources sources;
    for (int tap = 0; tap < taps; ++tap)
        for (int i = 0; i < padded(channels, multiple); ++i)
            sources.push_back(i < channels ? tap * channels + i : NOTHING);
    return sources;
}

Memory aligned(std::size_t bytes) {
    void* const memory = std::aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    if (memory == nullptr) throw std::bad_alloc();
    return Memory(memory);
}

void Packing::put(Product& product, const Plain& plain, const Sources& rows,
                  const Sources& columns) {
    product.inputs = static_cast<int>(rows.size());
    product.vectors = static_cast<int>(columns.size()) / 16;
    product.is_fine = plain.is_fine;
    const auto at = [&](auto* values) {
        return [values, &plain](int row, int column) {
            return values[static_cast<std::size_t>(row) * static_cast<std::size_t>(plain.outputs) +
                          static_cast<std::size_t>(column)];
        };
    };
    const auto of_columns = [&](const float* values) {
        std::vector<float> found;
        for (const int column : columns)
            found.push_back(column == NOTHING ? 0 : plain.unit * values[column]);
        return found;
    };
    if (plain.whole != nullptr) {
        const auto weights = blocks<std::int8_t>(rows, columns, 4, at(plain.whole));
        keep(&product.weights, weights.data(), weights.size());
        std::vector<std::int32_t> shift;
        for (const int column : columns) {
            std::int32_t sum = 0;
            for (const int row : rows)
                if (row != NOTHING && column != NOTHING) sum += at(plain.whole)(row, column);
            shift.push_back(plain.is_signed ? -raised * sum : 0);
        }
        std::vector<float> gain;
        for (const int row : rows) gain.push_back(row == NOTHING ? 0 : plain.gain[row]);
        gain.resize((gain.size() + 31) / 16 * 16);  // read in whole vectors
        keep(product.gain, gain);
        keep(product.scale, of_columns(plain.scale));
        keep(product.shift, shift);
    } else if (half) {
        const auto weights = blocks<std::uint16_t>(rows, columns, 1, [&](int row, int column) {
            return half_of(at(plain.floats)(row, column));
        });
        keep(&product.weights, weights.data(), 2 * weights.size());
    } else {
        const auto weights = blocks<float>(rows, columns, 1, [&](int row, int column) {
            return plain.unit * at(plain.floats)(row, column);
        });
        keep(&product.weights, weights.data(), 4 * weights.size());
    }
    keep(product.bias, of_columns(plain.bias));
}

void Packing::put(const float*& field, const float* values, std::size_t count) {
    keep(field, std::vector<float>(values, values + count));
}

template <class T>
void Packing::keep(const T*& field, const std::vector<T>& values) {
    keep(reinterpret_cast<const void**>(&field), values.data(), sizeof(T) * values.size());
}

void Packing::keep(const void** field, const void* from, std::size_t bytes) {
    const std::size_t offset = (arena_.size() + 63) / 64 * 64;
    arena_.resize(offset + bytes);
    if (bytes) std::memcpy(arena_.data() + offset, from, bytes);
    fields_.emplace_back(field, offset);
}

Memory Packing::finish(std::size_t& bytes) {
    bytes = arena_.size();
    Memory memory = aligned(bytes);
    std::memcpy(memory.get(), arena_.data(), bytes);
    for (const auto& [field, offset] : fields_)
        *field = static_cast<const unsigned char*>(memory.get()) + offset;
    return memory;
}

}  // namespace wavewn
