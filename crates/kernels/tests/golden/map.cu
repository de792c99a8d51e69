// Generated kernels; a test of map.rs writes this file when run with BLESS=1.

DEVICE float silu_f16_value(float x0) {
    const float v1 = -x0;
    const float v2 = expf(v1);
    const float v3 = 1.0f;
    const float v4 = v3 + v2;
    const float v5 = v3 / v4;
    const float v6 = x0 * v5;
    return v6;
}

KERNEL __launch_bounds__(256) silu_f16(f16 *out, const f16 *p0, i64 points, i64 step, i64 span, i64 elements) {
    begin_kernel();
    for (i64 first = blockIdx.x * span + threadIdx.x; first < points; first += gridDim.x * span) {
        Pack<f16, 8> group0[2];
#pragma unroll
        for (int u = 0; u < 2; ++u) {
            i64 n = first + u * step;
            if (n < points) {
                group0[u].load(p0 + n * 8);
            }
        }
#pragma unroll
        for (int u = 0; u < 2; ++u) {
            i64 n = first + u * step;
            if (n < points) {
                Pack<f16, 8> y;
#pragma unroll
                for (int i = 0; i < 8; ++i) y.at[i] = Stored<f16>::of(silu_f16_value(load<float>(group0[u].at[i])));
                y.store(out + n * 8);
            }
        }
    }
    i64 i = points * 8 + threadIdx.x;
    if (blockIdx.x == 0 && i < elements) out[i] = Stored<f16>::of(silu_f16_value(load<float>(p0[i])));
}

DEVICE float silu_f16_adjoint0_value(float x0, float x2) {
    const float v2 = -x0;
    const float v3 = expf(v2);
    const float v4 = 1.0f;
    const float v5 = v4 + v3;
    const float v6 = v4 / v5;
    const float v7 = x2 * v6;
    const float v8 = v4 - v6;
    const float v9 = x0 * v8;
    const float v10 = v4 + v9;
    const float v11 = v7 * v10;
    return v11;
}

KERNEL __launch_bounds__(256) silu_f16_adjoint0(f16 *out, const f16 *p0, const f16 *p1, i64 points, i64 step, i64 span, i64 elements) {
    begin_kernel();
    for (i64 first = blockIdx.x * span + threadIdx.x; first < points; first += gridDim.x * span) {
        Pack<f16, 8> group0[2];
        Pack<f16, 8> group1[2];
#pragma unroll
        for (int u = 0; u < 2; ++u) {
            i64 n = first + u * step;
            if (n < points) {
                group0[u].load(p0 + n * 8);
                group1[u].load(p1 + n * 8);
            }
        }
#pragma unroll
        for (int u = 0; u < 2; ++u) {
            i64 n = first + u * step;
            if (n < points) {
                Pack<f16, 8> y;
#pragma unroll
                for (int i = 0; i < 8; ++i) y.at[i] = Stored<f16>::of(silu_f16_adjoint0_value(load<float>(group0[u].at[i]), load<float>(group1[u].at[i])));
                y.store(out + n * 8);
            }
        }
    }
    i64 i = points * 8 + threadIdx.x;
    if (blockIdx.x == 0 && i < elements) out[i] = Stored<f16>::of(silu_f16_adjoint0_value(load<float>(p0[i]), load<float>(p1[i])));
}

DEVICE float map_layouts_1_0_value(float x0, float x1, float x2) {
    const float v3 = x0 * x1;
    const float v4 = v3 + x2;
    return v4;
}

KERNEL __launch_bounds__(256) map_layouts_1_0(f16 *out, const float *p0, const bf16 *p1, const boolean *p2, i64 points, i64 step, i64 span) {
    begin_kernel();
    const float once2 = load<float>(*p2);
    for (i64 first = blockIdx.x * span + threadIdx.x; first < points; first += gridDim.x * span) {
        Pack<float, 1> group0[8];
        Pack<bf16, 1> group1[8];
#pragma unroll
        for (int u = 0; u < 8; ++u) {
            i64 n = first + u * step;
            if (n < points) {
                group0[u].load(p0 + n * 1);
                group1[u].load(p1 + n * 1);
            }
        }
#pragma unroll
        for (int u = 0; u < 8; ++u) {
            i64 n = first + u * step;
            if (n < points) {
                Pack<f16, 1> y;
#pragma unroll
                for (int i = 0; i < 1; ++i) y.at[i] = Stored<f16>::of(map_layouts_1_0_value(load<float>(group0[u].at[i]), load<float>(group1[u].at[i]), once2));
                y.store(out + n * 1);
            }
        }
    }
}

