// sllm_make_checkpoint <gguf> <folder>: writes header.gguf, weights.bin and digests, the XXH3 of each MiB of
// weights.bin as 64-bit numbers. For tests that see the library only through its C ABI.
#include <cstdio>
#include <exception>
#include <filesystem>

#include "test/checkpoint_fixture.h"
#include "test/temp_folder.h"

int main(int argc, char **argv) {
    if (argc != 3) {
        std::fprintf(stderr, "usage: sllm_make_checkpoint <gguf> <folder>\n");
        return 2;
    }
    try {
        std::filesystem::create_directories(argv[2]);
        const auto made = test::make_checkpoint(argv[1], argv[2], test::Order::engine);
        const auto *bytes = reinterpret_cast<const std::uint8_t *>(made.digests.data());
        test::write_file(std::string(argv[2]) + "/digests",
                         {bytes, bytes + made.digests.size() * sizeof(std::uint64_t)});
        return 0;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "sllm_make_checkpoint: %s\n", error.what());
        return 1;
    }
}
