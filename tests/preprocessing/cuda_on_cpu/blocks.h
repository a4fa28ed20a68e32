/* CUDA's words for a processor: each block's threads are fibers on one, and a barrier switches between them.
   Included before a kernel's source; `run_grid` launches. Blocks follow one another; the threads of one run in
   an order of their own between two barriers, so a barrier that is missing shows. */
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <ucontext.h>
#include <vector>

#define __device__
#define __global__
#define __shared__
#define __launch_bounds__(n)
#define __align__(n) alignas(n)
using std::max;
using std::min;

struct uint4 {
    alignas(16) uint32_t x;
    uint32_t y, z, w;
};
struct dim3 {
    int x, y;
};

static dim3 threadIdx, blockIdx, blockDim, gridDim;
static const size_t MEMORY = 64 * 1024, STACK = 64 * 1024;
uint4 memory[MEMORY / sizeof(uint4)]; /* dynamic shared memory */

static ucontext_t scheduler;
static std::vector<ucontext_t> fibers;
static std::vector<bool> ended;
static std::function<void()> body;
static int running, barriers;

static void __syncthreads() {
    const dim3 mine = threadIdx;
    barriers++;
    swapcontext(&fibers[running], &scheduler);
    threadIdx = mine;
}

static void enter() {
    body();
    ended[running] = true;
}

/* One block; returns 0, 1 if shared memory beyond `shared` was written, 2 if threads met different barriers. */
static int run_block(int threads, size_t shared, std::vector<std::vector<char>> &stacks, std::mt19937 &chance) {
    std::memset((void *)memory, 0xa5, MEMORY);
    fibers.assign(threads, {});
    ended.assign(threads, false);
    for (int i = 0; i < threads; i++) {
        getcontext(&fibers[i]);
        fibers[i].uc_stack.ss_sp = stacks[i].data();
        fibers[i].uc_stack.ss_size = stacks[i].size();
        fibers[i].uc_link = &scheduler;
        makecontext(&fibers[i], enter, 0);
    }
    std::vector<int> order(threads);
    std::iota(order.begin(), order.end(), 0);
    for (bool all_ended = false; !all_ended;) {
        std::shuffle(order.begin(), order.end(), chance);
        barriers = 0;
        for (int i : order) {
            running = i;
            threadIdx = {i, 0};
            swapcontext(&scheduler, &fibers[i]);
        }
        const int left = (int)std::count(ended.begin(), ended.end(), false);
        if (left != 0 && (left != threads || barriers != threads)) return 2;
        all_ended = left == 0;
    }
    const uint8_t *bytes = (const uint8_t *)memory;
    for (size_t i = shared; i < MEMORY; i++)
        if (bytes[i] != 0xa5) return 1;
    return 0;
}

static int run_grid(dim3 grid, int threads, size_t shared, unsigned seed, std::function<void()> kernel) {
    std::vector<std::vector<char>> stacks(threads, std::vector<char>(STACK));
    std::mt19937 chance(seed);
    body = kernel;
    gridDim = grid;
    blockDim = {threads, 1};
    for (int y = 0; y < grid.y; y++)
        for (int x = 0; x < grid.x; x++) {
            blockIdx = {x, y};
            if (int wrong = run_block(threads, shared, stacks, chance)) return wrong;
        }
    return 0;
}
