/*
 * k-means, labels against fixed codebooks, and the refinement of a shared codebook on the GPU: the same results to the last bit
 * as src/cpu's. All three work on a set of problems at once, each kernel on all of them: on tiles of up to QEM_KM_TILE points of
 * one problem, on runs of QEM_KM_THREADS of its centroids, or with one block a problem. What a problem has come to (its scale,
 * the centroids drawn, whether it is done) is on the device; the host reads one number a pass.
 *
 * A point has a slot. Slots of a problem go by the order of its points, which decides draws and ties: the full sub-vectors in
 * ascending id, then those of the tail group, which begin a tile of their own. Points are gathered into structure-of-arrays
 * form, centred and scaled. The search looks at every centroid for every point. The CPU's box trees could leave out most of
 * them in few dimensions (labels would stay the same); here they would need the points in k-d order, and a walk that differs
 * from point to point, in each warp.
 *
 * Every sum is of 64-bit integers, so the order of atomic additions does not matter.
 */
#ifndef QEM_CUDA_KMEANS_CUH
#define QEM_CUDA_KMEANS_CUH

#include "backend.cuh"

#define QEM_KM_THREADS 128 /* of a block that works on a tile */
#define QEM_KM_EACH 4      /* points of a thread */
#define QEM_KM_TILE (QEM_KM_THREADS * QEM_KM_EACH)
#define QEM_KM_GRAIN 16    /* centroids that are looked through together; strides of centroids are multiples of it */
#define QEM_KM_CLAMP 1125899906842624.0f /* 2^50, as on the CPU: bound of scaled values far from the points */

enum qem_km_weighting : uint32_t {
    QEM_KM_UNWEIGHTED, /* also where all weights are the same */
    QEM_KM_POINT,      /* D^2 of a point, times its weight */
    QEM_KM_ELEMENT     /* D^2 = sum of w_p * (x_p - c_p)^2 */
};

/* Where a problem lies in the arrays of a set. */
struct qem_km_problem {
    const uint32_t *given;          /* ids, or NULL: first, first + step, ... */
    uint64_t first, step, key;
    uint64_t codebook_at;           /* of its entry 0, as stored */
    uint64_t slot_at;               /* ids, labels, d2; weights of points lie at w_at */
    uint64_t x_at, w_at;            /* x[x_at + p * slots + slot]; weights of elements likewise */
    uint64_t entry_at, part_at;     /* of centroid 0: arrays of one value a centroid; c[part_at + p * ldc + j] */
    uint64_t mean_at, tile_at;
    uint32_t count, full;           /* points; those of them that are full sub-vectors */
    uint32_t slots, tail_slot;      /* in all; the first one of the tail points */
    uint32_t k, ldc;                /* centroids asked for; the stride of c */
    uint32_t width, tail_dim;       /* components of a centroid; of a tail point, 0 where there is none */
    uint32_t label_base, weighting;
    uint32_t owner;                 /* the problem whose codebook it searches: itself, but for labels alone */
};

struct qem_km_state {
    double scale, unit;             /* 2^-exponent, 2^exponent: scaled = (stored - mean) * scale */
    double weight_unit;             /* what a weight of 1 stands for */
    double before, best;            /* objectives: of the pass before, of the best restart */
    unsigned long long largest;     /* the largest |x|, then D^2: the bits of a double >= 0, which order as integers */
    unsigned long long deviation;   /* the largest |x - mean|, likewise */
    unsigned long long heaviest;    /* the largest weight, likewise */
    unsigned long long errors;      /* sum of D^2 in fixed point */
    int exponent, shift;            /* shift: of the sums of the draws, with weights of points */
    uint32_t k;                     /* centroids in use */
    uint32_t done, changed;         /* passes are over; a label has changed */
    uint32_t empty, repaired;       /* clusters without members; members have been given to some */
    uint32_t better, used;          /* the restart is the best yet; centroids of the best */
};

