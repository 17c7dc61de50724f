/* Uses every function of flagstone.h as a C program would. Prints the version and the statistics, which
 * the test that runs it reads; exits with a line on standard error at the first thing that is wrong. */
#include <flagstone.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                        \
    do {                                                                        \
        if (!(condition)) {                                                     \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);     \
            exit(1);                                                            \
        }                                                                       \
    } while (0)

enum { BLOCKS = 1000, THREADS = 4 };

static size_t size_of_block(size_t i) { return (i * 37) % 5000; }

static void fill(unsigned char *block, size_t size, unsigned char mark) { memset(block, mark, size); }

static void check_filled(const unsigned char *block, size_t size, unsigned char mark)
{
    for (size_t i = 0; i < size; i++)
        CHECK(block[i] == mark);
}

/* Allocates on this thread what main frees. */
static void *producer(void *blocks)
{
    unsigned char **out = blocks;
    for (size_t i = 0; i < BLOCKS; i++) {
        out[i] = flagstone_alloc(size_of_block(i), 0);
        CHECK(out[i] != NULL);
        fill(out[i], size_of_block(i), (unsigned char)i);
    }
    return NULL;
}

static void check_blocks(void)
{
    static const size_t aligns[] = {0, 1, 8, 16, 64, 4096, 65536};
    for (size_t a = 0; a < sizeof aligns / sizeof *aligns; a++) {
        for (size_t size = 0; size < 300000; size = size * 2 + 1) {
            unsigned char *block = flagstone_alloc(size, aligns[a]);
            CHECK(block != NULL);
            CHECK((uintptr_t)block % (aligns[a] ? aligns[a] : _Alignof(max_align_t)) == 0);
            size_t usable = flagstone_usable_size(block);
            CHECK(usable >= size);
            fill(block, size, 0x5a);
            check_filled(block, size, 0x5a);
            CHECK(flagstone_free(block, size, aligns[a]) == FLAGSTONE_OK);
        }
    }
}

static void check_refusals(void)
{
    int local = 0;
    CHECK(flagstone_alloc(8, 3) == NULL);
    CHECK(flagstone_alloc(SIZE_MAX, 8) == NULL);
    CHECK(flagstone_free(NULL, 8, 8) == FLAGSTONE_OK);
    CHECK(flagstone_free(&local, 8, 3) == FLAGSTONE_INVALID);
    CHECK(flagstone_usable_size(NULL) == 0);
    CHECK(flagstone_usable_size(&local) == 0);
    CHECK(flagstone_stats_json(NULL, 1) == FLAGSTONE_INVALID);
}

static void check_threads(void)
{
    static unsigned char *blocks[THREADS][BLOCKS];
    pthread_t threads[THREADS];
    for (int t = 0; t < THREADS; t++)
        CHECK(pthread_create(&threads[t], NULL, producer, blocks[t]) == 0);
    for (int t = 0; t < THREADS; t++)
        CHECK(pthread_join(threads[t], NULL) == 0);
    for (int t = 0; t < THREADS; t++) {
        for (size_t i = 0; i < BLOCKS; i++) {
            check_filled(blocks[t][i], size_of_block(i), (unsigned char)i);
            CHECK(flagstone_free(blocks[t][i], size_of_block(i), 0) == FLAGSTONE_OK);
        }
    }
}

static void check_purge(void)
{
    flagstone_purge_report report;
    memset(&report, 0xff, sizeof report);
    CHECK(flagstone_purge(&report) == FLAGSTONE_OK);
    CHECK(report.bytes_purged != UINT64_MAX);
    CHECK(report.pinned_free_bytes != UINT64_MAX);
    CHECK(flagstone_purge(NULL) == FLAGSTONE_OK);
}

