//! The types a setting may have: how a value is read from text and from TOML, and how it is written.

/// A type of setting.
pub(crate) trait Value: Sized {
    /// What a value looks like, after "expected".
    fn expected() -> String;
    /// From the text of a command-line option.
    fn parse(text: &str) -> Option<Self>;
    /// From a value in a file.
    fn from_toml(value: &toml::Value) -> Option<Self>;
    /// As text that [`Value::parse`] reads.
    fn show(&self) -> String;
    /// As a value of a TOML file.
    fn toml(&self) -> String {
        self.show()
    }
}

impl Value for usize {
    fn expected() -> String {
        "a whole number from 0 to 2^63 - 1, such as 16".into()
    }
    fn parse(text: &str) -> Option<usize> {
        // TOML's integers are signed.
        text.replace('_', "").parse().ok().filter(|&n| i64::try_from(n).is_ok())
    }
    fn from_toml(value: &toml::Value) -> Option<usize> {
        value.as_integer()?.try_into().ok()
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for u64 {
    fn expected() -> String {
        "a whole number from 0 to 2^63 - 1, such as 1337".into()
    }
    fn parse(text: &str) -> Option<u64> {
        text.replace('_', "").parse().ok().filter(|&n| i64::try_from(n).is_ok())
    }
    fn from_toml(value: &toml::Value) -> Option<u64> {
        value.as_integer()?.try_into().ok()
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for f64 {
    fn expected() -> String {
        "a number, such as 0.1 or 1e-3".into()
    }
    fn parse(text: &str) -> Option<f64> {
        text.replace('_', "").parse().ok().filter(|x: &f64| x.is_finite())
    }
    fn from_toml(value: &toml::Value) -> Option<f64> {
        value.as_float().or_else(|| Some(value.as_integer()? as f64)).filter(|x| x.is_finite())
    }
    fn show(&self) -> String {
        // The shortest text that reads back as the same number; always a float to TOML.
        format!("{self:?}")
    }
}

impl Value for bool {
    fn expected() -> String {
        "true or false".into()
    }
    fn parse(text: &str) -> Option<bool> {
        match text {
            "true" | "yes" | "on" | "1" => Some(true),
            "false" | "no" | "off" | "0" => Some(false),
            _ => None,
        }
    }
    fn from_toml(value: &toml::Value) -> Option<bool> {
        value.as_bool()
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    fn expected() -> String {
        "text in quotes".into()
    }
    fn parse(text: &str) -> Option<String> {
        Some(text.to_string())
    }
    fn from_toml(value: &toml::Value) -> Option<String> {
        value.as_str().map(str::to_string)
    }
    fn show(&self) -> String {
        self.clone()
    }
    fn toml(&self) -> String {
        let mut out = String::from('"');
        for c in self.chars() {
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                // TOML forbids control characters in strings; JSON's escape for them is TOML's, too.
                c if c.is_control() => out.push_str(&format!("\\u{:04X}", c as u32)),
                c => out.push(c),
            }
        }
        out.push('"');
        out
    }
}

/// An enum of settings, each with the name that stands in files and on the command line.
macro_rules! choice {
    ($(#[doc = $about:literal])+ $Name:ident { $($(#[doc = $doc:literal])+ $Variant:ident = $text:literal,)+ }) => {
        $(#[doc = $about])+
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
        pub enum $Name {
            $($(#[doc = $doc])+ #[serde(rename = $text)] $Variant,)+
        }

        impl $Name {
            /// Every choice.
            pub const ALL: &'static [$Name] = &[$($Name::$Variant),+];

            /// The name in files and on the command line.
            pub const fn name(self) -> &'static str {
                match self { $($Name::$Variant => $text),+ }
            }
        }

        impl std::fmt::Display for $Name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl $crate::config::value::Value for $Name {
            fn expected() -> String {
                let names: Vec<&str> = $Name::ALL.iter().map(|c| c.name()).collect();
                format!("one of {}", names.join(", "))
            }
            fn parse(text: &str) -> Option<$Name> {
                $Name::ALL.iter().copied().find(|c| c.name() == text)
            }
            fn from_toml(value: &toml::Value) -> Option<$Name> {
                <$Name as $crate::config::value::Value>::parse(value.as_str()?)
            }
            fn show(&self) -> String {
                self.name().to_string()
            }
            fn toml(&self) -> String {
                format!("\"{}\"", self.name())
            }
        }
    };
}
pub(crate) use choice;

#[cfg(test)]
mod tests {
    use super::*;

    fn through_toml<T: Value>(value: &T) -> Option<T> {
        let table: toml::Table = format!("x = {}", value.toml()).parse().unwrap();
        T::from_toml(&table["x"])
    }

    #[test]
    fn values_come_back_from_toml_and_text() {
        for x in [0.0, 1e-3, 65536.0, 0.1 + 0.2, 1e300] {
            assert_eq!(through_toml(&x), Some(x));
            assert_eq!(f64::parse(&x.show()), Some(x));
        }
        for text in ["", "runs", "C:\\data \"x\"", "tab\tand\nline", "ü\u{7f}"] {
            assert_eq!(through_toml(&text.to_string()).as_deref(), Some(text));
        }
        assert_eq!(through_toml(&7usize), Some(7));
        assert_eq!(through_toml(&true), Some(true));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(usize::parse("-1"), None);
        assert_eq!(usize::parse("1.5"), None);
        assert_eq!(usize::parse("2_000"), Some(2000));
        assert_eq!(f64::parse("nan"), None);
        assert_eq!(bool::parse("maybe"), None);
        assert_eq!(u64::parse("18446744073709551615"), None);
        assert_eq!(usize::parse("18446744073709551615"), None, "TOML could not hold it");
        assert_eq!(usize::from_toml(&toml::Value::Float(2.0)), None);
        assert_eq!(f64::from_toml(&toml::Value::Integer(2)), Some(2.0));
    }
}