DEVICE float map_layouts_4_0_value(float x0, float x1, float x2) {
    const float v3 = x0 * x1;
    const float v4 = v3 + x2;
    return v4;
}

KERNEL __launch_bounds__(256) map_layouts_4_0(f16 *out, const float *p0, const bf16 *p1, const boolean *p2, i64 points, i64 step, i64 span, i64 elements) {
    begin_kernel();
    const float once2 = load<float>(*p2);
    for (i64 first = blockIdx.x * span + threadIdx.x; first < points; first += gridDim.x * span) {
        Pack<float, 4> group0[2];
        Pack<bf16, 4> group1[2];
#pragma unroll
        for (int u = 0; u < 2; ++u) {
            i64 n = first + u * step;
            if (n < points) {
                group0[u].load(p0 + n * 4);
                group1[u].load(p1 + n * 4);
            }
        }
#pragma unroll
        for (int u = 0; u < 2; ++u) {
            i64 n = first + u * step;
            if (n < points) {
                Pack<f16, 4> y;
#pragma unroll
                for (int i = 0; i < 4; ++i) y.at[i] = Stored<f16>::of(map_layouts_4_0_value(load<float>(group0[u].at[i]), load<float>(group1[u].at[i]), once2));
                y.store(out + n * 4);
            }
        }
    }
    i64 i = points * 4 + threadIdx.x;
    if (blockIdx.x == 0 && i < elements) out[i] = Stored<f16>::of(map_layouts_4_0_value(load<float>(p0[i]), load<float>(p1[i]), once2));
}

DEVICE float map_layouts_1_1_value(float x0, float x1, float x2) {
    const float v3 = x0 * x1;
    const float v4 = v3 + x2;
    return v4;
}

KERNEL __launch_bounds__(256) map_layouts_1_1(f16 *out, const float *p0, const bf16 *p1, const boolean *p2, Space<4, 1> space, i64 points, i64 step, i64 span) {
    begin_kernel();
    const float once2 = load<float>(*p2);
    for (i64 first = blockIdx.x * span + threadIdx.x; first < points; first += gridDim.x * span) {
        i64 at[8][4];
        Pack<float, 1> group0[8];
        Pack<bf16, 1> group1[8];
#pragma unroll
        for (int u = 0; u < 8; ++u) {
            i64 n = first + u * step;
            if (n < points) {
                locate<false>(space, n, at[u]);
                group0[u].load(p0 + at[u][1]);
                group1[u].load(p1 + at[u][2]);
            }
        }
#pragma unroll
        for (int u = 0; u < 8; ++u) {
            i64 n = first + u * step;
            if (n < points) {
                Pack<f16, 1> y;
#pragma unroll
                for (int i = 0; i < 1; ++i) y.at[i] = Stored<f16>::of(map_layouts_1_1_value(load<float>(group0[u].at[i]), load<float>(group1[u].at[i]), once2));
                y.store(out + at[u][0]);
            }
        }
    }
}

DEVICE float map_layouts_4_2_value(float x0, float x1, float x2) {
    const float v3 = x0 * x1;
    const float v4 = v3 + x2;
    return v4;
}

KERNEL __launch_bounds__(256) map_layouts_4_2(f16 *out, const float *p0, const bf16 *p1, const boolean *p2, Space<4, 2> space, i64 points, i64 step, i64 span) {
    begin_kernel();
    const float once2 = load<float>(*p2);
    for (i64 first = blockIdx.x * span + threadIdx.x; first < points; first += gridDim.x * span) {
        i64 at[4][4];
        Pack<float, 4> group0[4];
        bf16 row1[4];
#pragma unroll
        for (int u = 0; u < 4; ++u) {
            i64 n = first + u * step;
            if (n < points) {
                locate<false>(space, n, at[u]);
                group0[u].load(p0 + at[u][1]);
                row1[u] = p1[at[u][2]];
            }
        }
#pragma unroll
        for (int u = 0; u < 4; ++u) {
            i64 n = first + u * step;
            if (n < points) {
                Pack<f16, 4> y;
#pragma unroll
                for (int i = 0; i < 4; ++i) y.at[i] = Stored<f16>::of(map_layouts_4_2_value(load<float>(group0[u].at[i]), load<float>(row1[u]), once2));
                y.store(out + at[u][0]);
            }
        }
    }
}

