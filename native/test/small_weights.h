// Weights of a few pages, random and with their digests, and what tests do with them.
#pragma once

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "core/digest.h"
#include "store/store.h"
#include "test/harness.h"
#include "test/temp_folder.h"

namespace test {

inline constexpr std::uint64_t page = 4096;

struct Weights {
    TempFolder folder;
    std::vector<std::uint8_t> bytes;
    sllm::LoadRequest request;

    Weights(std::uint64_t pages, std::uint64_t chunk_pages, std::uint64_t seed = 1) {
        std::mt19937_64 random(seed);
        bytes.resize(pages * page);
        for (std::uint8_t &byte : bytes) byte = static_cast<std::uint8_t>(random());
        request.weights_path = folder / "weights.bin";
        request.weights_bytes = bytes.size();
        request.chunk_bytes = chunk_pages * page;
        for (std::uint64_t at = 0; at < bytes.size(); at += request.chunk_bytes) {
            const std::uint64_t n = std::min<std::uint64_t>(request.chunk_bytes, bytes.size() - at);
            request.chunk_digests.push_back(sllm::xxh3(bytes.data() + at, n));
        }
        write_file(request.weights_path, bytes);
    }
};

inline sllm::LoadStatus wait_until_ended(sllm::Store &store, std::uint64_t load) {
    sllm::LoadStatus status;
    for (int i = 0; i < 1000; i++) {
        CHECK_OK(store.status(load, &status));
        if (status.state != 0) return status;
        store.wait(50'000);
    }
    throw Failed("the load does not end");
}

inline sllm::LoadStatus load_and_wait(sllm::Store &store, const sllm::LoadRequest &request) {
    std::uint64_t load = 0;
    CHECK_OK(store.load(request, &load));
    return wait_until_ended(store, load);
}

// The weights of a host copy as an engine sees them.
inline std::vector<std::uint8_t> content(int fd, std::uint64_t bytes) {
    sllm::HostCopyView view;
    sllm::Mapping mapping;
    CHECK_OK(sllm::HostCopyView::open(sllm::Env::posix(), "/proc/self/fd/" + std::to_string(fd), bytes, &view));
    CHECK_OK(view.map(&mapping));
    return {mapping.data(), mapping.data() + bytes};
}

inline sllm::VolumeStatus volume_of(sllm::Store &store, const Weights &weights) {
    sllm::VolumeStatus status;
    CHECK_OK(store.volume_status(weights.request.weights_path, &status));
    return status;
}

// Both methods of reading must behave alike; the first is missing where io_uring is.
inline const std::vector<sllm::ReadMethod> methods{sllm::ReadMethod::ring, sllm::ReadMethod::threads};

inline bool mentions(const std::string &text, const std::string &part) { return text.find(part) != std::string::npos; }

}  // namespace test
