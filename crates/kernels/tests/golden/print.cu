// Printed expressions; a test of print.rs writes this file when run with BLESS=1.

DEVICE i64 primitives_i64(i64 x0, i64 x2) {
    const i64 v2 = negative(x0);
    const i64 v3 = absolute(x0);
    const i64 v4 = convert<i64>(exp((double)x0));
    const i64 v5 = convert<i64>(log((double)x0));
    const i64 v6 = convert<i64>(sqrt((double)x0));
    const i64 v7 = convert<i64>(1.0 / sqrt((double)x0));
    const i64 v8 = convert<i64>(sin((double)x0));
    const i64 v9 = convert<i64>(cos((double)x0));
    const i64 v10 = convert<i64>(tanh((double)x0));
    const i64 v11 = convert<i64>(erf((double)x0));
    const i64 v12 = x0;
    const i64 v13 = x0;
    const i64 v14 = x0;
    const i64 v15 = x0 == 0LL ? 1LL : 0LL;
    const i64 v16 = add(x0, x2);
    const i64 v17 = subtract(x0, x2);
    const i64 v18 = multiply(x0, x2);
    const i64 v19 = quotient(x0, x2);
    const i64 v20 = power(x0, x2);
    const i64 v21 = larger(x0, x2);
    const i64 v22 = smaller(x0, x2);
    const i64 v23 = x0 < x2 ? 1LL : 0LL;
    const i64 v24 = x0 <= x2 ? 1LL : 0LL;
    const i64 v25 = x0 == x2 ? 1LL : 0LL;
    const i64 v26 = x0 != 0LL && x2 != 0LL ? 1LL : 0LL;
    const i64 v27 = x0 != 0LL || x2 != 0LL ? 1LL : 0LL;
    const i64 v28 = x0 != 0LL ? x2 : x0;
    const i64 v29 = add(v28, v2);
    const i64 v30 = add(v29, v3);
    const i64 v31 = add(v30, v4);
    const i64 v32 = add(v31, v5);
    const i64 v33 = add(v32, v6);
    const i64 v34 = add(v33, v7);
    const i64 v35 = add(v34, v8);
    const i64 v36 = add(v35, v9);
    const i64 v37 = add(v36, v10);
    const i64 v38 = add(v37, v11);
    const i64 v39 = add(v38, v12);
    const i64 v40 = add(v39, v13);
    const i64 v41 = add(v40, v14);
    const i64 v42 = add(v41, v15);
    const i64 v43 = add(v42, v16);
    const i64 v44 = add(v43, v17);
    const i64 v45 = add(v44, v18);
    const i64 v46 = add(v45, v19);
    const i64 v47 = add(v46, v20);
    const i64 v48 = add(v47, v21);
    const i64 v49 = add(v48, v22);
    const i64 v50 = add(v49, v23);
    const i64 v51 = add(v50, v24);
    const i64 v52 = add(v51, v25);
    const i64 v53 = add(v52, v26);
    const i64 v54 = add(v53, v27);
    return v54;
}

DEVICE i64 constants_i64(i64 x0) {
    const i64 v1 = 0LL;
    const i64 v2 = add(x0, v1);
    const i64 v3 = -3LL;
    const i64 v4 = add(v2, v3);
    const i64 v5 = 0LL;
    const i64 v6 = add(v4, v5);
    const i64 v7 = 0LL;
    const i64 v8 = add(v6, v7);
    const i64 v9 = 9223372036854775807LL;
    const i64 v10 = add(v8, v9);
    const i64 v11 = 9223372036854775807LL;
    const i64 v12 = add(v10, v11);
    const i64 v13 = (i64)0x8000000000000000ULL;
    const i64 v14 = add(v12, v13);
    const i64 v15 = 0LL;
    const i64 v16 = add(v14, v15);
    const i64 v17 = 0LL;
    const i64 v18 = add(v16, v17);
    return v18;
}

