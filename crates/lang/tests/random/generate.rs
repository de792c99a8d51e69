//! Random kernels as Python source: every statement and most functions of scalars, without races.
//!
//! Arrays: `x` is read anywhere, `y` and `z` (rows) are read and overwritten at the thread's own place, `out` is stored to at
//! it, `acc` is added to anywhere. `p` holds structs, of which a thread reads all and overwrites its own. `l` and `m` are the
//! thread's own.

use std::fmt::Write;

/// A small generator of random numbers (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// Below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// In [-1, 1].
    pub(crate) fn signed(&mut self) -> f64 {
        (self.next() % (1 << 40)) as f64 / (1u64 << 39) as f64 - 1.0
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// Elements of each array, and the columns of `z`.
pub(crate) const LENGTH: usize = 5;
pub(crate) const COLUMNS: usize = 3;

/// A function with a gradient of its own, which is its derivative.
const DERIVATIVES: &str = "
@wp.func
def own(u: float, v: float):
    return wp.sin(u) * v + u


@wp.func_grad(own)
def adj_own(u: float, v: float, adj: float):
    c = wp.cos(u)
    wp.adjoint[v] += wp.sin(u) * adj
    if v > 0.0:
        wp.adjoint[u] = c * v * adj
    else:
        for k in range(2):
            wp.adjoint[u] += 0.5 * c * v * adj
    wp.adjoint[u] += adj


@wp.func
def again(u: float):
    return wp.cos(u) * u


@wp.func_replay(again)
def replay_again(u: float):
    return u * wp.cos(u)


";

struct Generator {
    random: Random,
    text: String,
    /// Names of floats, and of ints that are at least 0, which may be read here.
    floats: Vec<String>,
    ints: Vec<String>,
    next: usize,
    /// Loops around, and whether each can be left by `break`.
    loops: usize,
    budget: usize,
    in_function: bool,
    /// Whether there is no array to read, and no other function to call.
    plain: bool,
}

/// A module with one kernel `k`.
pub(crate) fn module(seed: u64) -> String {
    let mut generator = Generator {
        random: Random::new(seed),
        text: "import warp as wp\n\nVec2 = wp.types.vector(length=2, dtype=float)\n\n\n@wp.struct\nclass Q:\n    b: float\n    v: Vec2\n\n\n@wp.struct\nclass P:\n    a: float\n    \
               n: int\n    q: Q\n\n\n"
            .into(),
        floats: vec![],
        ints: vec![],
        next: 0,
        loops: 0,
        budget: 0,
        in_function: false,
        plain: false,
    };
    generator.text.push_str(DERIVATIVES);
    generator.smooth();
    generator.function();
    generator.kernel();
    // All in float64, where derivatives can be compared to nine digits and constants are what they say.
    generator.text.replace("float", "wp.float64")
}

impl Generator {
    fn line(&mut self, depth: usize, text: &str) {
        for _ in 0..depth {
            self.text.push_str("    ");
        }
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn fresh(&mut self, stem: &str) -> String {
        self.next += 1;
        format!("{stem}{}", self.next)
    }

    /// A function without memory or loops, for `wp.grad`.
    fn smooth(&mut self) {
        self.in_function = true;
        self.plain = true;
        self.text.push_str("@wp.func\ndef smooth(p: float, q: float, n: int):\n");
        self.floats = vec!["p".into(), "q".into()];
        self.ints = vec!["n".into()];
        self.budget = 0;
        self.assign(1);
        if self.random.chance(50) {
            let test = self.condition(1);
            self.line(1, &format!("if {test}:"));
            self.block(2, 2);
        }
        let value = self.float(2);
        self.line(1, &format!("return float(wp.sin({value}))"));
        self.text.push_str("\n\n");
        self.plain = false;
        self.in_function = false;
    }

    fn function(&mut self) {
        self.in_function = true;
        self.text.push_str("@wp.func\ndef helper(p: float, q: float, n: int, r: wp.array(dtype=float)):\n");
        self.floats = vec!["p".into(), "q".into()];
        self.ints = vec!["n".into()];
        self.budget = 4;
        self.block(1, 2);
        if self.random.chance(60) {
            let (test, value) = (self.condition(1), self.float(2));
            self.line(1, &format!("if {test}:"));
            self.line(2, &format!("return float({value})"));
        }
        let value = self.float(2);
        self.line(1, &format!("return float(wp.tanh({value}))"));
        self.text.push_str("\n\n");
        self.in_function = false;
    }

    fn kernel(&mut self) {
        self.text.push_str(
            "@wp.kernel\ndef k(x: wp.array(dtype=float), y: wp.array(dtype=float), z: wp.array2d(dtype=float), \
             out: wp.array(dtype=float), acc: wp.array(dtype=float), n: int, s: float, p: wp.array(dtype=P)):\n    i = \
             wp.tid()\n    l = wp.zeros(shape=3, dtype=float)\n    m = wp.zeros((2, 3), float)\n",
        );
        self.floats = vec!["s".into()];
        self.ints = vec!["i".into(), "n".into()];
        for _ in 0..2 {
            let (name, value) = (self.fresh("f"), self.float(1));
            // Not a literal, whose type would be the same, but whose value would be folded away.
            self.line(1, &format!("{name} = float({value})"));
            self.floats.push(name);
        }
        self.budget = 8 + self.random.below(16);
        self.block(1, 6);
        let value = self.float(2);
        self.line(1, &format!("out[i] = {value}"));
    }

    fn block(&mut self, depth: usize, most: usize) {
        let (floats, ints) = (self.floats.len(), self.ints.len());
        for _ in 0..1 + self.random.below(most) {
            self.statement(depth);
        }
        // What was first assigned in here is not known behind.
        if depth > 1 {
            self.floats.truncate(floats);
            self.ints.truncate(ints);
        }
    }

    fn statement(&mut self, depth: usize) {
        if self.budget == 0 {
            return self.assign(depth);
        }
        self.budget -= 1;
        match self.random.below(if self.in_function { 13 } else { 26 }) {
            0..=3 => self.assign(depth),
            4 | 5 => self.branch(depth),
            6 | 7 if self.loops < 2 => self.for_loop(depth),
            8 if self.loops < 2 => self.while_loop(depth),
            9 => self.swap(depth),
            10 if self.loops > 0 => {
                let test = self.condition(1);
                self.line(depth, &format!("if {test}:"));
                let word = if self.random.chance(50) { "break" } else { "continue" };
                self.line(depth + 1, word);
            }
            11 | 12 if self.in_function => {
                let (column, value) = (self.int(), self.float(2));
                self.line(depth, &format!("r[({column}) % 3] = wp.sin({value})"));
            }
            12 if depth > 1 || self.random.chance(30) => {
                let test = self.condition(1);
                self.line(depth, &format!("if {test}:"));
                self.line(depth + 1, "return");
            }
            13 | 14 => {
                let value = self.float(2);
                let op = ["=", "=", "*=", "/=", "+=", "-="][self.random.below(6)];
                let value =
                    if op == "/=" { format!("2.0 + {value} * {value}") } else { format!("wp.sin({value})") };
                self.line(depth, &format!("y[i] {op} {value}"));
            }
            15 | 16 => {
                let (column, value) = (self.int(), self.float(2));
                self.line(depth, &format!("z[i, ({column}) % {COLUMNS}] = wp.tanh({value})"));
            }
            17 => {
                let (index, value) = (self.index(), self.float(2));
                let op = if self.random.chance(50) { "+=" } else { "-=" };
                self.line(depth, &format!("acc[{index}] {op} {value}"));
            }
            18 => {
                let value = self.float(2);
                self.line(depth, &format!("out[i] = {value}"));
            }
            19 | 20 => {
                let (place, value) = (self.local(), self.float(2));
                let op = ["=", "=", "+=", "-=", "*="][self.random.below(5)];
                self.line(depth, &format!("{place} {op} wp.sin({value})"));
            }
            21 => {
                let (value, other) = (self.float(2), self.float(1));
                match self.random.below(4) {
                    0 => self.line(depth, &format!("p[i].a = wp.sin({value})")),
                    1 => self.line(depth, &format!("p[i].q.b *= wp.cos({value})")),
                    2 => self.line(depth, &format!("p[i].q.v = Vec2(wp.sin({value}), {other})")),
                    _ => {
                        let name = self.fresh("e");
                        self.line(depth, &format!("{name} = p[i]"));
                        self.line(depth, &format!("{name}.a = {name}.q.b + wp.sin({value})"));
                        self.line(depth, &format!("{name}.q.v.y = {other}"));
                        self.line(depth, &format!("p[i] = {name}"));
                    }
                }
            }
            22 => {
                let (name, int, value) = (self.fresh("w"), self.int(), self.float(2));
                let part = ["z[i]", "m[1]", "l[0:2]", "m[0, ::-1]"][self.random.below(4)];
                self.line(depth, &format!("{name} = {part}"));
                self.line(depth, &format!("{name}[({int}) % 2] = wp.sin({value})"));
            }
            _ => self.assign(depth),
        }
    }

    fn assign(&mut self, depth: usize) {
        let value = self.float(3);
        let value = if self.random.chance(50) { format!("wp.tanh({value})") } else { value };
        if self.random.chance(30) {
            let name = self.fresh("f");
            self.line(depth, &format!("{name} = float({value})"));
            self.floats.push(name);
            return;
        }
        let name = self.target();
        let op = ["=", "=", "+=", "-=", "*="][self.random.below(5)];
        self.line(depth, &format!("{name} {op} float({value})"));
    }

    /// A variable that may be assigned.
    fn target(&mut self) -> String {
        self.floats[self.random.below(self.floats.len())].clone()
    }

    fn swap(&mut self, depth: usize) {
        let (a, b) = (self.target(), self.target());
        let c = self.float(1);
        self.line(depth, &format!("{a}, {b} = {b}, {a} * 0.5 + {c}"));
    }

    fn branch(&mut self, depth: usize) {
        let test = self.condition(2);
        self.line(depth, &format!("if {test}:"));
        self.block(depth + 1, 3);
        if self.random.chance(25) {
            let test = self.condition(1);
            self.line(depth, &format!("elif {test}:"));
            self.block(depth + 1, 2);
        }
        if self.random.chance(50) {
            self.line(depth, "else:");
            self.block(depth + 1, 3);
        }
    }

    fn for_loop(&mut self, depth: usize) {
        let name = self.fresh("k");
        let dynamic = self.int();
        let range = match self.random.below(8) {
            0 => format!("{}", self.random.below(5)),
            1 => "20".into(),
            2 => format!("1, {}", 2 + self.random.below(5)),
            3 => "6, 0, -2".into(),
            4 => format!("0, ({dynamic}) % 7, 2"),
            5 => format!("({dynamic}) % 4, n + 1"),
            6 => format!("({dynamic}) % 5, -1, -1"),
            _ => format!("({dynamic}) % 6"),
        };
        self.line(depth, &format!("for {name} in range({range}):"));
        self.loops += 1;
        self.ints.push(name.clone());
        self.block(depth + 1, 3);
        self.ints.retain(|known| *known != name);
        self.loops -= 1;
    }

    fn while_loop(&mut self, depth: usize) {
        let (count, test) = (self.fresh("c"), self.condition(1));
        self.line(depth, &format!("{count} = int(0)"));
        let head = if self.random.chance(30) { "True".into() } else { test };
        let most = 1 + self.random.below(6);
        self.line(depth, &format!("while {head}:"));
        self.line(depth + 1, &format!("{count} += 1"));
        self.line(depth + 1, &format!("if {count} > {most}:"));
        self.line(depth + 2, "break");
        self.loops += 1;
        self.ints.push(count.clone());
        self.block(depth + 1, 3);
        self.loops -= 1;
        self.ints.retain(|known| *known != count);
    }

    fn int(&mut self) -> String {
        let name = self.ints[self.random.below(self.ints.len())].clone();
        match self.random.below(4) {
            0 => format!("{name} + {}", self.random.below(4)),
            1 => format!("{name} * 2"),
            _ => name,
        }
    }

    fn index(&mut self) -> String {
        let int = self.int();
        format!("({int}) % {LENGTH}")
    }

    fn condition(&mut self, depth: usize) -> String {
        match self.random.below(if depth == 0 { 3 } else { 7 }) {
            0 => {
                let int = self.int();
                format!("({int}) % 3 == {}", self.random.below(3))
            }
            1..=3 => {
                let (a, b) = (self.float(1), self.float(1));
                let op = ["<", ">", "<=", ">="][self.random.below(4)];
                format!("{a} {op} {b} + 0.013")
            }
            4 => format!("not ({})", self.condition(depth - 1)),
            5 => format!("({}) and ({})", self.condition(depth - 1), self.condition(depth - 1)),
            _ => format!("({}) or ({})", self.condition(depth - 1), self.condition(depth - 1)),
        }
    }

    fn leaf(&mut self) -> String {
        let array = if self.plain {
            0
        } else if self.in_function {
            1
        } else {
            8
        };
        match self.random.below(6 + array) {
            0 => {
                let mut text = String::new();
                let _ = write!(text, "{:.3}", self.random.signed() * 2.0);
                if text.starts_with('-') { format!("({text})") } else { text }
            }
            1 => {
                let int = self.int();
                format!("(0.1 * float({int}))")
            }
            6 if self.in_function => {
                let column = self.int();
                format!("r[({column}) % 3]")
            }
            6 => {
                let index = self.index();
                format!("x[{index}]")
            }
            7 => "y[i]".into(),
            8 => {
                let column = self.int();
                format!("z[i, ({column}) % {COLUMNS}]")
            }
            9 | 10 => self.local(),
            11 => {
                let field = ["a", "q.b", "q.v.x", "q.v[1]"][self.random.below(4)];
                format!("p[i].{field}")
            }
            12 => "float(p[i].n)".into(),
            13 => {
                let int = self.int();
                let part = ["z[i]", "m[1]", "l[::2]", "m[0, 1:]"][self.random.below(4)];
                format!("{part}[({int}) % 2]")
            }
            _ => self.floats[self.random.below(self.floats.len())].clone(),
        }
    }

    /// An element of an array of the thread's own.
    fn local(&mut self) -> String {
        let int = self.int();
        if self.random.chance(50) {
            return format!("l[({int}) % 3]");
        }
        let row = self.int();
        format!("m[({row}) % 2, ({int}) % 3]")
    }

    fn float(&mut self, depth: usize) -> String {
        if depth == 0 || self.random.chance(25) {
            return self.leaf();
        }
        let choice = self.random.below(if self.plain {
            27
        } else if self.in_function {
            30
        } else {
            32
        });
        let a = self.float(depth - 1);
        let b = if self.random.chance(50) { self.leaf() } else { self.float(depth - 1) };
        match choice {
            0..=3 => format!("({a} + {b})"),
            4 | 5 => format!("({a} - {b})"),
            6..=9 => format!("({a} * {b})"),
            10 => format!("({a} / (2.0 + {b} * {b}))"),
            11 => format!("wp.sin({a})"),
            12 => format!("wp.cos({a})"),
            13 => format!("wp.exp(0.5 * wp.sin({a}))"),
            14 => format!("wp.sqrt(1.0 + {a} * {a})"),
            15 => format!("wp.log(1.5 + {a} * {a})"),
            16 => format!("wp.abs({a} + 0.037)"),
            17 => format!("wp.min({a}, {b} + 0.011)"),
            18 => format!("wp.max({a}, {b} + 0.017)"),
            19 => format!("wp.atan2({a}, 2.0 + {b} * {b})"),
            20 => format!("wp.pow(1.0 + {a} * {a}, 0.7 + 0.1 * wp.sin({b}))"),
            21 => format!("float(wp.where({}, {a}, {b}))", self.condition(0)),
            22 => format!("float({a} if {} else {b})", self.condition(0)),
            23 => format!("(({a} + 0.007) % 1.7)"),
            24 => format!("wp.clamp({a}, -0.71, {b} + 0.9)"),
            25 => {
                let one = [
                    "asin", "acos", "atan", "sinh", "cosh", "tan", "erf", "cbrt", "log2", "floor", "sign",
                    "erfc", "erfinv",
                ];
                match one[self.random.below(one.len())] {
                    name @ ("asin" | "acos" | "erfinv") => format!("wp.{name}(0.9 * wp.sin({a}))"),
                    name @ ("sinh" | "cosh" | "tan") => format!("wp.{name}(0.7 * wp.sin({a}))"),
                    name @ ("cbrt" | "log2") => format!("wp.{name}(1.1 + {a} * {a})"),
                    name => format!("wp.{name}({a} + 0.0031)"),
                }
            }
            26 => format!("wp.lerp({a}, {b}, 0.3)"),
            27 => format!("own({a}, {b})"),
            28 => format!("again({a})"),
            29 => {
                let (int, place) = (self.int(), self.random.below(2));
                match self.random.below(4) {
                    0 => format!("wp.sin(wp.grad(own)({a}, {b})[{place}])"),
                    1 => format!("wp.grad(wp.atan2)(float({a}), 2.0 + {b} * {b})[{place}]"),
                    _ => format!("wp.sin(wp.grad(smooth)({a}, {b}, {int})[{place}])"),
                }
            }
            _ => {
                let int = self.int();
                let array = ["l", "m[1]", "z[i]"][self.random.below(3)];
                format!("helper({a}, {b}, {int}, {array})")
            }
        }
    }
}
