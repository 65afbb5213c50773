// Refusals: engine libraries that are missing, foreign or of another shape.
#include <filesystem>

#include "engine/llama/libraries.h"
#include "engine/llama_module.h"
#include "test/checkpoint_fixture.h"
#include "test/harness.h"
#include "test/temp_folder.h"

namespace {

using sllm::Code;
using sllm::llama::check_buffer_type;
using sllm::llama::check_versions;
using sllm::llama::LibraryVersions;

std::size_t foreign_alignment(ggml_backend_buffer_type_t) { return 32; }

// The library's own CPU buffer type with one thing changed, as another version's struct would show itself.
template <typename Change>
Code changed(Change change) {
    ggml_backend_buffer_type copy = *ggml_backend_cpu_buffer_type();
    change(copy);
    return check_buffer_type(&copy).code();
}

}  // namespace

TEST("libraries: the versions in this process are the wanted ones, and any other is refused by name") {
    CHECK_OK(check_versions(sllm::llama::loaded_versions()));
    LibraryVersions other = sllm::llama::loaded_versions();
    other.llama = "0.6.0";
    sllm::Status status = check_versions(other);
    CHECK_EQ(status.code(), Code::library_version);
    CHECK(status.message().find("0.6.0") != std::string::npos);
    other = sllm::llama::loaded_versions();
    other.ggml = "0.26.0";
    CHECK_EQ(check_versions(other).code(), Code::library_version);
    other = sllm::llama::loaded_versions();
    other.ggml_commit = "fffffff";
    CHECK_EQ(check_versions(other).code(), Code::library_version);
}

TEST("libraries: a buffer type of another shape is refused before any of its pointers is called") {
    CHECK_EQ(changed([](auto &) {}), Code::ok);
    CHECK_EQ(changed([](auto &t) { t.iface.get_alignment = foreign_alignment; }), Code::library_version);
    CHECK_EQ(changed([](auto &t) { t.iface.get_name = nullptr; }), Code::library_version);
    CHECK_EQ(changed([](auto &t) { t.iface.alloc_buffer = nullptr; }), Code::library_version);
    CHECK_EQ(changed([](auto &t) {
                 t.iface.alloc_buffer = reinterpret_cast<decltype(t.iface.alloc_buffer)>(std::uintptr_t{0x1000});
             }),
             Code::library_version);
    CHECK_EQ(changed([](auto &t) { t.iface.get_max_size = t.iface.get_alignment; }), Code::library_version);
}

TEST("libraries: a folder without CPU variants is LIBRARY_MISSING") {
    const test::TempFolder folder;
    const sllm::Status status = sllm::llama::prepare_libraries(folder / "");
    CHECK_EQ(status.code(), Code::library_missing);
    CHECK(status.message().find("libggml-cpu") != std::string::npos);
    CHECK_OK(sllm::llama::prepare_libraries(test::engine_libraries()));
}

TEST("libraries: a missing folder, a missing library and one that is no library are told apart") {
    const test::TempFolder folder;
    const sllm::LlamaModule *module = nullptr;
    sllm::Status status = sllm::load_llama_module(folder / "nowhere", &module);
    CHECK_EQ(status.code(), Code::library_missing);
    CHECK(status.message().find("nowhere") != std::string::npos);
    status = sllm::load_llama_module(folder / "", &module);
    CHECK_EQ(status.code(), Code::library_missing);
    CHECK(status.message().find("libggml-base.so does not exist") != std::string::npos);
    test::write_file(folder / "libggml-base.so", {'n', 'o'});
    status = sllm::load_llama_module(folder / "", &module);
    CHECK_EQ(status.code(), Code::library_missing);
    CHECK(status.message().find("cannot be loaded") != std::string::npos);
}

TEST_MAIN()
