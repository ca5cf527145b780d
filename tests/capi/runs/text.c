#include "grapnel/tests/capi/runs/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void text_append_bytes(text* to, const void* bytes, size_t size) {
  char* const grown = realloc(to->data, to->size + size + 1);
  if (grown == NULL) abort();
  if (size > 0) memcpy(grown + to->size, bytes, size);
  to->data = grown;
  to->size += size;
  to->data[to->size] = '\0';
}

void text_append(text* to, const char* format, ...) {
  char line[1024];
  va_list arguments;
  va_start(arguments, format);
  const int size = vsnprintf(line, sizeof(line), format, arguments);
  va_end(arguments);
  if (size < 0 || (size_t)size >= sizeof(line)) abort();
  text_append_bytes(to, line, (size_t)size);
}

void text_clear(text* text) {
  free(text->data);
  text->data = NULL;
  text->size = 0;
}
