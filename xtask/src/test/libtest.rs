//! Counts of a libtest run, read off its `test result:` lines.

use std::ops::AddAssign;

/// How many tests ended how.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

impl Counts {
    /// The sum over every `test result:` line of an output, and how many such lines there were.
    pub(crate) fn parse(output: &str) -> (Counts, usize) {
        let mut sum = Counts::default();
        let mut lines = 0;
        for line in output.lines() {
            if let Some(counts) = Counts::parse_line(line) {
                sum += counts;
                lines += 1;
            }
        }
        (sum, lines)
    }

    /// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
    fn parse_line(line: &str) -> Option<Counts> {
        let rest = line.trim_start().strip_prefix("test result: ")?;
        let (_verdict, fields) = rest.split_once(". ")?;
        let count = |what: &str| {
            let field = fields.split("; ").find_map(|field| field.strip_suffix(what))?;
            field.trim().parse().ok()
        };
        Some(Counts { passed: count(" passed")?, failed: count(" failed")?, ignored: count(" ignored")? })
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_every_result_line() {
        let output = "running 2 tests\ntest a ... ok\n\n\
            test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.00s\n\
            test result: FAILED. 10 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.2s\n";
        assert_eq!(Counts::parse(output), (Counts { passed: 12, failed: 3, ignored: 1 }, 2));
    }

    #[test]
    fn other_lines_count_nothing() {
        for output in
            ["", "test result", "2 passed; 0 failed; 0 ignored", "test result: ok. many passed; 0 failed"]
        {
            assert_eq!(Counts::parse(output), (Counts::default(), 0), "{output:?}");
        }
    }
}