/* Slots begin .. begin + count - 1 of a problem; part 1: tail points. */
struct qem_km_tile {
    uint32_t problem, begin, count, part;
};

/* Centroids first .. first + QEM_KM_THREADS - 1 of a problem, up to its ldc. */
struct qem_km_run {
    uint32_t problem, first;
};

/* What a kernel is told: the arrays of a set, all device memory. */
struct qem_km_view {
    qem_subvectors points;
    const float *weights;           /* of elements or of points, as given; or NULL */
    const qem_km_problem *problems;
    qem_km_state *states;
    const qem_km_tile *tiles;
    const qem_km_run *runs;
    float *x, *w, *d2;
    uint32_t *ids, *labels;
    float *c, *h;                   /* h: half norms over width, and from entry_total on over tail_dim components */
    float *features;                /* of centroids, for weights of elements: at 2 * part_at */
    float *stored;                  /* centroids as they will be stored, [k][width] at part_at */
    uint8_t *only_tail;             /* 1: no full member, the components past the tail are 0 as stored */
    unsigned long long *sums, *weight_sums; /* [k][width] at part_at */
    uint32_t *heaviest;             /* bits of the largest weight of the members, likewise */
    double *weight_scale;           /* likewise */
    uint32_t *counts;               /* members: full ones, and from entry_total on those of the tail */
    unsigned long long *keys;       /* the farthest points, for clusters without members */
    unsigned long long *tile_sums;  /* of D^2, two sets: under the scale of now, and under that of before */
    unsigned long long *mean_sums;
    double *mean;
    uint32_t *flags;                /* [0] problems that are not done; [1] a centroid is beyond f16 */
    uint64_t entry_total, part_total, mean_total, tile_total;
    uint32_t problem_count;
};

/* What is wanted of a set; fields as in qem_kmeans_args. */
struct qem_km_wish {
    qem_subvectors points;
    const qem_problem *problems; /* host; each may be a part of one */
    uint64_t problem_count;
    const float *element_weight, *point_weight;
    int labels_only;             /* nothing is drawn or moved; problems with the same codebook share it */
};

/* What is known of a problem before it is laid out. */
struct qem_km_found {
    uint32_t tail;    /* points of the tail group */
    uint32_t differ;  /* its weights are not all the same */
    float common;     /* if they are, what they are */
};

struct qem_km_set {
    qem_cuda_call *call;
    qem_km_view view;
    uint32_t tiles, runs;
    uint32_t first_tile[5];      /* by dimension (full, tail) and by weights of elements (no, yes): tiles of one kernel */
    uint32_t problem_threads;    /* of blocks that work on a problem alone */
    uint32_t most_k;
    uint32_t table_bytes;        /* of shared memory, for sums */
    int any_weighted, any_tail;
    const char *phase;           /* of the progress, which goes from begin on by share */
    double progress_begin, progress_share;
};

/* Launches on all tiles, runs or problems of a set (not on none). */
#define QEM_KM_LAUNCH(set, kernel, blocks, threads, ...)                                                          \
    do {                                                                                                          \
        if ((blocks) > 0)                                                                                         \
            QEM_TRY((set)->call->launch(QEM_LAUNCH(kernel, dim3(blocks), dim3(threads), 0, (set)->call->stream, __VA_ARGS__))); \
    } while (0)
#define QEM_KM_ON_TILES(set, kernel, ...) QEM_KM_LAUNCH(set, kernel, (set)->tiles, QEM_KM_THREADS, __VA_ARGS__)
#define QEM_KM_ON_RUNS(set, kernel, ...) QEM_KM_LAUNCH(set, kernel, (set)->runs, QEM_KM_THREADS, __VA_ARGS__)
#define QEM_KM_ON_PROBLEMS(set, kernel, ...) \
    QEM_KM_LAUNCH(set, kernel, (set)->view.problem_count, (set)->problem_threads, __VA_ARGS__)
