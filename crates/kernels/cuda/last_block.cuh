// Finishing in the launch that began: blocks leave partial results in scratch memory, and the last one to arrive brings
// them together, in an order of its own choice. The result does not depend on which block that is.

// One counter a group of blocks. They wrap to 0, where the next launch finds them: launches that use them never overlap,
// as all are in one stream.
#define COUNTERS 1024
__device__ u32 arrived[COUNTERS];

// True in the last of `blocks` blocks to come here: it sees what all of them wrote before. For whole blocks.
DEVICE bool last_to_arrive(int counter, u32 blocks) {
    __shared__ u32 last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) last = atomicInc(&arrived[counter], blocks - 1) == blocks - 1;
    __syncthreads();
    __threadfence();
    return last;
}

// What another block wrote in this launch, past the first-level cache.
template <typename V> DEVICE V fresh(const V *from) {
    V value;
    const volatile u32 *words = (const volatile u32 *)from;
#pragma unroll
    for (int i = 0; i < (int)(sizeof(V) / 4); ++i) ((u32 *)&value)[i] = words[i];
    return value;
}
