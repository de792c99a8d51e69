//! The name that was probably meant.

/// Edits (insertions, deletions, substitutions, swaps of neighbours) between two names: the restricted
/// Damerau-Levenshtein distance.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let substituted = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut best = substituted.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

/// How far `name` (`section.key` or `key`) is from a known key; `None` if too far to be a slip.
fn score(name: &str, known: &str) -> Option<(usize, usize)> {
    let bare = |s: &str| s.rsplit('.').next().unwrap_or(s).replace('_', "").to_lowercase();
    let (a, b) = (bare(name), bare(known));
    let mut edits = distance(a.as_bytes(), b.as_bytes());
    // A word left out or added ("size" for "batch_size") is no slip of fingers, but often what was meant.
    let inside = a.len() >= 4 && b.len() >= 4 && (a.contains(&b) || b.contains(&a));
    if inside {
        edits = edits.min(2);
    }
    (edits <= (a.len() / 3).max(1)).then(|| (edits, distance(name.as_bytes(), known.as_bytes())))
}

/// The known name nearest to `name`, if one is near: by the last part of the name first, so that a key in the wrong
/// section leads to the right one.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known.filter_map(|k| Some((score(name, k)?, k))).min().map(|(_, k)| k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, want) in
            [("", "", 0), ("lr", "", 2), ("seed", "seeds", 1), ("dmi", "dim", 1), ("abc", "xyz", 3)]
        {
            assert_eq!(distance(a.as_bytes(), b.as_bytes()), want, "{a} {b}");
        }
    }

    #[test]
    fn slips_find_their_key_and_nonsense_none() {
        let known = ["model.dim", "train.batch_size", "optim.lr", "optim.min_lr", "train.seed"];
        for (name, want) in [
            ("train.batchsize", Some("train.batch_size")),
            ("optim.batch_size", Some("train.batch_size")),
            ("train.bacth_size", Some("train.batch_size")),
            ("model.dims", Some("model.dim")),
            ("Seed", Some("train.seed")),
            ("minlr", Some("optim.min_lr")),
            ("zebra", None),
        ] {
            assert_eq!(nearest(name, known.into_iter()), want, "{name}");
        }
    }
}
