/* One pass from rows of bytes to the network's input; kernel.py compiles it where it runs.

   For each output row: first down the picture (each byte of a column times its weight, in 16 bits), then
   along the row (four lanes at a time), then colours. Tables say which rows, columns and weights. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 64 /* columns that share a range of source rows; tables.py has the same number */

typedef float lanes __attribute__((vector_size(16)));
typedef int32_t whole __attribute__((vector_size(16)));

typedef struct {
    int32_t columns, channels;      /* of the source plane */
    int32_t step, quads;            /* along a row: values from one tap to the next, taps */
    int32_t pad, group;             /* values repeated beyond each end, by patterns of `group` */
    int32_t curves;                 /* rows of `base` and `kind`: 1 where all are alike */
    const int32_t *top, *count;     /* [rows, blocks] first source row, number of rows */
    const int64_t *offset;          /* [rows, blocks] into `down` */
    const uint8_t *down;            /* [..., count, BLOCK], summing to 255 */
    const int32_t *base;            /* [curves, width] into the padded row */
    const uint16_t *kind;           /* [curves, width] into `along` */
    const float *along;             /* [kinds, quads, 4] */
    const int32_t *left, *right;    /* [group] patterns, counted from the row's start and end */
    const float *mix;               /* [4, 4]: lane to (red, green, blue, nothing) */
} Plane;

static inline lanes load(const float *from) {
    lanes value;
    memcpy(&value, from, sizeof value);
    return value;
}

/* One block of columns, weighted down the picture: sums are [channels, BLOCK]. Two channels are read as one
   word (both machines that we know are little-endian), which spares the processor their disentangling. */
static inline void block_down(uint16_t *restrict sum, const uint8_t *restrict source, int64_t stride,
                              const uint8_t *restrict weight, int count, int channels, int n) {
    memset(sum, 0, (size_t)channels * BLOCK * sizeof *sum);
    for (int k = 0; k < count; k++, source += stride, weight += BLOCK) {
        if (channels == 1) {
            for (int j = 0; j < n; j++) sum[j] += (uint16_t)(weight[j] * source[j]);
        } else if (channels == 2) {
            for (int j = 0; j < n; j++) {
                uint16_t both;
                memcpy(&both, source + 2 * j, sizeof both);
                sum[j] += (uint16_t)(weight[j] * (both & 255));
                sum[BLOCK + j] += (uint16_t)(weight[j] * (both >> 8));
            }
        } else {
            for (int j = 0; j < n; j++)
                for (int c = 0; c < 3; c++)
                    sum[c * BLOCK + j] += (uint16_t)(weight[j] * source[3 * j + c]);
        }
    }
}

static inline void interleave(float *restrict to, const uint16_t *restrict sum, int channels, int n) {
    if (channels == 1) {
        for (int j = 0; j < n; j++) to[j] = sum[j];
    } else if (channels == 2) {
        for (int j = 0; j < n; j++) {
            to[2 * j] = sum[j];
            to[2 * j + 1] = sum[BLOCK + j];
        }
    } else {
        for (int j = 0; j < n; j++)
            for (int c = 0; c < 3; c++) to[3 * j + c] = sum[c * BLOCK + j];
    }
}

/* One padded row of floats. */
static void row_down(const Plane *p, const uint8_t *data, int64_t stride, int row, float *line) {
    uint16_t sum[3 * BLOCK];
    const int blocks = (p->columns + BLOCK - 1) / BLOCK, channels = p->channels;
    for (int b = 0; b < blocks; b++) {
        const int at = row * blocks + b, first = b * BLOCK;
        const int left = p->columns - first, n = left < BLOCK ? left : BLOCK;
        const uint8_t *from = data + p->top[at] * stride + first * channels, *weight = p->down + p->offset[at];
        float *to = line + p->pad + first * channels;
        if (n == BLOCK) /* a constant that the compiler can count on */
            block_down(sum, from, stride, weight, p->count[at], channels, BLOCK);
        else
            block_down(sum, from, stride, weight, p->count[at], channels, n);
        interleave(to, sum, channels, n);
    }
    float *start = line + p->pad, *end = start + p->columns * channels;
    for (int j = 0; j < p->pad; j++) {
        line[j] = start[p->left[j % p->group]];
        end[j] = end[p->right[j % p->group]];
    }
}