DEVICE float primitives_f32(float x0, float x2) {
    const float v2 = -x0;
    const float v3 = fabsf(x0);
    const float v4 = expf(x0);
    const float v5 = logf(x0);
    const float v6 = sqrtf(x0);
    const float v7 = rsqrtf(x0);
    const float v8 = sinf(x0);
    const float v9 = cosf(x0);
    const float v10 = tanhf(x0);
    const float v11 = erff(x0);
    const float v12 = floorf(x0);
    const float v13 = ceilf(x0);
    const float v14 = rintf(x0);
    const float v15 = x0 == 0.0f ? 1.0f : 0.0f;
    const float v16 = x0 + x2;
    const float v17 = x0 - x2;
    const float v18 = x0 * x2;
    const float v19 = x0 / x2;
    const float v20 = power(x0, x2);
    const float v21 = larger(x0, x2);
    const float v22 = smaller(x0, x2);
    const float v23 = x0 < x2 ? 1.0f : 0.0f;
    const float v24 = x0 <= x2 ? 1.0f : 0.0f;
    const float v25 = x0 == x2 ? 1.0f : 0.0f;
    const float v26 = x0 != 0.0f && x2 != 0.0f ? 1.0f : 0.0f;
    const float v27 = x0 != 0.0f || x2 != 0.0f ? 1.0f : 0.0f;
    const float v28 = x0 != 0.0f ? x2 : x0;
    const float v29 = v28 + v2;
    const float v30 = v29 + v3;
    const float v31 = v30 + v4;
    const float v32 = v31 + v5;
    const float v33 = v32 + v6;
    const float v34 = v33 + v7;
    const float v35 = v34 + v8;
    const float v36 = v35 + v9;
    const float v37 = v36 + v10;
    const float v38 = v37 + v11;
    const float v39 = v38 + v12;
    const float v40 = v39 + v13;
    const float v41 = v40 + v14;
    const float v42 = v41 + v15;
    const float v43 = v42 + v16;
    const float v44 = v43 + v17;
    const float v45 = v44 + v18;
    const float v46 = v45 + v19;
    const float v47 = v46 + v20;
    const float v48 = v47 + v21;
    const float v49 = v48 + v22;
    const float v50 = v49 + v23;
    const float v51 = v50 + v24;
    const float v52 = v51 + v25;
    const float v53 = v52 + v26;
    const float v54 = v53 + v27;
    return v54;
}

DEVICE float constants_f32(float x0) {
    const float v1 = 0.5f;
    const float v2 = x0 + v1;
    const float v3 = -3.0f;
    const float v4 = v2 + v3;
    const float v5 = -0.0f;
    const float v6 = v4 + v5;
    const float v7 = __int_as_float(0x3dcccccd); // 0.1
    const float v8 = v6 + v7;
    const float v9 = __int_as_float(0x7f800000); // inf
    const float v10 = v8 + v9;
    const float v11 = __int_as_float(0x7f800000); // inf
    const float v12 = v10 + v11;
    const float v13 = __int_as_float(0xff800000); // -inf
    const float v14 = v12 + v13;
    const float v15 = __int_as_float(0x7fc00000); // NaN
    const float v16 = v14 + v15;
    const float v17 = 0.0f;
    const float v18 = v16 + v17;
    return v18;
}

