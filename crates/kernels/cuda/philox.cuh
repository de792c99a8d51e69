// Random numbers by counter, as `bullet_ops::random` has them: Philox4x32-10 (Salmon, Moraes, Dror and Shaw, SC 2011).

struct Words { u32 at[4]; };

DEVICE Words philox(Words c, u32 k0, u32 k1) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        if (round > 0) k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
        u32 low0 = c.at[0] * 0xD2511F53u, high0 = __umulhi(c.at[0], 0xD2511F53u);
        u32 low1 = c.at[2] * 0xCD9E8D57u, high1 = __umulhi(c.at[2], 0xCD9E8D57u);
        c = Words{{high1 ^ c.at[1] ^ k0, low1, high0 ^ c.at[3] ^ k1, low0}};
    }
    return c;
}

// Where in the space of random numbers a use draws from.
struct Counter {
    u64 seed, stream, step;

    DEVICE Words block(u64 b) const {
        Words c = {{(u32)b, (u32)(b >> 32) ^ (u32)stream, (u32)step, (u32)(step >> 32) ^ (u32)(stream >> 32)}};
        return philox(c, (u32)seed, (u32)(seed >> 32));
    }
};
