/* One launch from all cameras' buffers to the network's input; NVRTC compiles it where it runs.

   A block makes one tile of one view. It copies the source rows that the tile needs into shared memory, in
   strips of columns, each of which starts at a row of its own: so a bent picture costs few bytes more than a
   straight one. Then it averages down the picture, for every source column, then along the row, for every
   output pixel, then mixes colours. tiles.py makes the tables and launch.py packs them; the structures below
   are there too. A camera's pointer is read from a table, so a recorded graph serves every set. */

#ifdef __CUDACC_RTC__
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef long long int64_t;
#else
#include <cstdint>
#endif

#define THREADS 256
#define CHUNK 16 /* bytes that a thread copies at once */

struct Knots {             /* positions on a grid, linear between every 1 << shift columns */
    const float *values;   /* [rows, count] */
    int count, shift;
};

struct Channel {           /* where its values lie among the bytes of a plane */
    int plane;
    int step, offset;      /* bytes from one column to the next; of the first */
    int halved_columns, halved_rows; /* 1 where two columns or rows share a value */
    float mix[3];          /* what it gives to red, green and blue */
};

struct Plane {
    int64_t offset, stride; /* bytes from the buffer's start; from one row to the next */
    int rows, row_bytes;    /* of the picture, without the gap */
    int strip_bytes;        /* a multiple of CHUNK */
    int halved_rows;
};

struct Tile {
    int strip, strips;     /* first strip of columns, how many */
    int rows, tops;        /* source rows of each strip, index of their first ones */
};

struct View {
    Knots down;            /* [height + 1] where edges of output rows cross source columns */
    Knots along;           /* [curves] where edges of output columns lie, at output columns */
    const Tile *tiles;     /* row by row */
    const int *tops;       /* first source row of each strip of each tile */
    const uint8_t *seen;   /* [height, width] share in 255ths; null where all is seen */
    int curves;            /* rows of `along`: 1 where all are alike */
    int fine_down, fine_along; /* samples of an output pixel; 0 averages the area */
    int columns, rows;     /* of the camera's picture */
    int strip_shift;       /* a strip has 1 << strip_shift columns */
    int planes, channels;
    int bayer;             /* bytes of a pixel of a mosaic; 0 for anything else */
    int red, spare;        /* bayer: which of the first four pixels is red; bits to drop */
    float gain[4];         /* bayer: of the first four pixels */
    float bias[3];
    Plane plane[2];
    Channel channel[3];
};

static_assert(sizeof(View) == 288, "launch.py packs the same structures");

struct Shape {
    int width, height, tile_width, tile_height; /* of the views */
};

static __device__ inline float at(const Knots &knots, int row, float column) {
    const float place = column / (float)(1 << knots.shift);
    const int before = (int)place;
    const float *values = knots.values + (int64_t)row * knots.count + before;
    return values[0] + (values[1] - values[0]) * (place - (float)before);
}

/* Values of one line: `count` from `first` on, of a picture's 0 to `last`; others are those at the ends. */
template <typename Value> struct Line {
    const Value *values;
    int stride, first, count, last, halved;

    __device__ inline float operator[](int index) const {
        const int place = (min(max(index, 0), last) >> halved) - first;
        return (float)values[min(max(place, 0), count - 1) * stride];
    }
};

/* The mean between two positions: of the area, or of `fine` bilinear samples. A sample lies at most about one
   value after the one before, so it often shares a value with it. */
template <typename Value>
static __device__ inline float mean(const Line<Value> &line, float from, float to, int fine) {
    float sum = 0;
    if (fine == 0) {
        for (int i = (int)from; (float)i < to; i++)
            sum += (fminf(to, (float)(i + 1)) - fmaxf(from, (float)i)) * line[i];
        return sum / (to - from);
    }
    const float step = (to - from) / (float)fine, end = (float)line.last;
    int known = -2;
    float before = 0, after = 0;
    for (int k = 0; k < fine; k++) {
        const float place = fminf(fmaxf(from + step * ((float)k + 0.5f) - 0.5f, 0.0f), end);
        const int below = (int)place;
        if (below != known) {
            before = below == known + 1 ? after : line[below];
            after = line[below + 1];
            known = below;
        }
        sum += before + (after - before) * (place - (float)below);
    }
    return sum / (float)fine;
}

