/* Blocks one after another, each of their threads a fiber: it runs until it waits (barrier, warp operation) or ends, then hands
 * over to another one that can run, drawn at random. One OS thread at a time is in here (runtime.cpp holds a lock). */
#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <string>
#include <vector>

#include <cuda_runtime.h>

#include "cuda_host/device_host.h"
#include "cuda_host/internal.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef QEM_RUNNER_TSAN /* this file itself is compiled without the thread sanitizer */
#include <sanitizer/tsan_interface.h>
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

/* Saves the registers a call preserves and the stack pointer, takes over another stack. It leaves by a jump: a return would
 * mislead the processor's prediction of returns. */
asm(R"(
    .text
    .type qem_switch_stack, @function
qem_switch_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    popq %rcx
    jmp *%rcx
    .size qem_switch_stack, .-qem_switch_stack
)");
extern "C" void qem_switch_stack(void **save, void *load);

namespace qem_runner {
namespace {

constexpr unsigned kMostThreads = 1024, kLanes = 32;
constexpr size_t kStackBytes = 128 << 10, kGuardBytes = 4096;

enum class State { ready, at_barrier, in_warp, ended };

struct Fiber {
    void *sp = nullptr;
    const void *stack = nullptr; /* lowest address */
    size_t stack_bytes = 0;
    void *tsan = nullptr;
    unsigned index = 0;
    uint3 thread = {};
    State state = State::ended;
    Site site = {};
    Exchange what = Exchange::sync;
    uint32_t mask = 0;
};

/* Lanes of one warp that exchange words. It is free again when the last of them has taken its answer. */
struct Meeting {
    uint32_t mask = 0, arrived = 0, left = 0;
    bool complete = false;
    Exchange what = Exchange::sync;
    uint64_t words[kLanes];
};

struct Warp {
    uint32_t threads = 0, ended = 0;
    uint32_t live = 0; /* meetings that have begun and are not free again */
    Meeting meetings[kLanes];
};

Fiber host;                  /* the OS thread that runs the grid */
std::vector<Fiber> fibers;   /* as many as the largest block had threads; they outlive blocks and grids */
std::vector<Warp> warps;
std::vector<Fiber *> ready;
Fiber *current = &host;
const std::function<void()> *kernel_thread;
unsigned block_threads, alive, waiting; /* of the block: threads, those not ended, those at the barrier */
unsigned phase;                         /* barriers passed */
char start_of_block, end_of_block, barrier_phase[2]; /* addresses for the thread sanitizer */
uint64_t random_state = 1;

void happens_before(void *address)
{
#ifdef QEM_RUNNER_TSAN
    __tsan_release(address);
#else
    (void)address;
#endif
}

void happens_after(void *address)
{
#ifdef QEM_RUNNER_TSAN
    __tsan_acquire(address);
#else
    (void)address;
#endif
}

void switch_to(Fiber *next)
{
    Fiber *const from = current;
    if (next == from) return;
    current = next;
    threadIdx = next->thread;
#ifdef QEM_RUNNER_TSAN
    __tsan_switch_to_fiber(next->tsan, __tsan_switch_to_fiber_no_sync);
#endif
#ifdef __SANITIZE_ADDRESS__
    void *fake_stack;
    __sanitizer_start_switch_fiber(&fake_stack, next->stack, next->stack_bytes);
#endif
    qem_switch_stack(&from->sp, next->sp);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
}

void hand_over()
{
    if (ready.empty()) {
        switch_to(&host);
        return;
    }
    std::swap(ready[random_below((uint32_t)ready.size())], ready.back());
    Fiber *const next = ready.back();
    ready.pop_back();
    switch_to(next);
}

void make_ready(Fiber *fiber)
{
    fiber->state = State::ready;
    ready.push_back(fiber);
}

/* "0-15,17": the numbers of the fibers for which `is` holds. */
template <typename Condition> std::string numbers(Condition is)
{
    std::string text;
    for (unsigned i = 0; i < block_threads; i++) {
        if (!is(fibers[i])) continue;
        unsigned end = i;
        while (end + 1 < block_threads && is(fibers[end + 1])) end++;
        text += (text.empty() ? "" : ",") + std::to_string(i) + (end > i ? "-" + std::to_string(end) : "");
        i = end;
    }
    return text;
}

const char *name(const Fiber &f)
{
    static const char *const names[] = {"__syncwarp", "a shuffle", "a vote", "__match_any_sync"};
    return f.state == State::at_barrier ? "__syncthreads" : names[(int)f.what];
}

bool same_wait(const Fiber &a, const Fiber &b)
{
    return a.state == b.state && a.site.line == b.site.line &&
           (a.site.file == b.site.file || std::string(a.site.file) == b.site.file) &&
           (a.state == State::at_barrier || (a.what == b.what && a.mask == b.mask));
}

/* One line for each place where threads of the block wait. */
[[noreturn]] void fail_waiting(const char *what)
{
    std::string text = std::string(what) + " in block (" + std::to_string(blockIdx.x) + ", " + std::to_string(blockIdx.y) +
                       ", " + std::to_string(blockIdx.z) + "):";
    for (unsigned i = 0; i < block_threads; i++) {
        const Fiber &f = fibers[i];
        const auto alike = [&](const Fiber &g) { return same_wait(f, g); };
        if (f.state != State::at_barrier && f.state != State::in_warp) continue;
        if (std::any_of(fibers.begin(), fibers.begin() + i, alike)) continue;
        char mask[32];
        snprintf(mask, sizeof mask, " of mask %08x", f.mask);
        text += "\n  threads " + numbers(alike) + " wait in " + name(f) + (f.state == State::in_warp ? mask : "") + " at " +
                f.site.file + ":" + std::to_string(f.site.line);
    }
    const std::string ended = numbers([](const Fiber &f) { return f.state == State::ended; });
    if (!ended.empty()) text += "\n  threads " + ended + " have ended";
    fail(text);
}

/* Lets the barrier's threads go when all that have not ended are there. Waiting in different lines is undefined in CUDA. */
void check_barrier()
{
    if (!waiting || waiting != alive) return;
    const Fiber *first = nullptr;
    for (unsigned i = 0; i < block_threads; i++) {
        if (fibers[i].state != State::at_barrier) continue;
        if (!first) first = &fibers[i];
        if (!same_wait(*first, fibers[i])) fail_waiting("divergent barrier");
    }
    for (unsigned i = 0; i < block_threads; i++) {
        if (fibers[i].state == State::at_barrier) make_ready(&fibers[i]);
    }
    waiting = 0;
    phase++;
}

void check_meeting(Warp &warp, Meeting &m)
{
    if (m.complete || m.arrived != (m.mask & warp.threads & ~warp.ended)) return;
    m.complete = true;
    const unsigned first = (unsigned)(&warp - warps.data()) * kLanes;
    for (unsigned l = 0; l < kLanes; l++) {
        if (m.arrived >> l & 1) make_ready(&fibers[first + l]);
    }
}

/* Where every fiber starts, once: it runs one thread of each block. */
[[noreturn]] void fiber_main()
{
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
    for (;;) {
        Fiber &self = *current;
        happens_after(&start_of_block);
        (*kernel_thread)();
        happens_before(&end_of_block);
        self.state = State::ended;
        alive--;
        Warp &warp = warps[self.index / kLanes];
        warp.ended |= 1u << self.index % kLanes;
        for (uint32_t live = warp.live; live; live &= live - 1) check_meeting(warp, warp.meetings[__builtin_ctz(live)]);
        check_barrier();
        hand_over();
    }
}

void make_fibers(unsigned count)
{
    fibers.reserve(kMostThreads); /* fibers are known by their addresses */
    while (fibers.size() < count) {
        const size_t bytes = kGuardBytes + kStackBytes;
        char *const base = static_cast<char *>(
            mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        if (base == MAP_FAILED || mprotect(base, kGuardBytes, PROT_NONE)) fail("no memory for the stacks of the threads");
        Fiber fiber;
        fiber.index = (unsigned)fibers.size();
        fiber.stack = base + kGuardBytes;
        fiber.stack_bytes = kStackBytes;
        /* As qem_switch_stack leaves it: six registers, the address to jump to; there the stack is as after a call. */
        char *const end = base + bytes - fiber.index % 56 * 64; /* apart in the processor's caches */
        void **top = reinterpret_cast<void **>(end) - 1;
        *top = nullptr;
        *--top = reinterpret_cast<void *>(fiber_main);
        fiber.sp = top - 6;
#ifdef QEM_RUNNER_TSAN
        fiber.tsan = __tsan_create_fiber(0);
#endif
        fibers.push_back(fiber);
    }
    warps.resize(kMostThreads / kLanes);
}

/* The OS thread as a fiber: the sanitizers want to know its stack. */
void describe_host()
{
#ifdef QEM_RUNNER_TSAN
    host.tsan = __tsan_get_current_fiber();
#endif
#ifdef __SANITIZE_ADDRESS__
    static thread_local void *stack;
    static thread_local size_t bytes;
    if (!stack) {
        pthread_attr_t attributes;
        pthread_getattr_np(pthread_self(), &attributes);
        pthread_attr_getstack(&attributes, &stack, &bytes);
        pthread_attr_destroy(&attributes);
    }
    host.stack = stack;
    host.stack_bytes = bytes;
#endif
}

/* --- shared memory: the launch's dynamic part, then the static arrays in the order they are met --- */

constexpr size_t kSharedBytes = 512 << 10, kRedZone = 64, kStaticLimit = 48 << 10;
alignas(128) char shared[kSharedBytes];
struct SharedArray {
    const void *id;
    char *at;
};
std::vector<SharedArray> shared_arrays;
size_t dynamic_bytes, static_bytes, most_shared, next_shared;
size_t dirty = kSharedBytes; /* what may hold the last block's values */

char *take_shared(size_t bytes)
{
    char *const at = shared + next_shared;
    next_shared = (next_shared + bytes + kRedZone + 15) / 16 * 16;
    if (next_shared > kSharedBytes) fail("shared memory of more than " + std::to_string(kSharedBytes) + " bytes");
    ASAN_UNPOISON_MEMORY_REGION(at, bytes);
    return at;
}

void reset_shared()
{
    ASAN_UNPOISON_MEMORY_REGION(shared, kSharedBytes);
    memset(shared, 0xff, std::max(dirty, next_shared));
    ASAN_POISON_MEMORY_REGION(shared, kSharedBytes);
    dirty = 0;
    shared_arrays.clear();
    static_bytes = 0;
    next_shared = 16; /* aligned to 16 bytes and to no more */
    take_shared(dynamic_bytes);
}

void run_block()
{
    reset_shared();
    for (unsigned i = 0; i < block_threads; i++) {
        Fiber &f = fibers[i];
        f.thread = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
        make_ready(&f);
    }
    for (unsigned w = 0; w * kLanes < block_threads; w++) {
        const unsigned threads = std::min(kLanes, block_threads - w * kLanes);
        warps[w].threads = 0xffffffffu >> (kLanes - threads);
        warps[w].ended = warps[w].live = 0;
    }
    alive = block_threads;
    waiting = 0;
    happens_before(&start_of_block);
    hand_over();
    if (alive) fail_waiting("deadlock");
    happens_after(&end_of_block);
}

} // namespace

void run_grid(const std::function<void()> &thread, dim3 grid, dim3 block, size_t shared_bytes, size_t shared_limit)
{
    block_threads = block.x * block.y * block.z;
    kernel_thread = &thread;
    dynamic_bytes = shared_bytes;
    most_shared = shared_limit;
    gridDim = grid;
    blockDim = block;
    make_fibers(block_threads);
    describe_host();
    std::vector<uint64_t> order((uint64_t)grid.x * grid.y * grid.z);
    std::iota(order.begin(), order.end(), 0);
    for (uint64_t i = order.size(); i > 1; i--) std::swap(order[i - 1], order[random_below((uint32_t)i)]);
    for (const uint64_t b : order) {
        blockIdx = {(unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y), (unsigned)(b / grid.x / grid.y)};
        run_block();
    }
}

void barrier(Site site)
{
    Fiber &self = *current;
    self.site = site;
    self.state = State::at_barrier;
    void *const sync = &barrier_phase[phase & 1]; /* two in turn: a thread that is late must not see the next barrier's */
    happens_before(sync);
    waiting++;
    check_barrier();
    hand_over();
    happens_after(sync);
}

uint64_t exchange(Exchange what, uint32_t mask, uint64_t word, int source, Site site, uint32_t *present)
{
    Fiber &self = *current;
    Warp &warp = warps[self.index / kLanes];
    const unsigned lane = self.index % kLanes;
    const uint32_t bit = 1u << lane;
    self.site = site;
    self.what = what;
    self.mask = mask;
    self.state = State::in_warp;
    if (!(mask & bit)) fail_waiting("a thread outside the mask it names");
    Meeting *meeting = nullptr;
    for (uint32_t live = warp.live; live && !meeting; live &= live - 1) {
        Meeting &m = warp.meetings[__builtin_ctz(live)];
        if (!m.complete && m.mask == mask && m.what == what && !(m.arrived & bit)) meeting = &m;
    }
    if (!meeting) { /* a lane is in one at a time: one is free */
        meeting = &warp.meetings[__builtin_ctz(~warp.live)];
        warp.live |= 1u << (meeting - warp.meetings);
        meeting->mask = mask;
        meeting->what = what;
        meeting->arrived = meeting->left = 0;
        meeting->complete = false;
    }
    Meeting &m = *meeting;
    m.arrived |= bit;
    m.words[lane] = word;
    if (what == Exchange::sync) happens_before(&m); /* alone among the warp's operations __syncwarp orders memory */
    check_meeting(warp, m);
    hand_over();
    if (what == Exchange::sync) happens_after(&m);
    uint64_t answer = ~(uint64_t)0;
    if (what == Exchange::shuffle) {
        if (m.arrived >> source & 1) answer = m.words[source];
    } else if (what != Exchange::sync) {
        answer = 0;
        for (unsigned l = 0; l < kLanes; l++) {
            const bool yes = what == Exchange::match ? m.words[l] == word : m.words[l] != 0;
            if ((m.arrived >> l & 1) && yes) answer |= 1u << l;
        }
    }
    if (present) *present = m.arrived;
    m.left |= bit;
    if (m.left == m.arrived) warp.live &= ~(1u << (meeting - warp.meetings));
    return answer;
}

unsigned lane()
{
    return current->index % kLanes;
}

void *dynamic_shared()
{
    return shared + 16;
}

void *static_shared(const void *id, size_t bytes)
{
    for (const SharedArray &a : shared_arrays) {
        if (a.id == id) return a.at;
    }
    static_bytes += bytes;
    if (static_bytes > kStaticLimit || static_bytes + dynamic_bytes > most_shared) {
        fail("a block uses " + std::to_string(static_bytes) + " bytes of static and " + std::to_string(dynamic_bytes) +
             " of dynamic shared memory; it may use " + std::to_string(most_shared));
    }
    shared_arrays.push_back({id, take_shared(bytes)});
    return shared_arrays.back().at;
}

void misaligned(size_t bytes)
{
    fail("thread " + std::to_string(current->index) + " accesses " + std::to_string(bytes) +
         " bytes at an address that is no multiple of it");
}

void trap(Site site)
{
    fail("__trap by thread " + std::to_string(current->index) + " at " + site.file + ":" + std::to_string(site.line));
}

void fail(const std::string &text)
{
    fprintf(stderr, "CUDA host runner: %s\n", text.c_str());
    fflush(stderr);
    abort();
}

void seed(uint64_t value)
{
    random_state = value * 0x9e3779b97f4a7c15u | 1; /* xorshift must not start from 0 */
}

uint32_t random_below(uint32_t n)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)(((random_state * 0x2545f4914f6cdd1du >> 32) * n) >> 32);
}

} // namespace qem_runner
