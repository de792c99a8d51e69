//! Decoding as tokens arrive: a byte-level token may end inside a character, whose bytes then wait for the rest.

/// Turns byte pieces into text, holding back the bytes of an unfinished character.
///
/// What it appends over all pushes and [`finish`](StreamDecoder::finish) is what [`String::from_utf8_lossy`] makes of
/// all the bytes at once, however they were cut.
#[derive(Clone, Default, Debug)]
pub struct StreamDecoder {
    /// The start of a character: at most 3 bytes between calls.
    held: Vec<u8>,
}

impl StreamDecoder {
    /// A decoder that holds nothing.
    pub fn new() -> StreamDecoder {
        StreamDecoder::default()
    }

    /// Appends to `out` the characters that `bytes` (of the next token) complete; bytes that can't be UTF-8 become
    /// U+FFFD.
    pub fn push(&mut self, bytes: &[u8], out: &mut String) {
        self.held.extend_from_slice(bytes);
        let mut rest = &self.held[..];
        let kept = loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    out.push_str(text);
                    break 0;
                }
                Err(e) => {
                    let (valid, tail) = rest.split_at(e.valid_up_to());
                    out.push_str(std::str::from_utf8(valid).unwrap_or_default());
                    match e.error_len() {
                        None => break tail.len(),
                        Some(bad) => {
                            out.push(char::REPLACEMENT_CHARACTER);
                            rest = &tail[bad..];
                        }
                    }
                }
            }
        };
        self.held.drain(..self.held.len() - kept);
    }

    /// The end of the stream: a character left unfinished becomes U+FFFD.
    pub fn finish(&mut self, out: &mut String) {
        if !self.held.is_empty() {
            out.push(char::REPLACEMENT_CHARACTER);
            self.held.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn holds_back_half_a_character() {
        let mut stream = StreamDecoder::new();
        let mut out = String::new();
        stream.push(&"é".as_bytes()[..1], &mut out);
        assert_eq!(out, "");
        stream.push(&"é".as_bytes()[1..], &mut out);
        assert_eq!(out, "é");
    }

    #[test]
    fn any_cut_of_any_bytes_gives_what_from_utf8_lossy_gives() {
        let mut rng = Rng::new(7, 0, 0);
        // Bytes that begin, continue and break characters, far more often than uniform ones do.
        let palette =
            [b'a', 0x80, 0xBF, 0xC3, 0xA9, 0xE2, 0x82, 0xAC, 0xF0, 0x9F, 0x98, 0x80, 0xED, 0xA0, 0xF5, 0xC0];
        for _ in 0..3000 {
            let bytes: Vec<u8> = (0..rng.below(24)).map(|_| palette[rng.below(16) as usize]).collect();
            let mut stream = StreamDecoder::new();
            let mut out = String::new();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (piece, tail) = rest.split_at(1 + rng.below(rest.len().min(4) as u64) as usize);
                stream.push(piece, &mut out);
                assert!(stream.held.len() <= 3);
                rest = tail;
            }
            stream.finish(&mut out);
            assert_eq!(out, String::from_utf8_lossy(&bytes), "{bytes:x?}");
        }
    }
}
