//! Sums of deterministic launches: the records that threads put down instead of adding, and what adds them up.
//!
//! Behind the arguments of the tape such a kernel takes `long long record_first, long long record_stride, unsigned record_size,
//! unsigned* record_need, long long* record_keys, unsigned long long* record_cells, double* record_values`, and for each array
//! that it adds to, in order of parameters, a `long long`. It runs the threads of the grid from `record_first` on, `record_stride`
//! of them at most; record r of thread t of these is at `r * record_stride + t`. It has the address of an element with the element's type
//! in its highest bits, the value, and a key: the address plus the number of its array, by which
//! the launcher makes keys that do not change with where arrays lie, so that neither does the order of sums. A thread that
//! makes more than `record_size` records drops them and says so in `*record_need`.
//!
//! [`fold_source`] has the kernel that adds up records whose keys are in order: [`FOLD`], of `count` of them, of which each thread takes
//! [`CHUNK`]. Where all records of a key are within a chunk its thread adds them to the element. Of others it leaves a part, and the parts
//! of two neighbours' keys, two for each chunk, are the records of the next launch, until there is one chunk. Keys below 0,
//! or with [the bit](NOTHING) that says so, have no value.

use bullet_ops::DType;

use super::half;

/// The name of the kernel that adds records up.
pub const FOLD: &str = "bullet_fold_records";
/// How many records each of its threads takes.
pub const CHUNK: u64 = 64;

/// What kernels that record use.
pub(super) const RECORDS: &str = "
// Sums that are made behind the launch, in an order that does not change. What does not fit is counted only.
struct Records {
    long long* keys;
    unsigned long long* cells;
    double* values;
    long long stride;
    unsigned size, count;

    __device__ __forceinline__ void put(const void* cell, long long key, unsigned long long type, double x) {
        if (count < size) {
            const long long at = count * stride;
            keys[at] = (long long)cell + key;
            cells[at] = (unsigned long long)cell | type << 60;
            values[at] = x;
        }
        ++count;
    }
};
";

/// The number of a type of elements.
pub(crate) fn number(dtype: DType) -> u32 {
    match dtype {
        DType::F64 => 1,
        DType::F16 => 2,
        DType::BF16 => 3,
        _ => 0,
    }
}

const TEXT: &str = "
// No value belongs to a key with this bit, or below 0.
#define NOTHING (1ll << 62)

__device__ __forceinline__ void add(unsigned long long cell, double x) {
    void* at = (void*)(cell & ((1ull << 60) - 1));
    switch (cell >> 60) {
        case 0: *(float*)at = (float)(*(float*)at + x); break;
        case 1: *(double*)at = *(double*)at + x; break;
        case 2: *(Half*)at = Half((float)((float)*(Half*)at + x)); break;
        default: *(Bfloat*)at = Bfloat((float)((float)*(Bfloat*)at + x)); break;
    }
}

// Adds up the records of each key within a chunk: to the element if they are all, else into one of the chunk's two parts.
// `places` says where the records are whose keys were sorted; without it they are in the order of the keys.
extern \"C\" __global__ void bullet_fold_records(const long long* keys, const long long* places,
                                               const unsigned long long* cells, const double* values,
                                               long long count, long long* next_keys,
                                               unsigned long long* next_cells, double* next_values) {
    const long long chunk = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long begin = chunk * CHUNK;
    if (begin >= count) return;
    const long long end = begin + CHUNK < count ? begin + CHUNK : count;
    long long key = keys[begin] & ~NOTHING;
    bool is_first = true, is_open = begin > 0 && (keys[begin - 1] & ~NOTHING) == key, has_value = false;
    unsigned long long cell = 0;
    double sum = 0;
    next_keys[2 * chunk] = key | NOTHING;
    next_keys[2 * chunk + 1] = keys[end - 1] | NOTHING;
    for (long long i = begin; i <= end; ++i) {
        const long long next = i < count ? keys[i] : -1;
        if (i == end || (next & ~NOTHING) != key) {
            is_open |= i == end && end < count && (next & ~NOTHING) == key;
            if (has_value && is_open) {
                const long long part = 2 * chunk + !is_first;
                next_keys[part] = key;
                next_cells[part] = cell;
                next_values[part] = sum;
            } else if (has_value) {
                add(cell, sum);
            }
            if (i == end) return;
            key = next & ~NOTHING;
            is_first = is_open = has_value = false;
        }
        if (next >= 0 && !(next & NOTHING)) {
            const long long at = places ? places[i] : i;
            sum = has_value ? sum + values[at] : values[at];
            cell = cells[at];
            has_value = true;
        }
    }
}
";

/// A source file with the kernel that adds records up.
pub fn fold_source() -> String {
    let mut out = String::from("// Generated by Bullet's kernel language.\n");
    out.push_str(half::HALF);
    out.push_str(half::BFLOAT);
    out += &format!("\n#define CHUNK {CHUNK}\n");
    out + TEXT
}
