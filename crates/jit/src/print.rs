//! C's `printf`, of what kernels print.

use bullet_ops::DType;

/// The text of a format with these values: integers and bools in 64 bits, floats as the bits of an f64. Flags, width and
/// precision are C's; a place without a value stays as it is written.
pub(crate) fn format(format: &str, dtypes: &[DType], values: &[u64]) -> String {
    let mut out = String::with_capacity(format.len() + 16);
    let mut values = dtypes.iter().copied().zip(values.iter().copied());
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let end = rest.find(|c: char| "diufFgGeExXcso".contains(c));
        let (place, after) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
        rest = after;
        match (Place::parse(place), values.next()) {
            (Some(place), Some((dtype, bits))) => out.push_str(&place.write(dtype, bits)),
            _ => {
                out.push('%');
                out.push_str(place);
            }
        }
    }
    out.push_str(rest);
    out
}

/// `%-+ 0#width.precision` and the letter.
#[derive(Default)]
struct Place {
    left: bool,
    plus: bool,
    space: bool,
    zeros: bool,
    alternative: bool,
    width: usize,
    precision: Option<usize>,
    letter: char,
}

/// No number that is meant has more digits.
const MOST: usize = 1000;

impl Place {
    fn parse(text: &str) -> Option<Place> {
        let mut place = Place { letter: text.chars().last()?, ..Place::default() };
        let body = &text[..text.len() - place.letter.len_utf8()];
        let digits = body.trim_start_matches(['-', '+', ' ', '0', '#']);
        for flag in body[..body.len() - digits.len()].chars() {
            match flag {
                '-' => place.left = true,
                '+' => place.plus = true,
                ' ' => place.space = true,
                '0' => place.zeros = true,
                _ => place.alternative = true,
            }
        }
        let digits = digits.trim_end_matches(['l', 'h', 'z', 'j', 't', 'L']);
        let (width, precision) = digits.split_once('.').map_or((digits, None), |(w, p)| (w, Some(p)));
        let number = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<usize>().ok() };
        place.width = number(width)?.min(MOST);
        place.precision = precision.map(number).map(|p| p.map(|p| p.min(MOST))).unwrap_or(None);
        Some(place)
    }

    fn write(&self, dtype: DType, bits: u64) -> String {
        let float = dtype.is_float();
        let x = if float { f64::from_bits(bits) } else { bits as i64 as f64 };
        let (negative, body, number) = match self.letter {
            'd' | 'i' | 'u' | 's' if !float => {
                let negative = !dtype.is_unsigned() && (bits as i64) < 0;
                let digits = if negative { (bits as i64).unsigned_abs() } else { bits }.to_string();
                let pad = self.precision.unwrap_or(0).saturating_sub(digits.len());
                (negative, "0".repeat(pad) + &digits, true)
            }
            'd' | 'i' | 'u' if float => {
                let whole = x as i64;
                (whole < 0, whole.unsigned_abs().to_string(), true)
            }
            'x' | 'X' | 'o' | 'c' => (false, self.bits(dtype, bits, x), true),
            's' => (x.is_sign_negative(), x.abs().to_string(), true),
            _ => (x.is_sign_negative() && !x.is_nan(), self.float(x.abs()), x.is_finite()),
        };
        let sign = match negative {
            true => "-",
            false if self.plus => "+",
            false if self.space => " ",
            false => "",
        };
        let pad = self.width.saturating_sub(sign.len() + body.chars().count());
        match (self.left, self.zeros && number) {
            (true, _) => format!("{sign}{body}{}", " ".repeat(pad)),
            (false, true) => format!("{sign}{}{body}", "0".repeat(pad)),
            (false, false) => format!("{}{sign}{body}", " ".repeat(pad)),
        }
    }

    /// Of an integer, in the width of its type.
    fn bits(&self, dtype: DType, bits: u64, x: f64) -> String {
        let bits = if dtype.is_float() { x as i64 as u64 } else { bits };
        let bits = if dtype.size() <= 4 { bits & u64::from(u32::MAX) } else { bits };
        match self.letter {
            'x' if self.alternative => format!("0x{bits:x}"),
            'X' if self.alternative => format!("0X{bits:X}"),
            'x' => format!("{bits:x}"),
            'X' => format!("{bits:X}"),
            'o' => format!("{bits:o}"),
            _ => char::from(bits as u8).to_string(),
        }
    }

    /// Of a float without its sign.
    fn float(&self, x: f64) -> String {
        if x.is_nan() {
            return "nan".into();
        }
        if x.is_infinite() {
            return "inf".into();
        }
        let precision = self.precision.unwrap_or(6);
        match self.letter {
            'f' | 'F' => format!("{x:.precision$}"),
            'e' | 'E' => self.cased(exponent(x, precision)),
            _ => self.cased(self.general(x, precision.max(1))),
        }
    }

    fn cased(&self, text: String) -> String {
        if self.letter.is_uppercase() { text.to_uppercase() } else { text }
    }

    fn general(&self, x: f64, precision: usize) -> String {
        let scientific = exponent(x, precision - 1);
        let (mantissa, power) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        let power: i32 = power.parse().unwrap_or(0);
        let trim = |text: &str| match text.contains('.') && !self.alternative {
            true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
            false => text.to_string(),
        };
        if power < -4 || power >= precision as i32 {
            return format!("{}e{}", trim(mantissa), &scientific[mantissa.len() + 1..]);
        }
        let digits = (precision as i32 - 1 - power).max(0) as usize;
        trim(&format!("{x:.digits$}"))
    }
}

