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
    FLAGSTONE_FAILED = -2,
    /* There is not enough memory; nothing was done. */
    FLAGSTONE_OUT_OF_MEMORY = -3
};

/* A name tells who owns what a function hands out. `_owned`: the caller, who ends it with the function
 * of the same name that ends in `_free`, or with the `destroy` that comes with it. `_borrowed`: the
 * library, for as long as the comment says. `_view`: a look at something that somebody else keeps.
 * Blocks go back to where they came from: `_alloc` and `_realloc` go with `_dealloc`, but for
 * flagstone_alloc, which goes with flagstone_free. When a call fails its outputs are zeroed. */

/* Something owned, with the function that ends it: result.destroy(result.ptr). */
typedef struct flagstone_result_ptr {
    void *ptr;
    void (*destroy)(void *ptr);
} flagstone_result_ptr;

/* A heap of the caller's own. Where a function takes a heap, NULL stands for the process-wide one. */
typedef struct flagstone_heap flagstone_heap;

/* Version of the library, as "major.minor.patch".
 *
 * Ownership: the string is static; the caller does not free it.
 * Errors: none. */
const char *flagstone_version_borrowed(void);

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
 * Ownership: unchanged. `ptr` may be any address, at any time; memory that is not the heap's is not read.
 * malloc_usable_size is cheaper, and for blocks in use only.
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

/* The JSON text as a string of its own, in text->ptr.
 *
 * Ownership: the caller's; text->destroy(text->ptr) ends it.
 * Errors: FLAGSTONE_INVALID when `text` is NULL; FLAGSTONE_FAILED after an internal error. */
int flagstone_stats_json_owned(flagstone_result_ptr *text);

/* A heap's totals. Sizes in bytes; live + cached + fragmentation + retired + metadata = mapped when
 * nothing moves. */
typedef struct flagstone_stats_t {
    /* Blocks handed out and not yet freed, at block size. */
    uint64_t live;
    /* Free memory that is populated. */
    uint64_t cached;
    /* What slabs and large blocks lose to rounding. */
    uint64_t fragmentation;
    /* Blocks that wait for a grace period. */
    uint64_t retired;
    /* What the heap needs for itself. */
    uint64_t metadata;
    /* Memory taken from the system and not given back. */
    uint64_t mapped;
    /* Address space without memory behind it. */
    uint64_t retained;
    /* Slabs in use and large blocks, whole. */
    uint64_t active;
    /* The process's resident set; 0 where the system does not tell. */
    uint64_t resident;
    /* Blocks allocated and freed since the heap exists. */
    uint64_t allocs;
    uint64_t frees;
    /* Requests that failed. */
    uint64_t failures;
    /* Shards made so far. */
    uint64_t shards;
} flagstone_stats_t;

/* Writes the totals of `heap`. Takes no lock; figures of a busy heap may be a few operations apart.
 *
 * Ownership: `stats` is the caller's throughout.
 * Errors: FLAGSTONE_INVALID when `stats` is NULL; FLAGSTONE_FAILED after an internal error. */
int flagstone_stats(const flagstone_heap *heap, flagstone_stats_t *stats);

/* Starts a new window for the classes' high-water marks of the window; lifetime marks stay.
 *
 * Ownership: none.
 * Errors: FLAGSTONE_FAILED after an internal error. */
int flagstone_high_water_reset(const flagstone_heap *heap);

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

/* An allocator as a table of functions: a caller's, to build a heap on, or a heap's, for code that is
 * given its allocator. Functions may be called from any thread, do not unwind, and get `context` as
 * their first argument. The last three are optional: NULL where they are not known. */
typedef struct flagstone_port {
    /* Kept by whoever made the table. */
    void *context;
    /* `size` bytes, at least 1, at a multiple of `align`, a power of two; NULL when there are none. */
    void *(*alloc)(void *context, size_t size, size_t align);
    /* Changes a block's size; NULL, with the block as before, when there is no memory. */
    void *(*realloc)(void *context, void *block, size_t old_size, size_t new_size, size_t align);
    /* Takes a block back, of the size and alignment that it was last asked for with. */
    void (*free)(void *context, void *block, size_t size, size_t align);
    /* Bytes handed out and not yet taken back. */
    uint64_t (*bytes_outstanding)(void *context);
    /* The most that bytes_outstanding ever was. */
    uint64_t (*bytes_peak)(void *context);
    /* Requests that got NULL. */
    uint64_t (*failures)(void *context);
} flagstone_port;

/* The port of a heap. It does not tell its peak.
 *
 * Ownership: a view of the heap: `port` is valid until the heap is freed, and nothing has to be
 * done with it.
 * Errors: FLAGSTONE_INVALID when `port` is NULL. */
int flagstone_port_view(const flagstone_heap *heap, flagstone_port *port);