static void print_stats(void)
{
    size_t room = 0;
    char *text = NULL;
    for (int attempt = 0; attempt < 10; attempt++) {
        ptrdiff_t length = flagstone_stats_json(text, room);
        CHECK(length > 0);
        if ((size_t)length < room) {
            CHECK(strlen(text) == (size_t)length);
            puts(text);
            free(text);
            return;
        }
        room = (size_t)length + 256;
        text = realloc(text, room);
        CHECK(text != NULL);
    }
    CHECK(!"the statistics never fit");
}

/* A port of the program's own, which counts. */
static uint64_t outstanding;

static void *counted_alloc(void *context, size_t size, size_t align)
{
    void *block = NULL;
    if (posix_memalign(&block, align < sizeof(void *) ? sizeof(void *) : align, size) != 0)
        return NULL;
    __atomic_fetch_add((uint64_t *)context, size, __ATOMIC_RELAXED);
    return block;
}

static void counted_free(void *context, void *block, size_t size, size_t align)
{
    (void)align;
    __atomic_fetch_sub((uint64_t *)context, size, __ATOMIC_RELAXED);
    free(block);
}

static void check_heaps(void)
{
    flagstone_port port = {.context = &outstanding, .alloc = counted_alloc, .free = counted_free};
    flagstone_heap_options options = {.name = "c", .cap = 64u << 20, .port = &port};
    flagstone_heap *heap;
    CHECK(flagstone_heap_owned(&options, &heap) == FLAGSTONE_OK && heap != NULL);
    CHECK(outstanding > 0);
    unsigned char *block = flagstone_heap_alloc(heap, 1000, 0);
    CHECK(block != NULL);
    fill(block, 1000, 0x11);
    block = flagstone_heap_realloc(heap, block, 1000, 3000, 0);
    check_filled(block, 1000, 0x11);
    CHECK(flagstone_heap_alloc(heap, 65u << 20, 0) == NULL);
    flagstone_stats_t stats;
    CHECK(flagstone_stats(heap, &stats) == FLAGSTONE_OK);
    CHECK(stats.live >= 3000 && stats.failures >= 1);
    flagstone_port ours;
    CHECK(flagstone_port_view(heap, &ours) == FLAGSTONE_OK);
    void *other = ours.alloc(ours.context, 100, 8);
    CHECK(other != NULL && ours.bytes_outstanding(ours.context) >= 3100);
    ours.free(ours.context, other, 100, 8);
    CHECK(flagstone_heap_dealloc(heap, block, 3000, 0) == FLAGSTONE_OK);
    CHECK(flagstone_high_water_reset(heap) == FLAGSTONE_OK);
    CHECK(flagstone_heap_purge(heap, NULL) == FLAGSTONE_OK);
    CHECK(flagstone_heap_free(heap) == FLAGSTONE_OK);
    CHECK(outstanding == 0);
    options.cap = 1;
    CHECK(flagstone_heap_owned(&options, &heap) == FLAGSTONE_INVALID && heap == NULL);
    flagstone_result_ptr text;
    CHECK(flagstone_stats_json_owned(&text) == FLAGSTONE_OK && strchr(text.ptr, '{') == text.ptr);
    text.destroy(text.ptr);
    CHECK(flagstone_metrics_serve("0.0.0.0:1") == FLAGSTONE_INVALID);
    CHECK(flagstone_verify() == 1);
}

/* Leaves as soon as main says so, and enters before. */
static void *reader(void *gate)
{
    CHECK(flagstone_enter(NULL) == FLAGSTONE_OK);
    pthread_barrier_wait(gate);
    pthread_barrier_wait(gate);
    CHECK(flagstone_leave(NULL) == FLAGSTONE_OK);
    return NULL;
}

