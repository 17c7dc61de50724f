// A program with its own plain operator new and delete, over memory of its own: by the standard every other
// form goes through them. With any argument, malloc's blocks must be Flagstone's.
#pragma GCC diagnostic ignored "-Wsized-deallocation" // missing on purpose
#include <cstddef>
#include <cstdlib>
#include <new>

#include "ours.h"

static char arena[1 << 20];
static std::size_t used, given, taken, refuse;

static bool in_arena(const void *block) {
    return block >= arena && block < arena + sizeof arena;
}

void *operator new(std::size_t size) {
    if (refuse > 0) {
        refuse--;
        throw std::bad_alloc();
    }
    used = (used + 63) & ~std::size_t(63);
    CHECK(size <= sizeof arena - used);
    void *block = arena + used;
    used += size;
    given++;
    return block;
}

void operator delete(void *block) noexcept {
    CHECK(block == nullptr || in_arena(block));
    taken++;
}

struct Counted {
    int number = 7;
    ~Counted() { number = 0; }
};

int main(int argc, char **) {
    if (argc > 1) {
        void *block = std::malloc(100);
        CHECK(is_ours(block));
        std::free(block);
    }
    Counted *one = new Counted, *some = new Counted[9];
    Counted *perhaps = new (std::nothrow) Counted, *several = new (std::nothrow) Counted[5];
    CHECK(in_arena(one) && in_arena(some) && in_arena(perhaps) && in_arena(several));
    CHECK(given == 4 && some[8].number == 7);
    std::size_t before = taken;
    delete one;
    delete[] some;
    delete perhaps;
    delete[] several;
    ::operator delete(::operator new(10), std::size_t(10));
    ::operator delete[](::operator new[](10), std::size_t(10));
    ::operator delete(::operator new(10), std::nothrow);
    CHECK(taken == before + 7 && given == 7);
    refuse = 2;
    CHECK(new (std::nothrow) Counted == nullptr && new (std::nothrow) Counted[3] == nullptr);
    CHECK(refuse == 0);
    // The aligned forms are a family of their own, and nobody's here.
    void *wide = ::operator new(300, std::align_val_t(256));
    CHECK(!in_arena(wide) && (argc == 1 || is_ours(wide)));
    ::operator delete(wide, std::size_t(300), std::align_val_t(256));
    return 0;
}
