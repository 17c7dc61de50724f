// C++ with threads, exceptions and every form of new and delete. With any argument, blocks must be
// Flagstone's.
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "ours.h"

struct alignas(256) Wide {
    char bytes[512];
};

static volatile std::size_t huge = SIZE_MAX / 2 - 100;
static std::atomic<int> handled{0};

static void give_up() {
    if (++handled == 3) std::set_new_handler(nullptr);
}

static void forms() {
    for (std::size_t n = 1; n < 3000; n = n * 2 + 1) {
        delete[] new char[n];
        delete[] new (std::nothrow) char[n];
        Wide *wide = new Wide, *wides = new Wide[n % 7 + 1];
        CHECK(reinterpret_cast<std::uintptr_t>(wide) % 256 == 0);
        CHECK(reinterpret_cast<std::uintptr_t>(wides) % 256 == 0);
        delete wide;
        delete[] wides;
        delete new (std::nothrow) Wide;
        void *raw = ::operator new(n, std::align_val_t(4096), std::nothrow);
        CHECK(reinterpret_cast<std::uintptr_t>(raw) % 4096 == 0);
        ::operator delete(raw, n, std::align_val_t(4096));
        ::operator delete(::operator new(n), n);
    }
}

static void failures() {
    CHECK(::operator new(huge, std::nothrow) == nullptr);
    bool thrown = false;
    try {
        ::operator delete(::operator new(huge));
    } catch (const std::bad_alloc &) {
        thrown = true;
    }
    CHECK(thrown);
    std::set_new_handler(give_up);
    thrown = false;
    try {
        ::operator delete(::operator new(huge));
    } catch (const std::bad_alloc &) {
        thrown = true;
    }
    CHECK(thrown && handled == 3);
    // A handler that throws: through the library's frames and ours.
    std::set_new_handler([] { throw std::runtime_error("handler"); });
    thrown = false;
    try {
        ::operator delete(::operator new(huge));
    } catch (const std::runtime_error &error) {
        thrown = std::string(error.what()) == "handler";
    }
    CHECK(thrown);
    std::set_new_handler(nullptr);
}

static Wide *wide_nothrow(std::size_t count) {
    return new (std::nothrow) Wide[count];
}

// The nothrow forms call the handler as the others do, and give null for whatever is thrown.
static void failures_without_throwing() {
    for (int form = 0; form < 4; form++) {
        auto refused = [form] {
            switch (form) {
            case 0: return ::operator new(huge, std::nothrow) == nullptr;
            case 1: return ::operator new[](huge, std::nothrow) == nullptr;
            case 2: return ::operator new(huge, std::align_val_t(256), std::nothrow) == nullptr;
            default: return wide_nothrow(huge / sizeof(Wide)) == nullptr;
            }
        };
        handled = 0;
        std::set_new_handler(give_up);
        CHECK(refused() && handled == 3);
        std::set_new_handler([] { ++handled; throw std::bad_alloc(); });
        CHECK(refused() && handled == 4);
        std::set_new_handler([] { ++handled; throw std::runtime_error("caught all the same"); });
        CHECK(refused() && handled == 5);
        std::set_new_handler(nullptr);
        CHECK(refused() && handled == 5);
    }
}

static void work(int id) {
    std::map<std::string, std::vector<int>> map;
    for (int i = 0; i < 3000; i++) {
        try {
            auto &values = map["key number " + std::to_string(i % 300 + id)];
            values.push_back(i);
            if (i % 11 == 0) throw std::out_of_range("value " + std::to_string(i));
        } catch (const std::exception &error) {
            CHECK(std::string(error.what()) == "value " + std::to_string(i));
        }
    }
    CHECK(map.size() == 300);
    thread_local std::unique_ptr<std::string> last(new std::string(1000, 'x'));
    CHECK(last->size() == 1000);
}

static std::vector<std::string> *global = new std::vector<std::string>{"before", "main"};

int main(int argc, char **) {
    CHECK(global->size() == 2);
    if (argc > 1) {
        auto number = std::make_unique<long>(5);
        CHECK(is_ours(number.get()) && is_ours(global));
    }
    forms();
    failures();
    failures_without_throwing();
    for (int round = 0; round < 5; round++) {
        std::vector<std::thread> threads;
        for (int i = 0; i < 6; i++) threads.emplace_back(work, i);
        for (auto &thread : threads) thread.join();
    }
    delete global;
    return 0;
}