/* A plane's part of a tile into shared memory. */
static __device__ void stage(const Plane &plane, const uint8_t *buffer, const Tile &tile, const int *tops,
                             int rows, uint8_t *to) {
    const uint8_t *from = buffer + plane.offset;
    const bool aligned = (((unsigned long long)from | (unsigned long long)plane.stride) & (CHUNK - 1)) == 0;
    const int pitch = tile.strips * plane.strip_bytes, chunks = pitch / CHUNK;
    for (int i = threadIdx.x; i < rows * chunks; i += blockDim.x) {
        const int row = i / chunks, column = (i - row * chunks) * CHUNK;
        const int y = (tops[column / plane.strip_bytes] >> plane.halved_rows) + row;
        const int x = tile.strip * plane.strip_bytes + column;
        if (y >= plane.rows) continue;
        const uint8_t *source = from + (int64_t)y * plane.stride + x;
        uint8_t *target = to + row * pitch + column;
        if (aligned && x + CHUNK <= plane.row_bytes)
            *(uint4 *)target = *(const uint4 *)source;
        else
            for (int k = 0; k < CHUNK && x + k < plane.row_bytes; k++) target[k] = source[k];
    }
}

/* One pixel of a mosaic, white-balanced, as 8 bits. */
static __device__ inline int site(const View &view, const uint8_t *raw, int pitch, int row, int column, int x,
                                  int y) {
    const uint8_t *pixel = raw + row * pitch + column * view.bayer;
    const int value = view.bayer == 1 ? *pixel : *(const uint16_t *)pixel >> view.spare;
    return (int)fminf((float)(value & 255) * view.gain[(y & 1) * 2 + (x & 1)] + 0.5f, 255.0f);
}

/* A mosaic's tile, whose strips start at one row, as RGB: bilinear, the picture's frame as its neighbours. */
static __device__ void demosaic(const View &view, const Tile &tile, const uint8_t *raw, int top,
                                uint8_t *rgb) {
    const int columns = tile.strips << view.strip_shift, pitch = columns * view.bayer;
    for (int i = threadIdx.x; i < tile.rows * columns; i += blockDim.x) {
        const int row = i / columns, column = i - row * columns, left = tile.strip << view.strip_shift;
        const int y = min(max(top + row, 1), view.rows - 2), x = min(max(left + column, 1), view.columns - 2);
        const int r = y - top, c = x - left;
        if (r < 1 || c < 1 || r >= tile.rows - 1 || c >= columns - 1) continue;
        int value[3][3];
        for (int dy = 0; dy < 3; dy++)
            for (int dx = 0; dx < 3; dx++)
                value[dy][dx] = site(view, raw, pitch, r + dy - 1, c + dx - 1, x + dx - 1, y + dy - 1);
        const int edges = value[0][1] + value[1][0] + value[1][2] + value[2][1];
        const int corners = value[0][0] + value[0][2] + value[2][0] + value[2][2];
        const int across = (value[1][0] + value[1][2] + 1) >> 1;
        const int upright = (value[0][1] + value[2][1] + 1) >> 1;
        const int here = (y & 1) * 2 + (x & 1), centre = value[1][1];
        int red, green, blue;
        if (here == view.red || here == (view.red ^ 3)) {
            green = (edges + 2) >> 2;
            red = here == view.red ? centre : (corners + 2) >> 2;
            blue = here == view.red ? (corners + 2) >> 2 : centre;
        } else {
            const bool beside = here >> 1 == view.red >> 1; /* red lies in this row */
            green = centre;
            red = beside ? across : upright;
            blue = beside ? upright : across;
        }
        uint8_t *to = rgb + 3 * i;
        to[0] = (uint8_t)red, to[1] = (uint8_t)green, to[2] = (uint8_t)blue;
    }
}

/* Down the picture: lines [tile_height, columns] for each channel. A thread keeps to its column. */
static __device__ void average_down(const View &view, const Tile &tile, const int *tops,
                                    const uint8_t *first_plane, const uint8_t *second_plane, int first_row,
                                    int count, float *lines, int room) {
    const int columns = tile.strips << view.strip_shift, left = tile.strip << view.strip_shift;
    int first = 0; /* of the channel's columns among all channels' */
    for (int c = 0; c < view.channels; c++) {
        const Channel &channel = view.channel[c];
        const Plane &plane = view.plane[channel.plane];
        const uint8_t *staged = channel.plane ? second_plane : first_plane;
        const int own = columns >> channel.halved_columns;
        const int pitch = view.bayer ? columns * 3 : tile.strips * plane.strip_bytes;
        for (int x = threadIdx.x; x < own; x += blockDim.x) {
            const int place = x << channel.halved_columns, top = tops[place >> view.strip_shift];
            const int half = channel.halved_rows, start = top >> half;
            const int rows = ((top + tile.rows - 1) >> half) - start + 1;
            const float middle = (float)(left + place) + 0.5f * (float)channel.halved_columns;
            const float column = fminf(middle, (float)(view.columns - 1));
            const Line<uint8_t> line = {
                staged + x * channel.step + channel.offset, pitch, start, rows, view.rows - 1, half};
            float upper = at(view.down, first_row, column);
            for (int r = 0; r < count; r++) {
                const float lower = at(view.down, first_row + r + 1, column);
                lines[r * room + first + x] = mean(line, upper, lower, view.fine_down);
                upper = lower;
            }
        }
        first += own;
    }
}