DEVICE float map_layouts_1_3_value(float x0, float x1, float x2) {
    const float v3 = x0 * x1;
    const float v4 = v3 + x2;
    return v4;
}

KERNEL __launch_bounds__(256) map_layouts_1_3(f16 *out, const float *p0, const bf16 *p1, const boolean *p2, Space<4, 3> space, i64 points, i64 step, i64 span) {
    begin_kernel();
    const float once2 = load<float>(*p2);
    for (i64 first = blockIdx.x * span + threadIdx.x; first < points; first += gridDim.x * span) {
        i64 at[8][4];
        Pack<float, 1> group0[8];
        Pack<bf16, 1> group1[8];
#pragma unroll
        for (int u = 0; u < 8; ++u) {
            i64 n = first + u * step;
            if (n < points) {
                locate<false>(space, n, at[u]);
                group0[u].load(p0 + at[u][1]);
                group1[u].load(p1 + at[u][2]);
            }
        }
#pragma unroll
        for (int u = 0; u < 8; ++u) {
            i64 n = first + u * step;
            if (n < points) {
                Pack<f16, 1> y;
#pragma unroll
                for (int i = 0; i < 1; ++i) y.at[i] = Stored<f16>::of(map_layouts_1_3_value(load<float>(group0[u].at[i]), load<float>(group1[u].at[i]), once2));
                y.store(out + at[u][0]);
            }
        }
    }
}

DEVICE float map_layouts_4_8_value(float x0, float x1, float x2) {
    const float v3 = x0 * x1;
    const float v4 = v3 + x2;
    return v4;
}

KERNEL __launch_bounds__(256) map_layouts_4_8(f16 *out, const float *p0, const bf16 *p1, const boolean *p2, Space<4, 8> space, i64 points, i64 step, i64 span) {
    begin_kernel();
    const float once2 = load<float>(*p2);
    for (i64 first = blockIdx.x * span + threadIdx.x; first < points; first += gridDim.x * span) {
        i64 at[4][4];
        Pack<float, 4> group0[4];
        bf16 row1[4];
#pragma unroll
        for (int u = 0; u < 4; ++u) {
            i64 n = first + u * step;
            if (n < points) {
                locate<false>(space, n, at[u]);
                group0[u].load(p0 + at[u][1]);
                row1[u] = p1[at[u][2]];
            }
        }
#pragma unroll
        for (int u = 0; u < 4; ++u) {
            i64 n = first + u * step;
            if (n < points) {
                Pack<f16, 4> y;
#pragma unroll
                for (int i = 0; i < 4; ++i) y.at[i] = Stored<f16>::of(map_layouts_4_8_value(load<float>(group0[u].at[i]), load<float>(row1[u]), once2));
                y.store(out + at[u][0]);
            }
        }
    }
}

DEVICE float map_layouts_1_8_wide_value(float x0, float x1, float x2) {
    const float v3 = x0 * x1;
    const float v4 = v3 + x2;
    return v4;
}

KERNEL __launch_bounds__(256) map_layouts_1_8_wide(f16 *out, const float *p0, const bf16 *p1, const boolean *p2, Space<4, 8> space, i64 points, i64 step, i64 span) {
    begin_kernel();
    const float once2 = load<float>(*p2);
    for (i64 first = blockIdx.x * span + threadIdx.x; first < points; first += gridDim.x * span) {
        i64 at[8][4];
        Pack<float, 1> group0[8];
        Pack<bf16, 1> group1[8];
#pragma unroll
        for (int u = 0; u < 8; ++u) {
            i64 n = first + u * step;
            if (n < points) {
                locate<true>(space, n, at[u]);
                group0[u].load(p0 + at[u][1]);
                group1[u].load(p1 + at[u][2]);
            }
        }
#pragma unroll
        for (int u = 0; u < 8; ++u) {
            i64 n = first + u * step;
            if (n < points) {
                Pack<f16, 1> y;
#pragma unroll
                for (int i = 0; i < 1; ++i) y.at[i] = Stored<f16>::of(map_layouts_1_8_wide_value(load<float>(group0[u].at[i]), load<float>(group1[u].at[i]), once2));
                y.store(out + at[u][0]);
            }
        }
    }
}
