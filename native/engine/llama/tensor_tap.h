// While one lives, what the library would copy to and from tensors of context memory on this thread is noted, not done.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace sllm::llama {

class TensorTap {
public:
    struct Piece {
        std::uint8_t *data;
        std::size_t bytes;
    };

    TensorTap() { active = this; }
    ~TensorTap() { active = nullptr; }
    TensorTap(const TensorTap &) = delete;
    TensorTap &operator=(const TensorTap &) = delete;

    // Whether somebody listens: then the copy is not made.
    static bool takes(std::uint8_t *data, std::size_t bytes) {
        if (active == nullptr) return false;
        active->pieces.push_back({data, bytes});
        return true;
    }

    std::vector<Piece> pieces;  // in the order of the copies

private:
    static inline thread_local TensorTap *active = nullptr;
};

}  // namespace sllm::llama