/* What a heap is to be. All zeros, or NULL instead of it, is a heap like the process-wide one. */
typedef struct flagstone_heap_options {
    /* Its name in statistics and messages, in UTF-8; NULL for "heap". */
    const char *name;
    /* Most bytes that it takes, everything included; 0 for no cap. */
    size_t cap;
    /* Block sizes in ascending order, multiples of 8 from 16 on; none for the usual ones. */
    const size_t *class_sizes;
    size_t class_count;
    /* Exactly this many shards, made at once; 0 for as many as there are threads. */
    size_t shards;
    /* Memory of the caller's to work in, and nowhere else; NULL for none. It is cut into segments of
     * 4 MiB at multiples of that, so it wants to be several times as large. */
    void *region;
    size_t region_bytes;
    /* Where memory comes from, in large pieces; NULL for the system. Its table is copied; its context
     * must stay until the heap is freed. Needs alloc and free. */
    const flagstone_port *port;
} flagstone_heap_options;

/* Makes a heap. In the child of a fork its copy may be used and freed, whatever other threads were doing
 * with the heap, but for one that retired blocks; a port has to see to its own locks.
 *
 * Ownership: *heap is the caller's, until flagstone_heap_free. A region is the heap's until then.
 * What `options` points to is read during the call only, but for the region and the port's context.
 * Errors: FLAGSTONE_INVALID, with *heap NULL, when `heap` is NULL, sizes or name are not valid, the cap
 * has no room for the heap, or there are both region and port; FLAGSTONE_OUT_OF_MEMORY when there is
 * no memory for it, or 126 heaps exist; FLAGSTONE_FAILED after an internal error. */
int flagstone_heap_owned(const flagstone_heap_options *options, flagstone_heap **heap);

/* Ends a heap and gives all its memory back, blocks that are still out included. NULL is allowed.
 *
 * Ownership: the heap, its blocks and its views are gone. No thread may be using them.
 * Errors: FLAGSTONE_FAILED after an internal error. */
int flagstone_heap_free(flagstone_heap *heap);

/* Allocates from a heap; otherwise as flagstone_alloc. Any thread.
 *
 * Ownership: the caller's, until flagstone_heap_dealloc with the same heap, size and align, or until
 * the heap is freed.
 * Errors: NULL, as flagstone_alloc, and when the heap's cap is reached. */
void *flagstone_heap_alloc(const flagstone_heap *heap, size_t size, size_t align);

/* Changes a block's size, keeping its contents up to the smaller one. A `block` of NULL is allocated.
 *
 * Ownership: the result is the caller's, and the old block gone; when the result is NULL, the old
 * block is as before.
 * Errors: as flagstone_heap_alloc. */
void *flagstone_heap_realloc(const flagstone_heap *heap, void *block, size_t old_size,
                             size_t new_size, size_t align);

/* Gives a block back to its heap. NULL is allowed. A block of another heap ends the program with a
 * message that names both.
 *
 * Ownership: the block is gone on FLAGSTONE_OK.
 * Errors: as flagstone_free. */
int flagstone_heap_dealloc(const flagstone_heap *heap, void *block, size_t size, size_t align);

/* Gives a heap's free pages back; as flagstone_purge.
 *
 * Ownership: `report` is the caller's throughout.
 * Errors: FLAGSTONE_FAILED, with `report` zeroed, after an internal error. */
int flagstone_heap_purge(const flagstone_heap *heap, flagstone_purge_report *report);

/* Enters: what this thread reads of `heap`'s blocks from now on is not freed before it leaves, if it is
 * given up with flagstone_retire. Every enter needs a leave on the same thread. The first one of a thread
 * registers it, which allocates.
 *
 * Ownership: none.
 * Errors: FLAGSTONE_FAILED after an internal error, and in destructors of thread locals. */
int flagstone_enter(const flagstone_heap *heap);

/* Ends the latest flagstone_enter of this thread.
 *
 * Ownership: none.
 * Errors: FLAGSTONE_INVALID when this thread has not entered; FLAGSTONE_FAILED after an internal error. */
int flagstone_leave(const flagstone_heap *heap);

/* Gives a block up for good: it is freed when every thread that has entered by now has left. Nobody who
 * enters from now on may find it. NULL is allowed. A block of another heap ends the program.
 *
 * Ownership: the block is the library's; those who have entered may read it until they leave.
 * Errors: FLAGSTONE_FAILED after an internal error; whether the block was taken is not known then. */
int flagstone_retire(const flagstone_heap *heap, void *block);

/* Pushes the heap's epoch one step on, and writes how many grace periods have ended so far. `epoch` may be
 * NULL.
 *
 * Ownership: `epoch` is the caller's throughout.
 * Errors: FLAGSTONE_FAILED, with `epoch` zeroed, after an internal error. */
int flagstone_advance(const flagstone_heap *heap, uint64_t *epoch);

/* Frees the retired blocks for which nobody has to be waited: this thread's, and what other threads have
 * handed over. Writes how many were freed meanwhile. `blocks` may be NULL.
 *
 * Ownership: `blocks` is the caller's throughout.
 * Errors: FLAGSTONE_FAILED, with `blocks` zeroed, after an internal error. */
int flagstone_collect(const flagstone_heap *heap, uint64_t *blocks);

#ifdef __cplusplus
}
#endif

#endif
