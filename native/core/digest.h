// XXH3: the fast digest that every chunk read from disk is checked with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace sllm {

// XXH3, 64 bits, seed 0. data may be null when n is 0. Some 10 GB/s and more on one core.
std::uint64_t xxh3(const void *data, std::size_t n);

// The same of bytes that come piece by piece.
class Xxh3 {
public:
    Xxh3();
    ~Xxh3();
    void update(const void *data, std::size_t n);
    // Of all bytes since the beginning or the last reset.
    std::uint64_t value() const;
    void reset();

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace sllm
