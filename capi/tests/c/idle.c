/* A peak of small blocks is freed; then the program sleeps and calls nothing of the allocator's. Says
 * how many threads it has at the start, and whether its memory went back: within a minute with the
 * argument "back", or not within three seconds with "kept". */
#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ours.h"

enum { BLOCKS = 600000, SIZE = 128 };

static char *blocks[BLOCKS];

/* Without the C library's streams and folders, which allocate. */
static long resident_mib(void) {
    char text[128] = {0};
    int file = open("/proc/self/statm", O_RDONLY);
    CHECK(file >= 0 && read(file, text, sizeof text - 1) > 0);
    close(file);
    return atol(strchr(text, ' ')) * sysconf(_SC_PAGESIZE) >> 20;
}

static int threads(void) {
    int count = 0;
    DIR *folder = opendir("/proc/self/task");
    while (readdir(folder) != NULL) count++;
    closedir(folder);
    return count - 2;
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    int back = strcmp(argv[1], "back") == 0;
    CHECK(threads() == 1);
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(SIZE);
        memset(blocks[i], i, SIZE);
    }
    CHECK(is_ours(blocks[0]));
    CHECK(threads() == (back ? 2 : 1));
    long peak = resident_mib();
    CHECK(peak >= (long)BLOCKS * SIZE >> 20);
    for (int i = 0; i < BLOCKS; i++) free(blocks[i]);
    struct timespec pause = {0, 100000000};
    for (int waited = 0; waited < (back ? 600 : 30); waited++) {
        if (resident_mib() < 24) return back ? 0 : 1;
        nanosleep(&pause, NULL);
    }
    return back ? 1 : 0;
}
