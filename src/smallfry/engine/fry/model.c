/* Opening a model: the flat file is checked field by field, then packed for the kernels of this machine. */
#include <stdlib.h>
#include <string.h>

#include "memory.h"

#define HEADER 128
#define MOST_SIZE (1 << 24)

/* ---- kernel sets, best first --------------------------------------------------------------------------------------- */

static const fry_ops *const SETS[] = {
#if defined(__x86_64__) && defined(__GNUC__)
#ifdef FRY_KNOWS_BF16
    &fry_ops_avx512bf16,
#endif
    &fry_ops_avx512vnni, &fry_ops_avx512, &fry_ops_avx2,
#elif defined(__aarch64__)
#if defined(__GNUC__)
    &fry_ops_neondot,
#endif
    &fry_ops_neon,
#elif defined(__wasm_simd128__)
    &fry_ops_wasm,
#endif
    &fry_ops_plain,
};

static const fry_ops *set_at(int index) {
    for (size_t i = 0; i < sizeof SETS / sizeof *SETS; i++)
        if (SETS[i]->supported() && index-- == 0) return SETS[i];
    return 0;
}

const char *fry_kernels(int index) {
    const fry_ops *found = index < 0 ? 0 : set_at(index);
    return found ? found->name : 0;
}

/* ---- the file ------------------------------------------------------------------------------------------------------ */

typedef struct {
    const uint8_t *bytes;
    size_t size, at;
    fry_kind kind;
} reader;

static uint32_t crc32_of(const uint8_t *bytes, size_t size) {
    uint32_t table[256], crc = 0xffffffffu;
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
        table[i] = c;
    }
    for (size_t i = 0; i < size; i++) crc = table[(crc ^ bytes[i]) & 0xff] ^ (crc >> 8);
    return crc ^ 0xffffffffu;
}

static int read_header(reader *r, fry_config *c) {
    if (r->size < HEADER || memcmp(r->bytes, "smallfry", 8)) return FRY_BAD_FILE;
    uint32_t version, kind, checksum;
    uint64_t size;
    int32_t n[10];
    memcpy(&version, r->bytes + 8, 4), memcpy(&kind, r->bytes + 12, 4), memcpy(&size, r->bytes + 16, 8);
    memcpy(n, r->bytes + 24, sizeof n);
    memcpy(&c->norm_eps, r->bytes + 64, 4), memcpy(&c->rope_theta, r->bytes + 68, 4);
    memcpy(&c->bos, r->bytes + 72, 4), memcpy(&c->end, r->bytes + 76, 4), memcpy(&c->pad, r->bytes + 80, 4);
    memcpy(&checksum, r->bytes + 84, 4);
    if (version != 1 || kind > FRY_INT4 || size != r->size || n[8] != GROUP || n[7] < 0 || n[7] > 7) return FRY_BAD_FILE;
    for (int i = 0; i < 7; i++)
        if (n[i] < 1 || n[i] > MOST_SIZE) return FRY_BAD_FILE;
    if (n[3] % n[4] || n[5] % 2 || n[2] > 1 << 12) return FRY_BAD_FILE;
    if ((int64_t)(n[3] + 2 * (int64_t)n[4]) * n[5] > MOST_SIZE) return FRY_BAD_FILE;
    if (!(c->norm_eps >= 0.0f && c->norm_eps < 1.0f) || !(c->rope_theta >= 1.0f && c->rope_theta < 1e12f))
        return FRY_BAD_FILE;
    c->vocab_size = n[0], c->hidden_size = n[1], c->num_layers = n[2], c->num_heads = n[3], c->num_kv_heads = n[4];
    c->head_dim = n[5], c->intermediate_size = n[6], c->max_positions = n[9];
    c->qk_norm = n[7] & 1, c->qkv_bias = n[7] >> 1 & 1, c->untied = n[7] >> 2 & 1;
    r->kind = (fry_kind)kind, r->at = HEADER;
    if (crc32_of(r->bytes + HEADER, r->size - HEADER) != checksum) return FRY_BAD_FILE;
    return c->head_dim > MOST_HEAD ? FRY_UNSUPPORTED : FRY_OK;
}

