// Prints the names of the config messages that the library knows, a line each.

#include <stdio.h>

#include "grapnel/grapnel.h"

int main(void) {
  grapnel_bytes names = {NULL, 0};
  grapnel_status* const status = grapnel_registered_configs(&names);
  if (status != NULL) {
    fprintf(stderr, "%s\n", grapnel_status_message(status));
    return 1;
  }
  fputs(names.data, stdout);
  grapnel_bytes_clear(&names);
  return 0;
}
