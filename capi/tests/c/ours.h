/* Is a block Flagstone's? Asked of the library by name, so that a program needs no link with it. */
#ifndef OURS_H
#define OURS_H

#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                          \
    do {                                                                          \
        if (!(condition)) {                                                       \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);       \
            _Exit(1);                                                             \
        }                                                                         \
    } while (0)

static inline int is_ours(const void *block) {
    size_t (*usable)(const void *);
    *(void **)&usable = dlsym(RTLD_DEFAULT, "flagstone_usable_size");
    return usable != NULL && usable(block) > 0;
}

#endif