/* Along the row: four sums for each output pixel. */
static void row_along(const Plane *p, const float *line, int row, int width, lanes *sums) {
    const int64_t at = p->curves > 1 ? (int64_t)row * width : 0;
    const int quads = p->quads, step = p->step;
    for (int x = 0; x < width; x++) {
        const float *from = line + p->base[at + x];
        const float *weight = p->along + (int64_t)p->kind[at + x] * quads * 4;
        lanes sum = load(from) * load(weight);
        for (int k = 1; k < quads; k++) sum += load(from + k * step) * load(weight + 4 * k);
        sums[x] = sum;
    }
}

static lanes mixed(const Plane *p, lanes sum) {
    return sum[0] * load(p->mix) + sum[1] * load(p->mix + 4) + sum[2] * load(p->mix + 8)
         + sum[3] * load(p->mix + 12);
}

/* Cut to whole numbers of a byte; the half that rounds is in the bias. */
static whole clipped(lanes value) {
    const whole number = __builtin_convertvector(value, whole);
    const whole kept = number & ~(number < 0), large = kept > 255;
    return (kept & ~large) | (large & 255);
}

/* Rows [first, last) of one view; out is [rows, width, 3]. Returns 0, or 1 without memory. */
int fsmde_prepare(int planes, const Plane *plane, const uint8_t *const *data, const int64_t *stride,
                  const float *bias, int width, int first, int last, uint8_t *out) {
    int longest = 0;
    for (int i = 0; i < planes; i++) {
        const int length = plane[i].columns * plane[i].channels + 2 * plane[i].pad;
        if (length > longest) longest = length;
    }
    float *line = malloc((size_t)longest * sizeof *line);
    lanes *sums = aligned_alloc(sizeof *sums, (size_t)planes * width * sizeof *sums);
    if (!line || !sums) {
        free(line);
        free(sums);
        return 1;
    }
    const lanes start = load(bias);
    for (int row = first; row < last; row++) {
        for (int i = 0; i < planes; i++) {
            row_down(plane + i, data[i], stride[i], row, line);
            row_along(plane + i, line, row, width, sums + (size_t)i * width);
        }
        uint8_t *to = out + (size_t)row * width * 3;
        for (int x = 0; x < width; x++, to += 3) {
            lanes colour = start;
            for (int i = 0; i < planes; i++) colour += mixed(plane + i, sums[(size_t)i * width + x]);
            const whole value = clipped(colour);
            for (int c = 0; c < 3; c++) to[c] = (uint8_t)value[c];
        }
    }
    free(line);
    free(sums);
    return 0;
}

/* Weights down the picture from positions: [rows, samples, columns] of y, clamped to 0 .. height - 1. */
void fsmde_fill_down(const float *y, int rows, int samples, int columns, int halved, const int32_t *top,
                     const int32_t *count, const int64_t *offset, uint8_t *down) {
    const int blocks = (columns + BLOCK - 1) / BLOCK;
    for (int row = 0; row < rows; row++)
        for (int x = 0; x < columns; x++) {
            const int at = row * blocks + x / BLOCK, n = count[at];
            float share[n];
            int given = 0, best = 0;
            memset(share, 0, sizeof share);
            for (int s = 0; s < samples; s++) {
                const float here = y[((int64_t)row * samples + s) * columns + x];
                const int below = (int)here;
                const float part = here - below;
                share[(below >> halved) - top[at]] += 1 - part;
                if (part > 0) share[((below + 1) >> halved) - top[at]] += part;
            }
            uint8_t *to = down + offset[at] + x % BLOCK;
            float carried = 0; /* what rounding left over, so that all together are 255 */
            for (int k = 0; k < n; k++) {
                carried += share[k] * (255.0f / samples);
                const int whole = (int)(carried + 0.5f);
                to[(int64_t)k * BLOCK] = (uint8_t)whole;
                carried -= whole;
                given += whole;
                if (share[k] > share[best]) best = k;
            }
            to[(int64_t)best * BLOCK] = (uint8_t)(to[(int64_t)best * BLOCK] + 255 - given);
        }
}