DEVICE double primitives_f64(double x0, double x2) {
    const double v2 = -x0;
    const double v3 = fabs(x0);
    const double v4 = exp(x0);
    const double v5 = log(x0);
    const double v6 = sqrt(x0);
    const double v7 = rsqrt(x0);
    const double v8 = sin(x0);
    const double v9 = cos(x0);
    const double v10 = tanh(x0);
    const double v11 = erf(x0);
    const double v12 = floor(x0);
    const double v13 = ceil(x0);
    const double v14 = rint(x0);
    const double v15 = x0 == 0.0 ? 1.0 : 0.0;
    const double v16 = x0 + x2;
    const double v17 = x0 - x2;
    const double v18 = x0 * x2;
    const double v19 = x0 / x2;
    const double v20 = power(x0, x2);
    const double v21 = larger(x0, x2);
    const double v22 = smaller(x0, x2);
    const double v23 = x0 < x2 ? 1.0 : 0.0;
    const double v24 = x0 <= x2 ? 1.0 : 0.0;
    const double v25 = x0 == x2 ? 1.0 : 0.0;
    const double v26 = x0 != 0.0 && x2 != 0.0 ? 1.0 : 0.0;
    const double v27 = x0 != 0.0 || x2 != 0.0 ? 1.0 : 0.0;
    const double v28 = x0 != 0.0 ? x2 : x0;
    const double v29 = v28 + v2;
    const double v30 = v29 + v3;
    const double v31 = v30 + v4;
    const double v32 = v31 + v5;
    const double v33 = v32 + v6;
    const double v34 = v33 + v7;
    const double v35 = v34 + v8;
    const double v36 = v35 + v9;
    const double v37 = v36 + v10;
    const double v38 = v37 + v11;
    const double v39 = v38 + v12;
    const double v40 = v39 + v13;
    const double v41 = v40 + v14;
    const double v42 = v41 + v15;
    const double v43 = v42 + v16;
    const double v44 = v43 + v17;
    const double v45 = v44 + v18;
    const double v46 = v45 + v19;
    const double v47 = v46 + v20;
    const double v48 = v47 + v21;
    const double v49 = v48 + v22;
    const double v50 = v49 + v23;
    const double v51 = v50 + v24;
    const double v52 = v51 + v25;
    const double v53 = v52 + v26;
    const double v54 = v53 + v27;
    return v54;
}

DEVICE double constants_f64(double x0) {
    const double v1 = 0.5;
    const double v2 = x0 + v1;
    const double v3 = -3.0;
    const double v4 = v2 + v3;
    const double v5 = -0.0;
    const double v6 = v4 + v5;
    const double v7 = __longlong_as_double(0x3fb999999999999aLL); // 0.1
    const double v8 = v6 + v7;
    const double v9 = __longlong_as_double(0x7e37e43c8800759cLL); // 1e300
    const double v10 = v8 + v9;
    const double v11 = __longlong_as_double(0x7ff0000000000000LL); // inf
    const double v12 = v10 + v11;
    const double v13 = __longlong_as_double(0xfff0000000000000LL); // -inf
    const double v14 = v12 + v13;
    const double v15 = __longlong_as_double(0x7ff8000000000000LL); // NaN
    const double v16 = v14 + v15;
    const double v17 = __longlong_as_double(0x0000000000000001LL); // 5e-324
    const double v18 = v16 + v17;
    return v18;
}

DEVICE float gelu(float x0) {
    const float v1 = 0.5f;
    const float v2 = v1 * x0;
    const float v3 = __int_as_float(0x3f3504f3); // 0.70710677
    const float v4 = x0 * v3;
    const float v5 = erff(v4);
    const float v6 = 1.0f;
    const float v7 = v6 + v5;
    const float v8 = v2 * v7;
    return v8;
}

DEVICE float gelu_adjoint(float x0, float x2) {
    const float v2 = __int_as_float(0x3f3504f3); // 0.70710677
    const float v3 = x0 * v2;
    const float v4 = erff(v3);
    const float v5 = 1.0f;
    const float v6 = v5 + v4;
    const float v7 = 0.5f;
    const float v8 = v7 * v6;
    const float v9 = __int_as_float(0x3ecc422a); // 0.3989423
    const float v10 = x0 * v9;
    const float v11 = -0.5f;
    const float v12 = v11 * x0;
    const float v13 = v12 * x0;
    const float v14 = expf(v13);
    const float v15 = v10 * v14;
    const float v16 = v8 + v15;
    const float v17 = x2 * v16;
    return v17;
}

DEVICE float identity(float x0) {
    return x0;
}
