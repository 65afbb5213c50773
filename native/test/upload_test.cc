// The way of weights to discrete devices: every byte where it belongs, whatever the layout and whatever fails.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <random>
#include <thread>

#include "core/digest.h"
#include "core/limits.h"
#include "test/device_fixture.h"
#include "test/faulty_env.h"
#include "test/harness.h"
#include "test/open_store.h"
#include "test/temp_folder.h"

namespace {

using sllm::Code;
using sllm::llama::ModelSkeleton;

}  // namespace

TEST("device: weights in the engine's order go in whole runs of the file and lie there byte for byte") {
    test::need_devices(test::one_device());
    const test::TempFolder folder;
    const auto checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::engine);
    const auto copied = test::load_checkpoint(checkpoint);
    const auto skeleton = test::build_skeleton(checkpoint, test::one_device());
    test::attach(*skeleton, checkpoint, copied.path);
    CHECK_EQ(skeleton->device_parts().size(), 1u);
    // The model uses its embeddings as the output too: those, the output's norm, and all layers in one.
    CHECK_EQ(skeleton->device_parts()[0].runs.size(), 3u);
    CHECK(!skeleton->in_place());
    const std::uint64_t on_device = test::check_bytes(*skeleton, checkpoint);
    CHECK(on_device > checkpoint.weights_bytes / 2);
    CHECK(skeleton->upload_facts().bytes >= on_device);
    CHECK(skeleton->upload_facts().bytes < on_device + checkpoint.weights_bytes / 100);
}

TEST("device: weights in another order go tensor by tensor to the same bytes") {
    test::need_devices(test::one_device());
    const test::TempFolder folder;
    const auto checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::reversed);
    const auto copied = test::load_checkpoint(checkpoint);
    const auto skeleton = test::build_skeleton(checkpoint, test::one_device());
    test::attach(*skeleton, checkpoint, copied.path);
    CHECK(skeleton->device_parts()[0].runs.size() > 10);
    CHECK(test::check_bytes(*skeleton, checkpoint) > checkpoint.weights_bytes / 2);
}

TEST("device: weights that stream through two chunks of the arena reach the device whole") {
    test::need_devices(test::one_device());
    constexpr std::uint64_t chunk_bytes = sllm::limits::arena_chunk_bytes;
    constexpr std::uint64_t bytes = 4 * chunk_bytes + 8192;
    const test::TempFolder folder;
    std::vector<std::uint8_t> weights(bytes);
    std::mt19937_64 random(11);
    std::generate(weights.begin(), weights.end(), [&] { return static_cast<std::uint8_t>(random()); });
    test::write_file(folder / "weights.bin", weights);
    sllm::LoadRequest request{folder / "weights.bin", bytes, chunk_bytes, {}, 2};
    for (std::uint64_t at = 0; at < bytes; at += chunk_bytes) {
        request.chunk_digests.push_back(sllm::xxh3(weights.data() + at, std::min(chunk_bytes, bytes - at)));
    }
    const auto store = test::open_store(4, sllm::Env::posix(), {2 * chunk_bytes, 0});
    std::uint64_t load = 0;
    CHECK_OK(store->load(request, &load));
    sllm::LoadStatus status;
    CHECK_OK(store->status(load, &status));
    sllm::HostCopyView view;
    CHECK_OK(sllm::HostCopyView::open(sllm::Env::posix(), "/proc/self/fd/" + std::to_string(status.fd), bytes, &view));
    // All but the first page, in two runs, as an engine with padding in between would have it.
    ggml_backend_buffer_t buffer =
        ggml_backend_buft_alloc_buffer(ggml_backend_dev_buffer_type(test::device()), bytes + 4096);
    const std::vector<sllm::llama::DevicePart> parts{
        {test::device(), {{4096, chunk_bytes, buffer, 0}, {4096 + chunk_bytes, bytes - chunk_bytes - 4096, buffer,
                                                           chunk_bytes + 4096}}}};
    sllm::llama::SharedProgress progress(view, 1);
    sllm::llama::UploadFacts facts;
    CHECK_OK(sllm::llama::upload(parts, view, progress, &facts));
    CHECK_EQ(facts.bytes, bytes - 4096);
    std::vector<std::uint8_t> found(bytes + 4096);
    ggml_tensor whole{};
    whole.type = GGML_TYPE_I8;
    whole.ne[0] = static_cast<std::int64_t>(found.size());
    whole.ne[1] = whole.ne[2] = whole.ne[3] = 1;
    whole.nb[0] = 1;
    whole.nb[1] = whole.nb[2] = whole.nb[3] = found.size();
    whole.buffer = buffer;
    whole.data = ggml_backend_buffer_get_base(buffer);
    ggml_backend_tensor_get(&whole, found.data(), 0, found.size());
    ggml_backend_buffer_free(buffer);
    CHECK(std::equal(found.begin(), found.begin() + chunk_bytes, weights.begin() + 4096));
    CHECK(std::equal(found.begin() + chunk_bytes + 4096, found.begin() + bytes, weights.begin() + chunk_bytes + 4096));
}

