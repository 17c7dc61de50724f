/* What no C program may do, one fault for each argument: the library ends the program over it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int is(const char *given, const char *name) { return strcmp(given, name) == 0; }

int main(int argc, char **argv) {
  const char *fault = argc > 1 ? argv[1] : "";
  char *small = malloc(100), *large = malloc(3 << 20);
  if (!small || !large) {
    return 2;
  }
  /* Kept from the compiler, which would warn or worse. */
  char *volatile block = small;
  char on_stack[64];
  if (is(fault, "none")) {
    free(small);
    free(large);
    return 0;
  }
  if (is(fault, "double")) {
    free(block);
    free(block);
  } else if (is(fault, "double-large")) {
    block = large;
    free(block);
    free(block);
  } else if (is(fault, "inside")) {
    free(block + 16);
  } else if (is(fault, "stack")) {
    block = on_stack;
    free(block);
  } else if (is(fault, "realloc-stack")) {
    block = on_stack;
    block = realloc(block, 10);
  } else if (is(fault, "after-realloc")) {
    char *moved = realloc(small, 100000);
    free(block);
    free(moved);
  }
  fprintf(stderr, "%s was not found out\n", fault);
  return 1;
}
