// A small test harness: TEST("sentence") { ... } registers a case; the program runs all cases, or those whose names are
// given. Exit status 0 passed, 1 failed, 77 all skipped. CMakeLists.txt reads the names to make a CTest entry of each.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace test {

struct Case {
    const char *name;
    void (*body)();
};

inline std::vector<Case> &cases() {
    static std::vector<Case> all;
    return all;
}

struct Registered {
    Registered(const char *name, void (*body)()) { cases().push_back({name, body}); }
};

struct Failed : std::runtime_error {
    using std::runtime_error::runtime_error;
};
struct Skipped : std::runtime_error {
    using std::runtime_error::runtime_error;
};

template <typename T>
std::string show(const T &value) {
    if constexpr (std::is_enum_v<T>) {
        return std::to_string(static_cast<std::int64_t>(value));
    } else {
        std::ostringstream out;
        out << value;
        return out.str();
    }
}

[[noreturn]] inline void fail(const char *file, int line, const std::string &what) {
    throw Failed(std::string(file) + ":" + std::to_string(line) + ": " + what);
}

template <typename A, typename B>
void equal(const A &found, const B &expected, const char *expression, const char *file, int line) {
    if (found == expected) return;
    fail(file, line, std::string(expression) + " is " + show(found) + ", expected " + show(expected));
}

// The seed of a randomised case: SLLM_TEST_SEED replays a failure, whose seed was printed.
inline std::uint64_t seed() {
    const char *given = std::getenv("SLLM_TEST_SEED");
    const std::uint64_t value = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
    std::printf("SLLM_TEST_SEED=%llu\n", static_cast<unsigned long long>(value));
    return value;
}

// Whether the long form of a case is wanted: every cut point instead of a spread of them.
inline bool long_form() { return std::getenv("SLLM_TEST_LONG") != nullptr; }

inline int run(int argc, char **argv) {
    int passed = 0;
    int failed = 0;
    int skipped = 0;
    for (const Case &c : cases()) {
        bool wanted = argc < 2;
        for (int i = 1; i < argc; i++) wanted = wanted || std::string_view(argv[i]) == c.name;
        if (!wanted) continue;
        try {
            c.body();
            passed++;
            std::printf("ok    %s\n", c.name);
        } catch (const Skipped &why) {
            skipped++;
            std::printf("skip  %s: %s\n", c.name, why.what());
        } catch (const std::exception &why) {
            failed++;
            std::printf("FAIL  %s: %s\n", c.name, why.what());
        }
        std::fflush(stdout);
    }
    if (passed + failed + skipped == 0) {
        std::printf("no such case\n");
        return 1;
    }
    return failed > 0 ? 1 : passed == 0 ? 77 : 0;
}

}  // namespace test

#define TEST_JOIN2(a, b) a##b
#define TEST_JOIN(a, b) TEST_JOIN2(a, b)
#define TEST(name)                                                                                    \
    static void TEST_JOIN(test_body_, __LINE__)();                                                    \
    static const ::test::Registered TEST_JOIN(test_registered_, __LINE__)(name,                       \
                                                                          TEST_JOIN(test_body_, __LINE__)); \
    static void TEST_JOIN(test_body_, __LINE__)()

#define CHECK(condition) \
    do { \
        if (!(condition)) ::test::fail(__FILE__, __LINE__, #condition); \
    } while (false)
#define CHECK_EQ(found, expected) ::test::equal((found), (expected), #found, __FILE__, __LINE__)
#define CHECK_OK(expression) \
    do { \
        const auto status_of_check = (expression); \
        if (!status_of_check.ok()) ::test::fail(__FILE__, __LINE__, #expression ": " + status_of_check.message()); \
    } while (false)
#define SKIP(why) throw ::test::Skipped(why)
#define TEST_MAIN() \
    int main(int argc, char **argv) { return ::test::run(argc, argv); }
