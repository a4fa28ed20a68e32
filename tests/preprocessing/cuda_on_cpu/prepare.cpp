#include "blocks.h"

#include "prepare.cu"

extern "C" int prepare_on_cpu(const View *views, const uint8_t *const *buffers, uint8_t *images, const int *shape,
                              int tiles, int count, int threads, int shared, unsigned seed) {
    const Shape size = {shape[0], shape[1], shape[2], shape[3]};
    return run_grid({tiles, count}, threads, (size_t)shared, seed,
                    [=] { fsmde_prepare(views, buffers, images, size); });
}