TEST("device: two devices are filled side by side from lanes that are still being read") {
    test::need_devices(test::two_devices());
    const test::TempFolder folder;
    const auto checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::engine);
    test::FaultyEnv env;
    env.on_read = [](int, void *, std::size_t bytes, std::uint64_t, const auto &real) -> ssize_t {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        return real(bytes);
    };
    const auto store = test::open_store(1, env);
    sllm::LoadRequest request{checkpoint.weights_path, checkpoint.weights_bytes, checkpoint.chunk_bytes,
                              checkpoint.digests};
    request.lanes = 2;
    std::uint64_t load = 0;
    CHECK_OK(store->load(request, &load));
    sllm::LoadStatus status;
    CHECK_OK(store->status(load, &status));
    const auto skeleton = test::build_skeleton(checkpoint, test::two_devices());
    test::attach(*skeleton, checkpoint, "/proc/self/fd/" + std::to_string(status.fd));
    test::check_bytes(*skeleton, checkpoint);
}

TEST("device: two devices get a run of layers each, of about the bytes that their shares ask for") {
    test::need_devices(test::two_devices());
    const test::TempFolder folder;
    const auto checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::engine);
    const auto copied = test::load_checkpoint(checkpoint);
    std::uint64_t first_bytes[2];
    for (const double share : {1.0, 3.0}) {
        auto devices = test::two_devices();
        devices[0].share = share;
        const auto skeleton = test::build_skeleton(checkpoint, devices);
        test::attach(*skeleton, checkpoint, copied.path);
        const auto &parts = skeleton->device_parts();
        CHECK_EQ(parts.size(), 2u);
        CHECK_EQ(parts[0].runs.size(), 1u);
        const auto &layers = parts[1].runs.back();  // before them the output, as above
        CHECK_EQ(parts[0].runs[0].from + parts[0].runs[0].bytes, layers.from);
        CHECK(layers.from + layers.bytes > checkpoint.weights_bytes - sllm::limits::file_align_bytes);
        test::check_bytes(*skeleton, checkpoint);
        first_bytes[share > 1 ? 1 : 0] = parts[0].runs[0].bytes;
    }
    CHECK(first_bytes[1] > first_bytes[0]);
}

TEST("device: a device that splits its memory into several buffers gets a run for each") {
    ::setenv("GGML_VK_SUBALLOCATION_BLOCK_SIZE", "1048576", 1);
    test::need_devices(test::one_device());
    if (ggml_backend_buft_get_max_size(ggml_backend_dev_buffer_type(test::device())) != 1048576) {
        SKIP("the device has no such setting, or was opened by a case before: run this one alone");
    }
    const test::TempFolder folder;
    const auto checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::engine);
    const auto copied = test::load_checkpoint(checkpoint);
    const auto skeleton = test::build_skeleton(checkpoint, test::one_device());
    test::attach(*skeleton, checkpoint, copied.path);
    CHECK(skeleton->device_parts()[0].runs.size() > 1);
    test::check_bytes(*skeleton, checkpoint);
}

TEST("device: a chunk that fails its digest fails the upload, and the next attach brings the right bytes") {
    test::need_devices(test::one_device());
    const test::TempFolder folder;
    const auto checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::engine);
    test::Checkpoint broken = checkpoint;
    broken.digests.back() ^= 1;
    const auto skeleton = test::build_skeleton(checkpoint, test::one_device());
    {
        const auto store = test::open_store(2);
        std::uint64_t load = 0;
        CHECK_OK(store->load({broken.weights_path, broken.weights_bytes, broken.chunk_bytes, broken.digests}, &load));
        sllm::LoadStatus status;
        CHECK_OK(store->status(load, &status));
        sllm::HostCopyView weights;
        CHECK_OK(sllm::HostCopyView::open(sllm::Env::posix(), "/proc/self/fd/" + std::to_string(status.fd),
                                          broken.weights_bytes, &weights));
        const sllm::Status failed = skeleton->attach(std::move(weights));
        CHECK_EQ(failed.code(), Code::corrupt);
        CHECK(failed.message().find(broken.weights_path) != std::string::npos);
    }
    const auto copied = test::load_checkpoint(checkpoint);
    test::attach(*skeleton, checkpoint, copied.path);
    test::check_bytes(*skeleton, checkpoint);
}

TEST("device: the hooks in a device's buffer type are gone after a build, and after a refused one") {
    test::need_devices(test::one_device());
    ggml_backend_buffer_type_t type = ggml_backend_dev_buffer_type(test::device());
    const auto alloc = type->iface.alloc_buffer;
    const auto alignment = type->iface.get_alignment;
    const test::TempFolder folder;
    const auto checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::engine);
    {
        const auto skeleton = test::build_skeleton(checkpoint, test::one_device());
        CHECK(type->iface.alloc_buffer == alloc && type->iface.get_alignment == alignment);
        for (const auto &run : skeleton->device_parts()[0].runs) CHECK(run.buffer->buft == type);
    }
    auto bytes = test::read_file(checkpoint.header_path);
    const std::string name = "output_norm.weight";
    const auto at = std::search(bytes.begin(), bytes.end(), name.begin(), name.end());
    CHECK(at != bytes.end());
    *at = 'x';
    test::write_file(checkpoint.header_path, bytes);
    std::unique_ptr<ModelSkeleton> refused;
    const sllm::Status status =
        ModelSkeleton::build({checkpoint.header_path, checkpoint.weights_bytes, test::one_device()}, &refused);
    CHECK_EQ(status.code(), Code::model_unsupported);
    CHECK(type->iface.alloc_buffer == alloc && type->iface.get_alignment == alignment);
}

TEST_MAIN()
