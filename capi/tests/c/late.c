/* The library loaded by dlopen into a threaded program on the system's allocator: both heaps work
 * side by side, in threads from before and after. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ours.h"

static void *(*alloc)(size_t, size_t);
static int (*give)(void *, size_t, size_t);
static size_t (*usable)(const void *);
static pthread_barrier_t loaded;

static void *work(void *wait) {
    if (wait) pthread_barrier_wait(&loaded);
    for (size_t i = 1; i < 20000; i++) {
        size_t size = i % 2000 + 1;
        char *ours = alloc(size, 16), *theirs = malloc(size);
        CHECK(ours != NULL && theirs != NULL);
        memset(ours, 1, size);
        memset(theirs, 2, size);
        CHECK(usable(ours) >= size && usable(theirs) == 0);
        CHECK(give(ours, size, 16) == 0);
        free(theirs);
    }
    return NULL;
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    CHECK(!is_ours(malloc(10)));
    pthread_t early[3], late[3];
    pthread_barrier_init(&loaded, NULL, 4);
    for (int i = 0; i < 3; i++) CHECK(pthread_create(&early[i], NULL, work, &loaded) == 0);
    void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) fprintf(stderr, "%s\n", dlerror());
    CHECK(library != NULL);
    *(void **)&alloc = dlsym(library, "flagstone_alloc");
    *(void **)&give = dlsym(library, "flagstone_free");
    *(void **)&usable = dlsym(library, "flagstone_usable_size");
    pthread_barrier_wait(&loaded);
    for (int i = 0; i < 3; i++) CHECK(pthread_create(&late[i], NULL, work, NULL) == 0);
    for (int i = 0; i < 3; i++) CHECK(pthread_join(early[i], NULL) == 0);
    /* Closed while threads use it: it stays, with its handlers for the ends of threads and for forks. */
    CHECK(dlclose(library) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        char *block = alloc(100, 16);
        _exit(block != NULL && give(block, 100, 16) == 0 ? 0 : 1);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    for (int i = 0; i < 3; i++) CHECK(pthread_join(late[i], NULL) == 0);
    return 0;
}
