// Broken, cut and hostile checkpoints: what an engine refuses, and how.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <random>

#include "engine/llama/libraries.h"
#include "engine/llama/llama_backend.h"
#include "test/checkpoint_fixture.h"
#include "test/harness.h"
#include "test/open_store.h"
#include "test/temp_folder.h"

namespace {

using sllm::Code;
using sllm::llama::LlamaBackend;

// How a child process ends that builds a skeleton over these header bytes: its status code, or minus its signal.
int build_in_child(const std::vector<std::uint8_t> &header, std::uint64_t file_bytes, const std::string &path) {
    test::write_file(path, header);
    CHECK_EQ(::truncate(path.c_str(), static_cast<off_t>(file_bytes)), 0);
    const pid_t child = ::fork();
    if (child == 0) {
        const int quiet = ::open("/dev/null", O_WRONLY);
        ::dup2(quiet, STDERR_FILENO);
        std::unique_ptr<sllm::llama::ModelSkeleton> skeleton;
        const sllm::Status status = sllm::llama::ModelSkeleton::build({.header_path = path}, &skeleton);
        ::_exit(-static_cast<int>(status.code()));
    }
    int result = 0;
    CHECK_EQ(::waitpid(child, &result, 0), child);
    return WIFEXITED(result) ? WEXITSTATUS(result) : -WTERMSIG(result);
}

TEST("refusal: a header cut anywhere is refused as CORRUPT") {
    CHECK_OK(sllm::llama::prepare_libraries(test::engine_libraries()));
    const test::TempFolder folder;
    auto bytes = test::read_file(test::sample_model());
    sllm::GgufHeader header;
    CHECK_OK(sllm::parse_gguf_header(bytes, &header));
    for (std::uint64_t n = 1; n < header.data_offset; n += 997) {
        bytes.resize(header.data_offset - n);
        test::write_file(folder / "cut.gguf", bytes);
        std::unique_ptr<sllm::llama::ModelSkeleton> skeleton;
        const sllm::llama::SkeletonWish cut{.header_path = folder / "cut.gguf"};
        CHECK_EQ(sllm::llama::ModelSkeleton::build(cut, &skeleton).code(), Code::corrupt);
    }
}

TEST("refusal: a damaged header is refused, or aborts in libllama, and nothing else") {
    CHECK_OK(sllm::llama::prepare_libraries(test::engine_libraries()));
    const test::TempFolder folder;
    const auto whole = test::read_file(test::sample_model());
    sllm::GgufHeader header;
    CHECK_OK(sllm::parse_gguf_header(whole, &header));
    std::mt19937_64 random(1);  // fixed: what libllama makes of other damage is not this library's promise
    int refused = 0;
    for (int round = 0; round < 60; round++) {
        std::vector<std::uint8_t> bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(header.data_offset));
        for (int n = 0; n < 3; n++) bytes[random() % 1500] = static_cast<std::uint8_t>(random());
        const int end = build_in_child(bytes, whole.size(), folder / "damaged.gguf");
        CHECK(end >= 0 || end == -SIGABRT);
        refused += end > 0 ? 1 : 0;
    }
    CHECK(refused > 30);
}

TEST("refusal: data shorter than the header promises is refused") {
    const test::TempFolder folder;
    const auto checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::engine);
    std::unique_ptr<sllm::llama::ModelSkeleton> skeleton;
    const std::uint64_t short_bytes = checkpoint.weights_bytes - (1 << 20);
    const sllm::Status status = sllm::llama::ModelSkeleton::build({checkpoint.header_path, short_bytes}, &skeleton);
    CHECK(!status.ok());
    CHECK(status.message().find("not within the file bounds") != std::string::npos);
}

TEST("refusal: a failed load fails the engine with its status and text") {
    const test::TempFolder folder;
    auto checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::engine);
    checkpoint.digests.back() ^= 1;
    const auto store_owner = test::open_store(2);
    sllm::Store &store = *store_owner;
    std::uint64_t load = 0;
    CHECK_OK(store.load({checkpoint.weights_path, checkpoint.weights_bytes, checkpoint.chunk_bytes, checkpoint.digests},
                        &load));
    sllm::LoadStatus loading;
    CHECK_OK(store.status(load, &loading));
    std::unique_ptr<sllm::Backend> backend;
    const std::string path = "/proc/self/fd/" + std::to_string(loading.fd);
    CHECK_OK(LlamaBackend::build(test::engine_options(checkpoint), &backend));
    const sllm::Status status = backend->attach(path);
    CHECK_EQ(status.code(), Code::corrupt);
    CHECK(status.message().find("digest") != std::string::npos);
}

}  // namespace

TEST_MAIN()
