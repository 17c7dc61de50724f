/* Forks out of a threaded program: the child allocates, frees what other threads had, starts threads
 * and forks again. With any argument, blocks must be Flagstone's. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ours.h"

enum { THREADS = 4, BLOCKS = 2000, FORKS = 12 };

static atomic_int stop;
static _Atomic(char *) shared[THREADS * BLOCKS];

static void *churn(void *arg) {
    unsigned seed = (unsigned)(size_t)arg * 77 + 1;
    char *own[64] = {0};
    for (int i = 0; i < BLOCKS; i++) {
        char *block = malloc((size_t)i % 3000 + 1);
        block[0] = (char)i;
        atomic_store(&shared[(size_t)arg * BLOCKS + (size_t)i], block);
    }
    while (!atomic_load(&stop)) {
        unsigned at = rand_r(&seed) % 64;
        free(own[at]);
        size_t size = rand_r(&seed) % 100 == 0 ? 600000 : rand_r(&seed) % 4000;
        own[at] = malloc(size);
        if (own[at] != NULL) memset(own[at], (int)at, size < 64 ? size : 64);
    }
    for (int i = 0; i < 64; i++) free(own[i]);
    return NULL;
}

static void *brief(void *arg) {
    char *blocks[500];
    for (int i = 0; i < 500; i++) blocks[i] = malloc((size_t)i * 9);
    for (int i = 0; i < 500; i++) free(blocks[i]);
    free(arg);
    return malloc(123);
}

static void in_child(void) {
    /* What other threads had at the time of the fork. */
    for (int i = 0; i < THREADS * BLOCKS; i++) {
        char *block = atomic_load(&shared[i]);
        if (block == NULL) continue;
        CHECK(block[0] == (char)(i % BLOCKS));
        block = realloc(block, 5000);
        CHECK(block != NULL && block[0] == (char)(i % BLOCKS));
        free(block);
        atomic_store(&shared[i], NULL);
    }
    for (int round = 0; round < 3; round++) {
        pthread_t id[3];
        for (int i = 0; i < 3; i++) CHECK(pthread_create(&id[i], NULL, brief, malloc(64)) == 0);
        for (int i = 0; i < 3; i++) {
            void *got;
            CHECK(pthread_join(id[i], &got) == 0);
            free(got);
        }
    }
}

/* Works, and leaves the rest of the generations to a child of its own. */
static _Noreturn void child(int generations) {
    for (;;) {
        in_child();
        if (--generations == 0) _exit(0);
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid > 0) {
            int status;
            CHECK(waitpid(pid, &status, 0) == pid);
            _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
        }
    }
}

int main(int argc, char **argv) {
    (void)argv;
    void *block = malloc(30);
    if (argc > 1) CHECK(is_ours(block));
    free(block);
    pthread_t id[THREADS];
    for (size_t i = 0; i < THREADS; i++) CHECK(pthread_create(&id[i], NULL, churn, (void *)i) == 0);
    for (int i = 0; i < FORKS; i++) {
        alarm(600);
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) child(i % 2 + 1);
        int status;
        CHECK(waitpid(pid, &status, 0) == pid);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    atomic_store(&stop, 1);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(id[i], NULL) == 0);
    for (int i = 0; i < THREADS * BLOCKS; i++) free(atomic_load(&shared[i]));
    return 0;
}
