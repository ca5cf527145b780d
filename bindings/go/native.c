#include "native.h"

#include <stdlib.h>

static grapnel_status* out_of_memory(void) {
  static const char message[] = "no memory";
  return grapnel_status_create(GRAPNEL_RESOURCE_EXHAUSTED, message,
                               sizeof(message) - 1);
}

static size_t element_size(grapnel_dtype dtype) {
  switch (dtype) {
    case GRAPNEL_FLOAT64:
    case GRAPNEL_INT64:
      return 8;
    case GRAPNEL_FLOAT32:
    case GRAPNEL_INT32:
      return 4;
    case GRAPNEL_FLOAT16:
    case GRAPNEL_BFLOAT16:
    case GRAPNEL_INT16:
      return 2;
    default:
      return 1;
  }
}

grapnel_go_handle grapnel_go_tensor_zeros_like(const grapnel_tensor* tensor) {
  const grapnel_dtype dtype = grapnel_tensor_dtype(tensor);
  grapnel_tensors* tensors = NULL;
  void* data = NULL;
  grapnel_go_handle out = {NULL, NULL};
  out.status = grapnel_tensors_create(&tensors);
  if (out.status == NULL) {
    out.status = grapnel_tensors_add_new(tensors, "zeros", 5, dtype,
                                         grapnel_tensor_shape(tensor),
                                         grapnel_tensor_rank(tensor), &data);
  }
  if (out.status == NULL) {
    const size_t numel = (size_t)grapnel_tensor_numel(tensor);
    if (numel > 0) memset(data, 0, numel * element_size(dtype));
    out.status = grapnel_tensor_share(grapnel_tensors_at(tensors, 0),
                                      (grapnel_tensor**)&out.object);
  }
  grapnel_tensors_destroy(tensors);
  return out;
}

grapnel_go_handle grapnel_go_scheduler_create(const void* config,
                                              size_t config_size,
                                              double* values, size_t num_values,
                                              int64_t max_epochs,
                                              int64_t max_iters) {
  grapnel_go_handle out = {NULL, NULL};
  double** const pointers = calloc(num_values + 1, sizeof(*pointers));
  if (pointers == NULL) {
    out.status = out_of_memory();
    return out;
  }
  for (size_t i = 0; i < num_values; ++i) pointers[i] = values + i;
  out.status = grapnel_scheduler_create(
      config, config_size, GRAPNEL_BINARY, pointers, num_values, max_epochs,
      max_iters, (grapnel_scheduler**)&out.object);
  free(pointers);
  return out;
}
