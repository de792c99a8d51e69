//! Two texts side by side.

use std::io;

use terminal_size::{Width, terminal_size_of};

/// Columns of both texts together where standard output is no terminal.
const WIDTH: usize = 160;
const GAP: &str = " | ";

/// How wide standard output is.
pub(super) fn width() -> usize {
    terminal_size_of(io::stdout()).map_or(WIDTH, |(Width(width), _)| width.into())
}

/// The lines of both texts in two columns that fill `width`; the left one is no wider than its text. What is too long for its
/// column goes on in the next line.
pub(super) fn side_by_side(left: &str, right: &str, width: usize) -> String {
    let widest = left.lines().map(|line| untabbed(line).chars().count()).max().unwrap_or(0);
    let half = (width.saturating_sub(GAP.len()) / 2).max(20);
    let narrow = widest.min(half);
    let rest = (width.saturating_sub(GAP.len() + narrow)).max(20);
    let (mut left, mut right) = (left.trim_end().lines(), right.trim_end().lines());
    let mut out = String::new();
    loop {
        let (a, b) = (left.next(), right.next());
        if a.is_none() && b.is_none() {
            return out;
        }
        let (a, b) = (pieces(a.unwrap_or(""), narrow), pieces(b.unwrap_or(""), rest));
        for i in 0..a.len().max(b.len()) {
            let piece = |all: &[String]| all.get(i).cloned().unwrap_or_default();
            let line = format!("{:narrow$}{GAP}{}", piece(&a), piece(&b));
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
}

/// A line in pieces of at most so many characters; at least one.
fn pieces(line: &str, width: usize) -> Vec<String> {
    let characters: Vec<char> = untabbed(line).chars().collect();
    let pieces: Vec<String> = characters.chunks(width.max(1)).map(|piece| piece.iter().collect()).collect();
    if pieces.is_empty() { vec![String::new()] } else { pieces }
}

/// With spaces for tabs, which assembly begins its lines with.
fn untabbed(line: &str) -> String {
    line.replace('\t', "    ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_left_column_is_as_wide_as_its_text() {
        assert_eq!(side_by_side("a\nbcd\n", "x\n\ty\nz\n", 60), "a   | x\nbcd |     y\n    | z\n");
        assert_eq!(side_by_side("a\nb", "", 60), "a |\nb |\n");
    }

    #[test]
    fn long_lines_go_on_in_the_next() {
        let (left, right) = ("l".repeat(30), "r".repeat(45));
        let shown = side_by_side(&left, &right, 43);
        assert!(shown.lines().all(|line| line.chars().count() <= 43), "{shown}");
        let (l, r) = (shown.matches('l').count(), shown.matches('r').count());
        assert_eq!((l, r, shown.lines().count()), (30, 45, 3), "{shown}");
    }
}