static void check_epochs(void)
{
    pthread_barrier_t gate;
    pthread_t thread;
    flagstone_stats_t stats;
    uint64_t freed, epoch;
    CHECK(flagstone_leave(NULL) == FLAGSTONE_INVALID);
    unsigned char *block = flagstone_alloc(1000, 0);
    CHECK(block != NULL);
    fill(block, 1000, 0x22);
    CHECK(pthread_barrier_init(&gate, NULL, 2) == 0);
    CHECK(pthread_create(&thread, NULL, reader, &gate) == 0);
    pthread_barrier_wait(&gate);
    CHECK(flagstone_retire(NULL, block) == FLAGSTONE_OK);
    for (int i = 0; i < 10; i++) {
        CHECK(flagstone_advance(NULL, &epoch) == FLAGSTONE_OK);
        CHECK(flagstone_collect(NULL, &freed) == FLAGSTONE_OK && freed == 0);
    }
    check_filled(block, 1000, 0x22);
    CHECK(flagstone_stats(NULL, &stats) == FLAGSTONE_OK && stats.retired >= 1000);
    pthread_barrier_wait(&gate);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(flagstone_collect(NULL, &freed) == FLAGSTONE_OK && freed == 1);
    CHECK(flagstone_stats(NULL, &stats) == FLAGSTONE_OK && stats.retired == 0);
    CHECK(flagstone_enter(NULL) == FLAGSTONE_OK && flagstone_leave(NULL) == FLAGSTONE_OK);
    CHECK(flagstone_retire(NULL, NULL) == FLAGSTONE_OK);
}

enum { LENT = 300 };

struct busy {
    flagstone_heap *heap;
    atomic_int ready, stop;
    char *lent[LENT];
};

static void *keep_busy(void *arg)
{
    struct busy *busy = arg;
    for (int i = 0; i < LENT; i++) {
        busy->lent[i] = flagstone_heap_alloc(busy->heap, 80, 0);
        memset(busy->lent[i], i, 80);
    }
    atomic_store(&busy->ready, 1);
    for (size_t round = 0; !atomic_load(&busy->stop); round++) {
        size_t size = round % 50 == 0 ? 700000 : round % 3000 + 1;
        void *block = flagstone_heap_alloc(busy->heap, size, 0);
        if (block != NULL) flagstone_heap_dealloc(busy->heap, block, size, 0);
    }
    return NULL;
}

/* The child of a process whose other threads are in a heap uses its copy and frees it. */
static void check_heaps_over_forks(void)
{
    static char region[24 << 20];
    static struct busy busy[2];
    flagstone_heap_options options = {.region = region, .region_bytes = sizeof region};
    CHECK(flagstone_heap_owned(NULL, &busy[0].heap) == FLAGSTONE_OK);
    CHECK(flagstone_heap_owned(&options, &busy[1].heap) == FLAGSTONE_OK);
    pthread_t id[2];
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&id[i], NULL, keep_busy, &busy[i]) == 0);
    for (int i = 0; i < 2; i++) {
        while (!atomic_load(&busy[i].ready)) sched_yield();
    }
    for (int round = 0; round < 10; round++) {
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            alarm(120);
            for (int i = 0; i < 2; i++) {
                for (int j = 0; j < LENT; j++) {
                    CHECK(busy[i].lent[j][79] == (char)j);
                    CHECK(flagstone_heap_dealloc(busy[i].heap, busy[i].lent[j], 80, 0) == FLAGSTONE_OK);
                }
                void *small = flagstone_heap_alloc(busy[i].heap, 80, 0);
                void *large = flagstone_heap_alloc(busy[i].heap, 1 << 20, 0);
                CHECK(small != NULL && large != NULL);
                CHECK(flagstone_heap_free(busy[i].heap) == FLAGSTONE_OK);
            }
            _exit(0);
        }
        int status;
        CHECK(waitpid(pid, &status, 0) == pid);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    for (int i = 0; i < 2; i++) {
        atomic_store(&busy[i].stop, 1);
        CHECK(pthread_join(id[i], NULL) == 0);
        CHECK(flagstone_heap_free(busy[i].heap) == FLAGSTONE_OK);
    }
}

int main(void)
{
    puts(flagstone_version_borrowed());
    check_blocks();
    check_refusals();
    check_heaps();
    check_heaps_over_forks();
    check_threads();
    check_epochs();
    check_purge();
    print_stats();
    return 0;
}