static __device__ inline float clipped(float value) { return floorf(fminf(fmaxf(value, 0.0f), 255.0f)); }

/* One output pixel from the lines. */
static __device__ inline void average_along(const View &view, const Tile &tile, const float *lines, int x,
                                            int y, int width, uint8_t *to) {
    const int columns = tile.strips << view.strip_shift, left = tile.strip << view.strip_shift;
    const int curve = view.curves > 1 ? y : 0;
    const float from = at(view.along, curve, (float)x), end = at(view.along, curve, (float)(x + 1));
    float colour[3] = {view.bias[0], view.bias[1], view.bias[2]};
    for (int c = 0; c < view.channels; c++) {
        const Channel &channel = view.channel[c];
        const int half = channel.halved_columns, own = columns >> half;
        const Line<float> line = {lines, 1, left >> half, own, view.columns - 1, half};
        const float value = mean(line, from, end, view.fine_along);
        for (int k = 0; k < 3; k++) colour[k] += channel.mix[k] * value;
        lines += own;
    }
    const float share = view.seen ? (float)view.seen[(int64_t)y * width + x] / 255.0f : 1.0f;
    for (int k = 0; k < 3; k++) to[k] = (uint8_t)(clipped(colour[k]) * share + (share < 1.0f ? 0.5f : 0.0f));
}

/* Grid: [tiles of a view, views]; shared memory: as launch.py counts it. */
extern "C" __global__ void __launch_bounds__(THREADS)
    fsmde_prepare(const View *views, const uint8_t *const *buffers, uint8_t *images, Shape shape) {
    extern __shared__ uint4 memory[];
    const View &view = views[blockIdx.y];
    const Tile tile = view.tiles[blockIdx.x];
    const uint8_t *buffer = buffers[blockIdx.y];
    const int across = (shape.width + shape.tile_width - 1) / shape.tile_width;
    const int first_row = (int)blockIdx.x / across * shape.tile_height;
    const int first_column = (int)blockIdx.x % across * shape.tile_width;
    const int width = min(shape.tile_width, shape.width - first_column);
    const int height = min(shape.tile_height, shape.height - first_row);
    const bool black = buffer == nullptr || tile.rows == 0;
    const int *tops = view.tops + tile.tops;

    const int columns = tile.strips << view.strip_shift;
    uint8_t *first = (uint8_t *)memory, *free = first;
    const uint8_t *second = first;
    int room = 0;
    for (int c = 0; c < view.channels; c++) room += columns >> view.channel[c].halved_columns;
    if (!black) {
        stage(view.plane[0], buffer, tile, tops, tile.rows, free);
        free += tile.rows * tile.strips * view.plane[0].strip_bytes;
        if (view.planes == 2) {
            const int rows = view.plane[1].halved_rows ? tile.rows / 2 + 1 : tile.rows;
            second = free;
            stage(view.plane[1], buffer, tile, tops, rows, free);
            free += rows * tile.strips * view.plane[1].strip_bytes;
        }
        __syncthreads();
        if (view.bayer) {
            demosaic(view, tile, first, tops[0], free);
            first = free;
            free += tile.rows * columns * 3;
            __syncthreads();
        }
        average_down(view, tile, tops, first, second, first_row, height, (float *)free, room);
        __syncthreads();
    }
    uint8_t *image = images + (int64_t)blockIdx.y * shape.height * shape.width * 3;
    for (int i = threadIdx.x; i < width * height; i += blockDim.x) {
        const int row = i / width, y = first_row + row, x = first_column + i - row * width;
        uint8_t *to = image + ((int64_t)y * shape.width + x) * 3;
        if (black)
            to[0] = to[1] = to[2] = 0;
        else
            average_along(view, tile, (const float *)free + row * room, x, y, shape.width, to);
    }
}
