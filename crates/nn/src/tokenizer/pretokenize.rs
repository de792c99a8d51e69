//! Where byte-pair encoding may not merge across: the word boundaries of GPT-2's pre-tokenizer.

/// The pieces of `text`, in order; joined they are `text`.
///
/// The splits are those of GPT-2's pattern
/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+` (Radford et al. 2019), hand-written;
/// letters are those of Unicode's `Alphabetic`, which also holds the vowel signs that scripts such as Devanagari
/// write as marks, so that words in them stay whole.
pub fn pretokenize(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (piece, tail) = rest.split_at(first_piece(rest));
        rest = tail;
        (!piece.is_empty()).then_some(piece)
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Class {
    Letter,
    Number,
    Space,
    Other,
}

fn class(c: char) -> Class {
    if c.is_alphabetic() {
        Class::Letter
    } else if c.is_numeric() {
        Class::Number
    } else if c.is_whitespace() {
        Class::Space
    } else {
        Class::Other
    }
}

/// Length in bytes of the first piece; 0 only for an empty text.
fn first_piece(text: &str) -> usize {
    const CONTRACTIONS: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];
    if let Some(c) = CONTRACTIONS.iter().find(|c| text.starts_with(**c)) {
        return c.len();
    }
    let lead = usize::from(text.starts_with(' '));
    match text[lead..].chars().next().map(class) {
        Some(kind) if kind != Class::Space => lead + run(&text[lead..], kind),
        _ => whitespace(text),
    }
}

fn run(text: &str, kind: Class) -> usize {
    text.char_indices().find(|&(_, c)| class(c) != kind).map_or(text.len(), |(i, _)| i)
}

/// A run of white space leaves its last character to the word after it.
fn whitespace(text: &str) -> usize {
    let end = run(text, Class::Space);
    let last = text[..end].chars().next_back().map_or(0, char::len_utf8);
    if end == text.len() || end == last { end } else { end - last }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str) -> Vec<&str> {
        pretokenize(text).collect()
    }

    /// Worked out by hand from the pattern.
    #[test]
    fn splits_as_gpt2_does() {
        assert_eq!(pieces("Hello world"), ["Hello", " world"]);
        assert_eq!(pieces("we'll don't x'd"), ["we", "'ll", " don", "'t", " x", "'d"]);
        assert_eq!(pieces("a  b"), ["a", " ", " b"]);
        assert_eq!(pieces("a\n\nb"), ["a", "\n", "\n", "b"]);
        assert_eq!(pieces("a   "), ["a", "   "]);
        assert_eq!(pieces("x2 34, (y)!"), ["x", "2", " 34", ",", " (", "y", ")!"]);
        assert_eq!(pieces("  'tis"), [" ", " '", "tis"]);
        assert_eq!(pieces("été 東京"), ["été", " 東京"]);
        assert_eq!(pieces(" \t x"), [" \t", " x"]);
        assert!(pieces("").is_empty());
    }

    #[test]
    fn pieces_join_to_the_text() {
        let mut rng = crate::rng::Rng::new(3, 0, 0);
        let palette = [' ', ' ', '\n', '\t', '\'', 's', 'l', 'l', '3', 'é', '.', '😀', '\u{a0}', 'ↁ'];
        for _ in 0..2000 {
            let text: String =
                (0..rng.below(20)).map(|_| palette[rng.below(palette.len() as u64) as usize]).collect();
            assert_eq!(pieces(&text).concat(), text);
        }
    }
}