#define QEM_KM_EACH_PROBLEM(set, kernel, ...) /* a thread a problem */ \
    QEM_KM_LAUNCH(set, kernel, ((set)->view.problem_count + QEM_KM_THREADS - 1) / QEM_KM_THREADS, QEM_KM_THREADS, __VA_ARGS__)

/* kmeans_set.cu: device memory for problems begin .. end-1 of a wish, and their tables. */
qem_status qem_km_make(qem_cuda_call *call, const qem_km_wish *wish, const qem_km_found *found, uint64_t begin, uint64_t end,
                       qem_km_set *set);
/* The end of the longest run of problems from `begin` on, at least one, that takes no more than `most_bytes`. */
uint64_t qem_km_batch(const qem_km_wish *wish, const qem_km_found *found, uint64_t begin, uint64_t most_bytes);

/* kmeans_points.cu */
qem_status qem_km_survey(qem_cuda_call *call, const qem_km_wish *wish, qem_km_found *found /* host */);
qem_status qem_km_gather(qem_km_set *set);
qem_status qem_km_frame(qem_km_set *set);   /* mean and scale of the points; scales them and their weights */
qem_status qem_km_scale(qem_km_set *set);   /* scales the points by the frame that is there */
qem_status qem_km_warm(qem_km_set *set, const float *codebook, const uint32_t *labels /* or NULL */);
qem_status qem_km_scatter(qem_km_set *set, uint32_t *labels, int if_better);

/* kmeans_seed.cu: k-means++; centroids, and the labels by nearest seed */
qem_status qem_km_seed(qem_km_set *set, uint64_t seed, uint32_t restart);

/* kmeans_nearest.cu: labels, of problems that are not done (passes) or of all. part 0: of all points; 1: of those whose d2 is 1,
 * by their distances without weights; 2: of the others. */
qem_status qem_km_nearest(qem_km_set *set, int passes, uint32_t part);

/* kmeans_update.cu: of problems that are not done, or all that have been repaired */
qem_status qem_km_count(qem_km_set *set, int of_repaired); /* members, and their sums or largest weights */
qem_status qem_km_move(qem_km_set *set);                   /* centroids to the means of their members */
qem_status qem_km_norms(qem_km_set *set);                  /* half norms and features; pads the centroids */
qem_status qem_km_note_tails(qem_km_set *set);             /* only_tail, from counts */
qem_status qem_km_store(qem_km_set *set, qem_dtype dtype); /* rounds all centroids to what will be stored */
qem_status qem_km_emit(qem_km_set *set, float *codebook);  /* of problems that are better */

/* kmeans_repair.cu: gives clusters without members the points with the largest errors; counts and sums follow */
qem_status qem_km_repair(qem_km_set *set);

/* kmeans_error.cu */
enum qem_km_which { QEM_KM_ALL, QEM_KM_WORKING, QEM_KM_WITH_EMPTY };
qem_status qem_km_own_distances(qem_km_set *set, qem_km_which which); /* d2 */
qem_status qem_km_reset(qem_km_set *set);                             /* what is summed over the points */
qem_status qem_km_begin_passes(qem_km_set *set);
qem_status qem_km_decide(qem_km_set *set, double tolerance, uint32_t *working); /* who is done; *working: how many are not */
qem_status qem_km_choose(qem_km_set *set, int measured);                        /* is this restart better? */

/* kmeans.cu */
qem_status qem_km_report(qem_km_set *set, double share); /* of what the set is at */
qem_status qem_km_check_range(qem_km_set *set);          /* RANGE where a centroid is beyond f16 */

/* The primitives with sets of at most so many bytes (more where one problem, or one tile of it, takes more). */
qem_status qem_cuda_kmeans_within(qem_context *context, const qem_kmeans_args *args, uint64_t most_bytes);
qem_status qem_cuda_assign_within(qem_context *context, const qem_kmeans_args *args, uint64_t most_bytes);

#define QEM_KM_SEED_SHARE 0.3 /* of the time of a run, for the progress */
#define QEM_KM_MOST_BYTES ((uint64_t)2 << 30)

#endif