/* The next `count` bytes of a tensor's part, or NULL where the file is too short. */
static const uint8_t *next(reader *r, uint64_t count) {
    if (r->at > r->size || count > r->size - r->at) return 0;
    const uint8_t *found = r->bytes + r->at;
    r->at += (size_t)count;
    return found;
}

static void align(reader *r) { r->at = (r->at + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

/* ---- packing ------------------------------------------------------------------------------------------------------- */

typedef struct {
    const uint8_t *values, *scales;
    fry_kind kind;
    int64_t padded; /* inputs of a row as stored */
} stored;

static int8_t stored_byte(const stored *from, int64_t row, int64_t column) {
    if (from->kind == FRY_INT8) return (int8_t)from->values[row * from->padded + column];
    const uint8_t pair = from->values[(row * from->padded + column) / 2];
    return (int8_t)((column % 2 ? pair >> 4 : pair & 15) - 8);
}

/* Step s of output n in a panel of `together`: bytes, for int8 and int4. */
static void pack_group(char *out, const stored *from, int64_t n, int64_t rows, int64_t g, int64_t together, int flipped) {
    for (int64_t i = 0; i < GROUP; i++) {
        const int8_t byte = n < rows ? stored_byte(from, n, g * GROUP + i) : 0;
        const int64_t lane = n % (WIDE * PANEL);
        out[(i / 4 * together * PANEL + lane) * 4 + i % 4] = (char)(flipped ? byte ^ (char)0x80 : byte);
    }
    uint16_t scale = 0;
    if (n < rows) memcpy(&scale, from->scales + (n * (from->padded / GROUP) + g) * 2, 2);
    memcpy(out + together * GROUP * PANEL + n % (WIDE * PANEL) * 2, &scale, 2);
}

static void pack(matrix *m, const stored *from, int flipped) {
    const int64_t size = from->kind == FRY_FP32 ? 4 : 2;
    for (int64_t first = 0; first < m->n; first += WIDE * PANEL) {
        const int64_t together = panels_together(m, first);
        char *out = panels_at(m, first);
        for (int64_t s = 0; s < m->steps; s++, out += together * step_bytes(m->kind))
            for (int64_t lane = 0; lane < together * PANEL; lane++) {
                const int64_t n = first + lane;
                if (m->kind == FRY_INT8) {
                    pack_group(out, from, n, m->n, s, together, flipped);
                    continue;
                }
                memset(out + lane * 4, 0, 4);
                const int64_t inputs = m->kind == FRY_FP32 ? 1 : m->k - 2 * s < 2 ? 1 : 2;
                if (n < m->n) memcpy(out + lane * 4, from->values + (n * m->k + s * (4 / size)) * size, (size_t)(inputs * size));
            }
    }
}

/* ---- opening ------------------------------------------------------------------------------------------------------- */

/* A vector of n numbers in `parts` equal parts, each padded with zeros to 16. */
static int vector(arena *a, reader *r, float **to, int64_t n, int parts) {
    align(r);
    const uint8_t *from = next(r, (uint64_t)n * 4);
    const int64_t each = n / parts, padded = round_up(each, PANEL);
    *to = take(a, parts * padded + PANEL, sizeof(float));
    if (!from) return 0;
    if (a->base)
        for (int p = 0; p < parts; p++) memcpy(*to + p * padded, from + p * each * 4, (size_t)each * 4);
    return 1;
}

static int packed(arena *a, reader *r, matrix *m, int64_t n, int64_t k, int flipped) {
    align(r);
    const int64_t padded = round_up(k, GROUP);
    stored from = {0, 0, r->kind, padded};
    *m = (matrix){n, k, 0, 0, r->kind == FRY_INT4 ? FRY_INT8 : r->kind};
    m->steps = steps_of(m->kind, k);
    m->data = take(a, matrix_bytes(m->kind, n, k), 1);
    if (r->kind == FRY_FP32 || r->kind == FRY_BF16) {
        from.values = next(r, (uint64_t)n * (uint64_t)k * (r->kind == FRY_FP32 ? 4 : 2));
        if (!from.values) return 0;
    } else {
        const uint64_t bytes = (uint64_t)n * (uint64_t)padded / (r->kind == FRY_INT4 ? 2 : 1);
        from.values = next(r, bytes);
        /* -128 has no counterpart above: products with it are not the same on every machine, so no file has it. */
        if (from.values && !a->base && r->kind == FRY_INT8 && memchr(from.values, 0x80, (size_t)bytes)) return 0;
        from.scales = from.values ? next(r, (uint64_t)n * (uint64_t)(padded / GROUP) * 2) : 0;
        if (!from.scales) return 0;
    }
    if (a->base) pack(m, &from, flipped);
    return 1;
}

static int fill(arena *a, reader *r, fry_model *m) {
    const fry_config *c = &m->config;
    const int64_t width = c->hidden_size, d = c->head_dim, heads = c->num_heads + 2 * (int64_t)c->num_kv_heads;
    const int64_t inner = c->intermediate_size;
    const int flip = m->ops->flipped;
    block *blocks = take(a, c->num_layers, sizeof *blocks);
    if (a->base) m->blocks = blocks;
    if (!packed(a, r, &m->embed, c->vocab_size, width, flip)) return 0;
    m->head = m->embed;
    if (c->untied && !packed(a, r, &m->head, c->vocab_size, width, flip)) return 0;
    if (!vector(a, r, &m->norm, width, 1)) return 0;
    for (int64_t i = 0; i < c->num_layers; i++) {
        block unused = {0}, *b = a->base ? blocks + i : &unused;
        if (!vector(a, r, &b->input_norm, width, 1) || !packed(a, r, &b->qkv, heads * d, width, flip)) return 0;
        if (c->qkv_bias && !vector(a, r, &b->qkv_bias, heads * d, 1)) return 0;
        if (c->qk_norm && (!vector(a, r, &b->q_norm, d, 2) || !vector(a, r, &b->k_norm, d, 2))) return 0;
        if (!packed(a, r, &b->o, width, c->num_heads * d, flip) || !vector(a, r, &b->post_norm, width, 1)) return 0;
        if (!packed(a, r, &b->gate_up, 2 * inner, width, flip) || !packed(a, r, &b->down, width, inner, flip)) return 0;
    }
    return r->at == r->size;
}

int fry_open(const void *bytes, size_t size, const char *kernels, fry_model **model) {
    if (!bytes || !model) return FRY_BAD_ARGUMENT;
    *model = 0;
    const fry_ops *ops = set_at(0);
    for (int i = 0; kernels && (ops = set_at(i)) && strcmp(ops->name, kernels); i++) continue;
    if (!ops) return FRY_UNSUPPORTED;
    reader r = {bytes, size, 0, FRY_FP32};
    fry_config config;
    const int code = read_header(&r, &config);
    if (code != FRY_OK) return code;
    fry_model *m = calloc(1, sizeof *m);
    if (!m) return FRY_OUT_OF_MEMORY;
    m->config = config, m->ops = ops, m->kind = r.kind == FRY_INT4 ? FRY_INT8 : r.kind;
    /* Once to count and to find the file long enough, once to pack. */
    reader counting = r;
    arena counted = {0, 0}, real = {0, 0};
    if (!fill(&counted, &counting, m)) {
        fry_close(m);
        return FRY_BAD_FILE;
    }
    m->memory = zeros(counted.used);
    m->spares = spares_new();
    if (!m->memory || !m->spares) {
        fry_close(m);
        return FRY_OUT_OF_MEMORY;
    }
    real.base = aligned(m->memory);
    fill(&real, &r, m);
    *model = m;
    return FRY_OK;
}

void fry_close(fry_model *m) {
    if (!m) return;
    spares_free(m->spares);
    free(m->memory);
    free(m);
}

const fry_config *fry_config_of(const fry_model *m) { return &m->config; }
const char *fry_kernels_of(const fry_model *m) { return m->ops->name; }

size_t fry_weight_bytes(const fry_model *m) {
    int64_t sum = matrix_bytes(m->kind, m->head.n, m->head.k);
    for (int64_t i = 0; i < m->config.num_layers; i++) {
        const matrix *all[] = {&m->blocks[i].qkv, &m->blocks[i].o, &m->blocks[i].gate_up, &m->blocks[i].down};
        for (int j = 0; j < 4; j++) sum += matrix_bytes(m->kind, all[j]->n, all[j]->k);
    }
    return (size_t)sum;
}
