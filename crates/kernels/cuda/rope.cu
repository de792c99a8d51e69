// Rotary position embedding: pairs of a head's elements turned by position * base^(-2 i / dim).
//
// The angle is position * frequency in f64: in f32 it would be wrong by a radian at position 10 million. It is brought
// into one turn in f64, where only a product and a subtraction are left to do, before the sine and cosine are taken in
// the type that is computed in; so that GPUs with little f64 are not held up. The host gives the frequencies as turns.
//
// A thread has a few pairs of one position, whose sine and cosine serve all the heads it walks over.

typedef ComputeOf<T>::Type C;

struct Rope {
    const T *x;
    T *y;
    const double *turns;            // dim / 2 frequencies in turns: base^(-2 i / dim) / (2 pi), high parts then low parts
    i64 batch, seq, heads, dim;
    i64 x_batch, x_row, x_head;     // strides of x; y is contiguous
    i64 offset, turned, interleaved, inverse, slices;
};