/// As C's `%e`: at least two digits of the power.
fn exponent(x: f64, precision: usize) -> String {
    let text = format!("{x:.precision$e}");
    let (mantissa, power) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, power) = power.strip_prefix('-').map_or(("+", power), |power| ("-", power));
    format!("{mantissa}e{sign}{power:0>2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_float(text: &str, x: f64) -> String {
        format(text, &[DType::F64], &[x.to_bits()])
    }

    fn of_int(text: &str, x: i64) -> String {
        format(text, &[DType::I32], &[x as u64])
    }

    #[test]
    fn formats_are_those_of_c() {
        assert_eq!(of_float("%f|", -1.5), "-1.500000|");
        assert_eq!(of_float("%8.2f|", 2.344), "    2.34|");
        assert_eq!(of_float("%-8.2f|", 2.344), "2.34    |");
        assert_eq!(of_float("%+08.2f|", 2.344), "+0002.34|");
        assert_eq!(of_float("%e", 12345.678), "1.234568e+04");
        assert_eq!(of_float("%.3E", 0.0), "0.000E+00");
        assert_eq!(of_float("%g", 0.0001), "0.0001");
        assert_eq!(of_float("%g", 0.00001), "1e-05");
        assert_eq!(of_float("%g", 1e6), "1e+06");
        assert_eq!(of_float("%g", 123456.0), "123456");
        assert_eq!(of_float("%.3g", 1234.5), "1.23e+03");
        assert_eq!(of_float("%g", 100.0), "100");
        assert_eq!(of_float("%g %%", f64::NAN), "nan %");
        assert_eq!(of_float("%5g", f64::NEG_INFINITY), " -inf");
        assert_eq!(of_int("%d", -7), "-7");
        assert_eq!(of_int("%05d|", -7), "-0007|");
        assert_eq!(of_int("%-5d|", 7), "7    |");
        assert_eq!(of_int("%#x %d", 255), "0xff %d");
        assert_eq!(of_int("%x", -1), "ffffffff");
        assert_eq!(
            format("%u %lld\n", &[DType::U64, DType::I64], &[u64::MAX, u64::MAX]),
            "18446744073709551615 -1\n"
        );
        assert_eq!(of_int("a %s b", 3), "a 3 b");
    }
}
