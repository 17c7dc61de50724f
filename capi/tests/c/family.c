/* The malloc family as POSIX and glibc have it. With any argument, blocks must be Flagstone's. */
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ours.h"

static int aligned(const void *block, size_t align) { return (uintptr_t)block % align == 0; }

/* Sizes as variables: the compiler must not know better. */
static volatile size_t huge = SIZE_MAX, half = SIZE_MAX / 2 + 1, zero = 0;

static void sizes(void) {
    for (size_t size = 0; size < 5000; size += 7) {
        unsigned char *block = malloc(size);
        CHECK(block != NULL);
        CHECK(aligned(block, 16));
        CHECK(malloc_usable_size(block) >= size);
        memset(block, 0x5a, malloc_usable_size(block));
        block = realloc(block, size * 3 + 1);
        CHECK(block != NULL && aligned(block, 16));
        for (size_t i = 0; i < size; i++) CHECK(block[i] == 0x5a);
        free(block);
        unsigned char *zeros = calloc(size, 3);
        for (size_t i = 0; i < size * 3; i++) CHECK(zeros[i] == 0);
        memset(zeros, 1, size * 3);
        free(zeros);
    }
    unsigned char *grown = NULL;
    for (size_t size = 1; size < 64u << 20; size = size * 2 + 1) {
        grown = realloc(grown, size);
        CHECK(grown != NULL);
        grown[size - 1] = (unsigned char)size;
        CHECK(size < 3 || grown[(size - 1) / 2 - 1] == (unsigned char)((size - 1) / 2));
    }
    grown = realloc(grown, 1000);
    CHECK(grown != NULL && grown[0] == 1);
    free(grown);
}

static void refusals(void) {
    errno = 0;
    CHECK(malloc(huge) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(malloc(half) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(calloc(half, 2) == NULL && errno == ENOMEM);
    void *block = malloc(64);
    memset(block, 7, 64);
    errno = 0;
    CHECK(realloc(block, huge) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(reallocarray(block, half, 4) == NULL && errno == ENOMEM);
    CHECK(((char *)block)[63] == 7);
    CHECK(realloc(block, zero) == NULL);
    CHECK(realloc(NULL, zero) != NULL);
    errno = 0;
    CHECK(aligned_alloc(3, 64) == NULL && errno == EINVAL);
    void *place = &place, *was = place;
    errno = 5;
    CHECK(posix_memalign(&place, 3, 64) == EINVAL && place == was);
    CHECK(posix_memalign(&place, sizeof(void *) / 2, 64) == EINVAL && place == was);
    CHECK(posix_memalign(&place, 64, huge - 200) == ENOMEM && place == was);
    CHECK(errno == 5);
    for (size_t size = 1; size < 32u << 20; size *= 9) {
        void *freed = malloc(size);
        errno = 1234;
        free(freed);
        CHECK(errno == 1234);
    }
    free(NULL);
    CHECK(malloc_usable_size(NULL) == 0);
}

static void alignments(void) {
    for (size_t align = sizeof(void *); align <= 64u << 20; align *= 2) {
        for (size_t size = 0; size < 9000; size = size * 5 + 1) {
            void *block = NULL;
            CHECK(posix_memalign(&block, align, size) == 0 && aligned(block, align));
            memset(block, 1, size);
            void *other = aligned_alloc(align, size);
            CHECK(other != NULL && aligned(other, align) && other != block);
            memset(other, 2, size);
            void *third = memalign(align, size);
            CHECK(third != NULL && aligned(third, align));
            other = realloc(other, size + 100);
            CHECK(other != NULL && (size == 0 || ((char *)other)[size - 1] == 2));
            free(block);
            free(other);
            free(third);
        }
    }
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *one = valloc(1), *whole = pvalloc(1), *odd = memalign(48, 100);
    CHECK(aligned(one, page) && aligned(whole, page) && aligned(odd, 64));
    CHECK(malloc_usable_size(whole) >= page);
    free(one);
    free(whole);
    free(odd);
}

static void strings(void) {
    char *text = strdup("from the C library");
    CHECK(strcmp(text, "from the C library") == 0);
    free(text);
    char *line = NULL;
    size_t room = 0;
    FILE *file = fopen("/proc/self/maps", "r");
    while (getline(&line, &room, file) > 0) {}
    fclose(file);
    free(line);
}

static void figures(void) {
    struct mallinfo2 before = mallinfo2();
    char *block = malloc(100u << 20);
    struct mallinfo2 with = mallinfo2();
    CHECK(with.uordblks >= before.uordblks + (100u << 20));
    free(block);
    malloc_trim(0);
}

/* A key whose destructor allocates and frees after ours may have run, round after round. */
static pthread_key_t key;
static void at_exit_of_thread(void *left) {
    free(malloc(100));
    if ((uintptr_t)left > 1) pthread_setspecific(key, (void *)((uintptr_t)left - 1));
}
static void *thread(void *given) {
    pthread_setspecific(key, (void *)(uintptr_t)4);
    free(given);
    return malloc(77);
}
static void threads(void) {
    pthread_key_create(&key, at_exit_of_thread);
    for (int round = 0; round < 200; round++) {
        pthread_t id;
        void *got;
        CHECK(pthread_create(&id, NULL, thread, malloc(500)) == 0);
        CHECK(pthread_join(id, &got) == 0);
        free(got);
    }
}

static char *early;
__attribute__((constructor)) static void before_main(void) { early = strdup("early"); }
__attribute__((destructor)) static void after_main(void) {
    early = realloc(early, 40);
    free(early);
    free(malloc(10));
}
static void at_exit(void) { free(malloc(1u << 20)); }

int main(int argc, char **argv) {
    (void)argv;
    CHECK(strcmp(early, "early") == 0);
    if (argc > 1) {
        CHECK(is_ours(early));
        void *block = malloc(30);
        CHECK(is_ours(block));
        free(block);
    }
    atexit(at_exit);
    sizes();
    refusals();
    alignments();
    strings();
    figures();
    threads();
    return 0;
}
