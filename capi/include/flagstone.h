/* Flagstone: C interface of the process-wide heap.
 *
 * Link with -lflagstone (shared or static), or run a program with LD_PRELOAD=libflagstone.so. Either
 * way the library's malloc, free and the rest of that family, and C++ operators new and delete, take
 * the place of the system's; their rules are POSIX's and glibc's. Loaded by dlopen, the library
 * replaces nothing, and the functions below work beside the program's allocator.
 *
 * Every function may be called from any thread, before main, after exit has begun, and in the child
 * of a fork. None of them throws, unwinds or calls exit; a heap that detects corruption aborts with
 * a message on standard error. Not for signal handlers, as malloc is not.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#ifndef FLAGSTONE_H
#define FLAGSTONE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What functions that return `int` give. */
enum {
    /* Done. */
    FLAGSTONE_OK = 0,
    /* An argument is out of its range; nothing was done. */
    FLAGSTONE_INVALID = -1,
    /* An internal error was caught at the boundary; outputs are zeroed. */
    FLAGSTONE_FAILED = -2
};

/* Version of the library, as "major.minor.patch".
 *
 * Ownership: the string is static; the caller does not free it.
 * Errors: none. */
const char *flagstone_version(void);

/* Whether the process's malloc is this library's: asks malloc, as the program finds it, for a block
 * and looks up whose it is. 1 for yes; 0 for no, as in a program that loaded the library by dlopen, or
 * that has a malloc of its own.
 *
 * Ownership: none; the block is freed before the call returns.
 * Errors: none. */
int flagstone_verify(void);

/* Allocates `size` bytes at an address that is a multiple of `align`.
 *
 * A size of 0 counts as 1. `align` is a power of two; 0 stands for the alignment of max_align_t. The
 * memory is not initialised.
 *
 * Ownership: the caller's, until it gives the block to flagstone_free with the same size and align.
 * Not for free(), nor for realloc().
 * Errors: NULL when `align` is not a power of two, when the sum of both passes PTRDIFF_MAX, or when
 * there is no memory. The heap stays intact. */
void *flagstone_alloc(size_t size, size_t align);

/* Frees a block of flagstone_alloc. `size` and `align` are those it was allocated with. NULL is
 * allowed, and nothing is done then. Any thread may free any block.
 *
 * Ownership: the block is gone on FLAGSTONE_OK and still the caller's otherwise.
 * Errors: FLAGSTONE_INVALID when no block can have this size and align; FLAGSTONE_FAILED after an
 * internal error, when the block may be lost to both. A pointer that is not from
 * flagstone_alloc, or a size that is not the block's, is undefined, as it is with free(). */
int flagstone_free(void *ptr, size_t size, size_t align);

/* Bytes that the block at `ptr` really holds: all of them may be used, and flagstone_free is still
 * given the size asked for.
 *
 * Ownership: unchanged. `ptr` may be any address; memory that is not the heap's is not read.
 * Errors: 0 when `ptr` is NULL or not a block of this heap. */
size_t flagstone_usable_size(const void *ptr);

/* Writes the figures of heap and process as a JSON object, the one that /stats.json serves, like
 * snprintf: at most `len` bytes, the last of them a NUL, cut short if they do not fit. `buf` may be
 * NULL when `len` is 0.
 *
 * Returns the length of the whole text without the NUL. When that is `len` or more, the text was cut;
 * try again with more room, and expect that it may have grown, since the heap goes on meanwhile.
 *
 * Ownership: `buf` is the caller's throughout.
 * Errors: FLAGSTONE_INVALID when `buf` is NULL and `len` is not 0; FLAGSTONE_FAILED, with an empty
 * string in `buf`, after an internal error. */
ptrdiff_t flagstone_stats_json(char *buf, size_t len);

/* Serves /metrics (Prometheus text) and /stats.json over HTTP, from a thread of the library's own, at
 * `place`: a loopback address like "127.0.0.1:9600" or "[::1]:9600", or the path of a Unix socket, in
 * which %p stands for the process's number. The environment's FLAGSTONE_METRICS does the same at the
 * start of a program; a child of fork without a %p in it is not served until it calls this.
 *
 * Ownership: the string is read during the call only.
 * Errors: FLAGSTONE_INVALID when `place` is neither; FLAGSTONE_FAILED when this process serves already
 * or the system refuses the address or the thread. */
int flagstone_metrics_serve(const char *place);

/* What flagstone_purge did. */
typedef struct flagstone_purge_report {
    /* Bytes given back to the operating system. */
    uint64_t bytes_purged;
    /* Blocks freed by other threads and taken back by their owners. */
    uint64_t blocks_drained;
    /* Slabs that became empty and went back whole. */
    uint64_t slabs_returned;
    /* Segments unmapped. */
    uint64_t segments_unmapped;
    /* Parked or idle shards that were worked on. */
    uint64_t shards_claimed;
    /* Shards that running threads hold; what is free in them stays with them. */
    uint64_t unreachable_shards;
    /* Free bytes in slabs that still hold live blocks. */
    uint64_t pinned_free_bytes;
} flagstone_purge_report;

/* Gives every free page that can be reached back to the operating system. Flushes the calling thread
 * first. `report` may be NULL.
 *
 * Ownership: `report` is the caller's throughout.
 * Errors: FLAGSTONE_FAILED, with `report` zeroed, after an internal error. */
int flagstone_purge(flagstone_purge_report *report);

#ifdef __cplusplus
}
#endif

#endif
